// Values at the ends of the number line, mixed dtypes, and integers: what the drawn recipes leave out, for machines of
// any kind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tensor, type Tensor } from '../../src/tensor/index.js';
import type { Machine } from './machines.js';

type Make = (values: number[]) => Tensor;
interface Special {
  readonly name: string;
  readonly body: (make: Make, dtype: 'f32' | 'f64') => Promise<void> | void;
  /** Needs f64, or more of NaN than WGSL promises. */
  readonly onlyCpu: boolean;
}
const specials: Special[] = [];

/** Registers a test for every machine. */
export const everywhere = (name: string, body: Special['body'], { onlyCpu = false } = {}): void =>
  void specials.push({ name, body, onlyCpu });

/** One test of each special on each machine. */
export function checkSpecials(machines: readonly Machine[], { cpu = true } = {}): void {
  for (const { name, body, onlyCpu } of specials) {
    if (onlyCpu && !cpu) continue;
    for (const { name: machine, backend, dtype } of machines) {
      test(`${name} (${machine})`, () => body(values => tensor(values, { dtype, backend }), dtype));
    }
  }
}

export const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const near = async (actual: Tensor, expected: number[], tolerance = 1e-6): Promise<void> => {
  const data = await numbers(actual);
  assert.equal(data.length, expected.length);
  data.forEach((x, i) =>
    assert.ok(
      Object.is(x, expected[i]) ||
        x === expected[i] ||
        Math.abs(x - expected[i]) <= tolerance * Math.max(1, Math.abs(expected[i])),
      `entry ${i}: ${x}, expected ${expected[i]}`,
    ),
  );
};

everywhere('functions saturate and do not overflow', async make => {
  const far = make([-200, -88, -30, 30, 200]);
  await near(far.sigmoid(), [0, Math.exp(-88), Math.exp(-30), 1, 1]);
  await near(far.tanh(), [-1, -1, -1, 1, 1]);
  await near(far.erf(), [-1, -1, -1, 1, 1]);
  await near(far.softplus(), [0, 0, Math.exp(-30), 30, 200]);
  await near(far.silu(), [0, 0, -30 * Math.exp(-30), 30, 200]);
  await near(far.gelu(), [0, 0, 0, 30, 200]);
  await near(far.geluTanh(), [0, 0, 0, 30, 200]);
  await near(make([-1000, 0]).exp(), [0, 1]);
  await near(make([0, 1]).log(), [-Infinity, 0]);
  await near(make([0, 4]).sqrt(), [0, 2]);
});

everywhere('functions of arguments near 0 keep their digits', async make => {
  const x = [1e-6, -3e-5, 2e-4, -1e-3, 0];
  const relative = async (actual: Tensor, f: (v: number) => number): Promise<void> => {
    (await numbers(actual)).forEach((y, i) =>
      assert.ok(Math.abs(y - f(Math.fround(x[i]))) <= 1e-6 * Math.abs(f(x[i])), `at ${x[i]}: ${y}`),
    );
  };
  await relative(make(x).tanh(), Math.tanh);
  await relative(make(x).sin(), Math.sin);
  await relative(make(x).erf(), v => (2 / Math.sqrt(Math.PI)) * (v - v ** 3 / 3));
  await relative(make(x).sigmoid().sub(0.5).add(0.5), v => 1 / (1 + Math.exp(-v)));
});

everywhere('gradients stay finite where functions saturate', async make => {
  for (const f of ['sigmoid', 'tanh', 'softplus', 'silu', 'gelu', 'geluTanh', 'erf'] as const) {
    const x = make([-150, -40, 0, 40, 150]).requireGrad();
    x[f]().sum().backward();
    assert.ok(
      (await numbers(x.grad as Tensor)).every(Number.isFinite),
      `${f}: ${(await numbers(x.grad as Tensor)).join(' ')}`,
    );
  }
});

everywhere('softmax of masked rows ignores -Infinity', async make => {
  const x = make([0, -Infinity, 0, 1e4, 1e4 - 1, -Infinity]).reshape([2, 3]);
  const e = 1 / (1 + Math.exp(-1));
  await near(x.softmax(), [0.5, 0, 0.5, e, 1 - e, 0]);
});

everywhere('NaN is not hidden', async make => {
  const x = make([NaN, 1]);
  assert.ok(Number.isNaN((await numbers(x.sum()))[0]), 'Number.isNaN((await numbers(x.sum()))[0])');
  assert.deepEqual((await numbers(x.add(1))).map(Number.isNaN), [true, false]);
  assert.deepEqual((await numbers(x.exp())).map(Number.isNaN), [true, false]);
});

// WGSL leaves comparisons of NaN to the device.
everywhere(
  'NaN is equal to nothing',
  async make => {
    const x = make([NaN, 1]);
    assert.deepEqual(await numbers(x.eq(x)), [0, 1]);
    assert.deepEqual(await numbers(x.ne(x)), [1, 0]);
    assert.deepEqual(await numbers(x.lt(2)), [0, 1]);
  },
  { onlyCpu: true },
);

