// Sampling of one token: greedy, penalties, and the sets top-k and top-p leave, against counts over many draws.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkSampling, sample } from '../src/models/generation/sampling.js';
import { Random } from '../src/tensor/threefry.js';

const logits = (): Float32Array => Float32Array.of(1, 3, 2, -1, 2.5);

/** Shares of each token over many draws with one seed. */
function shares(options: Parameters<typeof sample>[2], draws = 20_000): number[] {
  const random = new Random(7);
  const counts = new Array<number>(5).fill(0);
  for (let i = 0; i < draws; i++) counts[sample(logits(), [], options, random)]++;
  return counts.map(n => n / draws);
}

function softmax(values: readonly number[]): number[] {
  const e = values.map(Math.exp);
  const total = e.reduce((a, b) => a + b, 0);
  return e.map(x => x / total);
}

/** Five standard deviations of a share over 20,000 draws. */
function near(actual: readonly number[], expected: readonly number[]): void {
  actual.forEach((p, i) =>
    assert.ok(
      Math.abs(p - expected[i]) <= 5 * Math.sqrt((expected[i] * (1 - expected[i])) / 20_000),
      `token ${i}: ${p}, expected ${expected[i]}`,
    ),
  );
}

test('temperature 0 takes the most likely token, the first of equal ones', () => {
  assert.equal(sample(logits(), [], {}, new Random(1)), 1);
  assert.equal(sample(Float32Array.of(0, 2, 2), [], {}, new Random(1)), 1);
});

test('temperature divides the logits', () => {
  near(shares({ temperature: 1 }), softmax([...logits()]));
  near(shares({ temperature: 2 }), softmax([...logits()].map(x => x / 2)));
});

test('top-k keeps the k most likely', () => {
  const kept = softmax([3, 2.5]);
  near(shares({ temperature: 1, topK: 2 }), [0, kept[0], 0, 0, kept[1]]);
  near(shares({ temperature: 1, topK: 99 }), softmax([...logits()]));
});

test('top-p keeps the fewest whose probabilities reach p', () => {
  const all = softmax([...logits()]);
  const kept = softmax([3, 2.5, 2]);
  assert.ok(all[1] + all[4] < 0.8 && all[1] + all[4] + all[2] > 0.8, 'the case is made so');
  near(shares({ temperature: 1, topP: 0.8 }), [0, kept[0], kept[2], 0, kept[1]]);
  near(shares({ temperature: 1, topP: 1e-9 }), [0, 1, 0, 0, 0]);
});

test('the repetition penalty divides positive logits of seen tokens and multiplies negative ones', () => {
  assert.equal(sample(logits(), [1], { repetitionPenalty: 1.5 }, new Random(1)), 4);
  assert.equal(sample(Float32Array.of(-1, -1.5), [0, 0], { repetitionPenalty: 2 }, new Random(1)), 1);
});

test('the repetition penalty acts once on a token, however often it was seen', () => {
  // Once: 4 / 1.5 = 2.67 stays above 2; twice it would not.
  assert.equal(sample(Float32Array.of(4, 2), [0, 0, 0], { repetitionPenalty: 1.5 }, new Random(1)), 0);
});

test('a logit of -Infinity is never chosen, at any setting', () => {
  const masked = (): Float32Array => Float32Array.of(-Infinity, 0, -Infinity, 0, -Infinity);
  for (const options of [
    {},
    { temperature: 1 },
    { temperature: 1, topK: 4 },
    { temperature: 1, topP: 1 },
    { temperature: 1e30, repetitionPenalty: 2 },
  ]) {
    const random = new Random(3);
    for (let i = 0; i < 200; i++)
      assert.ok([1, 3].includes(sample(masked(), [0, 1], options, random)), JSON.stringify(options));
    // Rounding may leave something of the draw behind the last token that has a weight.
    const most = { next: () => 1 } as unknown as Random;
    if ('temperature' in options) assert.equal(sample(masked(), [], options, most), 3);
  }
});

test('one seed gives one sequence', () => {
  const draw = (seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length: 20 }, () => sample(logits(), [], { temperature: 1 }, random));
  };
  assert.deepEqual(draw(3), draw(3));
  assert.notDeepEqual(draw(3), draw(4));
});

test('values that are not finite and options out of range are refused', () => {
  const settings = [
    {},
    { temperature: 1 },
    { temperature: 1, topK: 2 },
    { temperature: 1, topP: 0.5 },
    { repetitionPenalty: 2 },
  ];
  for (const options of settings) {
    const throws = (logits: readonly number[], message: RegExp): void => {
      assert.throws(
        () => sample(Float32Array.from(logits), [0], options, new Random(1), 'new token 3 of prompt 1'),
        message,
      );
    };
    throws(
      [0, 1, NaN, 2],
      /^Error: generate: new token 3 of prompt 1: the logit of token 2 is NaN; the model or an edit produced/,
    );
    throws([NaN, 1], /the logit of token 0 is NaN/);
    throws([0, Infinity], /the logit of token 1 is Infinity/);
    throws([-Infinity, -Infinity], /new token 3 of prompt 1: every logit is -Infinity, so that no token may be chosen/);
  }
  assert.throws(
    () => sample(Float32Array.of(1e38, 0), [0], { repetitionPenalty: 1e-5 }, new Random(1)),
    /repetitionPenalty 0\.00001: the logit of token 0 is Infinity/,
  );
  for (const [options, name] of [
    [{ temperature: -1 }, 'temperature'],
    [{ topK: 0 }, 'topK'],
    [{ topP: 0 }, 'topP'],
    [{ topP: 1.1 }, 'topP'],
    [{ repetitionPenalty: 0 }, 'repetitionPenalty'],
  ] as const) {
    assert.throws(
      () => {
        checkSampling(options);
      },
      new RegExp(`^RangeError: ${name}: expected`),
    );
  }
});
