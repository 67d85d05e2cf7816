// Orthogonal maps: R stays orthonormal whatever its parameters are and however long they are trained, any R can be its
// start, gradients are right, and torch's map gives torch's numbers.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { gradientsOf, gradcheck, noGrad, scope } from '../src/autograd/index.js';
import { memorySource } from '../src/io/byteSource.js';
import { openSafetensors } from '../src/io/safetensors.js';
import {
  AdamW,
  cayley,
  compactHouseholder,
  matrixExponential,
  orthogonalInit,
  polarRetraction,
  qrRetraction,
  torchHouseholder,
  type OrthogonalMap,
} from '../src/nn/index.js';
import { stack } from '../src/tensor/layout.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { expMinusIdentity } from '../src/nn/orthogonal/matrixExponential.js';
import { runs } from './helpers/draw.js';

const maps: OrthogonalMap[] = [
  compactHouseholder,
  torchHouseholder,
  cayley,
  matrixExponential,
  qrRetraction,
  polarRetraction,
];

/** max |R R^T - I|, summed in f64. */
function deviation(R: Tensor): number {
  const [r, d] = R.shape;
  const data = R.dataSync();
  let worst = 0;
  for (let i = 0; i < r; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = i === j ? -1 : 0;
      for (let k = 0; k < d; k++) sum += data[i * d + k] * data[j * d + k];
      if (!(Math.abs(sum) <= worst)) worst = Math.abs(sum);
    }
  }
  return worst;
}

function furthest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) if (!(Math.abs(a[i] - b[i]) <= worst)) worst = Math.abs(a[i] - b[i]);
  return worst;
}

const sizes = fc
  .tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 40 }))
  .map(([r, more]) => [r, r + more] as const);

