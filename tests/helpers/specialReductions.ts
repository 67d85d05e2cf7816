// Reductions at the ends of the number line: NaN, infinities, signed zeros, nothing to reduce, the smallest i32. The values are torch's.

import assert from 'node:assert/strict';
import { tensor, type Tensor } from '../../src/tensor/index.js';
import { everywhere, numbers } from './specials.js';

/** Value and gradient of the sum of f(x). */
async function valueAndGradient(x: Tensor, f: (x: Tensor) => Tensor): Promise<[number[], number[]]> {
  x.requireGrad();
  const y = f(x);
  y.sum().backward();
  return [await numbers(y), await numbers(x.grad as Tensor)];
}

const inf = Infinity;

everywhere('max, min, argmax and argmin take a NaN, the first one, and its gradient goes to the NaNs', async make => {
  for (const values of [[1, NaN, 3], [NaN, 1], [1, NaN], [-inf, NaN, inf, NaN], [NaN]]) {
    const first = values.findIndex(Number.isNaN);
    const share = 1 / values.filter(Number.isNaN).length;
    for (const name of ['max', 'min'] as const) {
      const [y, g] = await valueAndGradient(make(values), x => x[name]());
      assert.deepEqual([y, g], [[NaN], values.map(v => (Number.isNaN(v) ? share : 0))], `${name} of ${values.join()}`);
    }
    for (const name of ['argmax', 'argmin'] as const) assert.deepEqual(await numbers(make(values)[name](0)), [first], `${name} of ${values.join()}`);
  }
  // Rows do not hear of each other, and long ones, of which several make parts, end in a NaN too.
  const long = Array.from({ length: 3000 }, (_, i) => (i === 1777 ? NaN : i % 97));
  assert.deepEqual(await numbers(make([...long, ...long.map(v => (Number.isNaN(v) ? -1 : v))]).reshape([2, 3000]).max(1)), [NaN, 96]);
  assert.deepEqual(await numbers(make(long).reshape([3000, 1]).min(0)), [NaN]);
  assert.deepEqual(await numbers(make([1, NaN, 2, 3]).reshape([2, 2]).max(0)), [2, NaN]);
  assert.deepEqual(await numbers(make([1, NaN, 2, 3]).reshape([2, 2]).argmax(1)), [1, 1]);
});

everywhere('topk orders NaN before infinity, and gives values and places of the input', async make => {
  const { values, indices } = make([1, NaN, -inf, NaN, inf]).topk(5);
  assert.deepEqual([await numbers(values), await numbers(indices)], [[NaN, NaN, inf, 1, -inf], [1, 3, 4, 0, 2]]);
  const [, g] = await valueAndGradient(make([NaN, 1, 2]), x => x.topk(2).values);
  assert.deepEqual(g, [1, 0, 1]);
});

everywhere('infinities and signed zeros among extremes', async make => {
  assert.deepEqual([await numbers(make([-inf, -inf]).max()), await numbers(make([inf, 1]).min())], [[-inf], [1]]);
  assert.deepEqual(await numbers(make([-inf, -inf]).argmax(0)), [0]);
  assert.deepEqual(await numbers(make([-inf, inf]).argmin(0)), [0]);
  for (const name of ['max', 'min'] as const) assert.deepEqual(await numbers(make([-0, -0])[name]().add(1)), [1], name);
  assert.deepEqual(await numbers(make([0, -0]).argmax(0)), [0], 'zeros are equal');
});

everywhere('integers at the ends of i32 keep their order', async make => {
  const { backend } = make([0]);
  const x = tensor([5, -2147483648, 2147483647, -2147483648, 16777216, 16777217], { dtype: 'i32', backend });
  assert.deepEqual([await numbers(x.min()), await numbers(x.max())], [[-2147483648], [2147483647]]);
  assert.deepEqual([await numbers(x.argmin(0)), await numbers(x.argmax(0))], [[1], [2]]);
  const { values, indices } = x.topk(6);
  assert.equal(values.dtype, 'i32');
  assert.deepEqual(await numbers(values), [2147483647, 16777217, 16777216, 5, -2147483648, -2147483648]);
  assert.deepEqual(await numbers(indices), [2, 5, 4, 0, 1, 3]);
  // Their means, norms and exponentials do not overflow.
  const wide = tensor([2147483647, 2147483647, -2147483648], { dtype: 'i32', backend });
  assert.deepEqual(await numbers(wide.slice(0, 0, 2).mean()), [2147483648]);
  assert.deepEqual([await numbers(wide.softmax(0)), await numbers(wide.logSoftmax(0))], [[0.5, 0.5, 0], [0, 0, -4294967296]]);
  assert.deepEqual(await numbers(tensor([65536, 0], { dtype: 'i32', backend }).norm()), [65536]);
  const flags = tensor([1, 0], { dtype: 'bool', backend });
  assert.deepEqual([flags.min().dtype, flags.max().dtype, flags.topk(2).values.dtype], ['bool', 'bool', 'bool']);
  assert.deepEqual([await numbers(flags.min()), await numbers(flags.max()), await numbers(flags.argmin(0))], [[0], [1], [1]]);
  assert.deepEqual(await numbers(flags.topk(2).indices), [0, 1]);
});

