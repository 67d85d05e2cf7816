// What a run computes, with right values: windows over labels with holes, steps and their figures, the course of
// evaluations, bounds of options, streams of dropout, preferences, and rows that are said word for word.

import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { dropout } from '../src/autograd/elementwise.js';
import { noGrad } from '../src/autograd/tape.js';
import type { Example } from '../src/data/examples.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { TokenRows } from '../src/models/tokens.js';
import { evaluate, getReftModel, ReftTrainer, type ReftModel, type TrainStep } from '../src/reft/index.js';
import { tensor } from '../src/tensor/index.js';
import { labelCount, stepsOfEpoch } from '../src/train/data.js';
import { EvaluationCourse } from '../src/train/evaluationCourse.js';
import { preference } from '../src/train/objectives.js';
import { withDefaults, type TrainerOptions } from '../src/train/options.js';
import { labelledSpan, wholeWindow, windowBatch } from '../src/train/windows.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

/** Labels -100, then the ids at the places that are named. */
function labelled(ids: readonly number[], promptLength: number, places: readonly number[]): Example {
  const labels = Int32Array.from(ids, (id, t) => (places.includes(t) ? id : -100));
  return { ids: Int32Array.from(ids), labels, promptLength, truncated: 0, where: 'here' };
}

const near = (actual: number, expected: number, bound: number, what: string): void => {
  assert.ok(Math.abs(actual - expected) <= bound, `${what}: ${actual}, expected ${expected}`);
};

describe('windows', () => {
  const holes = labelled([10, 11, 12, 13, 14, 15, 16], 2, [2, 3, 5]);
  const short = labelled([20, 21, 22], 1, [1, 2]);

  test('reach from the first labelled prediction to the last; the label of the first token judges nothing', () => {
    assert.deepEqual(labelledSpan(holes), { first: 1, end: 5 });
    assert.deepEqual(wholeWindow(holes), { example: holes, start: 0, end: 5 });
    assert.equal(labelCount(holes), 3);
    const first = labelled([5, 6, 7], 0, [0, 2]);
    assert.equal(labelCount(first), 1);
    assert.deepEqual(labelledSpan(first), { first: 1, end: 2 });
    // An id of 0 is a label like any other.
    assert.equal(labelCount(labelled([3, 0, 0], 1, [1, 2])), 2);
  });

  test('a batch: ids, mask, prompts and labels of windows that begin at different tokens', () => {
    const batch = windowBatch([{ example: holes, start: 1, end: 5 }, wholeWindow(short)], 9);
    assert.deepEqual([...batch.shape], [2, 4]);
    assert.deepEqual([...batch.inputIds], [11, 12, 13, 14, 20, 21, 9, 9]);
    // One kept token: on the left, the second row has none.
    assert.deepEqual([...batch.attentionMask], [1, 1, 1, 1, 1, 0, 1, 1, 0, 0]);
    assert.deepEqual([...batch.rows], [0, 1, 3, 4, 5]);
    assert.deepEqual([...batch.targets], [12, 13, 15, 21, 22]);
    const { starts, promptLengths, lengths, ids } = batch.layout;
    assert.deepEqual(
      [starts, promptLengths, lengths].map(list => Array.from(list)),
      [
        [-1, -0],
        [2, 1],
        [5, 2],
      ],
    );
    assert.deepEqual(
      ids?.map(list => Array.from(list)),
      [[...holes.ids], [...short.ids]],
    );
  });
});

test('the steps of an epoch take micro-batches in order, the last one fewer', () => {
  const steps = stepsOfEpoch(11, { batchSize: 2, gradientAccumulation: 4, seed: 5 }, 0);
  assert.deepEqual(
    steps.map(step => step.map(micro => micro.length)),
    [
      [2, 2, 2, 2],
      [2, 1],
    ],
  );
  assert.deepEqual(
    steps.flat(2).sort((a, b) => a - b),
    Array.from({ length: 11 }, (_, i) => i),
  );
});