for (const map of maps) {
  test(`${map.name}: any orthonormal start is represented`, () =>
    fc.assert(
      fc.property(sizes, fc.nat(1000), fc.constantFrom('f32', 'f64'), (size, seed, dtype) =>
        scope(() => {
          const R = orthogonalInit(size, { seed, dtype: dtype as 'f32' });
          const again = map.rotation(map.initial(R).parameters);
          assert.deepEqual([...again.shape], [...size]);
          const bound = dtype === 'f32' ? 1e-6 : 1e-13;
          assert.ok(
            furthest(again.dataSync(), R.dataSync()) <= bound,
            `off by ${furthest(again.dataSync(), R.dataSync())}`,
          );
          assert.ok(deviation(again) <= bound, `deviation ${deviation(again)}`);
        }),
      ),
      runs(40),
    ));

  test(`${map.name}: starts along axes, with every sign`, () => {
    for (const rows of [
      [
        [1, 0, 0],
        [0, 1, 0],
      ],
      [
        [-1, 0, 0],
        [0, -1, 0],
      ],
      [
        [0, 0, 1],
        [-1, 0, 0],
      ],
      [
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, -1],
      ],
      [[-1]],
      [[1]],
    ]) {
      const R = tensor(rows);
      assert.ok(
        furthest(map.rotation(map.initial(R).parameters).dataSync(), R.dataSync()) <= 1e-6,
        JSON.stringify(rows),
      );
    }
  });

  test(`${map.name}: gradients agree with differences`, () =>
    fc.assert(
      fc.asyncProperty(
        fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 4 })),
        fc.nat(1000),
        async ([r, more], seed) => {
          const { parameters } = map.initial(orthogonalInit([r, r + more], { seed, dtype: 'f64' }));
          const [name, start] = Object.entries(parameters).find(([, t]) => t.requiresGrad) as [string, Tensor];
          // Away from the start; torch's diagonal is held, where its int() jumps.
          const step = tensor.normal(start.shape, { seed, std: 0.3, dtype: 'f64' });
          const place = (p: Tensor): Tensor => start.detach().add(map === torchHouseholder ? p.tril(-1) : p);
          await gradcheck(p => map.rotation({ ...parameters, [name]: place(p) }), [step], { seed });
        },
      ),
      runs(15),
    ));

  const steps = map === compactHouseholder ? 2000 : 300;
  // Rounding of the map at the size its parameters have then; nothing adds up from step to step.
  const allowed = map === compactHouseholder || map === torchHouseholder ? 2e-6 : 4e-6;
  test(`${map.name}: stays orthonormal over ${steps} steps, and resumes`, () => {
    const [r, d] = [3, 16];
    const train = (parameters: Record<string, Tensor>, optimizer: AdamW, from: number, to: number): void => {
      for (let step = from; step < to; step++) {
        scope(() => {
          const goal = tensor.normal([r, d], { seed: step % 50 });
          map.rotation(parameters).sub(goal).square().sum().backward();
          optimizer.step(0.02);
          optimizer.zeroGrad();
        });
      }
    };
    const start = orthogonalInit([r, d], { seed: 1 });
    const { parameters } = map.initial(start);
    const optimizerFor = (p: Record<string, Tensor>): AdamW =>
      new AdamW([{ parameters: Object.values(p).filter(t => t.requiresGrad), orthogonal: true }], { weightDecay: 0.1 });
    const optimizer = optimizerFor(parameters);
    train(parameters, optimizer, 0, steps);
    const R = map.rotation(parameters).detach();
    assert.ok(furthest(R.dataSync(), start.dataSync()) > 0.1, 'it was trained');
    assert.ok(deviation(R) <= allowed, `deviation ${deviation(R)}`);

    // From R alone.
    const fresh = map.initial(R).parameters;
    assert.ok(
      furthest(map.rotation(fresh).dataSync(), R.dataSync()) <= 1e-6,
      'furthest(map.rotation(fresh).dataSync(), R.dataSync()) <= 1e-6',
    );
    train(fresh, optimizerFor(fresh), steps, steps + 100);
    assert.ok(deviation(map.rotation(fresh)) <= allowed, 'deviation(map.rotation(fresh)) <= allowed');

    // From the parameters and the optimizer's state: the same bits.
    const copy = Object.fromEntries(
      Object.entries(parameters).map(([k, t]) => [k, tensor(t.dataSync(), t.shape).requireGrad(t.requiresGrad)]),
    );
    assert.deepEqual(map.rotation(copy).dataSync(), R.dataSync());
    const resumed = optimizerFor(copy);
    resumed.loadState(optimizer.state());
    train(parameters, optimizer, steps, steps + 10);
    train(copy, resumed, steps, steps + 10);
    assert.deepEqual(map.rotation(copy).dataSync(), map.rotation(parameters).dataSync());
  });

  if (map.batched) {
    test(`${map.name}: several at once are those one by one, with their gradients`, () => {
      const [r, d] = [3, 7];
      const each = [1, 2, 3].map(seed => {
        const { parameters } = map.initial(orthogonalInit([r, d], { seed, dtype: 'f64' }));
        return Object.fromEntries(
          Object.entries(parameters).map(([name, t]): [string, Tensor] => {
            if (!t.requiresGrad) return [name, t];
            return [
              name,
              t
                .detach()
                .add(tensor.normal(t.shape, { seed: seed + 9, std: 0.2, dtype: 'f64' }))
                .detach()
                .requireGrad(),
            ];
          }),
        );
      });
      const trained = each.map(p => Object.values(p).find(t => t.requiresGrad) as Tensor);
      const g = tensor.normal([3, r, d], { seed: 5, dtype: 'f64' });
      const together = map.rotation(
        Object.fromEntries(Object.keys(each[0]).map(name => [name, stack(each.map(p => p[name]))])),
      );
      const gradients = gradientsOf(together, trained, { gradient: g });
      each.forEach((p, k) => {
        const alone = map.rotation(p);
        assert.ok(
          furthest(together.detach().select(0, k).dataSync(), alone.dataSync()) <= 1e-15,
          'furthest(together.detach().select(0, k).dataSync(), alone.dataSync(...',
        );
        const [own] = gradientsOf(alone, [trained[k]], { gradient: g.select(0, k) });
        assert.ok(
          furthest((gradients[k] as Tensor).dataSync(), (own as Tensor).dataSync()) <= 1e-14,
          'furthest((gradients[k] as Tensor).dataSync(), (own as Tensor).dataS...',
        );
      });
    });
  }

  if (map !== torchHouseholder)
    test(`${map.name}: memory grows as r d, not as d^2`, () => {
      const peak = (d: number): number => {
        const { backend } = tensor.zeros([1]);
        const before = backend.stats().liveBytes;
        let most = 0;
        scope(() => {
          const { parameters } = map.initial(orthogonalInit([2, d], { seed: 1 }));
          const leaf = Object.values(parameters).find(t => t.requiresGrad) as Tensor;
          gradientsOf(map.rotation(parameters).square().sum(), [leaf]);
          most = backend.stats().liveBytes - before;
        });
        return most;
      };
      assert.ok(peak(3000) < 60 * 2 * 3000 * 4, 'a d x d matrix would be 25 times that');
    });

  test(`${map.name}: bad starts are refused`, () => {
    assert.throws(() => map.initial(tensor.zeros([3, 2])), {
      message: `${map.name}: expected R [r, d] with r from 1 to d, got [3,2]`,
    });
    assert.throws(() => map.initial(tensor.zeros([0, 2])), /expected R \[r, d\] with r from 1 to d, got \[0,2\]$/);
    assert.throws(() => map.initial(tensor.zeros([4])), /got \[4\]$/);
    assert.throws(
      () =>
        map.initial(
          tensor([
            [1, 0, 0],
            [2, 0, 0],
          ]),
        ),
      { message: 'orthonormal rows: row 1 depends on those before it, or is not finite' },
    );
    assert.throws(() => map.initial(tensor([[1, NaN, 0]])), /^RangeError: orthonormal rows: row 0/);
  });

  test(`${map.name}: a start that is a little off is made orthonormal`, () => {
    const rounded = Float32Array.from(orthogonalInit([3, 9], { seed: 4 }).dataSync(), x => Math.round(x * 1000) / 1000);
    const R = map.rotation(map.initial(tensor(rounded, [3, 9])).parameters);
    assert.ok(deviation(R) <= 1e-6, 'deviation(R) <= 1e-6');
    assert.ok(furthest(R.dataSync(), rounded) <= 5e-3, 'furthest(R.dataSync(), rounded) <= 5e-3');
  });
}

