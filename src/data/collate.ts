// Batches: the order examples are visited in, and examples of different lengths as one padded block.
// Plain arrays only; tensors are made where the model runs.

import { shuffle, splitMix32 } from '../tensor/shuffle.js';
import { checkExample, ignoreLabel } from './examples.js';
import type { Example } from './examples.js';

/** B examples padded to the longest, T. The arrays are [B, T], row-major. */
export interface Batch {
  readonly shape: readonly [number, number];
  readonly inputIds: Int32Array;
  /** 1 on an example's ids, 0 on padding. */
  readonly attentionMask: Int32Array;
  /** -100 on prompts and padding. Not shifted. */
  readonly labels: Int32Array;
  /** Of each example, how many of its ids are the prompt. */
  readonly promptLengths: readonly number[];
  /** Of each example, the column of its first id: 0 with padding on the right. */
  readonly starts: readonly number[];
}

/**
 * Pads examples to one block.
 * @param options.side where the padding goes: right for training, left for batched generation
 * @throws RangeError for an empty list
 */
export function collate(
  examples: readonly Pick<Example, 'ids' | 'labels' | 'promptLength'>[],
  { padTokenId, side = 'right' }: { padTokenId: number; side?: 'right' | 'left' },
): Batch {
  if (examples.length === 0) throw new RangeError('collate: expected at least one example, got none');
  examples.forEach((example, i) => {
    checkExample(example, `collate: example ${i}`);
  });
  const width = Math.max(...examples.map(example => example.ids.length));
  const size = examples.length * width;
  const inputIds = new Int32Array(size).fill(padTokenId);
  const attentionMask = new Int32Array(size);
  const labels = new Int32Array(size).fill(ignoreLabel);
  const starts = examples.map(example => (side === 'left' ? width - example.ids.length : 0));
  examples.forEach((example, i) => {
    const at = i * width + starts[i]!;
    inputIds.set(example.ids, at);
    attentionMask.fill(1, at, at + example.ids.length);
    labels.set(example.labels, at);
  });
  return {
    shape: [examples.length, width],
    inputIds,
    attentionMask,
    labels,
    promptLengths: examples.map(example => example.promptLength),
    starts,
  };
}

/**
 * The batches of one epoch: the numbers 0 to n-1, shuffled by seed and epoch, cut into lists of `batchSize` (the last
 * may be shorter). The same arguments give the same batches everywhere.
 */
export function batches(n: number, batchSize: number, seed: number, epoch: number): number[][] {
  if (!Number.isInteger(batchSize) || batchSize < 1)
    throw new RangeError(`batchSize: expected a whole number from 1 on, got ${batchSize}`);
  const order = shuffled(n, seed, epoch);
  return Array.from({ length: Math.ceil(n / batchSize) }, (_, i) => order.slice(i * batchSize, (i + 1) * batchSize));
}

/** The numbers 0 to n-1 in the order of this seed and epoch (Fisher-Yates). */
export function shuffled(n: number, seed: number, epoch: number): number[] {
  return shuffle(
    Array.from({ length: n }, (_, i) => i),
    splitMix32(seed, epoch),
  );
}
