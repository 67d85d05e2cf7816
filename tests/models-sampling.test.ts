// Sampling of one token: greedy, penalties, and the sets top-k and top-p leave, against counts over many draws.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkSampling, sample } from '../src/models/sampling.js';
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
  actual.forEach((p, i) => assert.ok(Math.abs(p - expected[i]) <= 5 * Math.sqrt(expected[i] * (1 - expected[i]) / 20_000), `token ${i}: ${p}, expected ${expected[i]}`));
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
  assert.ok(all[1] + all[4] < 0.8 && all[1] + all[4] + all[2] > 0.8);
  near(shares({ temperature: 1, topP: 0.8 }), [0, kept[0], kept[2], 0, kept[1]]);
  near(shares({ temperature: 1, topP: 1e-9 }), [0, 1, 0, 0, 0]);
});

test('the repetition penalty divides positive logits of seen tokens and multiplies negative ones', () => {
  assert.equal(sample(logits(), [1], { repetitionPenalty: 1.5 }, new Random(1)), 4);
  assert.equal(sample(Float32Array.of(-1, -1.5), [0, 0], { repetitionPenalty: 2 }, new Random(1)), 1);
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
  assert.throws(() => sample(Float32Array.of(NaN, NaN), [], {}, new Random(1)), /largest logit is NaN/);
  for (const [options, name] of [[{ temperature: -1 }, 'temperature'], [{ topK: 0 }, 'topK'], [{ topP: 0 }, 'topP'], [{ topP: 1.1 }, 'topP'],
    [{ repetitionPenalty: 0 }, 'repetitionPenalty']] as const) {
    assert.throws(() => { checkSampling(options); }, new RegExp(`^RangeError: ${name}: expected`));
  }
});