test('householder: orthonormal for any numbers', () =>
  fc.assert(
    fc.property(sizes, fc.nat(1000), fc.constantFrom(1e-38, 1e-30, 1e-8, 1, 1e8, 1e30, 1e38), ([r, d], seed, scale) =>
      scope(() => {
        const V = tensor.normal([r, d], { seed }).clamp(-3, 3).mul(scale);
        assert.ok(
          deviation(compactHouseholder.rotation({ V, signs: tensor.ones([r]) })) <= 1e-6,
          'deviation(compactHouseholder.rotation({ V, signs: tensor.ones([r]) ...',
        );
      }),
    ),
    runs(40),
  ));

test('householder: rows of zeros and rows all alike are orthonormal too, with finite gradients', () => {
  for (const V of [
    tensor.zeros([3, 5]),
    tensor.ones([3, 5]),
    tensor([
      [0, 0, 0],
      [0, 1, 2],
    ]),
  ]) {
    V.requireGrad();
    const R = compactHouseholder.rotation({ V, signs: tensor.ones([V.shape[0]]) });
    assert.ok(deviation(R) <= 1e-6, 'deviation(R) <= 1e-6');
    const [g] = gradientsOf(R, [V], { gradient: tensor.normal(R.shape, { seed: 2 }) });
    assert.ok(g?.dataSync().every(Number.isFinite), 'g?.dataSync().every(Number.isFinite)');
  }
});

