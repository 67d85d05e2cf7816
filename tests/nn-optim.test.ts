// Optimizers against loops over plain numbers written from torch.optim's documentation; state, resuming, clipping,
// memory, messages.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { scope } from '../src/autograd/index.js';
import { createCpuBackend } from '../src/backends/index.js';
import { AdamW, clipGradNorm, SGD, type OptimizerState } from '../src/nn/index.js';
import { Random, tensor, type Tensor } from '../src/tensor/index.js';
import { runs } from './helpers/draw.js';
import { machines, oracle, type Machine } from './helpers/machines.js';

/** torch.optim.AdamW on one number. */
function adamwLoop(
  x: number,
  gradients: number[],
  o: { lr: number[]; betas: [number, number]; eps: number; decay: number },
): number {
  let [m, v] = [0, 0];
  gradients.forEach((g, i) => {
    const t = i + 1;
    x -= o.lr[i] * o.decay * x;
    m = o.betas[0] * m + (1 - o.betas[0]) * g;
    v = o.betas[1] * v + (1 - o.betas[1]) * g * g;
    const mHat = m / (1 - o.betas[0] ** t);
    const vHat = v / (1 - o.betas[1] ** t);
    x -= (o.lr[i] * mHat) / (Math.sqrt(vHat) + o.eps);
  });
  return x;
}

/** torch.optim.SGD on one number. */
function sgdLoop(
  x: number,
  gradients: number[],
  o: { lr: number[]; momentum: number; nesterov: boolean; decay: number },
): number {
  let buffer: number | undefined;
  gradients.forEach((raw, i) => {
    let g = raw + o.decay * x;
    if (o.momentum !== 0) {
      buffer = buffer === undefined ? g : o.momentum * buffer + g;
      g = o.nesterov ? g + o.momentum * buffer : buffer;
    }
    x -= o.lr[i] * g;
  });
  return x;
}

const leaf = (data: number[], shape: number[], { dtype, backend }: Machine = oracle): Tensor =>
  tensor(Float64Array.from(data), shape, { dtype, backend }).requireGrad();
const setGrad = (t: Tensor, g: ArrayLike<number>): void => {
  t.grad = tensor(Float64Array.from(g), [...t.shape], { dtype: t.dtype, backend: t.backend });
};
const normals = (n: number, random: Random, scale = 1): number[] =>
  Array.from({ length: n }, () => scale * random.normal());

const close = (actual: ArrayLike<number>, expected: readonly number[], tolerance: number): void => {
  assert.equal(actual.length, expected.length);
  expected.forEach((x, i) =>
    assert.ok(
      Math.abs(actual[i] - x) <= tolerance * Math.max(1, Math.abs(x)),
      `entry ${i}: ${actual[i]}, expected ${x}`,
    ),
  );
};

const rates = fc.array(fc.double({ min: 1e-4, max: 0.3, noNaN: true }), { minLength: 1, maxLength: 12 });
const common = {
  lr: rates,
  seed: fc.nat(10_000),
  decay: fc.constantFrom(0, 0.01, 0.5),
  scale: fc.constantFrom(0.5, 1, 2),
  machine: fc.constantFrom(...machines),
};

test('AdamW: several steps equal the loop', () =>
  fc.assert(
    fc.property(
      fc.record({
        ...common,
        betas: fc.constantFrom<[number, number]>([0.9, 0.999], [0, 0.5], [0.8, 0]),
        eps: fc.constantFrom(1e-8, 1e-3),
      }),
      ({ lr, seed, decay, scale, machine, betas, eps }) =>
        scope(() => {
          const random = new Random(seed);
          const n = 5;
          const start = normals(n, random).map(Math.fround);
          const gradients = lr.map(() => normals(n, random, 3).map(Math.fround));
          const p = leaf(start, [n], machine);
          const optimizer = new AdamW([{ parameters: [p], learningRateScale: scale, weightDecay: decay }], {
            betas,
            eps,
          });
          lr.forEach((rate, i) => {
            setGrad(p, gradients[i]);
            optimizer.step(rate);
          });
          close(
            p.dataSync(),
            start.map((x, k) =>
              adamwLoop(
                x,
                gradients.map(g => g[k]),
                { lr: lr.map(r => r * scale), betas, eps, decay },
              ),
            ),
            machine.dtype === 'f64' ? 1e-12 : 1e-5,
          );
          optimizer.dispose();
        }),
    ),
    runs(60),
  ));

