// Counterfactual data at its borders: which example is wrong and why, what a batch says of rows, positions, labels and
// candidates, what is kept of a frozen base and when not. And predictions among candidates.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { getInterchangeModel, type CounterfactualExample } from '../src/interchange/index.js';
import { CounterfactualData } from '../src/interchange/counterfactuals.js';
import { countRight, mostLikely } from '../src/interchange/predictions.js';
import { tensor } from '../src/tensor/index.js';
import { tinyModel } from './helpers/tinyModel.js';

const model = await tinyModel();
const two = getInterchangeModel(model, [
  { kind: 'vanilla', layer: 0 },
  { kind: 'vanilla', layer: 2 },
]);
const one = getInterchangeModel(model, { kind: 'vanilla', layer: 1 });
const good: CounterfactualExample = { base: [1, 2, 3], sources: [[4, 5]], label: 6, unitLocations: { base: -1 } };

const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return 'no error';
};

describe('counterfactual data', () => {
  const refused = (
    example: Partial<CounterfactualExample>,
    message: string,
    more: { others?: CounterfactualExample[]; candidates?: number[]; on?: typeof one } = {},
  ): void =>
    assert.equal(
      messageOf(
        () =>
          new CounterfactualData(
            more.on ?? one,
            [...(more.others ?? []), { ...good, ...example }],
            undefined,
            more.candidates,
          ),
      ),
      `RangeError: ${message}`,
    );

  test('the example that is wrong is named', () => {
    assert.equal(
      messageOf(() => new CounterfactualData(one, [good])),
      'no error',
    );
    assert.equal(
      messageOf(() => new CounterfactualData(one, [])),
      'RangeError: counterfactual data: expected at least one example, got none',
    );
    refused({ label: 23 }, 'example 0: label 23 is outside the vocabulary of 23');
    refused({ label: -1 }, 'example 0: label -1 is outside the vocabulary of 23');
    refused({ label: 1.5 }, 'example 0: label 1.5 is outside the vocabulary of 23');
    refused({ unitLocations: undefined as never }, 'example 0: has no unitLocations, and neither has the data set');
    refused({ sources: [] }, 'example 0: expected 1 sources, one for each group of interventions, got 0');
    refused({ sources: [[1], [2]] }, 'example 0: expected 1 sources, one for each group of interventions, got 2');
    refused({ base: [23] }, 'example 0: base: token 23 at 0 is outside the vocabulary of 23');
    refused({ sources: [[1, -1]] }, 'example 0: source 0: token -1 at 1 is outside the vocabulary of 23');
    refused({ subspaces: [[0], [1]] }, 'example 0: subspaces for 2 interventions, the model has 1');
    refused(
      { unitLocations: [{ base: 0 }, { base: 1 }] },
      'example 0: unitLocations for 2 interventions, the model has 1',
    );
    refused({ predictAt: 3 }, 'example 0: predictAt, row 0: position 3 is out of range for 3 tokens');
    const id = one.interventions[0].id;
    refused({ unitLocations: { base: 3 } }, `example 0, ${id}: base, row 0: position 3 is out of range for 3 tokens`);
    refused({ unitLocations: { base: 2 } }, `example 0, ${id}: source, row 0: position 2 is out of range for 2 tokens`);
    refused({ subspaces: [[0]] }, 'example 1: subspaces are given for all examples or for none', { others: [good] });
    refused({ sources: [[1], [2]] }, 'example 1: 2 sources, the first example has 1', { others: [good], on: two });
  });

  test('candidates', () => {
    refused({ candidates: [6, 23] }, 'example 0: candidate 23 is outside the vocabulary of 23');
    refused({ candidates: [6, -1] }, 'example 0: candidate -1 is outside the vocabulary of 23');
    refused({ candidates: [6, 0.5] }, 'example 0: candidate 0.5 is outside the vocabulary of 23');
    refused({ candidates: [6] }, 'example 0: expected at least two different candidates, got [6]');
    refused({ candidates: [6, 6] }, 'example 0: expected at least two different candidates, got [6, 6]');
    refused({ candidates: [1, 2] }, 'example 0: its label 6 is not among its candidates [1, 2]');
    refused({}, 'example 0: its label 6 is not among its candidates [1, 2]', { candidates: [1, 2] });
    refused({ candidates: [6, 0] }, 'example 1: candidates are given for all examples or for none', { others: [good] });
    const data = new CounterfactualData(one, [good, { ...good, candidates: [0, 6, 22] }], undefined, [6, 1]);
    assert.deepEqual(data.batch([0, 1]).candidates, [
      [6, 1],
      [0, 6, 22],
    ]);
    assert.equal(new CounterfactualData(one, [good]).batch([0]).candidates, null);
  });

  test('a batch: ids, labels, positions and the places of predictions', () => {
    const data = new CounterfactualData(
      one,
      [
        good,
        { base: [7], sources: [[8, 9, 10]], label: 0, unitLocations: { base: 0, source: [1] }, predictAt: 0 },
        { base: [1, 2, 3, 4], sources: [[5]], label: 2, predictAt: -2 },
      ],
      { base: 0, source: -1 },
    );
    assert.equal(data.size, 3);
    const { run, labels } = data.batch([1, 0]);
    assert.deepEqual([...labels], [0, 6]);
    assert.deepEqual([...run.base.inputIds], [7, 0, 0, 1, 2, 3]);
    assert.deepEqual([...run.base.attentionMask!], [1, 0, 0, 1, 1, 1]);
    assert.deepEqual([...run.logitsAt!], [0, 5]);
    assert.deepEqual(run.unitLocations, [{ base: [[0], [2]], source: [[1], [1]] }]);
    assert.deepEqual([...(run.sources![0] as { inputIds: Int32Array }).inputIds], [8, 9, 10, 4, 5, 0]);
    assert.equal(run.subspaces, undefined);
    assert.deepEqual([...data.batch([2]).run.logitsAt!], [2]);
    const chosen = new CounterfactualData(one, [
      { ...good, subspaces: [[1, 2]] },
      { ...good, subspaces: [[3]] },
    ]);
    assert.deepEqual(chosen.batch([1, 0]).run.subspaces, [[[3], [1, 2]]]);
    const some = new CounterfactualData(one, [
      { ...good, subspaces: [[1, 2]] },
      { ...good, subspaces: [null] },
    ]);
    assert.deepEqual(some.batch([0, 1]).run.subspaces, [null]);
    const skipped = new CounterfactualData(two, [{ ...good, unitLocations: [null, { base: -1 }] }]);
    assert.deepEqual(skipped.batch([0]).run.unitLocations, [
      { base: [[]], source: [[]] },
      { base: [[2]], source: [[1]] },
    ]);
  });

  test('what a frozen base computes is kept within its budget, to the byte, and given back', () => {
    const examples = [good, { base: [7], sources: [[8, 9, 10]], label: 0, unitLocations: { base: [0] } }];
    const data = new CounterfactualData(one, examples);
    // A source row of 16 numbers for each example, and the states below layer 1 of two rows of three tokens.
    const bytes = 4 * 16 * (2 + 2 * 3);
    assert.equal(data.keepFrozen(1, bytes - 1), false);
    assert.ok(data.batch([0]).run.sources, 'nothing is kept');
    assert.equal(data.keepFrozen(1, bytes), true);
    const { run } = data.batch([1, 0]);
    assert.equal(run.sources, undefined);
    const logits = [...one.run(run).logits.dataSync()];
    const fresh = [...one.run(new CounterfactualData(one, examples).batch([1, 0]).run).logits.dataSync()];
    assert.equal(logits.length, fresh.length);
    logits.forEach((x, i) => assert.ok(Math.abs(x - fresh[i]) < 1e-5, `${i}: ${x} and ${fresh[i]}`));
    assert.deepEqual(run.from!.hiddenStates.shape, [2, 3, 16]);
    assert.equal(run.from!.layer, 1);
    data.dispose();
    assert.ok(data.batch([0]).run.sources, 'kept no more');
    const lowest = new CounterfactualData(two, [good]);
    assert.equal(lowest.keepFrozen(8, 4 * 16 * 2), true, 'nothing lies below layer 0');
    assert.equal(lowest.batch([0]).run.from, undefined);
    lowest.dispose();
  });
});

test('predictions among candidates', () => {
  const logits = tensor([
    [0, 3, 1, 2],
    [5, 1, 1, 0],
  ]);
  assert.deepEqual([...mostLikely(logits, null).dataSync()], [1, 0]);
  assert.deepEqual(
    [
      ...mostLikely(logits, [
        [0, 2, 3],
        [3, 2],
      ]).dataSync(),
    ],
    [2, 1],
  );
  assert.deepEqual(
    [
      ...mostLikely(logits, [
        [2, 0, 3],
        [1, 2],
      ]).dataSync(),
    ],
    [2, 0],
    'the first of equal ones',
  );
  assert.equal(countRight([1, 0], [1, 3], null), 1);
  assert.equal(
    countRight(
      [1, 0],
      [5, 7],
      [
        [4, 5],
        [7, 8],
      ],
    ),
    2,
  );
  assert.equal(
    countRight(
      [0, 1],
      [5, 7],
      [
        [4, 5],
        [7, 8],
      ],
    ),
    0,
  );
});