everywhere('logSumExp of infinities, with its gradients', async make => {
  for (const [values, y, g] of [
    [[-inf, -inf], -inf, [NaN, NaN]],
    [[inf, 0], inf, [NaN, 0]],
    [[inf, -inf], inf, [NaN, 0]],
    [[-inf, 0], 0, [0, 1]],
    [[NaN, 0], NaN, [NaN, NaN]],
  ] as const) {
    assert.deepEqual(await valueAndGradient(make([...values]), x => x.logSumExp(0)), [[y], g], values.join());
  }
  assert.deepEqual(await numbers(make([1, -inf, -inf, -inf]).reshape([2, 2]).logSumExp(1)), [1, -inf], 'rows by themselves');
});

everywhere('softmax and logSoftmax of infinities and NaN', async make => {
  for (const name of ['softmax', 'logSoftmax'] as const) {
    for (const values of [[-inf, -inf], [NaN, 0], [0, NaN], [inf, inf]]) {
      assert.deepEqual(await valueAndGradient(make(values), x => x[name](0)), [[NaN, NaN], [NaN, NaN]], `${name} of ${values.join()}`);
    }
    const rows = make([NaN, 0, 3, 3]).reshape([2, 2])[name](1);
    const half = name === 'softmax' ? 0.5 : -Math.log(2);
    assert.ok((await numbers(rows)).slice(2).every(x => Math.abs(x - half) < 1e-6), `${name}: a NaN in another row`);
  }
  assert.ok((await numbers(make([inf, 0]).softmax(0))).every(Number.isNaN), 'softmax of (inf, 0)');
  assert.deepEqual(await numbers(make([-inf, 0]).logSoftmax(0)), [-inf, 0]);
});

everywhere('reductions of nothing', async make => {
  const none = (): Tensor => make([]).reshape([2, 0]);
  assert.deepEqual([await numbers(none().sum(1)), await numbers(none().mean(1))], [[0, 0], [NaN, NaN]]);
  for (const correction of [0, 1]) assert.deepEqual(await numbers(none().variance(1, { correction })), [NaN, NaN], `variance, correction ${correction}`);
  assert.deepEqual(await valueAndGradient(none(), x => x.logSumExp(1)), [[-inf, -inf], []]);
  assert.deepEqual(await valueAndGradient(none(), x => x.norm()), [[0], []]);
  for (const name of ['softmax', 'logSoftmax', 'cumsum'] as const) {
    for (const axis of [0, 1]) {
      const y = none()[name](axis);
      assert.deepEqual([y.shape, await numbers(y)], [[2, 0], []], `${name} along axis ${axis}`);
    }
  }
  const columns = make([]).reshape([0, 2]);
  assert.deepEqual([columns.max(1).shape, columns.argmax(1).shape, columns.min(-1).shape], [[0], [0], [0]], 'no rows have no maxima');
  for (const name of ['max', 'min', 'argmax', 'argmin'] as const) {
    assert.throws(() => columns[name](0), { name: 'ShapeError', message: `${name}: no elements along axes [0] of [0,2]` });
  }
});

everywhere('variance with no degrees of freedom left', async make => {
  assert.deepEqual(await valueAndGradient(make([3]), x => x.variance(0, { correction: 1 })), [[NaN], [NaN]]);
  for (const correction of [2, 3]) assert.deepEqual(await numbers(make([0, 1]).variance(0, { correction })), [inf], `correction ${correction}`);
  assert.deepEqual(await valueAndGradient(make([3]), x => x.variance(0)), [[0], [0]]);
  assert.deepEqual(await numbers(make([1, inf]).variance()), [NaN]);
});

everywhere('norms where squares overflow, underflow or are 0', async (make, dtype) => {
  const relative = async (values: number[], y: number, g: number[]): Promise<void> => {
    const [value, gradient] = await valueAndGradient(make(values), x => x.norm());
    const off = [Math.abs(value[0] - y) / y, ...gradient.map((x, i) => Math.abs(x - g[i]))];
    assert.ok(off.every(e => e <= 1e-6), `norm of ${values.join()}: ${value.join()}, gradient ${gradient.join()}`);
  };
  const large = dtype === 'f64' ? 1e200 : 1e30;
  await relative([3 * large, -4 * large], 5 * large, [0.6, -0.8]);
  await relative([3 / large, 4 / large], 5 / large, [0.6, 0.8]);
  for (const zeros of [[0, 0], [0], [0, 0, 0, 0, 0]]) assert.deepEqual(await valueAndGradient(make(zeros), x => x.norm()), [[0], zeros]);
  assert.deepEqual(await valueAndGradient(make([-inf, 1]), x => x.norm()), [[inf], [NaN, 0]]);
  assert.deepEqual(await valueAndGradient(make([NaN, 1]), x => x.norm()), [[NaN], [NaN, NaN]]);
});

everywhere('a running sum does not look ahead', async make => {
  assert.deepEqual(await valueAndGradient(make([1, 2, inf, 3, -inf, 4]), x => x.cumsum(0)), [[1, 3, inf, inf, NaN, NaN], [6, 5, 4, 3, 2, 1]]);
  assert.deepEqual(await numbers(make([1, NaN, 2]).cumsum(0)), [1, NaN, NaN]);
});
