// Gradients and second-order gradients of elementwise ops where they are not smooth or not ordinary: kinks, ties,
// bounds, zeros, infinities, NaN, and the far ends where a formula may overflow. The values are torch's, of its f64
// where f32 overflows on the way.

import assert from 'node:assert/strict';
import { gradientsOf, holdIntermediates } from '../../src/autograd/index.js';
import { tensor, type Tensor } from '../../src/tensor/index.js';
import { everywhere, numbers } from './specials.js';

const inf = Infinity;
type F = (x: Tensor) => Tensor;

/** The sums of f(x), of its gradient and so on, each by x: `orders` gradients. */
function derivatives(x: Tensor, f: F, orders: number): Tensor[] {
  x.requireGrad();
  return holdIntermediates(() => {
    const found: Tensor[] = [];
    let y = f(x);
    for (let n = 0; n < orders; n++) {
      // What is constant has no gradient.
      const g = y.needsGrad ? gradientsOf(y.sum(), [x], { createGraph: true })[0] : null;
      found.push((y = g ?? tensor.zeros(x.shape, { dtype: x.dtype, backend: x.backend })));
    }
    return found;
  });
}

async function expectDerivatives(
  what: string,
  x: Tensor,
  f: F,
  expected: readonly (readonly number[])[],
): Promise<void> {
  const found = derivatives(x, f, expected.length);
  const at = await numbers(x);
  for (const [n, wanted] of expected.entries()) {
    const got = await numbers(found[n]);
    wanted.forEach((want, i) => {
      const close = Object.is(got[i] + 0, want + 0) || Math.abs(got[i] - want) <= 2e-5 * Math.abs(want);
      assert.ok(close, `derivative ${n + 1} of ${what} at ${at[i]} is ${got[i]}, expected ${want}`);
    });
  }
}

