// Optimizers, clipping and schedules against their formulas in plain numbers, step by step; state that is put back continues bit for bit.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AdamW, clipGradNorm, SGD, scheduleFactor } from '../src/nn/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { machines, type Machine } from './helpers/machines.js';

const gradients = [
  [0.5, -1.5, 0],
  [0.25, 2, -1],
  [-3, 0.125, 0.5],
  [1, 1, 1],
  [0, -0.5, 4],
];
const start = [1, -2, 0.5];
const closeTo = (actual: Tensor, expected: readonly number[], { dtype }: Machine): void => {
  const tolerance = dtype === 'f64' ? 1e-13 : 2e-6;
  actual
    .dataSync()
    .forEach((x, i) =>
      assert.ok(Math.abs(x - expected[i]) <= tolerance * Math.max(1, Math.abs(expected[i])), `entry ${i}: ${x}, expected ${expected[i]}`),
    );
};
const leafOn = ({ backend, dtype }: Machine, values = start): Tensor => tensor(values, { backend, dtype }).requireGrad();
function give(p: Tensor, values: readonly number[]): void {
  p.grad?.storage.dispose();
  p.grad = tensor([...values], { dtype: p.dtype, backend: p.backend });
}

for (const machine of machines) {
  test(`AdamW follows torch's formula (${machine.name})`, () => {
    const [lr, b1, b2, eps, decay] = [0.1, 0.8, 0.99, 1e-6, 0.05];
    const p = leafOn(machine);
    const optimizer = new AdamW([p], { learningRate: lr, betas: [b1, b2], eps, weightDecay: decay });
    const [x, m, v] = [[...start], [0, 0, 0], [0, 0, 0]];
    gradients.forEach((g, n) => {
      give(p, g);
      optimizer.step();
      for (let i = 0; i < 3; i++) {
        x[i] *= 1 - lr * decay;
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2;
        x[i] -= (lr * (m[i] / (1 - b1 ** (n + 1)))) / (Math.sqrt(v[i] / (1 - b2 ** (n + 1))) + eps);
      }
      closeTo(p, x, machine);
    });
  });

  for (const nesterov of [false, true]) {
    test(`SGD with momentum follows torch's formula, nesterov ${nesterov} (${machine.name})`, () => {
      const [lr, momentum, decay] = [0.05, 0.9, 0.01];
      const p = leafOn(machine);
      const optimizer = new SGD([p], { learningRate: lr, momentum, nesterov, weightDecay: decay });
      const [x, buffer] = [[...start], [0, 0, 0]];
      for (const given of gradients) {
        give(p, given);
        optimizer.step();
        for (let i = 0; i < 3; i++) {
          const g = given[i] + decay * x[i];
          buffer[i] = momentum * buffer[i] + g;
          x[i] -= lr * (nesterov ? g + momentum * buffer[i] : buffer[i]);
        }
        closeTo(p, x, machine);
      }
    });
  }

  test(`clipping scales to the joint norm, and leaves small gradients alone (${machine.name})`, () => {
    const [p, q] = [leafOn(machine), leafOn(machine, [1])];
    give(p, [3, 0, 0]);
    give(q, [4]);
    const norm = clipGradNorm([p, q], 1);
    closeTo(norm, [5], machine);
    // torch divides by norm + 1e-6.
    closeTo(p.grad as Tensor, [3 / 5.000001, 0, 0], machine);
    closeTo(q.grad as Tensor, [4 / 5.000001], machine);
    give(p, [0.3, 0, 0]);
    give(q, [0.4]);
    clipGradNorm([p, q], 1);
    closeTo(p.grad as Tensor, [0.3, 0, 0], machine);
  });

  test(`state put back continues bit for bit (${machine.name})`, () => {
    const run = (p: Tensor, optimizer: AdamW, from: number, to: number): void =>
      gradients.slice(from, to).forEach(g => {
        give(p, g);
        optimizer.step();
      });
    const whole = leafOn(machine);
    run(whole, new AdamW([whole]), 0, 5);
    const first = leafOn(machine);
    const before = new AdamW([first]);
    run(first, before, 0, 2);
    const second = leafOn(machine, Array.from(first.dataSync()));
    const after = new AdamW([second]);
    after.loadState(before.state());
    run(second, after, 2, 5);
    assert.deepEqual(second.dataSync(), whole.dataSync());
  });
}

test('groups: rates, decay, parameters of an orthogonal map, and those without a gradient', () => {
  const [a, b, c] = [leafOn(machines[0]), leafOn(machines[0]), leafOn(machines[0])];
  const optimizer = new SGD(
    [
      { parameters: [a], learningRateScale: 0.5 },
      { parameters: [b], weightDecay: 0 },
      { parameters: [c], orthogonal: true },
    ],
    { learningRate: 1, weightDecay: 0.5 },
  );
  give(a, [1, 1, 1]);
  give(c, [1, 1, 1]);
  optimizer.step();
  closeTo(
    a,
    start.map(x => x - 0.5 * (1 + 0.5 * x)),
    machines[0],
  );
  closeTo(b, start, machines[0]);
  closeTo(
    c,
    start.map(x => x - 1),
    machines[0],
  );
  optimizer.zeroGrad();
  assert.equal(a.grad, null);
  assert.throws(
    () => new SGD([{ parameters: [a], orthogonal: true, weightDecay: 0.1 }]),
    /^RangeError: optimizer: weight decay on the parameters of an orthogonal map/,
  );
  assert.throws(() => new AdamW([]), /^RangeError: optimizer: there is nothing to train$/);
  assert.throws(() => new AdamW([tensor([1])]), /is not a contiguous trained leaf$/);
  assert.throws(() => clipGradNorm([leafOn(machines[0])], 1), /^RangeError: clipGradNorm: no parameter has a gradient$/);
});

test('schedules: warm-up, then constant, linear or half a cosine', () => {
  const at = (name: 'constant' | 'linear' | 'cosine', steps: number[]): number[] =>
    steps.map(s => Number(scheduleFactor(name, s, 12, 2).toFixed(6)));
  assert.deepEqual(at('constant', [0, 1, 2, 11]), [0, 0.5, 1, 1]);
  assert.deepEqual(at('linear', [0, 1, 2, 7, 11, 12]), [0, 0.5, 1, 0.5, 0.1, 0]);
  assert.deepEqual(at('cosine', [1, 2, 7, 12]), [0.5, 1, 0.5, 0]);
  assert.equal(scheduleFactor('linear', 0, 10), 1);
  assert.equal(scheduleFactor('linear', 1, 20, 0.1), 0.5);
  assert.throws(() => scheduleFactor('step' as 'linear', 0, 1), /^RangeError: schedule: expected constant, linear, cosine, got 'step'$/);
  assert.throws(() => scheduleFactor('linear', 0, 1, -1), /^RangeError: warmup: expected a fraction or a number of steps, got -1$/);
});