test('the course of evaluations: the best, progress by more than minDelta, patience', () => {
  const course = new EvaluationCourse({ earlyStopping: { patience: 2, minDelta: 0.5 }, keepBest: null });
  const seen: [number, number, number | null, number, boolean][] = [];
  for (const [i, loss] of [3, 2.5, 2.4, NaN, 1, 1, 0.5, 0.49].entries()) {
    course.see({ step: i + 1, loss }, new Map());
    const { evaluated, best, progress, waited } = course.state;
    assert.equal(evaluated, i + 1);
    seen.push([best?.step ?? 0, best?.loss ?? NaN, progress, waited, course.stopped]);
  }
  assert.deepEqual(seen, [
    [1, 3, 3, 0, false],
    [2, 2.5, 3, 1, false],
    [3, 2.4, 2.4, 0, false],
    [3, 2.4, 2.4, 1, false],
    [5, 1, 1, 0, false],
    [5, 1, 1, 1, false],
    [7, 0.5, 1, 2, true],
    [8, 0.49, 0.49, 0, false],
  ]);
  const patient = new EvaluationCourse({ earlyStopping: undefined, keepBest: null });
  patient.see({ step: 1, loss: NaN }, new Map());
  assert.deepEqual(patient.state, { evaluated: 1, best: null, progress: null, waited: 1 });
  assert.equal(patient.stopped, false);
});

describe('bounds of options', () => {
  const refused = (options: TrainerOptions, message: RegExp): void => {
    assert.throws(() => withDefaults({ steps: 1, ...options }, 4), message);
  };

  test('whole numbers from 1, numbers from 0, each at its bound and below', () => {
    for (const name of ['steps', 'batchSize', 'gradientAccumulation'] as const) {
      withDefaults({ steps: 1, [name]: 1 }, 4);
      refused({ [name]: 0 }, new RegExp(`^RangeError: ${name}: expected a whole number from 1 on, got 0$`));
      refused({ [name]: 1.5 }, new RegExp(`^RangeError: ${name}: .* got 1\\.5$`));
    }
    for (const name of [
      'learningRate',
      'weightDecay',
      'maxGradNorm',
      'reuseBudgetBytes',
      'reuseDirectoryBudgetBytes',
      'warmup',
    ] as const) {
      assert.equal(withDefaults({ steps: 1, [name]: 0 }, 4)[name], 0);
      refused({ [name]: -0.1 }, new RegExp(`^RangeError: ${name}: expected a number from 0 on, got -0\\.1$`));
      refused({ [name]: Infinity }, new RegExp(`^RangeError: ${name}: .* got Infinity$`));
    }
    withDefaults({ steps: 1, seed: 0 }, 4);
    refused({ seed: -1 }, /^RangeError: seed: expected a whole number from 0 on, got -1$/);
    const examples = tinyExamples(1);
    const evaluation = { examples, every: 0 };
    refused({ evaluation }, /^RangeError: evaluation\.every: expected a whole number from 1 on, got 0$/);
    refused({ evaluation: { examples }, earlyStopping: { patience: 0 } }, /^RangeError: earlyStopping\.patience: /);
    withDefaults({ steps: 1, evaluation: { examples }, earlyStopping: { patience: 1, minDelta: 0 } }, 4);
    refused(
      { evaluation: { examples }, earlyStopping: { patience: 1, minDelta: -1 } },
      /^RangeError: earlyStopping\.minDelta: expected a number from 0 on, got -1$/,
    );
    refused({ keepBest: true }, /^RangeError: keepBest: needs evaluation$/);
    refused({ checkpoint: { directory: 'x', everySteps: 0 } }, /^RangeError: checkpoint\.everySteps: /);
    refused({ reuse: false, reuseDirectory: 'x' }, /^RangeError: reuseDirectory: has no meaning without reuse$/);
    refused({ epochs: 1 }, /^RangeError: training: expected either epochs or steps$/);
    assert.throws(() => withDefaults({}, 4), /^RangeError: training: expected either epochs or steps$/);
    refused({ schedule: 'steep' as 'linear' }, /^RangeError: schedule: expected .*, got 'steep'$/);
    for (const beta of [0, -1, Infinity]) assert.throws(() => preference(beta), /^RangeError: beta: /);
  });

  test('a batch has no more rows than there are', () => {
    assert.deepEqual(
      [3, 8, 20].map(n => withDefaults({ steps: 1 }, n).batchSize),
      [3, 8, 8],
    );
    assert.equal(withDefaults({ steps: 1, batchSize: 5 }, 4).batchSize, 4);
  });
});

