// Values at the ends of the number line, mixed dtypes, and integers: what the drawn recipes leave out.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scope } from '../src/autograd/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { machines } from './helpers/machines.js';

const everywhere = (name: string, body: (make: (values: number[]) => Tensor, dtype: 'f32' | 'f64') => void): void => {
  for (const { name: machine, backend, dtype } of machines) {
    test(`${name} (${machine})`, () => scope(() => body(values => tensor(values, { dtype, backend }), dtype)));
  }
};
const numbers = (t: Tensor): number[] => Array.from(t.dataSync());
const near = (actual: Tensor, expected: number[], tolerance = 1e-6): void => {
  const data = numbers(actual);
  assert.equal(data.length, expected.length);
  data.forEach((x, i) =>
    assert.ok(
      Object.is(x, expected[i]) || x === expected[i] || Math.abs(x - expected[i]) <= tolerance * Math.max(1, Math.abs(expected[i])),
      `entry ${i}: ${x}, expected ${expected[i]}`,
    ),
  );
};

everywhere('functions saturate and do not overflow', make => {
  const far = make([-200, -88, -30, 30, 200]);
  near(far.sigmoid(), [0, Math.exp(-88), Math.exp(-30), 1, 1]);
  near(far.tanh(), [-1, -1, -1, 1, 1]);
  near(far.erf(), [-1, -1, -1, 1, 1]);
  near(far.softplus(), [0, 0, Math.exp(-30), 30, 200]);
  near(far.silu(), [0, 0, -30 * Math.exp(-30), 30, 200]);
  near(far.gelu(), [0, 0, 0, 30, 200]);
  near(far.geluTanh(), [0, 0, 0, 30, 200]);
  near(make([-1000, 0]).exp(), [0, 1]);
  near(make([0, 1]).log(), [-Infinity, 0]);
  near(make([0, 4]).sqrt(), [0, 2]);
});

everywhere('functions of arguments near 0 keep their digits', make => {
  const x = [1e-6, -3e-5, 2e-4, -1e-3, 0];
  const relative = (actual: Tensor, f: (v: number) => number): void => {
    numbers(actual).forEach((y, i) => assert.ok(Math.abs(y - f(Math.fround(x[i]))) <= 1e-6 * Math.abs(f(x[i])), `at ${x[i]}: ${y}`));
  };
  relative(make(x).tanh(), Math.tanh);
  relative(make(x).sin(), Math.sin);
  relative(make(x).erf(), v => (2 / Math.sqrt(Math.PI)) * (v - v ** 3 / 3));
  relative(make(x).sigmoid().sub(0.5).add(0.5), v => 1 / (1 + Math.exp(-v)));
});

everywhere('gradients stay finite where functions saturate', make => {
  for (const f of ['sigmoid', 'tanh', 'softplus', 'silu', 'gelu', 'geluTanh', 'erf'] as const) {
    const x = make([-150, -40, 0, 40, 150]).requireGrad();
    x[f]().sum().backward();
    assert.ok(numbers(x.grad as Tensor).every(Number.isFinite), `${f}: ${numbers(x.grad as Tensor).join(' ')}`);
  }
});

everywhere('softmax of masked rows ignores -Infinity', make => {
  const x = make([0, -Infinity, 0, 1e4, 1e4 - 1, -Infinity]).reshape([2, 3]);
  const e = 1 / (1 + Math.exp(-1));
  near(x.softmax(), [0.5, 0, 0.5, e, 1 - e, 0]);
});

everywhere('NaN is not hidden', make => {
  const x = make([NaN, 1]);
  assert.ok(Number.isNaN(numbers(x.sum())[0]));
  assert.ok(Number.isNaN(numbers(x.max())[0]));
  assert.deepEqual(numbers(x.add(1)).map(Number.isNaN), [true, false]);
  assert.deepEqual(numbers(x.exp()).map(Number.isNaN), [true, false]);
  assert.deepEqual(numbers(x.eq(x)), [0, 1]);
  assert.deepEqual(numbers(x.ne(x)), [1, 0]);
  assert.deepEqual(numbers(x.lt(2)), [0, 1]);
});

everywhere('argmax and topk take the first of equals, and distinct entries where only -Infinity is left', make => {
  assert.deepEqual(numbers(make([1, 3, 3, 2]).argmax(0)), [1]);
  assert.deepEqual(numbers(make([3, 1, 1]).argmin(0)), [1]);
  const { values, indices } = make([1, -Infinity, -Infinity]).topk(3);
  assert.deepEqual(numbers(indices), [0, 1, 2]);
  assert.deepEqual(numbers(values), [1, -Infinity, -Infinity]);
  assert.deepEqual(numbers(make([2, 5, 5, 1]).topk(3).indices), [1, 2, 0]);
});

everywhere('ties share the gradient of max', make => {
  const x = make([2, 5, 5]).requireGrad();
  x.max().backward();
  near(x.grad as Tensor, [0, 0.5, 0.5]);
  const a = make([1, 2]).requireGrad();
  a.maximum(make([1, 1]))
    .sum()
    .backward();
  near(a.grad as Tensor, [0.5, 1]);
});