test('SGD: several steps equal the loop', () =>
  fc.assert(
    fc.property(
      fc.record({
        ...common,
        way: fc.constantFrom(
          { momentum: 0, nesterov: false },
          { momentum: 0.9, nesterov: false },
          { momentum: 0.7, nesterov: true },
        ),
      }),
      ({ lr, seed, decay, scale, machine, way }) =>
        scope(() => {
          const random = new Random(seed);
          const n = 5;
          const start = normals(n, random).map(Math.fround);
          const gradients = lr.map(() => normals(n, random).map(Math.fround));
          const p = leaf(start, [n], machine);
          const optimizer = new SGD([{ parameters: [p], learningRateScale: scale }], { ...way, weightDecay: decay });
          lr.forEach((rate, i) => {
            setGrad(p, gradients[i]);
            optimizer.step(rate);
          });
          close(
            p.dataSync(),
            start.map((x, k) =>
              sgdLoop(
                x,
                gradients.map(g => g[k]),
                { lr: lr.map(r => r * scale), decay, ...way },
              ),
            ),
            machine.dtype === 'f64' ? 1e-12 : 2e-5,
          );
          optimizer.dispose();
        }),
    ),
    runs(60),
  ));

test("defaults are torch's, and the learning rate may come from the options", () => {
  const [p, q] = [leaf([1, -2], [2]), leaf([1, -2], [2])];
  const optimizer = new AdamW([p], { learningRate: 0.01, betas: undefined, eps: undefined, weightDecay: undefined });
  setGrad(p, [0.5, 3]);
  optimizer.step();
  close(
    p.dataSync(),
    [1, -2].map((x, k) => adamwLoop(x, [[0.5, 3][k]], { lr: [0.01], betas: [0.9, 0.999], eps: 1e-8, decay: 0 })),
    1e-14,
  );
  const sgd = new SGD([q], { weightDecay: 0.1 });
  setGrad(q, [0.5, 3]);
  sgd.step();
  close(q.dataSync(), [1 - 0.01 * (0.5 + 0.1), -2 - 0.01 * (3 - 0.2)], 1e-14);
});

test('groups: their own decay; an orthogonal group is never decayed; no gradient, no change', () => {
  const [a, b, c, idle] = [[4], [4], [4], [4]].map(x => leaf(x, [1]));
  const optimizer = new AdamW(
    [{ parameters: [a] }, { parameters: [b, idle], weightDecay: 0.5 }, { parameters: [c], orthogonal: true }],
    { weightDecay: 0.25 },
  );
  for (const p of [a, b, c]) setGrad(p, [0]);
  optimizer.step(0.1);
  assert.deepEqual(
    [a, b, c, idle].map(p => p.dataSync()[0]),
    [4 * (1 - 0.1 * 0.25), 4 * (1 - 0.1 * 0.5), 4, 4],
  );
  assert.deepEqual(optimizer.parameters, [a, b, idle, c]);
});

/** One step of a small regression; the data depends on the step alone. */
function regress(p: Tensor[], optimizer: AdamW | SGD, step: number): void {
  scope(() => {
    const x = tensor.normal([6, 3], { seed: step });
    clipless(x, p).backward();
    optimizer.step(0.05 / (1 + step));
    optimizer.zeroGrad();
  });
}
const clipless = (x: Tensor, [W, b]: Tensor[]): Tensor => x.matmulT(W).add(b).tanh().sub(0.3).square().mean();