async function stepsOf(reft: ReftModel, options: TrainerOptions): Promise<TrainStep[]> {
  const all: TrainStep[] = [];
  for await (const step of new ReftTrainer(reft, options).steps()) all.push(step);
  return all;
}

describe('a step', () => {
  test('its figures are those of its rows', async () => {
    const reft = getReftModel(await tinyModel(), { layers: [1], rank: 2, seed: 4 });
    const examples = tinyExamples(5);
    const options = { examples, epochs: 2, batchSize: 2, gradientAccumulation: 2, learningRate: 0, warmup: 1, seed: 3 };
    const trainer = new ReftTrainer(reft, options);
    assert.equal(trainer.totalSteps, 4);
    const all = await stepsOf(reft, options);
    assert.deepEqual(
      all.map(({ index, total, epoch }) => [index, total, epoch]),
      [
        [1, 4, 1],
        [2, 4, 1],
        [3, 4, 2],
        [4, 4, 2],
      ],
    );
    for (const { index, loss, labelled, tokens } of all) {
      const epoch = Math.ceil(index / 2) - 1;
      const rows = stepsOfEpoch(5, { batchSize: 2, gradientAccumulation: 2, seed: 3 }, epoch)[(index - 1) % 2].flat();
      const chosen = rows.map(i => examples[i]);
      assert.equal(
        labelled,
        chosen.reduce((n, e) => n + e.ids.length - e.promptLength, 0),
      );
      assert.equal(
        tokens,
        chosen.reduce((n, e) => n + e.ids.length, 0),
      );
      // Nothing is learned at a rate of 0: the mean over all labelled tokens of the step.
      near(loss, (await trainer.evaluate(chosen)).loss, 1e-5, `step ${index}`);
    }
  });

  test('rates: warmup, then down to 0', async () => {
    const reft = getReftModel(await tinyModel(), { layers: [1], rank: 1 });
    const options = { examples: tinyExamples(2), steps: 5, learningRate: 0.5, warmup: 2 };
    const rates = (await stepsOf(reft, options)).map(step => step.learningRate);
    [0, 0.25, 0.5, 1 / 3, 1 / 6].forEach((rate, i) => {
      near(rates[i], rate, 1e-12, `step ${i + 1}`);
    });
  });

  test('dropout draws from the stream of its seed, step, micro-batch and edit', async () => {
    const base = await tinyModel();
    const reft = getReftModel(base, { kind: 'addition', layers: [0, 2], positions: 'all', rank: 1, dropout: 0.5 });
    const ones = tensor.ones([16]);
    for (const intervention of reft.interventions) intervention.set('v', ones);
    const layout = { batch: 1, width: 4, starts: [0], promptLengths: [4], lengths: [4] };
    const zeros = tensor.zeros([4, 16]);
    const everyRow = new TokenRows([1, 4], Int32Array.of(0, 1, 2, 3), true);
    for (const [seed, step] of [
      [7, 0],
      [7, 3],
      [8, 3],
    ]) {
      reft.edits(layout, { seed, step }).forEach((edit, number) => {
        const expected = dropout(tensor.ones([4, 16]), 0.5, seed, 2 * step + number).dataSync();
        assert.deepEqual(
          noGrad(() => edit.apply(zeros, everyRow).dataSync()),
          expected,
          `${seed}, ${step}, ${number}`,
        );
      });
    }
    // Without training nothing is dropped.
    assert.ok(
      noGrad(() => reft.edits(layout)[0].apply(zeros, everyRow).dataSync()).every(x => x === 1),
      'without training',
    );
  });

  test('masks of a run: others each step and micro-batch, the same for one seed', async () => {
    const run = async (options: Partial<TrainerOptions>): Promise<number[]> => {
      const config = { layers: [1], positions: 'all', rank: 4, dropout: 0.5, seed: 1 } as const;
      const reft = getReftModel(await tinyModel(), config);
      const row = tinyExample(6, 4, 11);
      // The same row again and again, and nothing is learned: only the masks differ.
      const examples = [row, row, row, row];
      return (await stepsOf(reft, { examples, steps: 3, learningRate: 0, ...options })).map(step => step.loss);
    };
    const losses = await run({ batchSize: 4, seed: 5 });
    assert.equal(new Set(losses).size, 3);
    assert.deepEqual(await run({ batchSize: 4, seed: 5 }), losses);
    assert.notDeepEqual(await run({ batchSize: 4, seed: 6 }), losses);
    // Two micro-batches of one row have two masks: one mask for both would give the loss of a step of one row.
    const [both] = await run({ batchSize: 1, gradientAccumulation: 2, seed: 5 });
    const [one] = await run({ batchSize: 1, seed: 5 });
    assert.notEqual(both, one);
  });
});

