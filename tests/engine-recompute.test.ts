// Recomputation: the same values and gradients as without, to the bit, in less memory; what it cannot do is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  dropout,
  grad,
  gradcheck,
  noGrad,
  recompute,
  scope,
  site,
  valueAndGrad,
  zeroGrad,
} from '../src/autograd/index.js';
import { createCpuBackend } from '../src/backends/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';

const normal = (shape: number[], seed: number, dtype: 'f32' | 'f64' = 'f32'): Tensor =>
  tensor.normal(shape, { seed, dtype });

test('gradients of inputs, leaves and computed tensors that are closed over, several times too, are the same bits', () => {
  const [x, w, v] = [normal([3, 4], 1), normal([4, 4], 2), normal([4, 4], 3)].map(t => t.requireGrad());
  const constant = normal([4], 4);
  const run = (by: typeof recompute): { value: number; grads: string } => {
    zeroGrad([x, w, v]);
    const rotation = v.tanh().matmul(v); // evaluated once, used in every layer
    const layer =
      (n: number) =>
      (h: Tensor): Tensor =>
        h.add(dropout(h.matmul(w).gelu().matmul(rotation), 0.3, 7, n)).mul(constant);
    let h = x.mul(2);
    for (let n = 0; n < 3; n++) h = by(layer(n), [h]);
    const loss = h.square().sum();
    loss.backward();
    return { value: loss.dataSync()[0], grads: [x, w, v].map(t => [...t.grad!.dataSync()].join()).join(' ') };
  };
  assert.deepEqual(
    run(recompute),
    run((f, inputs) => f(...inputs)),
  );
});

test('inputs that need no gradient, that are given twice, that are closed over too; a function that gives its input back', () => {
  const x = tensor([1, 2, 3], { dtype: 'f64' }).requireGrad();
  const fixed = tensor([2, 2, 2], { dtype: 'f64' });
  const gradientOf = (f: () => Tensor): number[] => {
    zeroGrad([x]);
    f().sum().backward();
    return [...x.grad!.dataSync()];
  };
  assert.deepEqual(
    gradientOf(() => recompute((a, b) => a.mul(b), [x, fixed])),
    [2, 2, 2],
  );
  assert.deepEqual(
    gradientOf(() => recompute((a, b) => a.mul(b), [x, x])),
    [2, 4, 6],
  );
  assert.deepEqual(
    gradientOf(() => recompute(a => a.mul(x), [x])),
    [2, 4, 6],
  );
  assert.deepEqual(
    gradientOf(() => recompute(a => a, [x])),
    [1, 1, 1],
  );
  assert.deepEqual(
    gradientOf(() => recompute(() => x, [])),
    [1, 1, 1],
  );
  assert.deepEqual(
    gradientOf(() => recompute(a => recompute(b => b.square(), [a]).mul(a), [x])),
    [3, 12, 27],
  );
  const plain = recompute(a => a.mul(3), [fixed]);
  assert.equal(plain.needsGrad, false);
  assert.deepEqual([...plain.dataSync()], [6, 6, 6]);
  assert.equal(noGrad(() => recompute(a => a.mul(x), [x])).needsGrad, false);
});

test('gradcheck, valueAndGrad and derivatives of second order', async () => {
  const inputs = [normal([3, 5], 1, 'f64'), normal([5, 4], 2, 'f64')];
  const plain = (x: Tensor, w: Tensor): Tensor => x.matmul(w).tanh().square().sum(-1);
  const again = (x: Tensor, w: Tensor): Tensor => recompute(y => plain(y, w), [x]);
  await gradcheck(again, inputs);
  const both = [plain, again].map(f =>
    valueAndGrad(([x, w]: [Tensor, Tensor]) => f(x, w).sum())(inputs as [Tensor, Tensor]),
  );
  assert.deepEqual(
    both[1].gradients.map(g => [...g.dataSync()]),
    both[0].gradients.map(g => [...g.dataSync()]),
  );
  const secondOf =
    (f: typeof plain) =>
    (x: Tensor, w: Tensor): Tensor => {
      const own = [x, w].map(t => (t.needsGrad ? t : t.detach().requireGrad())) as [Tensor, Tensor];
      const [gx, gw] = grad(([a, b]: [Tensor, Tensor]) => f(a, b).sum(), { createGraph: true })(own);
      return gx.square().sum().add(gw.square().sum());
    };
  await gradcheck(secondOf(again), inputs);
  const [first, second] = [plain, again].map(f =>
    grad(([x, w]: [Tensor, Tensor]) => secondOf(f)(x, w))(inputs as [Tensor, Tensor]),
  );
  first.forEach((g, i) => {
    [...g.dataSync()].forEach((value, k) => {
      assert.ok(Math.abs(value - second[i].dataSync()[k]) < 1e-10, 'Math.abs(value - second[i].dataSync()[k]) < 1e-10');
    });
  });
});