everywhere('integers stay integers, fractions make floats', make => {
  const x = make([1, -2, 3]).to('i32');
  const { backend } = x;
  assert.deepEqual([x.add(1).dtype, x.mul(x).dtype, x.neg().dtype, x.abs().dtype, x.square().dtype, x.sum().dtype], Array(6).fill('i32'));
  assert.deepEqual([numbers(x.mul(x)), numbers(x.sum()), numbers(x.max()), numbers(x.square())], [[1, 4, 9], [2], [3], [1, 4, 9]]);
  assert.equal(x.add(0.5).dtype, 'f32');
  assert.deepEqual(numbers(x.add(0.5)), [1.5, -1.5, 3.5]);
  assert.equal(x.div(2).dtype, 'f32');
  assert.deepEqual(numbers(x.div(2)), [0.5, -1, 1.5]);
  const wide = tensor([2147483647, -2147483648], { dtype: 'i32', backend });
  assert.deepEqual(numbers(wide.add(1)), [-2147483648, -2147483647]);
  assert.deepEqual(numbers(wide.mul(3)), [2147483645, -2147483648]);
  const big = tensor([16777217, 16777217], { dtype: 'i32', backend });
  assert.deepEqual(numbers(big.sum()), [33554434]);
  assert.deepEqual(numbers(big.cumsum(0)), [16777217, 33554434]);
});

everywhere('bools count and mix with numbers', (make, dtype) => {
  const b = make([1, 0, 2]).to('bool');
  assert.equal(b.sum().dtype, 'i32');
  assert.deepEqual(numbers(b.sum()), [2]);
  assert.deepEqual(numbers(b.mul(3)), [3, 0, 3]);
  assert.deepEqual(numbers(b.mul(0.5)), [0.5, 0, 0.5]);
  assert.deepEqual(numbers(b.to('i32')), [1, 0, 1]);
  assert.equal(b.where(0.5, 1).dtype, 'f32');
  assert.deepEqual(numbers(b.where(b.to('i32'), 0.5)), [1, 0.5, 1]);
  assert.deepEqual(numbers(b.where(b, 7)), [1, 7, 1]);
  assert.deepEqual(numbers(b.eq(b.not())), [0, 0, 0]);
  assert.equal(b.mul(make([1, 2, 3])).dtype, dtype);
});

everywhere('floats become integers toward zero, saturating, NaN as 0', make => {
  assert.deepEqual(numbers(make([1.9, -1.9, 3e9, -3e9, NaN, Infinity]).to('i32')), [1, -1, 2147483647, -2147483648, 0, 2147483647]);
});

everywhere('f32 and f64 meet in f64', make => {
  const x = make([1, 2]);
  const wide = x.to('f64').requireGrad();
  const narrow = x.to('f32').detach().requireGrad();
  const y = wide.mul(narrow);
  assert.equal(y.dtype, 'f64');
  y.sum().backward();
  assert.equal(narrow.grad?.dtype, 'f32');
  assert.equal(wide.grad?.dtype, 'f64');
  assert.deepEqual(numbers(narrow.grad as Tensor), [1, 2]);
});

everywhere('comparisons and indices take no gradient', make => {
  const x = make([1, 2]).requireGrad();
  assert.equal(x.lt(1).needsGrad, false);
  assert.equal(x.argmax(0).needsGrad, false);
  assert.equal(x.to('i32').needsGrad, false);
  assert.throws(() => x.to('i32').requireGrad(), /^Error: requireGrad: a i32 tensor has no gradient$/);
  assert.throws(() => x.mul(2).requireGrad(), /^Error: requireGrad: only leaves can be marked/);
});

test('making tensors: shapes, dtypes and what is refused', async () => {
  assert.deepEqual(
    await tensor([
      [1, 2],
      [3, 4],
    ]).toArray(),
    [
      [1, 2],
      [3, 4],
    ],
  );
  assert.deepEqual(await tensor([[true], [false]]).toArray(), [[true], [false]]);
  assert.equal(tensor([]).size, 0);
  assert.deepEqual(await tensor(3).toArray(), 3);
  assert.deepEqual(tensor(Int32Array.of(1, 2)).dtype, 'i32');
  assert.deepEqual(tensor(Float64Array.of(1, 2), [2, 1]).shape, [2, 1]);
  assert.throws(() => tensor([[1, 2], [3]]), /^ShapeError: tensor: expected 2 entries on axis 1, got 1$/);
  assert.throws(() => tensor([1, [2]]), /^ShapeError: tensor: expected a number instead of entries on axis 1, got 1$/);
  assert.throws(() => tensor([[1], 2]), /^ShapeError: tensor: expected an array on axis 1, got 2$/);
  assert.throws(() => tensor(Float32Array.of(1, 2, 3), [2]), /^ShapeError: tensor: 3 numbers do not fill shape \[2\]$/);
  assert.throws(() => tensor.zeros([2, -1]), /^ShapeError: zeros: \[2,-1\] is not a shape$/);
  assert.throws(() => tensor.zeros([1.5]), /is not a shape$/);
  assert.deepEqual(numbers(tensor.arange(0, 5, { step: 2 })), [0, 2, 4]);
  assert.deepEqual(numbers(tensor.arange(3, 0, { step: -1, dtype: 'i32' })), [3, 2, 1]);
  assert.deepEqual(numbers(tensor.eye(2)), [1, 0, 0, 1]);
  assert.deepEqual(numbers(tensor.full([2], 7, { dtype: 'i32' })), [7, 7]);
  assert.deepEqual(numbers(tensor.ones([2], { dtype: 'bool' })), [1, 1]);
  assert.equal(await tensor.scalar(2.5).item(), 2.5);
  await assert.rejects(tensor([1, 2]).item(), /^Error: item: expected one element, the shape is \[2\]$/);
  assert.equal(String(tensor.zeros([2, 3]).requireGrad()), 'Tensor(f32[2,3], grad)');
});
