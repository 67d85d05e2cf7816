// Random numbers: Threefry's published vectors, the same bits on host and kernels, dropout's expectation and mask,
// repeatability.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dropout, randomLike } from '../src/autograd/index.js';
import { create } from '../src/tensor/create.js';
import { Random, tensor, type Tensor } from '../src/tensor/index.js';
import { randomWords, seedWords, threefry, type WordArithmetic } from '../src/tensor/threefry.js';
import { machines } from './helpers/machines.js';

/** 32-bit words as BigInt: arithmetic that shares nothing with the library's. */
const big: WordArithmetic<bigint> = {
  word: v => BigInt(v),
  add: (a, b) => (a + b) & 0xffffffffn,
  xor: (a, b) => a ^ b,
  rotateLeft: (a, by) => ((a << BigInt(by)) | (a >> BigInt(32 - by))) & 0xffffffffn,
};

test("Threefry-2x32-20 gives Random123's known answers", () => {
  const vectors: [[number, number], [number, number], [number, number]][] = [
    [
      [0, 0],
      [0, 0],
      [0x6b200159, 0x99ba4efe],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x1cb996fc, 0xbb002be7],
    ],
    [
      [0x243f6a88, 0x85a308d3],
      [0x13198a2e, 0x03707344],
      [0xc4923a9c, 0x483df7a0],
    ],
  ];
  for (const [counter, key, expected] of vectors) {
    const words = threefry(big, [BigInt(key[0]), BigInt(key[1])], [BigInt(counter[0]), BigInt(counter[1])]);
    assert.deepEqual(words.map(Number), expected);
  }
  assert.deepEqual(randomWords(0, 0, 0), [0x6b200159, 0x99ba4efe]);
  assert.deepEqual(seedWords(2 ** 32 * 7 + 9), [9, 7]);
  for (const [seed, stream, counter] of [
    [123456789012, 3, 77],
    [1, 0, 4294967295],
    [2 ** 53 - 1, 9, 0],
  ]) {
    const [low, high] = seedWords(seed);
    const words = threefry(big, [BigInt(low), BigInt(high)], [BigInt(counter), BigInt(stream)]);
    assert.deepEqual(randomWords(seed, stream, counter), words.map(Number));
  }
});

for (const machine of machines) {
  const { name, backend, dtype } = machine;
  const zeros = (shape: number[]): Tensor => tensor.zeros(shape, { dtype, backend });

  test(`kernels make the host's bits (${name})`, () => {
    for (const n of [1, 3, 4, 5, 63, 1000]) {
      const drawn = randomLike(zeros([n]), 2 ** 40 + 17, 5).dataSync();
      assert.deepEqual(
        Array.from(drawn),
        Array.from({ length: n }, (_, i) => (randomWords(2 ** 40 + 17, 5, i)[0] >>> 8) * 2 ** -24),
      );
    }
  });

  test(`dropout keeps the expectation, and backward uses the forward's mask (${name})`, () => {
    const n = 20_000;
    const x = tensor.ones([100, 200], { dtype, backend }).requireGrad();
    const y = dropout(x, 0.3, 11);
    y.sum().backward();
    const [values, gradient] = [y.dataSync(), (x.grad as Tensor).dataSync()];
    assert.deepEqual(gradient, values);
    const kept = values.filter(v => v !== 0).length;
    // Five standard deviations of a binomial.
    assert.ok(Math.abs(kept - 0.7 * n) < 5 * Math.sqrt(n * 0.7 * 0.3), `${kept} kept`);
    assert.ok(
      values.every(v => v === 0 || Math.abs(v - 1 / 0.7) < 1e-6),
      'values.every(v => v === 0 || Math.abs(v - 1 / 0.7) < 1e-6)',
    );
    assert.equal(dropout(x, 0, 1), x);
  });

  test(`one seed, the same bits; another seed or stream, others (${name})`, () => {
    const draw = (seed: number, stream: number): string =>
      Buffer.from(Float64Array.from(randomLike(zeros([64]), seed, stream).dataSync()).buffer).toString('hex');
    assert.equal(draw(5, 1), draw(5, 1));
    assert.equal(new Set([draw(5, 1), draw(6, 1), draw(5, 2), draw(5 + 2 ** 32, 1)]).size, 4);
  });
}

test('host generators have the right moments and repeat', () => {
  const n = 20_000;
  const moments = (t: Tensor): [number, number] => {
    const data = Array.from(t.dataSync());
    const mean = data.reduce((a, b) => a + b, 0) / n;
    return [mean, data.reduce((a, b) => a + (b - mean) ** 2, 0) / n];
  };
  const [mean, variance] = moments(create.normal([n], { seed: 4, mean: 2, std: 3, dtype: 'f64' }));
  assert.ok(
    Math.abs(mean - 2) < (5 * 3) / Math.sqrt(n) && Math.abs(variance - 9) < 5 * 9 * Math.sqrt(2 / n),
    `${mean}, ${variance}`,
  );
  const uniform = create.uniform([n], { seed: 4, low: -1, high: 3, dtype: 'f64' });
  const [middle, spread] = moments(uniform);
  assert.ok(
    Math.abs(middle - 1) < 5 * Math.sqrt(16 / 12 / n) && Math.abs(spread - 16 / 12) < 0.05,
    `${middle}, ${spread}`,
  );
  assert.ok(
    uniform.dataSync().every(v => v >= -1 && v < 3),
    'uniform.dataSync().every(v => v >= -1 && v < 3)',
  );
  assert.deepEqual(create.normal([5], { seed: 9 }).dataSync(), create.normal([5], { seed: 9 }).dataSync());
  assert.notDeepEqual(
    create.normal([5], { seed: 9 }).dataSync(),
    create.normal([5], { seed: 9, stream: 1 }).dataSync(),
  );
});

test('shuffles are permutations, all orders alike; bad seeds are refused', () => {
  const counts = new Map<string, number>();
  const random = new Random(8);
  for (let i = 0; i < 6000; i++) {
    const order = random.shuffle([0, 1, 2]).join('');
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assert.equal(counts.size, 6);
  for (const [order, count] of counts) assert.ok(Math.abs(count - 1000) < 5 * Math.sqrt(1000), `${order}: ${count}`);
  for (const seed of [-1, 0.5, 2 ** 53, NaN])
    assert.throws(() => new Random(seed), /^RangeError: seed: expected an integer from 0 to 2\^53 - 1, got/);
});
