// What a trainer is given, checked before the first step: rows or examples, whether their positions exist, the order of
// steps. Nothing here knows of tensors.

import type { Adapter } from '../adapt/adapter.js';
import { batches } from '../data/collate.js';
import { checkExample, tokenizeRow, type Example } from '../data/examples.js';
import type { Row } from '../data/rows.js';
import type { Tokenizer } from '../io/tokenizer.js';

export interface TrainingData {
  /** Needs a tokenizer. */
  readonly rows?: readonly Row[];
  /** From `tokenizeRow`, in place of rows. */
  readonly examples?: readonly Example[];
}

/** Rows as examples, each checked against the model's context and the positions its edits need. Errors name the row. */
export function prepareExamples(
  what: string,
  data: TrainingData,
  adapter: Adapter,
  options: { tokenizer?: Tokenizer; maxLength?: number },
): Example[] {
  const { rows, examples } = data;
  if ((rows === undefined) === (examples === undefined))
    throw new RangeError(`${what}: expected either rows or examples`);
  const { tokenizer, maxLength } = options;
  if (rows && !tokenizer) throw new RangeError(`${what}: rows need a tokenizer`);
  const prepared = rows
    ? rows.map(row => tokenizeRow(row, tokenizer as Tokenizer, { maxLength }))
    : [...(examples as readonly Example[])];
  if (prepared.length === 0) throw new RangeError(`${what}: there are no rows`);
  prepared.forEach((example, i) => {
    checkTrainable(example, adapter, `${what}: example ${i}`);
  });
  return prepared;
}

function checkTrainable(example: Example, adapter: Adapter, what: string): void {
  const { maxPositions, vocabSize } = adapter.base.config;
  checkExample(example, what, vocabSize);
  const { ids, labels, promptLength, where = what } = example;
  if (ids.length > maxPositions) {
    throw new RangeError(
      `${where}: has ${ids.length} tokens, the model's context is ${maxPositions}; give a maxLength to cut the prompt`,
    );
  }
  if (!labels.some((label, t) => t > 0 && label >= 0)) throw new RangeError(`${where}: no token has a label to learn`);
  try {
    adapter.check({ promptLength, length: ids.length, ids });
  } catch (error) {
    throw new RangeError(`${where}: ${(error as Error).message}`, { cause: error });
  }
}

/** Refuses data on which nothing could be learned: no token of any row is edited. */
export function checkChanged(examples: readonly Example[], adapter: Adapter): void {
  if (examples.some(e => adapter.changes({ ...e, length: e.ids.length }))) return;
  const why = adapter.enabled
    ? 'the prompts are too short for their positions, or the interventions are switched off'
    : 'the edits are switched off';
  throw new RangeError(`training: no token of any row is edited: ${why}`);
}

/** How many predictions an example has labels for: the label at t judges the prediction at t - 1. */
export function labelCount({ labels }: Pick<Example, 'labels'>): number {
  return labels.reduce((n, label, t) => n + (t > 0 && label >= 0 ? 1 : 0), 0);
}

/** The steps of an epoch: each the micro-batches of example numbers whose gradients are added up. */
export function stepsOfEpoch(
  n: number,
  options: { batchSize: number; gradientAccumulation: number; seed: number },
  epoch: number,
): number[][][] {
  const { batchSize, gradientAccumulation, seed } = options;
  const all = batches(n, batchSize, seed, epoch);
  return Array.from({ length: Math.ceil(all.length / gradientAccumulation) }, (_, i) =>
    all.slice(i * gradientAccumulation, (i + 1) * gradientAccumulation),
  );
}