for (const [name, make] of [
  ['AdamW', (p: Tensor[]) => new AdamW(p, { weightDecay: 0.01 })],
  ['SGD', (p: Tensor[]) => new SGD(p, { momentum: 0.9, nesterov: true })],
] as const) {
  const parameters = (): Tensor[] => [
    tensor.normal([2, 3], { seed: 1 }).requireGrad(),
    tensor.normal([2], { seed: 2 }).requireGrad(),
  ];

  test(`${name}: a run that stops and resumes has the same bits`, () => {
    const whole = parameters();
    const one = make(whole);
    for (let step = 0; step < 10; step++) regress(whole, one, step);

    const first = parameters();
    const before = make(first);
    for (let step = 0; step < 6; step++) regress(first, before, step);
    // Through the host, as a checkpoint goes.
    const { step: at, tensors } = before.state();
    const saved: OptimizerState = {
      step: at,
      tensors: new Map([...tensors].map(([k, t]) => [k, tensor(t.dataSync(), t.shape)])),
    };
    const second = first.map(t => tensor(t.dataSync(), t.shape).requireGrad());
    const after = make(second);
    after.loadState(saved);
    for (let step = 6; step < 10; step++) regress(second, after, step);
    whole.forEach((t, i) => assert.deepEqual(second[i].dataSync(), t.dataSync()));
    assert.equal(after.state().step, 10);
  });

  test(`${name}: state that does not fit is refused, and changes nothing`, () => {
    const p = parameters();
    const optimizer = make(p);
    regress(p, optimizer, 0);
    const { step, tensors } = optimizer.state();
    const bits = [...tensors.values()].map(t => t.dataSync());
    const without = new Map(tensors);
    without.delete('1.0');
    assert.throws(() => optimizer.loadState({ step, tensors: without }), {
      message: 'optimizer state: entry 1.0 should be f32[2], got nothing',
    });
    assert.throws(() => optimizer.loadState({ step, tensors: new Map(tensors).set('0.0', tensor.zeros([3, 2])) }), {
      message: 'optimizer state: entry 0.0 should be f32[2,3], got f32[3,2]',
    });
    assert.throws(
      () => optimizer.loadState({ step, tensors: new Map(tensors).set('1.0', tensor.zeros([2], { dtype: 'f64' })) }),
      /should be f32\[2\], got f64\[2\]$/,
    );
    assert.throws(() => optimizer.loadState({ step, tensors: new Map(tensors).set('7.0', tensor.zeros([1])) }), {
      message: 'optimizer state: entry 7.0 belongs to no parameter of this optimizer',
    });
    assert.throws(() => optimizer.loadState({ step: 1.5, tensors }), {
      message: 'optimizer state: step must be a whole number, got 1.5',
    });
    [...optimizer.state().tensors.values()].forEach((t, i) => assert.deepEqual(t.dataSync(), bits[i]));
    assert.equal(optimizer.state().step, step);
  });

  test(`${name}: memory is flat over steps, outlives scopes, and goes with dispose`, () => {
    const backend = createCpuBackend();
    const p = [
      tensor.normal([2, 3], { seed: 1, backend }).requireGrad(),
      tensor.normal([2], { seed: 2, backend }).requireGrad(),
    ];
    const optimizer = scope(() => make(p));
    const steps = (n: number): void => {
      for (let i = 0; i < n; i++) {
        scope(() => {
          clipless(tensor.normal([6, 3], { seed: i, backend }), p).backward();
          clipGradNorm(p, 1);
          optimizer.step(0.01);
          optimizer.zeroGrad();
        });
      }
    };
    steps(2);
    const early = backend.stats().liveBytes;
    steps(50);
    assert.equal(backend.stats().liveBytes, early);
    const held = optimizer.state().tensors.size;
    const before = backend.stats().liveAllocations;
    optimizer.dispose();
    assert.equal(backend.stats().liveAllocations, before - held);
  });
}