test('householder: lengths and entries left of the diagonal take no part', () => {
  const signs = tensor.ones([3]);
  const V = tensor.normal([3, 6], { seed: 5, dtype: 'f64' });
  const R = compactHouseholder.rotation({ V, signs: signs.to('f64') }).dataSync();
  const changed = V.mul(tensor([[3], [0.01], [7]], { dtype: 'f64' })).add(
    tensor.ones([3, 6], { dtype: 'f64' }).tril(-1),
  );
  assert.ok(
    furthest(compactHouseholder.rotation({ V: changed, signs: signs.to('f64') }).dataSync(), R) <= 1e-14,
    'furthest(compactHouseholder.rotation({ V: changed, signs: signs.to(...',
  );
  const leaf = V.detach().requireGrad();
  const [g] = gradientsOf(compactHouseholder.rotation({ V: leaf, signs: signs.to('f64') }), [leaf], {
    gradient: tensor.normal([3, 6], { seed: 6, dtype: 'f64' }),
  });
  const along = (g as Tensor).mul(V).sum(1).dataSync();
  assert.ok(
    along.every(x => Math.abs(x) <= 1e-14),
    'the gradient is orthogonal to each vector',
  );
  assert.ok(
    (g as Tensor)
      .tril(-1)
      .dataSync()
      .every(x => x === 0),
    '(g as Tensor).tril(-1).dataSync().every(x => x === 0)',
  );
});

test("torch: R and gradients are PyTorch's, before and after training", async () => {
  const path = new URL('./fixtures/nn/torchHouseholder.safetensors', import.meta.url);
  const file = await openSafetensors(memorySource(readFileSync(path), 'torchHouseholder.safetensors'));
  const read = async (name: string): Promise<Tensor> =>
    tensor(await file.readFloat32(name), file.tensors.get(name)?.shape ?? []);
  const base = await read('base');
  for (const [from, to] of [
    ['start', 'startR'],
    ['end', 'endR'],
  ]) {
    const R = torchHouseholder.rotation({ original: await read(from), base });
    assert.ok(furthest(R.dataSync(), (await read(to)).dataSync()) <= 1e-6, from);
  }
  const original = (await read('start')).requireGrad();
  const [g] = gradientsOf(torchHouseholder.rotation({ original, base }), [original], {
    gradient: await read('gradientR'),
  });
  const expected = (await read('gradient')).dataSync();
  assert.ok(
    furthest((g as Tensor).dataSync(), expected) <= 1e-6 * Math.max(...expected.map(Math.abs)),
    'furthest((g as Tensor).dataSync(), expected) <= 1e-6 * Math.max(......',
  );
});

test('torch: weight decay on the parameter would lose R, and is refused', () => {
  const { parameters } = torchHouseholder.initial(orthogonalInit([2, 5], { seed: 1 }));
  const decayed = torchHouseholder.rotation({ ...parameters, original: parameters['original'].detach().mul(0.999) });
  assert.ok(
    decayed.dataSync().every(x => x === 0),
    'as in the original',
  );
  assert.throws(() => new AdamW([{ parameters: [parameters['original']], orthogonal: true, weightDecay: 0.01 }]), {
    message: 'optimizer: weight decay on the parameters of an orthogonal map would move them off it',
  });
  assert.throws(
    () => torchHouseholder.rotation({ original: parameters['original'], base: tensor.eye(4) }),
    /^ShapeError: torchHouseholder: expected original \[d, r\] and base \[d, d\], got \[5,2\] and \[4,4\]$/,
  );
});

test('matrix exponential: exp(K) of skew-symmetric and nilpotent matrices', () => {
  for (const angle of [0.001, 0.5, 3, -7]) {
    const E = expMinusIdentity(
      tensor(
        [
          [0, -angle],
          [angle, 0],
        ],
        { dtype: 'f64' },
      ),
    ).dataSync();
    const expected = [Math.cos(angle) - 1, -Math.sin(angle), Math.sin(angle), Math.cos(angle) - 1];
    assert.ok(
      furthest(E, expected) <= 1e-12 * Math.max(1, angle ** 4),
      `angle ${angle}: off by ${furthest(E, expected)}`,
    );
  }
  assert.deepEqual(
    [
      ...expMinusIdentity(
        tensor(
          [
            [0, 3],
            [0, 0],
          ],
          { dtype: 'f64' },
        ),
      ).dataSync(),
    ],
    [0, 3, 0, 0],
  );
});

