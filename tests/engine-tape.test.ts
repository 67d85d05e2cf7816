// The tape: what is recorded and what is not, what backward frees and refuses, gradients of any place, higher orders.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  backward,
  defineFused,
  enableGrad,
  expr,
  fusedOps,
  grad,
  gradcheck,
  gradientsOf,
  graphOf,
  holdIntermediates,
  mapInto,
  noGrad,
  scope,
  site,
  valueAndGrad,
  zeroGrad,
} from '../src/autograd/index.js';
import { createCpuBackend } from '../src/backends/index.js';
import { attention } from '../src/nn/attention.js';
import { crossEntropy } from '../src/nn/crossEntropy.js';
import { layerNorm } from '../src/nn/layerNorm.js';
import { rmsNorm } from '../src/nn/rmsNorm.js';
import { einsum, tensor, type Tensor } from '../src/tensor/index.js';

const oracle = createCpuBackend({ simd: false });
const at = (values: number[] | number[][], shape?: number[]): Tensor => {
  const t = tensor(values, { dtype: 'f64', backend: oracle });
  return shape ? t.reshape(shape) : t;
};
const leaf = (values: number[] | number[][]): Tensor => at(values).requireGrad();
const numbers = (t: Tensor | null | undefined): number[] => Array.from((t as Tensor).dataSync());
const near = (actual: Tensor | null | undefined, expected: number[], tolerance = 1e-12): void => {
  const data = numbers(actual);
  assert.equal(data.length, expected.length);
  data.forEach((x, i) =>
    assert.ok(
      Math.abs(x - expected[i]) <= tolerance * Math.max(1, Math.abs(expected[i])),
      `entry ${i}: ${x}, expected ${expected[i]}`,
    ),
  );
};

test('frozen inputs record nothing and save nothing', () => {
  const frozen = at([
    [1, 2],
    [3, 4],
  ]);
  const computed = frozen.matmul(frozen).gelu().softmax().sum();
  assert.equal(computed.node, null);
  assert.equal(computed.needsGrad, false);
  assert.equal(frozen.storage.saves, 0);
  const w = leaf([1, 2]);
  const mixed = frozen.exp().mul(w);
  assert.equal(mixed.node?.op, 'mul');
  assert.deepEqual(
    graphOf([mixed]).map(n => n.op),
    ['mul'],
    'exp of a frozen tensor is not on the tape',
  );
  assert.equal(w.storage.saves, 0, "w's values are in no wanted derivative");
  assert.throws(() => computed.backward(), /^Error: backward: this tensor depends on nothing that is trained$/);
});

test('noGrad records nothing, enableGrad inside it does, detach cuts', () => {
  const w = leaf([2]);
  noGrad(() => {
    assert.equal(w.mul(3).node, null);
    assert.notEqual(enableGrad(() => w.mul(3)).node, null);
    assert.equal(w.mul(3).node, null);
  });
  assert.throws(() =>
    noGrad(() => {
      throw new Error('x');
    }),
  );
  assert.notEqual(w.mul(3).node, null);
  w.mul(w.detach()).sum().backward();
  near(w.grad, [2]);
});

test('gradients accumulate over backward calls, and zeroGrad drops them', () => {
  const w = leaf([1, 2]);
  w.square().sum().backward();
  near(w.grad, [2, 4]);
  w.mul(3).sum().backward();
  near(w.grad, [5, 7]);
  zeroGrad([w]);
  assert.equal(w.grad, null);
  w.sum().backward();
  near(w.grad, [1, 1]);
});

test('a cotangent may be given, and must fit', () => {
  const w = leaf([1, 2, 3]);
  w.square().backward({ gradient: at([1, 0, -1]) });
  near(w.grad, [2, 0, -6]);
  assert.throws(
    () => w.square().backward(),
    /^Error: backward: a tensor of shape \[3\] needs a gradient; only one element has the default 1$/,
  );
  assert.throws(
    () => w.square().backward({ gradient: at([1, 2]) }),
    /^Error: backward: the gradient has shape \[2\], the tensor \[3\]$/,
  );
});

test('the given cotangent is not taken over', () => {
  const w = leaf([1, 2]);
  const gradient = at([5, 6]);
  w.backward({ gradient });
  w.backward({ gradient });
  near(w.grad, [10, 12]);
  near(gradient, [5, 6]);
});

