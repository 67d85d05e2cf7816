// Reductions, products and what goes row by row at the ends of the number line: NaN, infinities, signed zeros, nothing
// to reduce, the smallest i32. The values are torch's, but where padding that is NaN has no gradient.

import assert from 'node:assert/strict';
import { crossEntropy } from '../../src/nn/crossEntropy.js';
import { layerNorm } from '../../src/nn/layerNorm.js';
import { rmsNorm } from '../../src/nn/rmsNorm.js';
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
    for (const name of ['argmax', 'argmin'] as const)
      assert.deepEqual(await numbers(make(values)[name](0)), [first], `${name} of ${values.join()}`);
  }
  // Rows do not hear of each other, and long ones, of which several make parts, end in a NaN too.
  const long = Array.from({ length: 3000 }, (_, i) => (i === 1777 ? NaN : i % 97));
  assert.deepEqual(
    await numbers(
      make([...long, ...long.map(v => (Number.isNaN(v) ? -1 : v))])
        .reshape([2, 3000])
        .max(1),
    ),
    [NaN, 96],
  );
  assert.deepEqual(await numbers(make(long).reshape([3000, 1]).min(0)), [NaN]);
  assert.deepEqual(await numbers(make([1, NaN, 2, 3]).reshape([2, 2]).max(0)), [2, NaN]);
  assert.deepEqual(await numbers(make([1, NaN, 2, 3]).reshape([2, 2]).argmax(1)), [1, 1]);
});

everywhere('topk orders NaN before infinity, and gives values and places of the input', async make => {
  const { values, indices } = make([1, NaN, -inf, NaN, inf]).topk(5);
  assert.deepEqual(
    [await numbers(values), await numbers(indices)],
    [
      [NaN, NaN, inf, 1, -inf],
      [1, 3, 4, 0, 2],
    ],
  );
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
  assert.deepEqual(
    [await numbers(wide.softmax(0)), await numbers(wide.logSoftmax(0))],
    [
      [0.5, 0.5, 0],
      [0, 0, -4294967296],
    ],
  );
  assert.deepEqual(await numbers(tensor([65536, 0], { dtype: 'i32', backend }).norm()), [65536]);
  const flags = tensor([1, 0], { dtype: 'bool', backend });
  assert.deepEqual([flags.min().dtype, flags.max().dtype, flags.topk(2).values.dtype], ['bool', 'bool', 'bool']);
  assert.deepEqual(
    [await numbers(flags.min()), await numbers(flags.max()), await numbers(flags.argmin(0))],
    [[0], [1], [1]],
  );
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
  assert.deepEqual(
    await numbers(make([1, -inf, -inf, -inf]).reshape([2, 2]).logSumExp(1)),
    [1, -inf],
    'rows by themselves',
  );
});

everywhere('softmax and logSoftmax of infinities and NaN', async make => {
  for (const name of ['softmax', 'logSoftmax'] as const) {
    for (const values of [
      [-inf, -inf],
      [NaN, 0],
      [0, NaN],
      [inf, inf],
    ]) {
      assert.deepEqual(
        await valueAndGradient(make(values), x => x[name](0)),
        [
          [NaN, NaN],
          [NaN, NaN],
        ],
        `${name} of ${values.join()}`,
      );
    }
    const rows = make([NaN, 0, 3, 3]).reshape([2, 2])[name](1);
    const half = name === 'softmax' ? 0.5 : -Math.log(2);
    assert.ok(
      (await numbers(rows)).slice(2).every(x => Math.abs(x - half) < 1e-6),
      `${name}: a NaN in another row`,
    );
  }
  assert.ok((await numbers(make([inf, 0]).softmax(0))).every(Number.isNaN), 'softmax of (inf, 0)');
  assert.deepEqual(await numbers(make([-inf, 0]).logSoftmax(0)), [-inf, 0]);
});