everywhere(
  'argmax and topk take the first of equals, and distinct entries where only -Infinity is left',
  async make => {
    assert.deepEqual(await numbers(make([1, 3, 3, 2]).argmax(0)), [1]);
    assert.deepEqual(await numbers(make([3, 1, 1]).argmin(0)), [1]);
    const { values, indices } = make([1, -Infinity, -Infinity]).topk(3);
    assert.deepEqual(await numbers(indices), [0, 1, 2]);
    assert.deepEqual(await numbers(values), [1, -Infinity, -Infinity]);
    assert.deepEqual(await numbers(make([2, 5, 5, 1]).topk(3).indices), [1, 2, 0]);
  },
);

everywhere('ties share the gradient of max', async make => {
  const x = make([2, 5, 5]).requireGrad();
  x.max().backward();
  await near(x.grad as Tensor, [0, 0.5, 0.5]);
  const a = make([1, 2]).requireGrad();
  a.maximum(make([1, 1]))
    .sum()
    .backward();
  await near(a.grad as Tensor, [0.5, 1]);
});

everywhere('integers stay integers, fractions make floats', async make => {
  const x = make([1, -2, 3]).to('i32');
  const { backend } = x;
  assert.deepEqual(
    [x.add(1).dtype, x.mul(x).dtype, x.neg().dtype, x.abs().dtype, x.square().dtype, x.sum().dtype],
    Array(6).fill('i32'),
  );
  assert.deepEqual(
    [await numbers(x.mul(x)), await numbers(x.sum()), await numbers(x.max()), await numbers(x.square())],
    [[1, 4, 9], [2], [3], [1, 4, 9]],
  );
  assert.equal(x.add(0.5).dtype, 'f32');
  assert.deepEqual(await numbers(x.add(0.5)), [1.5, -1.5, 3.5]);
  assert.equal(x.div(2).dtype, 'f32');
  assert.deepEqual(await numbers(x.div(2)), [0.5, -1, 1.5]);
  const wide = tensor([2147483647, -2147483648], { dtype: 'i32', backend });
  assert.deepEqual(await numbers(wide.add(1)), [-2147483648, -2147483647]);
  assert.deepEqual(await numbers(wide.mul(3)), [2147483645, -2147483648]);
  const big = tensor([16777217, 16777217], { dtype: 'i32', backend });
  assert.deepEqual(await numbers(big.sum()), [33554434]);
  assert.deepEqual(await numbers(big.cumsum(0)), [16777217, 33554434]);
});

everywhere('bools count and mix with numbers', async (make, dtype) => {
  const b = make([1, 0, 2]).to('bool');
  assert.equal(b.sum().dtype, 'i32');
  assert.deepEqual(await numbers(b.sum()), [2]);
  assert.deepEqual(await numbers(b.mul(3)), [3, 0, 3]);
  assert.deepEqual(await numbers(b.mul(0.5)), [0.5, 0, 0.5]);
  assert.deepEqual(await numbers(b.to('i32')), [1, 0, 1]);
  assert.equal(b.where(0.5, 1).dtype, 'f32');
  assert.deepEqual(await numbers(b.where(b.to('i32'), 0.5)), [1, 0.5, 1]);
  assert.deepEqual(await numbers(b.where(b, 7)), [1, 7, 1]);
  assert.deepEqual(await numbers(b.eq(b.not())), [0, 0, 0]);
  assert.equal(b.mul(make([1, 2, 3])).dtype, dtype);
});

everywhere('floats become integers toward zero, saturating, NaN as 0', async make => {
  assert.deepEqual(
    await numbers(make([1.9, -1.9, 3e9, -3e9, NaN, Infinity]).to('i32')),
    [1, -1, 2147483647, -2147483648, 0, 2147483647],
  );
});

everywhere(
  'f32 and f64 meet in f64',
  async make => {
    const x = make([1, 2]);
    const wide = x.to('f64').requireGrad();
    const narrow = x.to('f32').detach().requireGrad();
    const y = wide.mul(narrow);
    assert.equal(y.dtype, 'f64');
    y.sum().backward();
    assert.equal(narrow.grad?.dtype, 'f32');
    assert.equal(wide.grad?.dtype, 'f64');
    assert.deepEqual(await numbers(narrow.grad as Tensor), [1, 2]);
  },
  { onlyCpu: true },
);

everywhere('comparisons and indices take no gradient', make => {
  const x = make([1, 2]).requireGrad();
  assert.equal(x.lt(1).needsGrad, false);
  assert.equal(x.argmax(0).needsGrad, false);
  assert.equal(x.to('i32').needsGrad, false);
  assert.throws(() => x.to('i32').requireGrad(), /^Error: requireGrad: a i32 tensor has no gradient$/);
  assert.throws(() => x.mul(2).requireGrad(), /^Error: requireGrad: only leaves can be marked/);
});
