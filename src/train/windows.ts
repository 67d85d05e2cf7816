// The part of each example that a step computes, as one padded batch, and the loss over it. Tokens after the last
// labelled prediction are input to nothing and left out; tokens before `start` are left out when their keys and values
// are kept (reuse.ts). Nothing is computed for padding.

import type { AdaptedModel, TrainingMode } from '../adapt/adapter.js';
import type { Example } from '../data/examples.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import type { ForwardOptions } from '../models/causalLM.js';
import type { Tensor } from '../tensor/tensor.js';
import type { SequenceLayout } from '../reft/layout.js';

/** Tokens start .. end - 1 of an example. */
export interface Window {
  readonly example: Example;
  readonly start: number;
  readonly end: number;
}

/** Predictions of an example that have labels: from the first one's position to one past the last one's. */
export function labelledSpan({ labels }: Pick<Example, 'labels'>): { first: number; end: number } {
  return {
    first: labels.findIndex((label, t) => t > 0 && label >= 0) - 1,
    end: labels.findLastIndex(label => label >= 0),
  };
}

export const wholeWindow = (example: Example): Window => ({ example, start: 0, end: labelledSpan(example).end });

export interface WindowBatch {
  /** Row-major [B, W], padded on the right. */
  readonly inputIds: Int32Array;
  readonly shape: readonly [number, number];
  /** [B, past + W]: kept tokens are padded on the left. */
  readonly attentionMask: Int32Array;
  readonly layout: SequenceLayout;
  /** Rows b * W + t that predict a label, and the labels. */
  readonly rows: Int32Array;
  readonly targets: Int32Array;
}

export function windowBatch(windows: readonly Window[], padTokenId: number): WindowBatch {
  const batch = windows.length;
  const width = Math.max(...windows.map(w => w.end - w.start));
  const past = Math.max(...windows.map(w => w.start));
  const inputIds = new Int32Array(batch * width).fill(padTokenId);
  const attentionMask = new Int32Array(batch * (past + width));
  const rows: number[] = [];
  const targets: number[] = [];
  windows.forEach(({ example: { ids, labels }, start, end }, b) => {
    inputIds.set(ids.subarray(start, end), b * width);
    const at = b * (past + width) + past;
    attentionMask.fill(1, at - start, at + end - start);
    for (let t = start + 1; t <= end; t++) {
      if (labels[t] < 0) continue;
      rows.push(b * width + t - 1 - start);
      targets.push(labels[t]);
    }
  });
  const layout = {
    batch,
    width,
    starts: windows.map(w => -w.start),
    promptLengths: windows.map(w => w.example.promptLength),
    lengths: windows.map(w => w.end),
    ids: windows.map(w => w.example.ids),
  };
  return {
    inputIds,
    shape: [batch, width],
    attentionMask,
    layout,
    rows: Int32Array.from(rows),
    targets: Int32Array.from(targets),
  };
}

/**
 * The cross-entropy of all labelled tokens of the windows, summed: []. `options` has what stands for what lies before
 * them.
 */
export function windowLoss(
  model: AdaptedModel,
  windows: readonly Window[],
  options: Pick<ForwardOptions, 'from' | 'cache' | 'recompute'>,
  training?: TrainingMode,
): Tensor {
  const { inputIds, shape, attentionMask, layout, rows, targets } = windowBatch(
    windows,
    model.base.config.padTokenId ?? 0,
  );
  const { logits } = model.forward({ inputIds, shape, attentionMask, logitsAt: rows, ...options }, layout, training);
  return crossEntropy(logits, targets).sum();
}