everywhere('reductions of nothing', async make => {
  const none = (): Tensor => make([]).reshape([2, 0]);
  assert.deepEqual(
    [await numbers(none().sum(1)), await numbers(none().mean(1))],
    [
      [0, 0],
      [NaN, NaN],
    ],
  );
  for (const correction of [0, 1])
    assert.deepEqual(
      await numbers(none().variance(1, { correction })),
      [NaN, NaN],
      `variance, correction ${correction}`,
    );
  assert.deepEqual(await valueAndGradient(none(), x => x.logSumExp(1)), [[-inf, -inf], []]);
  assert.deepEqual(await valueAndGradient(none(), x => x.norm()), [[0], []]);
  for (const name of ['softmax', 'logSoftmax', 'cumsum'] as const) {
    for (const axis of [0, 1]) {
      const y = none()[name](axis);
      assert.deepEqual([y.shape, await numbers(y)], [[2, 0], []], `${name} along axis ${axis}`);
    }
  }
  const columns = make([]).reshape([0, 2]);
  assert.deepEqual(
    [columns.max(1).shape, columns.argmax(1).shape, columns.min(-1).shape],
    [[0], [0], [0]],
    'no rows have no maxima',
  );
  for (const name of ['max', 'min', 'argmax', 'argmin'] as const) {
    assert.throws(() => columns[name](0), {
      name: 'ShapeError',
      message: `${name}: no elements along axes [0] of [0,2]`,
    });
  }
});

everywhere('variance with no degrees of freedom left', async make => {
  assert.deepEqual(await valueAndGradient(make([3]), x => x.variance(0, { correction: 1 })), [[NaN], [NaN]]);
  for (const correction of [2, 3])
    assert.deepEqual(await numbers(make([0, 1]).variance(0, { correction })), [inf], `correction ${correction}`);
  assert.deepEqual(await valueAndGradient(make([3]), x => x.variance(0)), [[0], [0]]);
  assert.deepEqual(await numbers(make([1, inf]).variance()), [NaN]);
});

everywhere('norms where squares overflow, underflow or are 0', async (make, dtype) => {
  const relative = async (values: number[], y: number, g: number[]): Promise<void> => {
    const [value, gradient] = await valueAndGradient(make(values), x => x.norm());
    const off = [Math.abs(value[0] - y) / y, ...gradient.map((x, i) => Math.abs(x - g[i]))];
    assert.ok(
      off.every(e => e <= 1e-6),
      `norm of ${values.join()}: ${value.join()}, gradient ${gradient.join()}`,
    );
  };
  const large = dtype === 'f64' ? 1e200 : 1e30;
  await relative([3 * large, -4 * large], 5 * large, [0.6, -0.8]);
  await relative([3 / large, 4 / large], 5 / large, [0.6, 0.8]);
  for (const zeros of [[0, 0], [0], [0, 0, 0, 0, 0]])
    assert.deepEqual(await valueAndGradient(make(zeros), x => x.norm()), [[0], zeros]);
  assert.deepEqual(await valueAndGradient(make([-inf, 1]), x => x.norm()), [[inf], [NaN, 0]]);
  assert.deepEqual(await valueAndGradient(make([NaN, 1]), x => x.norm()), [[NaN], [NaN, NaN]]);
});

everywhere('a running sum does not look ahead', async make => {
  assert.deepEqual(await valueAndGradient(make([1, 2, inf, 3, -inf, 4]), x => x.cumsum(0)), [
    [1, 3, inf, inf, NaN, NaN],
    [6, 5, 4, 3, 2, 1],
  ]);
  assert.deepEqual(await numbers(make([1, NaN, 2]).cumsum(0)), [1, NaN, NaN]);
});

const near = (actual: number[], expected: number[], what: string): void => {
  assert.equal(actual.length, expected.length, what);
  const close = (x: number, y: number): boolean =>
    Object.is(x, y) || x === y || Math.abs(x - y) <= 1e-5 * Math.max(1, Math.abs(y));
  actual.forEach((x, i) => {
    assert.ok(close(x, expected[i]), `${what}: entry ${i} is ${x}, expected ${expected[i]}`);
  });
};