/** Log-probability of an example's labelled tokens, by a forward of its own. */
function logProbability(base: CausalLM, reft: ReftModel | null, { ids, labels, promptLength }: Example): number {
  const shape = [1, ids.length];
  const layout = {
    batch: 1,
    width: ids.length,
    starts: [0],
    promptLengths: [promptLength],
    lengths: [ids.length],
    ids: [ids],
  };
  const { loss, labelled } = noGrad(() =>
    reft ? reft.loss({ inputIds: ids, shape }, labels, layout) : base.loss({ inputIds: ids, shape }, labels),
  );
  return -loss.dataSync()[0] * labelled;
}

test('preferences: the loss of pairs, from log-probabilities with and without edits', async () => {
  const base = await tinyModel();
  const reft = getReftModel(base, { layers: [0, 2], rank: 2, positions: 'all', seed: 9 });
  const pairs = [1, 2, 3].map(i => ({ chosen: tinyExample(4 + i, 3, i), rejected: tinyExample(4 + i, 2 + i, 50 + i) }));
  const beta = 0.7;
  const trainer = new ReftTrainer(reft, { preferences: { pairs, beta }, steps: 1, batchSize: 2 });
  const gain = (e: Example): number => logProbability(base, reft, e) - logProbability(base, null, e);
  const losses = pairs.map(({ chosen, rejected }) => Math.log1p(Math.exp(-beta * (gain(chosen) - gain(rejected)))));
  const { loss, rows, perplexity } = await trainer.evaluate();
  near(loss, losses.reduce((a, b) => a + b) / 3, 2e-5, 'loss');
  assert.equal(rows, 3);
  assert.equal(perplexity, NaN);
});

test('evaluate: shares of tokens and of whole rows that are the first choice', async () => {
  const base = await tinyModel();
  const choose = (ids: Int32Array): number =>
    Number(
      noGrad(() => base.forward({ inputIds: ids, shape: [1, ids.length] }).logits.argmax(-1))
        .dataSync()
        .at(-1),
    );
  // Answers as the model itself would go on, then one with a single wrong token in the middle.
  const rows = [3, 5, 4, 6].map((length, i) => {
    let { ids } = tinyExample(length, 0, 20 + i);
    for (let n = 0; n < 3; n++)
      ids = Int32Array.from([...ids, n === 1 && i > 1 ? (choose(ids) + 1) % 23 : choose(ids)]);
    return labelled([...ids], length, [length, length + 1, length + 2]);
  });
  const result = await evaluate(base, rows, { batchSize: 3 });
  assert.equal(result.rows, 4);
  assert.equal(result.labelled, 12);
  assert.equal(result.exactMatch, 0.5);
  near(result.tokenAccuracy, 10 / 12, 1e-12, 'tokens');
  near(result.perplexity, Math.exp(result.loss), 1e-9, 'perplexity');
  const sum = rows.reduce((total, row) => total - logProbability(base, null, row), 0);
  near(result.loss, sum / 12, 1e-5, 'loss');
});