test('cayley and exponential: directions of any size stay orthonormal, and agree to second order', () => {
  const [r, d] = [3, 9];
  const at = (map: OrthogonalMap, size: number, dtype: 'f32' | 'f64'): Tensor => {
    const { parameters } = map.initial(orthogonalInit([r, d], { seed: 1, dtype }));
    return noGrad(() => map.rotation({ ...parameters, X: tensor.normal([r, d], { seed: 2, std: size, dtype }) }));
  };
  for (const size of [0.01, 0.3, 2, 10]) {
    for (const map of [cayley, matrixExponential])
      assert.ok(
        deviation(at(map, size, 'f32')) <= 3e-6 * Math.max(1, size),
        `${map.name}, ${size}: ${deviation(at(map, size, 'f32'))}`,
      );
  }
  const apart = (size: number): number =>
    furthest(at(cayley, size, 'f64').dataSync(), at(matrixExponential, size, 'f64').dataSync());
  assert.ok(apart(0.02) < 1e-4 && apart(0.02) / apart(0.01) > 7, 'the difference is of third order');
});

test('qr and polar: what they are of a matrix', () => {
  const X = tensor.normal([3, 8], { seed: 3, dtype: 'f64' });
  const [Q, U] = [qrRetraction, polarRetraction].map(map => map.rotation({ X }));
  // X Q^T is lower triangular with a positive diagonal; X U^T is symmetric and positive.
  const L = X.matmulT(Q).dataSync();
  assert.ok(
    [1, 2, 5].every(i => Math.abs(L[i]) < 1e-14) && [0, 4, 8].every(i => L[i] > 0),
    '[1, 2, 5].every(i => Math.abs(L[i]) < 1e-14) && [0, 4, 8].every(i =...',
  );
  const H = X.matmulT(U).dataSync();
  assert.ok(
    Math.abs(H[1] - H[3]) + Math.abs(H[2] - H[6]) + Math.abs(H[5] - H[7]) < 1e-13 && H[0] > 0,
    'Math.abs(H[1] - H[3]) + Math.abs(H[2] - H[6]) + Math.abs(H[5] - H[7...',
  );
});

test('qr and polar: near dependence of rows keeps R orthonormal in f32', () => {
  const X = tensor.normal([3, 30], { seed: 4 });
  const close = X.slice(0, 0, 1).add(X.slice(0, 1, 2).mul(0.02));
  const near = stack([X.select(0, 0), close.select(0, 0), X.select(0, 2)]);
  assert.ok(
    deviation(qrRetraction.rotation({ X: near })) <= 3e-6,
    'deviation(qrRetraction.rotation({ X: near })) <= 3e-6',
  );
  assert.ok(
    deviation(polarRetraction.rotation({ X: near })) <= 1e-2,
    'deviation(polarRetraction.rotation({ X: near })) <= 1e-2',
  );
});

test('weight decay cannot touch what an orthogonal map holds', () => {
  for (const map of maps) {
    const { parameters } = map.initial(orthogonalInit([2, 6], { seed: 1 }));
    const before = map.rotation(parameters).dataSync();
    const leaves = Object.values(parameters).filter(t => t.requiresGrad);
    const other = tensor.ones([3]).requireGrad();
    const optimizer = new AdamW([{ parameters: leaves, orthogonal: true }, { parameters: [other] }], {
      weightDecay: 0.5,
    });
    for (const t of [...leaves, other]) t.grad = tensor.zeros(t.shape);
    for (let i = 0; i < 5; i++) optimizer.step(0.1);
    assert.deepEqual(map.rotation(parameters).dataSync(), before, map.name);
    assert.ok(
      other.dataSync().every(x => x < 0.8),
      'the others are decayed',
    );
  }
});
