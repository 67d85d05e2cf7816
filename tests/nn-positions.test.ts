// T5's relative positions and sinusoidal tables against small implementations of their own.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gradcheck } from '../src/autograd/index.js';
import { relativePositionBias, relativePositionBucket, sinusoidalPositions } from '../src/nn/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';

/**
 * Buckets by where they begin, without a logarithm: bucket `exact + i` begins at the first whole n for which
 * (n / exact)^(count - exact) >= (max / exact)^i, compared as whole numbers.
 */
function bucketsBefore(count: number, maxDistance: number, upTo: number): number[] {
  const exact = Math.floor(count / 2);
  const steps = BigInt(count - exact);
  return Array.from({ length: upTo }, (_, n) => {
    if (n < exact) return n;
    let i = 0;
    // (n / e)^steps >= (max / e)^i, both sides times e^steps e^i
    const reaches = (i: number): boolean =>
      BigInt(n) ** steps * BigInt(exact) ** BigInt(i) >= BigInt(maxDistance) ** BigInt(i) * BigInt(exact) ** steps;
    while (i < count - exact && reaches(i + 1)) i++;
    return Math.min(count - 1, exact + i);
  });
}

test('relative positions: buckets of both directions', () => {
  for (const [buckets, maxDistance] of [
    [32, 128],
    [8, 20],
    [4, 3],
  ]) {
    const expected = bucketsBefore(buckets / 2, maxDistance, 300);
    for (let n = 0; n < 300; n++) {
      const options = { bidirectional: true, buckets, maxDistance };
      assert.equal(relativePositionBucket(-n, options), expected[n], `${n} before, ${buckets} buckets`);
      if (n > 0)
        assert.equal(relativePositionBucket(n, options), buckets / 2 + expected[n], `${n} after, ${buckets} buckets`);
    }
  }
  // Known ones of T5's encoder.
  const both = [0, 1, -1, 7, -8, -16, 32, -64, 90, 127, -1000].map(n =>
    relativePositionBucket(n, { bidirectional: true }),
  );
  assert.deepEqual(both, [0, 17, 1, 23, 8, 10, 28, 14, 30, 31, 15]);
});

test('relative positions: buckets of decoders, where what comes after counts as the query itself', () => {
  const expected = bucketsBefore(32, 128, 300);
  for (let n = 0; n < 300; n++) {
    assert.equal(relativePositionBucket(-n, { bidirectional: false }), expected[n], `${n} before`);
    assert.equal(relativePositionBucket(n, { bidirectional: false }), 0, `${n} after`);
  }
});

test('relative positions: the bias of queries behind cached keys, and its gradient', async () => {
  const table = tensor.normal([32, 2], { seed: 1, dtype: 'f64' });
  for (const options of [
    { queries: 3, keys: 7, offset: 4, bidirectional: false },
    { queries: 5, keys: 4, bidirectional: true },
  ]) {
    const bias = relativePositionBias(table, options);
    const { queries, keys, offset = 0, bidirectional } = options;
    assert.deepEqual([...bias.shape], [1, 2, queries, keys]);
    const [values, rows] = [bias.contiguous().dataSync(), table.dataSync()];
    for (let h = 0; h < 2; h++)
      for (let t = 0; t < queries; t++)
        for (let s = 0; s < keys; s++)
          assert.equal(
            values[(h * queries + t) * keys + s],
            rows[2 * relativePositionBucket(s - t - offset, { bidirectional }) + h],
            `head ${h}, query ${t}, key ${s}`,
          );
    await gradcheck((x: Tensor) => relativePositionBias(x, options), [table]);
  }
});

test('relative positions: messages', () => {
  assert.throws(() => relativePositionBias(tensor.zeros([16, 2]), { queries: 1, keys: 1, bidirectional: true }), {
    name: 'ShapeError',
    message: 'relative positions: a table [16,2] is no [32,heads]',
  });
  assert.throws(() => relativePositionBucket(1, { bidirectional: true, buckets: 3 }), {
    name: 'RangeError',
    message:
      'relative positions: expected at least 4 buckets and a largest distance beyond those with a bucket each, ' +
      'got 3 and 128',
  });
  assert.throws(() => relativePositionBucket(1, { bidirectional: false, maxDistance: 16 }), { name: 'RangeError' });
});

test('sinusoidal positions: sines, then cosines, in frequencies from 1 to 1 / 10000', () => {
  const [count, width] = [40, 8];
  for (const inclusive of [true, false]) {
    const table = sinusoidalPositions(count, width, { inclusive });
    assert.equal(table.length, count * width);
    for (let p = 0; p < count; p++)
      for (let i = 0; i < 4; i++) {
        const angle = p / 10000 ** (i / (inclusive ? 3 : 4));
        // The frequency is f32, times positions up to 39.
        const [sine, cosine] = [table[p * width + i], table[p * width + 4 + i]];
        assert.ok(Math.abs(sine - Math.sin(angle)) < 5e-6, `sine ${i} of position ${p}: ${sine}`);
        assert.ok(Math.abs(cosine - Math.cos(angle)) < 5e-6, `cosine ${i} of position ${p}: ${cosine}`);
      }
  }
  assert.deepEqual([...sinusoidalPositions(2, 8, { start: 3 })], [...sinusoidalPositions(5, 8).slice(24)]);
  const other = sinusoidalPositions(2, 4, { base: 100 });
  assert.ok(Math.abs(other[5] - Math.sin(0.01)) < 1e-7, `a base of its own: ${other[5]}`);
  assert.throws(() => sinusoidalPositions(2, 5), {
    name: 'RangeError',
    message: 'sinusoidal positions: the width must be even and positive, got 5',
  });
  assert.throws(() => sinusoidalPositions(2, 2), { name: 'RangeError' });
});
