// Layers as modules: what they compute, their parameters' names, seeds, messages; and attention and cross-entropy where
// the op table's recipes do not reach: queries that see nothing, garbage behind masks, rows without labels.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gradcheck, gradientsOf, scope } from '../src/autograd/index.js';
import {
  activationNamed,
  activations,
  attention,
  crossEntropy,
  crossEntropyMean,
  dropout,
  Embedding,
  GatedMLP,
  layerNorm,
  LayerNorm,
  Linear,
  linear,
  MLP,
  rmsNorm,
  RMSNorm,
  UnweightedRMSNorm,
  type Module,
} from '../src/nn/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { machines } from './helpers/machines.js';

const f64 = { dtype: 'f64' as const };
const names = (m: Module): string[] => [...m.namedParameters()].map(([name, t]) => `${name} [${t.shape.join(',')}]`);
const close = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance = 1e-12): void => {
  assert.equal(a.length, b.length);
  for (let i = 0; i < a.length; i++)
    assert.ok(
      Math.abs(a[i] - b[i]) <= tolerance * Math.max(1, Math.abs(b[i])),
      `entry ${i}: ${a[i]}, expected ${b[i]}`,
    );
};

test('Linear: x W^T + b over the last axis, with or without bias', () => {
  const layer = Linear.create({ input: 3, output: 2, seed: 1, ...f64 });
  const x = tensor.normal([2, 4, 3], { seed: 2, ...f64 });
  const [W, b, data] = [layer.weight.dataSync(), layer.bias?.dataSync() ?? [], x.dataSync()];
  const expected = Array.from({ length: 16 }, (_, n) =>
    [0, 1, 2].reduce((s, k) => s + data[Math.floor(n / 2) * 3 + k] * W[(n % 2) * 3 + k], b[n % 2]),
  );
  const y = layer.forward(x);
  assert.deepEqual([...y.shape], [2, 4, 2]);
  close(y.dataSync(), expected);
  close(
    linear(x, layer.weight).dataSync(),
    expected.map((v, n) => v - b[n % 2]),
  );
  assert.deepEqual(names(layer), ['weight [2,3]', 'bias [2]']);
  assert.deepEqual(names(Linear.create({ input: 3, output: 2, bias: false, seed: 1 })), ['weight [2,3]']);
  const bound = 1 / Math.sqrt(3);
  assert.ok(
    [...W, ...b].every(v => Math.abs(v) <= bound),
    '[...W, ...b].every(v => Math.abs(v) <= bound)',
  );
  assert.notDeepEqual([...W].slice(0, 2), [...b]);
  assert.deepEqual(Linear.create({ input: 3, output: 2, seed: 1, ...f64 }).weight.dataSync(), W);
});

test('Embedding: rows by id, gradients summed over repeats, ids checked', () => {
  const table = Embedding.create({ count: 5, size: 3, seed: 1, std: 1, ...f64 });
  table.weight.requireGrad();
  const y = table.forward(Int32Array.of(4, 0, 4, 1), [2, 2]);
  assert.deepEqual([...y.shape], [2, 2, 3]);
  const rows = table.weight.dataSync();
  assert.deepEqual(
    [...y.dataSync()],
    [4, 0, 4, 1].flatMap(id => [...rows.slice(3 * id, 3 * id + 3)]),
  );
  y.sum().backward();
  assert.deepEqual(
    [...(table.weight.grad as Tensor).dataSync()],
    [1, 1, 0, 0, 2].flatMap(n => [n, n, n]),
  );
  assert.throws(() => table.forward(Int32Array.of(0, 5), [2]), {
    message: 'embedding: id 5 at 1 is outside the table of 5',
  });
  assert.throws(() => table.forward(Int32Array.of(-1), [1]), {
    message: 'embedding: id -1 at 0 is outside the table of 5',
  });
});

test('norms as modules: they start as plain normalisation', () => {
  const x = tensor.normal([3, 8], { seed: 1, ...f64 });
  const rms = RMSNorm.create({ size: 8, eps: 1e-3, ...f64 });
  const layer = LayerNorm.create({ size: 8, ...f64 });
  assert.deepEqual(names(rms), ['weight [8]']);
  assert.deepEqual(names(layer), ['weight [8]', 'bias [8]']);
  assert.deepEqual([rms.eps, layer.eps], [1e-3, 1e-5]);
  const y = layer.forward(x);
  close(y.mean(-1).dataSync(), [0, 0, 0]);
  close(y.variance(-1).dataSync(), [1, 1, 1], 1e-3);
  close(rms.forward(x).dataSync(), x.div(x.square().mean(-1, { keepDims: true }).add(1e-3).sqrt()).dataSync());
});