test('messages for bad settings', () => {
  const p = leaf([1], [1]);
  const cases: [() => unknown, string][] = [
    [() => new AdamW([]), 'optimizer: there is nothing to train'],
    [() => new AdamW([{ parameters: [] }]), 'optimizer: there is nothing to train'],
    [() => new AdamW([p, p]), 'optimizer: Tensor(f64[1], grad) is given twice'],
    [() => new AdamW([tensor([1])]), 'optimizer: Tensor(f32[1]) is not a contiguous trained leaf'],
    [() => new AdamW([p], { betas: [1, 0.9] }), 'optimizer: beta1 must be from 0 to below 1, got 1'],
    [() => new AdamW([p], { eps: -1 }), 'optimizer: eps must be from 0, got -1'],
    [() => new AdamW([p], { weightDecay: NaN }), 'optimizer: weightDecay must be from 0, got NaN'],
    [() => new AdamW([p]).step(-1), 'optimizer: learningRate must be from 0, got -1'],
    [() => new SGD([p]).step(NaN), 'optimizer: learningRate must be from 0, got NaN'],
    [() => new SGD([p], { momentum: -0.1 }), 'optimizer: momentum must be from 0, got -0.1'],
    [() => new SGD([p], { nesterov: true }), 'optimizer: nesterov needs a momentum'],
    [() => clipGradNorm([p], 1), 'clipGradNorm: no parameter has a gradient'],
    [() => clipGradNorm([p], 0), 'clipGradNorm: the norm must be positive, got 0'],
  ];
  for (const [call, message] of cases) assert.throws(call, { message });
});

const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 });
test('clipGradNorm: gradients whose squares overflow, underflow or are of two types', async () => {
  for (const { backend } of machines) {
    for (const size of [1e30, 1e-30, 1]) {
      const [p, q] = (['f32', 'f64'] as const).map(dtype => tensor([1], { backend, dtype }).requireGrad());
      p.grad = tensor([3 * size], { backend });
      q.grad = tensor([4 * size], { backend, dtype: 'f64' });
      const norm = await clipGradNorm([p, q], 1).item();
      assert.ok(Math.abs(norm / (5 * size) - 1) < 1e-6, `norm ${norm}, expected ${5 * size}`);
      const factor = Math.min(1, 1 / (5 * size + 1e-6));
      const [a, b] = [await p.grad.item(), await q.grad.item()];
      assert.ok(
        Math.abs(a / (3 * size * factor) - 1) < 1e-6 && Math.abs(b / (4 * size * factor) - 1) < 1e-6,
        `clipped to ${a}, ${b}`,
      );
    }
  }
  const same = tensor([1]).requireGrad();
  same.grad = tensor([2e25]);
  assert.ok(Math.abs((await clipGradNorm([same], 1).item()) / 2e25 - 1) < 1e-6, 'f32 alone');
  assert.ok(Math.abs((await same.grad.item()) - 1) < 1e-6, 'f32 alone, clipped');
});

test('clipGradNorm: the joint norm, and gradients scaled only when it is larger', () =>
  fc.assert(
    fc.property(sizes, fc.nat(1000), fc.constantFrom(0.01, 1, 1000), (sides, seed, maxNorm) =>
      scope(() => {
        const random = new Random(seed);
        const values = sides.map(n => normals(n, random));
        const ps = values.map((v, i) => leaf(v, [sides[i]]));
        ps.forEach((p, i) => setGrad(p, values[i]));
        const idle = leaf([5], [1]);
        const norm = Math.sqrt(values.flat().reduce((s, x) => s + x * x, 0));
        close(clipGradNorm([...ps, idle], maxNorm).dataSync(), [norm], 1e-12);
        const factor = Math.min(1, maxNorm / (norm + 1e-6));
        ps.forEach((p, i) =>
          close(
            (p.grad as Tensor).dataSync(),
            values[i].map(x => x * factor),
            1e-12,
          ),
        );
        assert.equal(idle.grad, null);
      }),
    ),
    runs(30),
  ));