everywhere('derivatives at kinks, bounds, zeros, infinities and NaN', async make => {
  const at = [NaN, inf, -inf, 0, -0, 1, -1, 3, -3];
  const table: Record<string, [F, ...number[][]]> = {
    relu: [x => x.relu(), [1, 1, 0, 0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    abs: [x => x.abs(), [0, 1, -1, 0, 0, 1, -1, 1, -1]],
    floor: [x => x.floor(), [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    'clamp(-1, 1)': [x => x.clamp(-1, 1), [0, 0, 0, 1, 1, 1, 1, 0, 0]],
    'clamp(2, 1)': [x => x.clamp(2, 1), [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    'clamp(NaN, 1)': [x => x.clamp(NaN, 1), [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    square: [x => x.square(), [NaN, inf, -inf, 0, 0, 2, -2, 6, -6], [2, 2, 2, 2, 2, 2, 2, 2, 2]],
    exp: [x => x.exp(), [NaN, inf, 0, 1, 1, Math.E, 1 / Math.E]],
    log: [x => x.log(), [NaN, 0, 0, inf, -inf, 1, -1], [NaN, 0, 0, -inf, -inf, -1, -1]],
    sqrt: [x => x.sqrt(), [NaN, 0, NaN, inf, -inf, 0.5, NaN], [NaN, 0, NaN, -inf, inf, -0.25, NaN]],
    rsqrt: [x => x.rsqrt(), [NaN, 0, NaN, -inf, inf, -0.5, NaN], [NaN, 0, NaN, inf, -inf, 0.75, NaN]],
    sin: [x => x.sin(), [NaN, NaN, NaN, 1, 1, Math.cos(1), Math.cos(1)]],
    tanh: [x => x.tanh(), [NaN, 0, 0, 1, 1], [NaN, 0, 0, 0, 0]],
    erf: [x => x.erf(), [NaN, 0, 0, 2 / Math.sqrt(Math.PI)]],
    sigmoid: [x => x.sigmoid(), [NaN, 0, 0, 0.25, 0.25], [NaN, 0, 0, 0, 0]],
    softplus: [x => x.softplus(), [NaN, 1, 0, 0.5, 0.5], [NaN, 0, 0, 0.25, 0.25]],
    'pow 0': [x => x.pow(0), [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    'pow 1': [x => x.pow(1), [1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    'pow 2': [x => x.pow(2), [NaN, inf, -inf, 0, 0, 2, -2, 6, -6], [2, 2, 2, 2, 2, 2, 2, 2, 2]],
    'pow 3': [x => x.pow(3), [NaN, inf, inf, 0, 0, 3, 3, 27, 27], [NaN, inf, -inf, 0, 0, 6, -6, 18, -18]],
    'pow -1': [
      x => x.pow(-1),
      [NaN, 0, 0, -inf, -inf, -1, -1, -1 / 9, -1 / 9],
      [NaN, 0, 0, inf, -inf, 2, -2, 2 / 27, -2 / 27],
    ],
    'pow -2': [
      x => x.pow(-2),
      [NaN, 0, 0, -inf, inf, -2, 2, -2 / 27, 2 / 27],
      [NaN, 0, 0, inf, inf, 6, 6, 6 / 81, 6 / 81],
    ],
    'pow 65': [x => x.pow(65), [NaN, inf, inf, 0, 0, 65, 65], [NaN, inf, -inf, 0, 0, 4160, -4160]],
    'pow 66': [x => x.pow(66), [NaN, inf, -inf, 0, 0, 66, -66], [NaN, inf, inf, 0, 0, 4290, 4290]],
    'pow -65': [x => x.pow(-65), [NaN, 0, 0, -inf, -inf, -65, -65], [NaN, 0, 0, inf, -inf, 4290, -4290]],
    'pow 0.5': [x => x.pow(0.5), [NaN, 0, NaN, inf], [NaN, 0, 0, -inf]],
    // torch has NaN at -Infinity, where it takes a root; C's pow has Infinity and 0.
    'pow 1.5': [x => x.pow(1.5), [NaN, inf, inf, 0, 0, 1.5, NaN], [NaN, 0, 0, inf, inf, 0.75, NaN]],
  };
  for (const [name, [f, ...expected]] of Object.entries(table)) await expectDerivatives(name, make(at), f, expected);
});

everywhere('powers near 0 and beyond 64 have their derivatives', async make => {
  await expectDerivatives('pow -1', make([1e-15, -1e-15]), x => x.pow(-1), [[-1e30, -1e30]]);
  await expectDerivatives('pow -3', make([1e-8, -1e-8]), x => x.pow(-3), [[-3e32, -3e32]]);
  await expectDerivatives('pow 70', make([-1.25, 1.25]), x => x.pow(70), [
    [-70 * 1.25 ** 69, 70 * 1.25 ** 69],
    [4830 * 1.25 ** 68, 4830 * 1.25 ** 68],
  ]);
  await expectDerivatives('pow -71', make([-0.75]), x => x.pow(-71), [[-71 * 0.75 ** -72]]);
});

everywhere('a tie shares the gradient of maximum and minimum, and a NaN takes it from nobody', async make => {
  const [a, b] = [
    [NaN, 1, NaN, inf, inf, -inf, 0, 2, 2],
    [1, NaN, NaN, inf, 1, -inf, -0, 2, 1],
  ];
  const expected = {
    maximum: [
      [1, 1, 1, 0.5, 1, 0.5, 0.5, 0.5, 1],
      [1, 1, 1, 0.5, 0, 0.5, 0.5, 0.5, 0],
    ],
    minimum: [
      [1, 1, 1, 0.5, 0, 0.5, 0.5, 0.5, 0],
      [1, 1, 1, 0.5, 1, 0.5, 0.5, 0.5, 1],
    ],
  };
  for (const name of ['maximum', 'minimum'] as const) {
    const inputs = [make(a).requireGrad(), make(b).requireGrad()];
    const gradients = gradientsOf(inputs[0][name](inputs[1]).sum(), inputs);
    assert.deepEqual(
      [await numbers(gradients[0] as Tensor), await numbers(gradients[1] as Tensor)],
      expected[name],
      name,
    );
  }
});

everywhere('what is cut off takes nothing of an infinite or undefined gradient', async make => {
  for (const f of [x => x.relu(), x => x.clamp(0, 5)] as F[]) {
    const x = make([-1, -1, 1]).requireGrad();
    const [g] = gradientsOf(f(x), [x], { gradient: make([inf, NaN, 2]) });
    assert.deepEqual(await numbers(g as Tensor), [0, 0, 2]);
  }
});

everywhere('derivatives of every order are finite over the whole range', async (make, dtype) => {
  const top = dtype === 'f64' ? 1023 : 127;
  const sizes = Array.from({ length: 2 * top }, (_, i) => 1.37 * 2 ** (0.5 * (i - top)));
  // Between them lie the places where exponentials overflow and vanish.
  const near = Array.from({ length: 400 }, (_, i) => 2 * i + 0.3);
  const at = [...sizes, ...near].flatMap(x => [x, -x]);
  const functions: Record<string, F> = {
    sigmoid: x => x.sigmoid(),
    softplus: x => x.softplus(),
    silu: x => x.silu(),
    gelu: x => x.gelu(),
    geluTanh: x => x.geluTanh(),
    tanh: x => x.tanh(),
    erf: x => x.erf(),
    relu: x => x.relu(),
    logSigmoid: x => x.neg().softplus().neg(),
    sin: x => x.sin(),
  };
  for (const [name, f] of Object.entries(functions)) {
    for (const [n, t] of derivatives(make(at), f, 3).entries()) {
      const wrong = (await numbers(t)).findIndex(v => !(Math.abs(v) < 4));
      assert.equal(wrong, -1, `derivative ${n + 1} of ${name} at ${at[wrong]} is not small`);
    }
  }
});

everywhere('the second derivative of sigmoid and silu is exact where exp(-x) overflows', async (make, dtype) => {
  const x = dtype === 'f64' ? -720 : -90;
  await expectDerivatives('sigmoid', make([-80]), v => v.sigmoid(), [
    [Math.exp(-80)],
    [Math.exp(-80)],
    [Math.exp(-80)],
  ]);
  const [first, second] = derivatives(make([x]), v => v.silu().mul(1e5), 2);
  const [p, q] = [
    [1, 1 + x],
    [2, 2 + x],
  ].map(([, factor]) => 1e5 * factor * Math.exp(x));
  for (const [t, want] of [
    [first, p],
    [second, q],
  ] as const) {
    const [got] = await numbers(t);
    // Subnormal on the way: a device may flush it.
    assert.ok(got === 0 || Math.abs(got - want) <= 1e-3 * Math.abs(want), `${got}, expected ${want}`);
  }
});

everywhere(
  'integers stay integers in relu, floor, clamp and whole powers, and what is no i32 makes floats',
  async make => {
    const { backend } = make([0]);
    const x = tensor([3, -2, 2147483647, -2147483648], { dtype: 'i32', backend });
    assert.deepEqual(
      [x.relu(), x.floor(), x.clamp(0, 5), x.pow(3)].map(t => t.dtype),
      Array(4).fill('i32'),
    );
    assert.deepEqual(await numbers(x.relu()), [3, 0, 2147483647, 0]);
    assert.deepEqual(await numbers(x.floor()), [3, -2, 2147483647, -2147483648]);
    assert.deepEqual(await numbers(x.clamp(-1, 5)), [3, -1, 5, -1]);
    assert.deepEqual(await numbers(x.clamp(5, -1)), [-1, -1, -1, -1]);
    assert.deepEqual(await numbers(x.pow(3)), [27, -8, 2147483647, 0]);
    assert.deepEqual(await numbers(x.pow(0)), [1, 1, 1, 1]);
    assert.deepEqual(await numbers(x.pow(-1)), [1 / 3, -0.5, 2 ** -31, -(2 ** -31)].map(Math.fround));
    assert.deepEqual(await numbers(x.neg()), [-3, 2, -2147483647, -2147483648]);
    assert.deepEqual(await numbers(x.abs()), [3, 2, 2147483647, -2147483648]);
    assert.deepEqual(await numbers(x.clamp(-0.5, 2.5)), [2.5, -0.5, 2.5, -0.5]);
    // 3e9 would wrap as an i32.
    assert.deepEqual(await numbers(x.lt(3e9)), [1, 1, 1, 1]);
    assert.deepEqual([x.add(3e9).dtype, (await numbers(x.add(3e9)))[0]], ['f32', 3e9]);
    assert.deepEqual(await numbers(x.lt(0).where(3e9, x)), [3, 3e9, 2147483648, 3e9].map(Math.fround));
    assert.deepEqual(await numbers(tensor([0, 1, -2], { dtype: 'i32', backend }).div(0)), [NaN, inf, -inf]);
  },
);

everywhere('bools: arithmetic of two gives a bool, sums of rows count', async make => {
  const [a, b] = [make([1, 1, 0, 0]).to('bool'), make([1, 0, 1, 0]).to('bool')];
  const two = [a.add(b), a.mul(b), a.maximum(b), a.minimum(b)];
  assert.deepEqual(
    two.map(t => t.dtype),
    Array(4).fill('bool'),
  );
  assert.deepEqual(await Promise.all(two.map(numbers)), [
    [1, 1, 1, 0],
    [1, 0, 0, 0],
    [1, 1, 1, 0],
    [1, 0, 0, 0],
  ]);
  assert.deepEqual(
    [a.add(1), a.sub(b), a.square(), a.neg()].map(t => t.dtype),
    Array(4).fill('i32'),
  );
  const rows = a.scatterAddRows([0, 0, 1, 1], 2);
  assert.deepEqual([rows.dtype, await numbers(rows)], ['i32', [2, 0]]);
});

everywhere('expand keeps a side of -1', async make => {
  const x = make([1, 2]).reshape([2, 1]);
  assert.deepEqual(x.expand([3, -1, 2]).shape, [3, 2, 2]);
  assert.deepEqual(await numbers(x.expand([-1, 2])), [1, 1, 2, 2]);
  assert.throws(() => x.expand([-1, 2, 1]), /^ShapeError: expand: \[2,1\] cannot become \[-1,2,1\]$/);
});

everywhere('a number meets a tensor in its precision', async make => {
  const x = make([0.1, 1 / 3]);
  assert.deepEqual(
    [await numbers(x.eq(0.1)), await numbers(x.ge(1 / 3)), await numbers(x.gt(1 / 3))],
    [
      [1, 0],
      [0, 1],
      [0, 0],
    ],
  );
});
