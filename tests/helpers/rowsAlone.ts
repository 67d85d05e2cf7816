// What a padded batch is held against: each of its rows alone, without padding.

import { zeroGrad } from '../../src/autograd/tape.js';
import { collate, type Batch } from '../../src/data/collate.js';
import type { Example } from '../../src/data/examples.js';
import { layoutOf, type EditedModel } from '../../src/reft/index.js';
import type { SequenceLayout } from '../../src/reft/layout.js';
import type { Tensor } from '../../src/tensor/tensor.js';

export type LaidOut = Pick<Batch, 'inputIds' | 'shape' | 'attentionMask' | 'labels' | 'promptLengths'> & {
  readonly layout: SequenceLayout;
};

/** One example as a batch without padding. */
export function aloneBatch(example: Example): LaidOut {
  const batch = collate([example], { padTokenId: 0 });
  return { ...batch, layout: layoutOf(batch.attentionMask, batch.shape, batch.promptLengths, batch.inputIds) };
}

/** How many labels each row has, as shares of the labels of all. */
export function labelShares(examples: readonly Example[]): number[] {
  const counts = examples.map(({ labels }) => labels.reduce((n, label) => n + Number(label >= 0), 0));
  const sum = counts.reduce((a, b) => a + b, 0);
  return counts.map(count => count / sum);
}

/**
 * The loss of a batch of examples and the gradients of what is trained, from each row alone: the mean of the rows'
 * losses by how many labels each has. `editedOf` gives what edits a row.
 */
export function measuredAlone(
  editedOf: (row: number) => EditedModel,
  trained: readonly Tensor[],
  examples: readonly Example[],
): number[][] {
  const shares = labelShares(examples);
  zeroGrad(trained);
  let sum = 0;
  for (const [row, example] of examples.entries()) {
    const { inputIds, shape, labels, layout } = aloneBatch(example);
    const loss = editedOf(row).loss({ inputIds, shape }, labels, layout).loss.mul(shares[row]);
    if (loss.needsGrad) loss.backward();
    sum += loss.dataSync()[0];
  }
  return [[sum], ...trained.map(t => [...(t.grad?.dataSync() ?? new Float64Array(t.size))])];
}
