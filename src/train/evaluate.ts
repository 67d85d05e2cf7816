// How well a model, with edits or without, says what labelled rows say: loss, perplexity, and how often every labelled
// token is its first choice, which is when greedy generation would give the answer word for word.

import type { AdaptedModel } from '../adapt/adapter.js';
import { noGrad } from '../autograd/tape.js';
import { scope } from '../autograd/scope.js';
import { checkExample, type Example } from '../data/examples.js';
import type { CausalLM } from '../models/causalLM.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { stack } from '../tensor/layout.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import { wholeWindow, windowBatch } from './windows.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';

export interface RowsEvaluation {
  /** Mean cross-entropy over all labelled tokens. */
  readonly loss: number;
  readonly perplexity: number;
  /** Share of rows whose labelled tokens all are the most likely ones, the end token included. */
  readonly exactMatch: number;
  /** Share of labelled tokens that are the most likely ones. */
  readonly tokenAccuracy: number;
  readonly rows: number;
  readonly labelled: number;
}

export interface EvaluateOptions {
  /** Default 8. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (rows: number) => void;
}

const evaluateKeys: OptionKeys<EvaluateOptions> = { batchSize: true, signal: true, onProgress: true };

/** Evaluates rows (`tokenizeRow`) with dropout off. @throws RangeError when no row has a label */
export async function evaluate(
  model: CausalLM | AdaptedModel,
  examples: readonly Example[],
  options: EvaluateOptions = {},
): Promise<RowsEvaluation> {
  checkOptionKeys('evaluate', options, evaluateKeys);
  const { batchSize = 8, signal, onProgress } = options;
  const base = 'base' in model ? model.base : model;
  examples.forEach((example, i) => {
    checkExample(example, `evaluate: example ${i}`, base.config.vocabSize);
  });
  let [sum, labelled, correct, exact] = [0, 0, 0, 0];
  for (let at = 0; at < examples.length; at += batchSize) {
    await nextMacrotask();
    signal?.throwIfAborted();
    const windows = examples.slice(at, at + batchSize).map(wholeWindow);
    const { inputIds, shape, attentionMask, layout, rows, targets } = windowBatch(windows, base.config.padTokenId ?? 0);
    const measured = noGrad(() =>
      scope(() => {
        const inputs = { inputIds, shape, attentionMask, logitsAt: rows };
        const { logits } = 'base' in model ? model.forward(inputs, layout) : model.forward(inputs);
        return stack([crossEntropy(logits, targets), logits.argmax(-1).to(logits.dtype)]);
      }),
    );
    const values = await measured.data();
    measured.storage.dispose();
    const wrong = new Set<number>();
    targets.forEach((target, i) => {
      sum += values[i];
      if (values[targets.length + i] === target) correct++;
      else wrong.add(Math.floor(rows[i] / shape[1]));
    });
    labelled += targets.length;
    exact += windows.length - wrong.size;
    onProgress?.(at + windows.length);
  }
  if (labelled === 0) throw new RangeError('evaluate: no row has a label');
  if (!Number.isFinite(sum))
    throw new Error(`evaluate: the loss of ${base.name} is ${sum}: its weights or the edits are not finite`);
  const loss = sum / labelled;
  return {
    loss,
    perplexity: Math.exp(loss),
    exactMatch: exact / examples.length,
    tokenAccuracy: correct / labelled,
    rows: examples.length,
    labelled,
  };
}
