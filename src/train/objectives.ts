// What a run minimises: the cross-entropy of labelled tokens, or preferences between two answers (DPO) with the
// unedited base as the reference. Batches and steps are the trainer's.

import type { Adapter, TrainingMode } from '../adapt/adapter.js';
import { noGrad } from '../autograd/tape.js';
import { scope } from '../autograd/scope.js';
import type { Example } from '../data/examples.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { create } from '../tensor/create.js';
import type { ForwardOptions } from '../models/causalLM.js';
import type { Tensor } from '../tensor/tensor.js';
import { labelCount, type TrainingData } from './data.js';
import type { TrainerOptions } from './options.js';
import { windowBatch, windowLoss, wholeWindow, type Window } from './windows.js';

/** What stands for what lies before windows, and how blocks are run. */
export type WindowOptions = Pick<ForwardOptions, 'from' | 'cache' | 'recompute'>;

export interface Objective {
  /** How many neighbouring examples belong together and are never parted. */
  readonly unit: 1 | 2;
  readonly name: string;
  /** What the summed loss of examples is divided by. */
  count(examples: readonly Example[]): number;
  /** What must be known before the first step: read back here, so that steps read nothing. */
  prepare(adapter: Adapter, examples: readonly Example[], batchSize: number): Promise<void>;
  /** The loss of all windows, summed: []. */
  loss(adapter: Adapter, windows: readonly Window[], options: WindowOptions, training?: TrainingMode): Tensor;
}

/** Cross-entropy, a mean over labelled tokens. */
export const likelihood: Objective = {
  unit: 1,
  name: 'likelihood',
  count: examples => examples.reduce((n, e) => n + labelCount(e), 0),
  prepare: async () => undefined,
  loss: windowLoss,
};

/**
 * Direct preference optimisation: the mean over pairs (chosen, rejected) of -log sigmoid(beta ((log p(chosen) - log
 * p_base(chosen)) - (the same of rejected))). Examples come as chosen, rejected, chosen, rejected, .. Source: Rafailov
 * et al. 2023, arXiv 2305.18290, equation 7.
 */
export function preference(beta: number): Objective {
  if (!(beta > 0 && Number.isFinite(beta))) throw new RangeError(`beta: expected a number above 0, got ${beta}`);
  /** log p_base of each example's labelled tokens. */
  const reference = new WeakMap<Example, number>();
  return {
    unit: 2,
    name: `preference, beta ${beta}`,
    count: examples => examples.length / 2,
    async prepare(adapter, examples, batchSize) {
      const missing = examples.filter(e => !reference.has(e));
      const wasEnabled = adapter.enabled;
      for (let at = 0; at < missing.length; at += 2 * batchSize) {
        const batch = missing.slice(at, at + 2 * batchSize);
        adapter.enabled = false;
        let sums: Tensor;
        try {
          sums = noGrad(() => scope(() => logProbabilities(adapter, batch.map(wholeWindow), {})));
        } finally {
          adapter.enabled = wasEnabled;
        }
        const values = await sums.data();
        batch.forEach((example, i) => reference.set(example, values[i]));
        sums.storage.dispose();
      }
    },
    loss(adapter, windows, options, training) {
      const { dtype, backend } = adapter.base;
      const gained = logProbabilities(adapter, windows, options, training)
        .sub(
          create.from(
            Float64Array.from(windows, w => reference.get(w.example) as number),
            [windows.length],
            { dtype, backend },
          ),
        )
        .reshape([windows.length / 2, 2]);
      return gained.select(1, 0).sub(gained.select(1, 1)).mul(-beta).softplus().sum();
    },
  };
}

/** The summed log-probability of each window's labelled tokens: [windows]. */
function logProbabilities(
  adapter: Adapter,
  windows: readonly Window[],
  options: WindowOptions,
  training?: TrainingMode,
): Tensor {
  const { inputIds, shape, attentionMask, layout, rows, targets } = windowBatch(
    windows,
    adapter.base.config.padTokenId ?? 0,
  );
  const { logits } = adapter.forward({ inputIds, shape, attentionMask, logitsAt: rows, ...options }, layout, training);
  return crossEntropy(logits, targets)
    .neg()
    .scatterAddRows(
      rows.map(row => Math.floor(row / shape[1])),
      windows.length,
    );
}

/** The examples of a training run and what it minimises over them, as its options say. */
export function objectiveOf(options: TrainerOptions): { objective: Objective; data: TrainingData } {
  const { preferences } = options;
  if (!preferences) return { objective: likelihood, data: options };
  if (options.rows || options.examples || options.evaluation)
    throw new RangeError('training: preferences take the place of rows, examples and evaluation');
  const examples = preferences.pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]);
  return { objective: preference(preferences.beta ?? 0.1), data: { examples } };
}