test('one tensor used twice, shared gradients, diamonds', () => {
  const a = leaf([1, 2]);
  a.add(a).sum().backward();
  near(a.grad, [2, 2]);
  const [p, q] = [leaf([1, 2]), leaf([3, 4])];
  p.add(q).sum().backward();
  near(p.grad, [1, 1]);
  near(q.grad, [1, 1]);
  assert.notEqual(p.grad?.storage, q.grad?.storage, 'two leaves do not share one gradient');
  p.add(q).sum().backward();
  near(p.grad, [2, 2]);
  near(q.grad, [2, 2]);
  zeroGrad([p]);
  near(q.grad, [2, 2]);
  // y = x^2; z = y * exp(y) + y: dz/dx = 2x ((1 + y) exp(y) + 1).
  const x = leaf([0.7]);
  const y = x.square();
  y.mul(y.exp()).add(y).sum().backward();
  const v = 0.49;
  near(x.grad, [1.4 * ((1 + v) * Math.exp(v) + 1)]);
  // Two paths of different length that meet again.
  const s = leaf([0.3, -0.2]);
  const h = s.sin();
  h.mul(2).exp().add(h).mul(s).sum().backward();
  near(
    s.grad,
    [0.3, -0.2].map(
      t => Math.exp(2 * Math.sin(t)) + Math.sin(t) + t * (2 * Math.cos(t) * Math.exp(2 * Math.sin(t)) + Math.cos(t)),
    ),
  );
});

test('broadcast gradients sum over what was repeated', () => {
  const [row, column, scalar] = [leaf([1, 2, 3]), at([4, 5], [2, 1]).requireGrad(), at([2], []).requireGrad()];
  row.mul(column).mul(scalar).sum().backward();
  near(row.grad, [18, 18, 18]);
  near(column.grad, [12, 12]);
  near(scalar.grad, [54]);
  assert.deepEqual(
    [row.grad, column.grad, scalar.grad].map(g => g?.shape),
    [[3], [2, 1], []],
  );
});

test('backward frees what was saved as it goes; a second one is refused, retainGraph allows it', () => {
  const backend = createCpuBackend();
  scope(() => {
    const w = tensor.ones([1000], { backend }).requireGrad();
    const loss = scope(() => w.exp().mul(w).square().sum());
    const before = backend.stats().liveBytes;
    loss.backward();
    assert.ok(backend.stats().liveBytes < before, `${backend.stats().liveBytes} of ${before} bytes`);
    assert.throws(
      () => loss.backward(),
      /^Error: backward: the values saved by \w+ are gone; give retainGraph to go back twice$/,
    );
  });
  const w = leaf([3]);
  const loss = w.square().mul(w).sum();
  loss.backward({ retainGraph: true });
  loss.backward();
  near(w.grad, [54]);
  assert.throws(() => loss.backward(), /give retainGraph/);
});

test('a saved tensor changed in place is noticed', () => {
  const w = leaf([1, 2]);
  const loss = w.exp().mul(w).sum();
  mapInto('assign', [expr.mul(expr.arg(0), 2)], [w], [w]);
  assert.throws(
    () => loss.backward(),
    /^Error: backward: a tensor made by tensor and saved by (mul|exp) was changed in place since$/,
  );
  // What no VJP reads may change.
  const v = leaf([1, 2]);
  const sum = v.add(1).sum();
  mapInto('assign', [expr.mul(expr.arg(0), 2)], [v], [v]);
  sum.backward();
  near(v.grad, [1, 1]);
});

test('gradients of intermediates, and null where nothing leads', () => {
  const [x, unrelated] = [leaf([2, 3]), leaf([1])];
  const h = x.square();
  const loss = h.mul(at([5, 7])).sum();
  const [gh, gx, none, self] = gradientsOf(loss, [h, x, unrelated, loss]);
  near(gh, [5, 7]);
  near(gx, [20, 42]);
  assert.equal(none, null);
  near(self, [1]);
  assert.equal(x.grad, null, 'gradientsOf accumulates nothing');
});

test('an op is asked for no gradient that leads to nothing wanted', () => {
  const asked: boolean[][] = [];
  const spied = defineFused('askedForTest', {
    compose: ({ inputs: [a, b] }) => (a as Tensor).mul(b as Tensor),
    vjp({ inputs: [a, b], gradient, needs }) {
      asked.push([...needs]);
      return [needs[0] ? gradient.mul(b as Tensor) : null, needs[1] ? gradient.mul(a as Tensor) : null];
    },
  });
  oracle.fused.set('askedForTest', ({ inputs: [a, b], outputs: [y] }) => {
    if (!a || !b) return false;
    oracle.kernels.map({
      program: expr.program([expr.mul(expr.arg(0), expr.arg(1))], 2),
      shape: y.shape,
      inputs: [a, b],
      outputs: [y],
      uniforms: [],
    });
    return true;
  });
  try {
    const [v, w] = [3, 5].map(x => tensor([x], { backend: oracle }).requireGrad());
    const [a, b] = [v.mul(2), w.mul(2)];
    near(gradientsOf(spied([a, b]).sum(), [v])[0], [20]);
    near(gradientsOf(spied([a, b]).sum(), [b])[0], [6]);
    assert.deepEqual(asked, [
      [true, false],
      [false, true],
    ]);
  } finally {
    oracle.fused.delete('askedForTest');
    fusedOps.delete('askedForTest');
  }
});

