// Accuracy among the tokens in question: computed from the logits by hand, in every place that reports it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import {
  DasTrainer,
  getInterchangeModel,
  interchangeAccuracy,
  tokenBatch,
  type CounterfactualExample,
  type DasOptions,
  type InterchangeConfig,
  type InterchangeModel,
} from '../src/interchange/index.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const config: InterchangeConfig = { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 4 };
const unitLocations = { base: -1, source: 1 };
const vocabulary = 23;
const bare = Array.from({ length: 12 }, (_, i): CounterfactualExample => ({
  base: tinyIds(4 + (i % 3), 10 + i),
  sources: [tinyIds(5, 30 + i)],
  label: (7 * i + 2) % vocabulary,
}));

/** The logits that predict each example's label, one run at a time. */
function logitsOf(interchange: InterchangeModel, examples: readonly CounterfactualExample[]): number[][] {
  return examples.map(({ base, sources }) =>
    noGrad(() => {
      const { logits } = interchange.run({
        base: tokenBatch([base]),
        sources: [tokenBatch([sources[0]])],
        unitLocations,
      });
      return Array.from(logits.dataSync()).slice(-vocabulary);
    }),
  );
}

/** The share of examples whose label has the highest of the logits in question. */
function accuracyByHand(logits: readonly number[][], examples: readonly CounterfactualExample[]): number {
  const right = examples.filter(({ label, candidates }, i) => {
    const among = candidates ?? logits[i].map((_, id) => id);
    return logits[i][label] === Math.max(...among.map(id => logits[i][id]));
  });
  return right.length / examples.length;
}

describe('candidates', () => {
  test('decide the accuracy wherever it is reported, each example by its own', async () => {
    const interchange = getInterchangeModel(await tinyModel({ dtype: 'f64' }), config);
    const logits = logitsOf(interchange, bare);
    // Two or three tokens, the label first or last, so that neither the order nor the number decides.
    const examples = bare.map((e, i): CounterfactualExample => {
      const others = [(e.label + 3 + i) % vocabulary, (e.label + 11) % vocabulary]
        .filter(id => id !== e.label)
        .slice(0, 1 + (i % 2));
      return { ...e, candidates: i % 3 === 0 ? [e.label, ...others] : [...others, e.label] };
    });
    const [whole, among] = [accuracyByHand(logits, bare), accuracyByHand(logits, examples)];
    assert.ok(among > whole && among < 1, `${whole} of the vocabulary, ${among} of the candidates`);

    const options = { unitLocations, batchSize: 5 };
    assert.equal((await interchangeAccuracy(interchange, bare, options)).accuracy, whole);
    const measured = await interchangeAccuracy(interchange, examples, options);
    assert.equal(measured.accuracy, among);
    const { loss } = await interchangeAccuracy(interchange, bare, options);
    assert.equal(measured.loss, loss, 'the loss is of the whole vocabulary');

    for (const reuse of [true, false]) {
      const trainer = new DasTrainer(interchange, {
        examples,
        unitLocations,
        steps: 1,
        batchSize: examples.length,
        learningRate: 1e-9,
        reuse,
      });
      for await (const { accuracy } of trainer.steps()) assert.equal(accuracy, among, `a step, reuse ${reuse}`);
      assert.equal((await trainer.evaluate()).accuracy, among);
      assert.equal((await trainer.evaluate(bare)).accuracy, whole);
    }
  });

  test('of the data set are for examples that name none', async () => {
    const interchange = getInterchangeModel(await tinyModel({ dtype: 'f64' }), config);
    const logits = logitsOf(interchange, bare);
    const pair = bare.map((e, i): CounterfactualExample => ({ ...e, label: i % 2 === 0 ? 4 : 9 }));
    const expected = accuracyByHand(
      logits,
      pair.map(e => ({ ...e, candidates: [4, 9] })),
    );
    assert.notEqual(expected, accuracyByHand(logits, pair));
    assert.equal(
      (await interchangeAccuracy(interchange, pair, { unitLocations, candidates: [4, 9] })).accuracy,
      expected,
    );
    const trainer = new DasTrainer(interchange, { examples: pair, unitLocations, candidates: [4, 9], steps: 1 });
    assert.equal((await trainer.evaluate()).accuracy, expected);
    assert.equal(
      (await trainer.evaluate(pair.slice(0, 4))).accuracy,
      accuracyByHand(
        logits,
        pair.slice(0, 4).map(e => ({ ...e, candidates: [9, 4] })),
      ),
    );
    // One that is right between 4 and 9, and wrong beside the most likely token of all.
    const top = logits.map(row => row.indexOf(Math.max(...row)));
    const k = pair.findIndex(({ label }, n) => label === 4 && logits[n][4] > logits[n][9] && top[n] !== 4);
    assert.ok(k >= 0, 'there is such an example');
    const own = pair.map((e, n) => (n === k ? { ...e, candidates: [4, top[n]] } : e));
    const mixed = (await interchangeAccuracy(interchange, own, { unitLocations, candidates: [4, 9] })).accuracy;
    assert.equal(
      mixed,
      accuracyByHand(
        logits,
        own.map(e => ({ candidates: [4, 9], ...e })),
      ),
      "an example's own come first",
    );
  });

  test('that cannot be judged are refused, naming the example', async () => {
    const interchange = getInterchangeModel(await tinyModel(), config);
    const refused = (more: Partial<DasOptions>, message: RegExp): void => {
      assert.throws(() => new DasTrainer(interchange, { examples: bare, unitLocations, steps: 1, ...more }), message);
    };
    const first = (candidates: number[]): Partial<DasOptions> => ({ examples: [{ ...bare[0], candidates }] });
    refused(first([2, 23]), /^RangeError: example 0: candidate 23 is outside the vocabulary of 23$/);
    refused(first([2, 1.5]), /^RangeError: example 0: candidate 1\.5 is outside the vocabulary of 23$/);
    refused(first([2]), /^RangeError: example 0: expected at least two different candidates, got \[2\]$/);
    refused(first([2, 2]), /^RangeError: example 0: expected at least two different candidates, got \[2, 2\]$/);
    refused(first([3, 4]), /^RangeError: example 0: its label 2 is not among its candidates \[3, 4\]$/);
    refused({ candidates: [2, 4] }, /^RangeError: example 1: its label 9 is not among its candidates \[2, 4\]$/);
    refused(
      { examples: [{ ...bare[0], candidates: [2, 3] }, bare[1]] },
      /^RangeError: example 1: candidates are given for all examples or for none$/,
    );
  });
});
