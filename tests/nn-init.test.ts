// Starting values: ranges, moments, seeds, orthonormality; the same numbers in every dtype.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { kaimingUniform, linearInit, normalInit, orthogonalInit } from '../src/nn/index.js';
import type { Tensor } from '../src/tensor/index.js';
import { runs } from './helpers/draw.js';

const mean = (x: ArrayLike<number>): number => Array.from(x).reduce((s, v) => s + v, 0) / x.length;
const deviation = (x: ArrayLike<number>): number => Math.sqrt(mean(Array.from(x, v => v * v)) - mean(x) ** 2);

/**
 * Uniform in +-bound: all inside, spread as a uniform's (bound / sqrt 3), centred. 4,096 draws: 5 % is over 4 standard
 * errors.
 */
function uniformIn(t: Tensor, bound: number): void {
  const data = t.dataSync();
  assert.equal(data.length, 4096);
  assert.ok(
    data.every(x => Math.abs(x) <= bound),
    'data.every(x => Math.abs(x) <= bound)',
  );
  assert.ok(
    Math.max(...data) > 0.99 * bound && Math.min(...data) < -0.99 * bound,
    'Math.max(...data) > 0.99 * bound && Math.min(...data) < -0.99 * bound',
  );
  assert.ok(Math.abs(mean(data)) < 0.05 * bound, 'Math.abs(mean(data)) < 0.05 * bound');
  assert.ok(
    Math.abs(deviation(data) / (bound / Math.sqrt(3)) - 1) < 0.05,
    'Math.abs(deviation(data) / (bound / Math.sqrt(3)) - 1) < 0.05',
  );
}

test('linearInit is uniform in +-1/sqrt(fan-in)', () => {
  uniformIn(linearInit([64, 64], { seed: 1 }), 1 / 8);
  uniformIn(linearInit([4096], { seed: 1, fanIn: 100 }), 0.1);
});

test('kaimingUniform is uniform in +-sqrt(6 / ((1 + a^2) fan-in))', () => {
  uniformIn(kaimingUniform([64, 64], { seed: 2 }), 1 / 8);
  uniformIn(kaimingUniform([64, 64], { seed: 2, a: 0 }), Math.sqrt(6 / 64));
});

test('normalInit has the asked spread', () => {
  const data = normalInit([64, 64], { seed: 3, std: 0.5 }).dataSync();
  assert.ok(
    Math.abs(mean(data)) < 0.03 && Math.abs(deviation(data) / 0.5 - 1) < 0.05,
    'Math.abs(mean(data)) < 0.03 && Math.abs(deviation(data) / 0.5 - 1) ...',
  );
  assert.ok(
    Math.abs(deviation(normalInit([64, 64], { seed: 3 }).dataSync()) / 0.02 - 1) < 0.05,
    'Math.abs(deviation(normalInit([64, 64], { seed: 3 }).dataSync()) / ...',
  );
});

test('seeds and streams: the same, or other numbers; f32 is f64 rounded', () => {
  for (const init of [linearInit, kaimingUniform, normalInit, orthogonalInit]) {
    const at = (seed: number, stream?: number, dtype: 'f32' | 'f64' = 'f32'): number[] =>
      Array.from(init([3, 5], { seed, dtype, ...(stream === undefined ? {} : { stream }) }).dataSync());
    assert.deepEqual(at(1), at(1, 0));
    assert.notDeepEqual(at(1), at(2));
    assert.notDeepEqual(at(1), at(1, 1));
    assert.deepEqual(at(1), at(1, 0, 'f64').map(Math.fround));
  }
});

test('orthogonalInit has orthonormal rows, and no side is favoured', () =>
  fc.assert(
    fc.property(
      fc.tuple(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 0, max: 50 })),
      fc.nat(10_000),
      ([r, more], seed) => {
        const d = r + more;
        const R = orthogonalInit([r, d], { seed, dtype: 'f64' }).dataSync();
        for (let i = 0; i < r; i++) {
          for (let j = 0; j <= i; j++) {
            let sum = 0;
            for (let k = 0; k < d; k++) sum += R[i * d + k] * R[j * d + k];
            assert.ok(Math.abs(sum - Number(i === j)) <= 1e-14, 'Math.abs(sum - Number(i === j)) <= 1e-14');
          }
        }
      },
    ),
    runs(50),
  ));

test('orthogonalInit: over seeds the entries of R have mean 0 and square 1/d', () => {
  const [r, d] = [2, 4];
  const all = Array.from({ length: 1000 }, (_, seed) => orthogonalInit([r, d], { seed, dtype: 'f64' }).dataSync());
  for (let k = 0; k < r * d; k++) {
    const entry = all.map(R => R[k]);
    assert.ok(Math.abs(mean(entry)) < 0.08, `entry ${k}`);
    assert.ok(Math.abs(mean(entry.map(x => x * x)) - 1 / d) < 0.04, `entry ${k}`);
  }
});

test('shapes that cannot be orthonormal', () => {
  assert.throws(() => orthogonalInit([3, 2], { seed: 1 }), {
    message: 'orthogonalInit: [3,2] cannot have orthonormal rows',
  });
  assert.throws(() => orthogonalInit([0, 2], { seed: 1 }), {
    message: 'orthogonalInit: [0,2] cannot have orthonormal rows',
  });
});