test('valueAndGrad: any arrangement, zeros for what is not used, the caller stays out of it', () => {
  const params = { w: at([1, 2]), unused: at([3]), list: at([4, 5]) };
  const { value, gradients } = valueAndGrad((p: typeof params) => p.w.square().mul(p.list).sum())(params);
  near(value, [24]);
  near(gradients.w, [8, 20]);
  near(gradients.list, [1, 4]);
  near(gradients.unused, [0]);
  assert.equal(params.w.grad, null);
  assert.equal(params.w.requiresGrad, false);
  assert.equal(value.needsGrad, false);
  near(grad((x: Tensor) => x.exp().sum())(at([0, 1])), [1, Math.E]);
  const [a, b] = grad(([p, q]: readonly Tensor[]) => p.mul(q).sum())([at([2]), at([3])]);
  near(a, [3]);
  near(b, [2]);
});

test('gradients at named sites, also where only frozen tensors pass', () => {
  const frozen = at([
    [1, 2],
    [3, 4],
  ]);
  const model = (w: Tensor): Tensor => {
    const h = site('hidden', frozen.square());
    return site('out', site('hidden', h.mul(w))).sum();
  };
  const { gradients, sites } = valueAndGrad(model, { at: ['hidden', 'out'] })(at([10, 20]));
  near(gradients, [10, 20]);
  assert.deepEqual(Object.keys(sites).sort(), ['hidden', 'out']);
  assert.equal(sites.hidden.length, 2);
  near(sites.hidden[0], [10, 20, 10, 20]);
  near(sites.hidden[1], [1, 1, 1, 1]);
  near(sites.out[0], [1, 1, 1, 1]);
  assert.throws(
    () => valueAndGrad(model, { at: ['nowhere'] })(at([1, 1])),
    /^Error: valueAndGrad: nothing passed the site 'nowhere'$/,
  );
  assert.equal(site('hidden', frozen), frozen, 'outside it only passes on');
});

/** f, f', f'' and f''' at x by differentiating again and again. */
function orders(f: (x: Tensor) => Tensor, x: number, count: number): number[] {
  return holdIntermediates(() => {
    const leafX = leaf([x]);
    const results: number[] = [];
    let y = f(leafX).sum();
    for (let n = 0; n <= count; n++) {
      results.push(y.dataSync()[0]);
      // Null: the function before was constant.
      if (n < count) y = y.needsGrad ? (gradientsOf(y, [leafX], { createGraph: true })[0]?.sum() ?? at([0])) : at([0]);
    }
    return results;
  });
}

test('second and third derivatives equal closed forms', () => {
  const close = (actual: number[], expected: number[]): void =>
    actual.forEach((v, n) =>
      assert.ok(
        Math.abs(v - expected[n]) <= 1e-11 * Math.max(1, Math.abs(expected[n])),
        `order ${n}: ${v}, expected ${expected[n]}`,
      ),
    );
  const x = 0.6;
  close(
    orders(t => t.pow(4), x, 3),
    [x ** 4, 4 * x ** 3, 12 * x ** 2, 24 * x],
  );
  close(
    orders(t => t.mul(t).mul(t), x, 3),
    [x ** 3, 3 * x ** 2, 6 * x, 6],
  );
  close(
    orders(t => t.exp(), x, 3),
    Array(4).fill(Math.exp(x)) as number[],
  );
  close(
    orders(t => t.sin(), x, 3),
    [Math.sin(x), Math.cos(x), -Math.sin(x), -Math.cos(x)],
  );
  close(
    orders(t => t.log(), x, 3),
    [Math.log(x), 1 / x, -1 / x ** 2, 2 / x ** 3],
  );
  const t = Math.tanh(x);
  const d = 1 - t * t;
  close(
    orders(v => v.tanh(), x, 3),
    [t, d, -2 * t * d, -2 * d * d + 4 * t * t * d],
  );
  const s = 1 / (1 + Math.exp(-x));
  const ds = s * (1 - s);
  const d2 = ds * (1 - 2 * s);
  close(
    orders(v => v.sigmoid(), x, 3),
    [s, ds, d2, d2 * (1 - 2 * s) - 2 * ds * ds],
  );
  // Through products, sums and broadcasting: f = (sum x)^3 for one element.
  close(
    orders(v => v.sum().pow(3), x, 3),
    [x ** 3, 3 * x ** 2, 6 * x, 6],
  );
  close(
    orders(v => v.reshape([1, 1]).matmul(v.reshape([1, 1])), x, 3),
    [x * x, 2 * x, 2, 0],
  );
});