test('RMSNorm whose weight is added to 1, and without a weight', async () => {
  const x = tensor([3, -4], f64).reshape([1, 2]);
  const rms = Math.sqrt(12.5 + 0.25);
  const added = new RMSNorm(tensor([0.5, -1], f64), 0.25, { onePlus: true });
  close(added.forward(x).dataSync(), [(3 / rms) * 1.5, 0]);
  assert.deepEqual(names(added), ['weight [2]']);
  assert.deepEqual([...RMSNorm.create({ size: 2, onePlus: true, ...f64 }).weight.dataSync()], [0, 0]);
  await gradcheck((y, w) => new RMSNorm(w, 0.25, { onePlus: true }).forward(y), [x, added.weight]);

  const bare = new UnweightedRMSNorm(0.25);
  close(bare.forward(x).dataSync(), [3 / rms, -4 / rms]);
  assert.deepEqual([bare.eps, names(bare)], [0.25, []]);
  await gradcheck(y => bare.forward(y), [x]);
});

test('LayerNorm without a bias, and without a weight', async () => {
  const x = tensor([1, 5, 0], f64).reshape([1, 3]);
  const deviation = Math.sqrt(14 / 3 + 0.5);
  const normal = [-1 / deviation, 3 / deviation, -2 / deviation];
  const weight = tensor([2, -1, 0.5], f64);
  const unbiased = new LayerNorm(weight, null, 0.5);
  close(unbiased.forward(x).dataSync(), [2 * normal[0], -normal[1], 0.5 * normal[2]]);
  assert.deepEqual(names(unbiased), ['weight [3]']);
  assert.equal(LayerNorm.create({ size: 3, bias: false, ...f64 }).bias, null);
  await gradcheck((y, w) => new LayerNorm(w, null, 0.5).forward(y), [x, weight]);

  const bare = new LayerNorm(null, null, 0.5);
  // Made at the first call, and there after the scope of that call: in another type and width it is made again.
  close(scope(() => bare.forward(x)).dataSync(), normal);
  close(bare.forward(x).dataSync(), normal);
  close(bare.forward(tensor([-1, 1], f64)).dataSync(), [-1 / Math.sqrt(1.5), 1 / Math.sqrt(1.5)]);
  close(bare.forward(tensor([1, 5, 0], { dtype: 'f32' })).dataSync(), normal, 1e-6);
  assert.deepEqual(names(bare), []);
});

test('norms on one machine agree with another, given odd layouts of every input', () => {
  for (const { backend, dtype } of machines) {
    const make = (shape: number[], seed: number): Tensor => tensor.normal(shape, { seed, dtype, backend });
    const x = make([7, 5], 1).transpose();
    const [w, b] = [make([7, 2], 2).select(1, 0), make([7, 2], 3).select(1, 1)];
    const tolerance = dtype === 'f64' ? 1e-13 : 1e-5;
    close(rmsNorm(x, w, 1e-5).dataSync(), rmsNorm(x.contiguous(), w.contiguous(), 1e-5).dataSync(), tolerance);
    close(
      layerNorm(x, w, b, 1e-5).dataSync(),
      layerNorm(x.contiguous(), w.contiguous(), b.contiguous(), 1e-5).dataSync(),
      tolerance,
    );
  }
});

test('MLPs: gated and plain, names and gradients', async () => {
  const layer = (input: number, output: number, seed: number): Linear =>
    Linear.create({ input, output, bias: false, seed, ...f64 });
  for (const activation of ['silu', 'gelu', 'gelu_pytorch_tanh']) {
    const parts = { gateProj: layer(4, 6, 1), upProj: layer(4, 6, 2), downProj: layer(6, 4, 3), activation };
    const gated = new GatedMLP(parts);
    const plain = new MLP(parts);
    const x = tensor.normal([2, 4], { seed: 4, ...f64 });
    const act = activationNamed(activation);
    close(
      gated.forward(x).dataSync(),
      linear(
        act(linear(x, parts.gateProj.weight)).mul(linear(x, parts.upProj.weight)),
        parts.downProj.weight,
      ).dataSync(),
    );
    close(plain.forward(x).dataSync(), linear(act(linear(x, parts.upProj.weight)), parts.downProj.weight).dataSync());
    assert.deepEqual(names(gated), ['gate_proj.weight [6,4]', 'up_proj.weight [6,4]', 'down_proj.weight [4,6]']);
    assert.deepEqual(names(plain), ['up_proj.weight [6,4]', 'down_proj.weight [4,6]']);
    await gradcheck((y, u) => new GatedMLP({ ...parts, upProj: new Linear(u) }).forward(y), [x, parts.upProj.weight]);
    await gradcheck(y => plain.forward(y), [x]);
  }
  const parts = { gateProj: layer(2, 2, 1), upProj: layer(2, 2, 2), downProj: layer(2, 2, 3) };
  for (const activation of ['gelu_slow', 'constructor', '__proto__']) {
    for (const Kind of [GatedMLP, MLP])
      assert.throws(() => new Kind({ ...parts, activation }), {
        name: 'RangeError',
        message: `activation '${activation}' is not known; known: ${Object.keys(activations).join(', ')}`,
      });
  }
});