test('nothing but inputs is kept for the backward pass, and all of it is given back', () => {
  const backend = createCpuBackend();
  const w = tensor.normal([64, 64], { seed: 1, backend }).requireGrad();
  const x = tensor.normal([64, 64], { seed: 2, backend }).requireGrad();
  const layer = (h: Tensor): Tensor => h.matmul(w).gelu().mul(h).tanh();
  const run = (by: typeof recompute): { kept: number; after: number } => {
    zeroGrad([w, x]);
    const before = backend.stats().liveBytes;
    let kept = 0;
    scope(() => {
      let h = x;
      for (let n = 0; n < 8; n++) h = by(layer, [h]);
      kept = backend.stats().liveBytes - before;
      h.sum().backward();
    });
    return { kept, after: backend.stats().liveBytes - before - 4 * (w.size + x.size) };
  };
  run(recompute); // leaves the kernels' scratch memory behind
  const [off, on] = [run((f, inputs) => f(...inputs)), run(recompute)];
  assert.deepEqual([off.after, on.after], [0, 0]);
  assert.equal(on.kept, 8 * 4 * x.size);
  assert.ok(off.kept > 3 * on.kept, `${off.kept} and ${on.kept}`);
});

test('where only the end has a gradient and needs little, it is kept and nothing runs again', () => {
  const w = tensor.normal([8, 8], { seed: 1 }).requireGrad();
  const x = tensor.normal([4, 8], { seed: 2 });
  const measure = (f: (h: Tensor) => Tensor): [number, Float32Array] => {
    zeroGrad([w]);
    let runs = 0;
    scope(() => {
      const y = recompute(
        h => {
          runs++;
          return f(h);
        },
        [x],
      );
      y.square().sum().backward();
    });
    const got = w.grad!.dataSync() as Float32Array;
    zeroGrad([w]);
    scope(() => {
      f(x).square().sum().backward();
    });
    assert.deepEqual(got, w.grad!.dataSync());
    return [runs, got];
  };
  const cheap = (h: Tensor): Tensor => h.gelu().tanh().exp().matmul(w);
  assert.equal(measure(cheap)[0], 1);
  assert.equal(measure(h => cheap(h).gelu().mul(h).tanh().mul(h).exp().mul(h).square())[0], 2);
  assert.equal(measure(h => h.matmul(w))[0], 1);
});

test('what cannot be is refused', () => {
  const x = tensor([1, 2]).requireGrad();
  const within = (t: Tensor): Tensor => recompute(a => site('middle', a.mul(2)).square(), [t]).sum();
  assert.throws(
    () => valueAndGrad(within, { at: ['middle'] })(x),
    /recompute: the gradient at 'middle' is asked for, which lies inside/,
  );
  assert.deepEqual([...valueAndGrad(within)(x).gradients.dataSync()], [8, 16]);
  assert.throws(
    () => recompute(a => a.mul(tensor([1, 2]).requireGrad()), [x]),
    /recompute: the function depends on a trained tensor that it made itself/,
  );
  const y = recompute(a => a.square(), [x]).sum();
  x.storage.version++;
  assert.throws(() => {
    y.backward();
  }, /saved by recompute was changed in place/);
  assert.throws(
    () =>
      recompute(() => {
        throw new Error('within');
      }, [x]),
    /within/,
  );
});