/** The gradient of <f(x), c> as a function that can itself be checked. */
const gradientFunction =
  (f: (...inputs: Tensor[]) => Tensor) =>
  (...inputs: Tensor[]): Tensor =>
    enableGrad(() => {
      const own = inputs.map(t => (t.needsGrad ? t : t.detach().requireGrad()));
      const y = f(...own);
      const weights = tensor.normal(y.shape, { seed: 5, dtype: 'f64', backend: y.backend });
      const [g] = gradientsOf(y.mul(weights).sum(), [own[0]], { createGraph: true });
      return g as Tensor;
    });

test('second derivatives of tensor functions pass gradcheck', async () => {
  const normal = (shape: number[], seed: number): Tensor =>
    tensor.normal(shape, { seed, dtype: 'f64', backend: oracle });
  const cases: Record<string, [(...inputs: Tensor[]) => Tensor, Tensor[]]> = {
    softmax: [x => x.softmax(-1), [normal([3, 4], 1)]],
    logSumExp: [x => x.logSumExp(0), [normal([3, 4], 2)]],
    matmul: [(x, w) => x.matmul(w).gelu(), [normal([3, 4], 3), normal([4, 2], 4)]],
    broadcast: [(x, w) => x.mul(w).sin(), [normal([3], 5), normal([4, 3], 6)]],
    slice: [x => x.slice(0, 1, 3).square().matmul(x.transpose()), [normal([4, 3], 7)]],
    rows: [x => x.takeRows([2, 0, 2, -1]).pow(3), [normal([3, 2], 8)]],
    norm: [x => x.div(x.norm()), [normal([5], 9)]],
    variance: [x => x.variance(-1).log(), [normal([2, 5], 10)]],
    einsum: [(x, y) => einsum('ij,kj->ik', x, y).silu(), [normal([2, 3], 11), normal([2, 3], 12)]],
    where: [x => x.lt(0).where(x.square(), x.mul(x).mul(x)), [normal([6], 13)]],
    cumsum: [x => x.cumsum(0).exp(), [normal([4], 14)]],
    'norm alone': [x => x.norm(), [normal([2, 3], 15)]],
    logSoftmax: [x => x.logSoftmax(0).square(), [normal([3, 2], 16)]],
    'topk and max': [
      x =>
        x
          .topk(2)
          .values.square()
          .add(x.max(-1, { keepDims: true }).pow(3)),
      [
        at([
          [1, 3, 2],
          [-1, -2, 0.5],
        ]),
      ],
    ],
    attention: [
      (q, k, v) => attention(q, k, v, { causal: true, window: 2 }),
      [17, 18, 19].map(seed => normal([1, 1, 3, 2], seed)),
    ],
    crossEntropy: [x => crossEntropy(x, Int32Array.of(1, -1, 0)), [normal([3, 4], 20)]],
    rmsNorm: [(x, w) => rmsNorm(x, w, 1e-3), [normal([2, 3], 21), normal([3], 22)]],
    layerNorm: [(x, w, b) => layerNorm(x, w, b, 1e-3), [normal([2, 3], 23), normal([3], 24), normal([3], 25)]],
  };
  for (const [name, [f, inputs]] of Object.entries(cases)) {
    await gradcheck(gradientFunction(f), inputs, { tolerance: 1e-6 }).catch((error: Error) =>
      assert.fail(`${name}: ${error.message}`),
    );
  }
});