test('activations by name', () => {
  const x = 0.7;
  const tanhForm = 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  const erfForm = x * 0.758036347776927; // the normal distribution's, at 0.7
  const expected: Record<string, number> = {
    silu: x / (1 + Math.exp(-x)),
    swish: x / (1 + Math.exp(-x)),
    gelu: erfForm,
    gelu_new: tanhForm,
    gelu_pytorch_tanh: tanhForm,
    gelu_fast: tanhForm,
    gelu_python: erfForm,
    quick_gelu: x / (1 + Math.exp(-1.702 * x)),
    sigmoid: 1 / (1 + Math.exp(-x)),
    relu: x,
    tanh: Math.tanh(x),
    linear: x,
  };
  assert.ok(Math.abs(erfForm - tanhForm) > 1e-6, 'the two forms of GELU differ here');
  assert.deepEqual(Object.keys(activations).sort(), Object.keys(expected).sort());
  for (const [name, value] of Object.entries(expected))
    close(activations[name](tensor([x], f64)).dataSync(), [value], 1e-8);
});

test('quick_gelu: its gradient, and where exp would overflow', async () => {
  const quick = activationNamed('quick_gelu');
  await gradcheck(y => quick(y), [tensor([-3, -0.4, 0, 1.3, 4], f64)]);
  const far = tensor([-1000, 1000], f64).requireGrad();
  const y = quick(far);
  assert.deepEqual([...y.dataSync()], [-0, 1000]);
  y.sum().backward();
  assert.deepEqual([...(far.grad as Tensor).dataSync()], [0, 1]);
});

const lists = (...x: number[]): Int32Array => Int32Array.from(x);