everywhere('cross-entropy: rows without a label take no part whatever they hold, label 0 does', async make => {
  const logits = [NaN, NaN, NaN, 1, 2, 3, inf, -inf, NaN, 0, 0, 0];
  const [losses, g] = await valueAndGradient(make(logits).reshape([4, 3]), x =>
    crossEntropy(x, Int32Array.of(-100, 0, -1, 2)),
  );
  const p = [1, 2, 3].map(x => Math.exp(x) / (Math.exp(1) + Math.exp(2) + Math.exp(3)));
  near(losses, [0, -Math.log(p[0]), 0, Math.log(3)], 'losses');
  near(g, [0, 0, 0, p[0] - 1, p[1], p[2], 0, 0, 0, 1 / 3, 1 / 3, -2 / 3], 'gradients');
  const [none] = await valueAndGradient(make([]).reshape([2, 0]), x => crossEntropy(x, Int32Array.of(-1, -1)));
  assert.deepEqual(none, [0, 0], 'no classes, no labels');
  assert.throws(() => crossEntropy(make([1]).to('i32').reshape([1, 1]), Int32Array.of(0)), {
    name: 'ShapeError',
    message: 'crossEntropy: expected f32 or f64 logits, got i32',
  });
});

everywhere('cross-entropy of infinite logits, and a NaN in one row', async make => {
  const logits = [-inf, 0, -inf, -inf, inf, 0, NaN, 0, 0, -inf];
  const [losses, g] = await valueAndGradient(make(logits).reshape([5, 2]), x => crossEntropy(x, new Int32Array(5)));
  near(losses, [inf, NaN, NaN, NaN, 0], 'losses');
  near([...g.slice(0, 2), ...g.slice(8)], [-1, 1, 0, 0], 'gradients');
  assert.ok(g.slice(2, 8).every(Number.isNaN), `gradients of rows without a loss: ${g.join()}`);
});

everywhere('norms of rows: a NaN or an infinity stays in its row, zeros have a gradient', async make => {
  const rows = [NaN, 1, 2, 3, inf, 1, 2, 3, 0, 0, 0, 0, 1, -1, 1, -1];
  for (const [name, f] of [
    ['rmsNorm', (x: Tensor): Tensor => rmsNorm(x, make([1, 1, 1, 1]), 1e-6)],
    ['layerNorm', (x: Tensor): Tensor => layerNorm(x, make([1, 1, 1, 1]), make([0, 0, 0, 0]), 1e-6)],
  ] as const) {
    const [y, g] = await valueAndGradient(make(rows).reshape([4, 4]), f);
    near(y.slice(8), [0, 0, 0, 0, 1, -1, 1, -1], name);
    assert.ok(y.slice(0, 5).every(Number.isNaN), `${name}: ${y.join()}`);
    assert.ok(g.slice(0, 8).every(Number.isNaN) && g.slice(8).every(Number.isFinite), `${name}, gradient: ${g.join()}`);
  }
});

everywhere('products keep NaN and infinities in their rows and columns', async make => {
  for (const [m, k, n] of [
    [1, 5, 3],
    [7, 9, 6],
    [20, 33, 17],
    [1, 64, 40],
    [65, 8, 1],
  ]) {
    const ones = (rows: number, columns: number, at: number, value: number): Tensor =>
      make(Array.from({ length: rows * columns }, (_, i) => (i === at * columns ? value : 1))).reshape([rows, columns]);
    const [row, column] = [m - 1, n - 1];
    for (const value of [NaN, inf]) {
      const left = await numbers(ones(m, k, row, value).matmul(ones(k, n, 0, 1)));
      left.forEach((x, i) => {
        assert.equal(x, Math.floor(i / n) === row ? value : k, `${m} ${k} ${n}, left, ${value}, entry ${i}`);
      });
      const right = await numbers(ones(m, k, 0, 1).matmulT(ones(n, k, column, value)));
      right.forEach((x, i) => {
        assert.equal(x, i % n === column ? value : k, `${m} ${k} ${n}, right, ${value}, entry ${i}`);
      });
    }
    // 0 times what is not finite is NaN, not nothing.
    const zeros = make(new Array<number>(m * k).fill(0)).reshape([m, k]);
    assert.ok(
      (await numbers(zeros.matmul(ones(k, n, 0, inf)))).filter((_, i) => i % n === 0).every(Number.isNaN),
      `${m} ${k} ${n}: zeros`,
    );
  }
});