test('second derivatives of ops that ran as kernels are those of their compositions', () => {
  const simd = createCpuBackend();
  const cases: Record<string, [(...inputs: Tensor[]) => Tensor, number[][]]> = {
    softmax: [x => x.softmax(-1), [[3, 4]]],
    rmsNorm: [(x, w) => rmsNorm(x, w, 1e-2), [[2, 4], [4]]],
    layerNorm: [(x, w, b) => layerNorm(x, w, b, 1e-2), [[2, 4], [4], [4]]],
    crossEntropy: [x => crossEntropy(x, Int32Array.of(2, 0, -1)), [[3, 4]]],
    attention: [
      (q, k, v) => attention(q, k, v, { causal: true }),
      [
        [1, 2, 7, 4],
        [1, 1, 7, 4],
        [1, 1, 7, 4],
      ],
    ],
  };
  for (const [name, [f, shapes]] of Object.entries(cases)) {
    const second = (backend: typeof simd, dtype: 'f32' | 'f64'): number[][] =>
      holdIntermediates(() => {
        const inputs = shapes.map((shape, i) => tensor.normal(shape, { seed: i + 1, dtype, backend }).requireGrad());
        const y = f(...inputs);
        const gradient = tensor.normal(y.shape, { seed: 9, dtype, backend });
        const first = gradientsOf(y, inputs, { gradient, createGraph: true }) as Tensor[];
        return gradientsOf(
          first.map(g => g.square().sum()).reduce((a, b) => a.add(b)),
          inputs,
        ).map(g => (g ? numbers(g) : []));
      });
    const expected = second(oracle, 'f64');
    second(simd, 'f32').forEach((g, i) => {
      assert.equal(g.length, expected[i].length, `${name}, input ${i}`);
      const scale = Math.max(...expected[i].map(Math.abs));
      g.forEach((x, k) =>
        assert.ok(
          Math.abs(x - expected[i][k]) <= 1e-4 * scale,
          `${name}, input ${i}, entry ${k}: ${x}, expected ${expected[i][k]}`,
        ),
      );
    });
  }
});

test('grad of grad through valueAndGrad', () => {
  const f = (x: Tensor): Tensor => x.pow(3).sum();
  const second = grad((x: Tensor) => grad(f, { createGraph: true })(x).sum());
  near(second(at([1, 2])), [6, 12]);
  const hessianVector = grad((x: Tensor) =>
    grad((v: Tensor) => v.square().sum().square(), { createGraph: true })(x)
      .mul(at([1, 0]))
      .sum(),
  );
  // H = 8 x x^T + 4 |x|^2 I.
  near(hessianVector(at([1, 2])), [8 + 20, 16]);
});

test('createGraph: gradients that can be differentiated again accumulate like others', () => {
  const w = leaf([2]);
  const y = w.pow(3).sum();
  backward(y, { createGraph: true });
  near(w.grad, [12]);
  const first = w.grad as Tensor;
  assert.equal(first.needsGrad, true);
  w.grad = null;
  first.square().sum().backward();
  // d/dw (3 w^2)^2 = 36 w^3.
  near(w.grad, [288]);
  near(first, [12]); // what a later walk had saved of it is not taken away with it
});

test('gradcheck names the wrong input, entry and path', async () => {
  const wrong = defineFused('wrongForTest', {
    compose: ({ inputs: [x, y] }) => (x as Tensor).mul((y as Tensor).detach()).add(y as Tensor),
  });
  fusedOps.delete('wrongForTest');
  const inputs = [
    at([1, 2]),
    at([
      [3, 4],
      [5, 6],
    ]),
  ];
  await assert.rejects(
    gradcheck((x, y) => wrong([x, y]).sin(), inputs),
    /^Error: gradcheck: input 1 \[2,2\] at \[0,0\]: analytic -?[\d.]+, numeric -?[\d.]+ \(mul -> add -> sin\)$/,
  );
  await gradcheck((x, y) => x.mul(y).sin(), inputs);
  await assert.rejects(
    gradcheck(x => x, [tensor([1])]),
    /^Error: gradcheck: input 0 is f32, expected f64$/,
  );
});

test('a VJP that returns the wrong shape is named', () => {
  const backend = createCpuBackend({ simd: false });
  backend.fused.set('badShapeForTest', ({ outputs: [y] }) => {
    const out = backend.hostView?.(y.allocation, y.dtype, 0, 2);
    out?.fill(1);
    return true;
  });
  const bad = defineFused('badShapeForTest', {
    compose: ({ inputs: [x] }) => x as Tensor,
    vjp: ({ gradient }) => [gradient.sum()],
  });
  fusedOps.delete('badShapeForTest');
  const x = tensor([1, 2], { backend }).requireGrad();
  assert.throws(
    () => bad([x]).sum().backward(),
    /^Error: backward of badShapeForTest: the gradient of input 0 has shape \[\], expected \[2\]$/,
  );
});

test('tensors of two backends do not meet', () => {
  const [a, b] = [createCpuBackend(), createCpuBackend()];
  assert.throws(
    () => tensor([1], { backend: a }).add(tensor([1], { backend: b })),
    /^Error: add: inputs live on different backends \(cpu, cpu\)$/,
  );
  assert.throws(
    () => tensor([[1]], { backend: a }).matmul(tensor([[1]], { backend: b })),
    /^Error: matmul: inputs live on different backends/,
  );
});