for (const { name, backend, dtype } of machines) {
  const make = (shape: number[], seed: number): Tensor => tensor.normal(shape, { seed, dtype, backend });

  test(`attention: a query that sees no key gives zeros and takes no gradient (${name})`, () => {
    const [q, k, v] = [make([2, 2, 3, 4], 1), make([2, 1, 3, 4], 2), make([2, 1, 3, 4], 3)].map(t => t.requireGrad());
    // Row 0: nothing at all; row 1: keys from 1 on, so its first query, causal, sees none.
    const o = attention(q, k, v, { causal: true, keyStart: lists(0, 1), keyEnd: lists(0, 3) });
    const data = o.dataSync();
    assert.ok(data.every(Number.isFinite), 'data.every(Number.isFinite)');
    assert.ok(
      data.slice(0, 24).every(x => x === 0) &&
        data.slice(24, 28).every(x => x === 0) &&
        data.slice(28, 36).every(x => x !== 0),
      'data.slice(0, 24).every(x => x === 0) && data.slice(24, 28).every(x...',
    );
    const gradients = gradientsOf(o, [q, k, v], { gradient: make([2, 2, 3, 4], 4) }).map(g => (g as Tensor).dataSync());
    for (const g of gradients) assert.ok(g.every(Number.isFinite), 'g.every(Number.isFinite)');
    assert.ok(
      gradients[0].slice(0, 28).every(x => x === 0),
      'queries that see nothing',
    );
    for (const g of gradients.slice(1))
      assert.ok(
        g.slice(0, 16).every(x => x === 0),
        'keys that nobody sees',
      );
  });

  test(`attention: what is masked changes nothing (${name})`, () => {
    const [q, k, v] = [make([1, 2, 3, 4], 1), make([1, 1, 5, 4], 2), make([1, 1, 5, 4], 3)];
    const options = { causal: true, causalOffset: 2, keyStart: lists(1), keyEnd: lists(5) };
    const loud = tensor([1e4, 0, 0, 0, 0], { dtype, backend }).reshape([1, 1, 5, 1]);
    close(attention(q, k.add(loud), v.add(loud), options).dataSync(), attention(q, k, v, options).dataSync(), 1e-6);
    // Left padding is a shift: the same as the keys without their first.
    const alone = attention(q, k.slice(2, 1), v.slice(2, 1), { causal: true, causalOffset: 1 });
    close(attention(q, k, v, options).dataSync(), alone.dataSync(), 1e-6);
  });

  test(`attention: a window as wide as the keys is none, a window of one copies values (${name})`, () => {
    const [q, k, v] = [make([1, 2, 4, 3], 1), make([1, 2, 4, 3], 2), make([1, 2, 4, 3], 3)];
    close(
      attention(q, k, v, { causal: true, window: 4 }).dataSync(),
      attention(q, k, v, { causal: true }).dataSync(),
      1e-6,
    );
    close(attention(q, k, v, { causal: true, window: 1 }).dataSync(), v.dataSync(), 1e-6);
  });

  test(`attention: with a cache, the last query alone gives the last row (${name})`, () => {
    const [q, k, v] = [make([2, 4, 5, 3], 1), make([2, 2, 5, 3], 2), make([2, 2, 5, 3], 3)];
    const options = { causal: true, window: 3, keyStart: lists(0, 2) };
    const whole = attention(q, k, v, options).slice(2, 4);
    close(attention(q.slice(2, 4), k, v, { ...options, causalOffset: 4 }).dataSync(), whole.dataSync(), 1e-6);
  });

  test(`cross-entropy: rows without a label are 0, and so is their gradient (${name})`, () => {
    const logits = make([4, 6], 5).requireGrad();
    const labels = lists(2, -100, -1, 5);
    const losses = crossEntropy(logits, labels).dataSync();
    assert.deepEqual([losses[1], losses[2]], [0, 0]);
    crossEntropyMean(logits, labels).backward();
    const [p, g] = [logits.detach().softmax(-1).dataSync(), (logits.grad as Tensor).dataSync()];
    const expected = Array.from(p, (x, n) =>
      labels[Math.floor(n / 6)] < 0 ? 0 : (x - Number(labels[Math.floor(n / 6)] === n % 6)) / 2,
    );
    close(g, expected, dtype === 'f64' ? 1e-13 : 1e-6);
    close(crossEntropyMean(logits, labels).dataSync(), [(losses[0] + losses[3]) / 2], 1e-6);
  });

  test(`cross-entropy: huge logits stay finite (${name})`, () => {
    const logits = tensor(
      [
        [1e4, -1e4, 0],
        [-300, -300, -300],
      ],
      { dtype, backend },
    ).requireGrad();
    const losses = crossEntropy(logits, lists(1, 0));
    const [g] = gradientsOf(losses.sum(), [logits]);
    // Kernels keep the log-sum-exp in f32, which at 300 is off by up to 1.5e-5; so are losses and probabilities.
    const tolerance = dtype === 'f64' ? 1e-12 : 1.6e-5;
    close(losses.dataSync(), [2e4, Math.log(3)], tolerance);
    close((g as Tensor).dataSync(), [1, -1, 0, -2 / 3, 1 / 3, 1 / 3], tolerance);
  });
}

test('messages', () => {
  const [q, k] = [tensor.zeros([1, 2, 2, 4]), tensor.zeros([1, 2, 3, 4])];
  assert.throws(() => attention(q, k, k, { keyEnd: lists(4) }), { message: 'attention: row 0 sees keys 0 to 4 of 3' });
  assert.throws(() => attention(q, k, k, { keyStart: lists(-1) }), {
    message: 'attention: row 0 sees keys -1 to 3 of 3',
  });
  assert.throws(() => attention(q, k, k, { window: -2 }), {
    message: 'attention: window must be a whole number from 0, got -2',
  });
  assert.throws(() => attention(q, k, k, { causalOffset: 0.5 }), {
    message: 'attention: causalOffset must be a whole number from 0, got 0.5',
  });
  assert.throws(() => crossEntropyMean(tensor.zeros([2, 3]), lists(-100, -1)), {
    message: 'crossEntropy: no row has a label',
  });
});

test('dropout: a share is dropped, the rest scaled, by seed and stream', () => {
  const x = tensor.ones([100, 100]).requireGrad();
  const y = dropout(x, 0.25, 7);
  const data = y.dataSync();
  const kept = data.filter(v => v !== 0);
  assert.ok(
    kept.every(v => v === Math.fround(1 / 0.75)),
    'kept.every(v => v === Math.fround(1 / 0.75))',
  );
  assert.ok(Math.abs(kept.length / data.length - 0.75) < 0.02, 'Math.abs(kept.length / data.length - 0.75) < 0.02');
  y.sum().backward();
  assert.deepEqual((x.grad as Tensor).dataSync(), data, 'the same mask backward');
  assert.deepEqual(dropout(x, 0.25, 7).dataSync(), data);
  assert.notDeepEqual(dropout(x, 0.25, 8).dataSync(), data);
  assert.notDeepEqual(dropout(x, 0.25, 7, 1).dataSync(), data);
});
