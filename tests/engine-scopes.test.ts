// Scopes: what lives, what is freed and when, and what a tensor used too late says; memory stays flat in a training
// loop.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expr, keep, mapInto, noGrad, openScope, scope, zeroGrad, holdIntermediates } from '../src/autograd/index.js';
import { createCpuBackend, type Backend } from '../src/backends/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';

const ones = (backend: Backend, shape: number[] = [8]): Tensor => tensor.ones(shape, { backend });
/** What a backend keeps for its kernels, not for tensors. */
const resident = new WeakMap<Backend, number>();
function fresh(): Backend {
  const backend = createCpuBackend({ limitBytes: 2 ** 26 });
  scope(() => {
    const w = ones(backend, [4, 4]).requireGrad();
    w.matmul(w.exp())
      .transpose()
      .contiguous()
      .square()
      .add(ones(backend, [4]))
      .sum()
      .backward();
    w.grad?.storage.dispose();
  });
  resident.set(backend, backend.stats().liveAllocations);
  return backend;
}
const live = (backend: Backend): number => backend.stats().liveAllocations - (resident.get(backend) ?? 0);

test('a scope frees what it made and does not return', () => {
  const backend = fresh();
  const outside = ones(backend);
  const before = live(backend);
  const result = scope(() => {
    const a = outside.add(1);
    const b = a.mul(2).exp();
    assert.equal(live(backend), before + 3);
    return b.sum();
  });
  assert.equal(live(backend), before + 1);
  assert.ok(
    Math.abs(result.dataSync()[0] - 8 * Math.exp(4)) < 1e-2,
    'Math.abs(result.dataSync()[0] - 8 * Math.exp(4)) < 1e-2',
  );
  assert.equal(outside.dataSync()[0], 1);
});

test('tensors in arrays, objects, maps, sets and class instances are returned, with their gradients', () => {
  const backend = fresh();
  class Holder {
    readonly inner = { x: ones(backend) };
  }
  const kept = scope(() => {
    const leaf = ones(backend).requireGrad();
    leaf.square().sum().backward();
    return {
      list: [ones(backend)],
      map: new Map([['k', ones(backend)]]),
      set: new Set([ones(backend)]),
      holder: new Holder(),
      leaf,
    };
  });
  assert.equal(live(backend), 6);
  const all = [kept.list[0], kept.map.get('k'), ...kept.set, kept.holder.inner.x, kept.leaf, kept.leaf.grad];
  for (const t of all) assert.equal((t as Tensor).dataSync().length, 8);
});

test('a returned view keeps its storage', () => {
  const backend = fresh();
  const row = scope(() =>
    tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { backend },
    ).select(0, 1),
  );
  assert.deepEqual(Array.from(row.dataSync()), [3, 4]);
  assert.equal(live(backend), 1);
});

test('keep takes a tensor out of every scope', () => {
  const backend = fresh();
  let kept: Tensor | undefined;
  scope(() => {
    scope(() => {
      kept = keep(ones(backend).mul(3));
    });
    ones(backend);
  });
  assert.equal(live(backend), 1);
  assert.equal((kept as Tensor).dataSync()[0], 3);
});

test('nested: what an inner scope returns belongs to the outer one', () => {
  const backend = fresh();
  scope(() => {
    const inner = scope(() => ones(backend).mul(2).add(1));
    assert.equal(live(backend), 1);
    assert.equal(inner.dataSync()[7], 3);
  });
  assert.equal(live(backend), 0);
});

test('what the backward pass of a result needs stays until it is done', () => {
  const backend = fresh();
  const w = ones(backend).requireGrad();
  const loss = scope(() => w.mul(3).exp().mul(w).sum());
  // exp's argument and product, kept for the walk back.
  assert.ok(live(backend) > 2, 'live(backend) > 2');
  loss.backward();
  assert.equal(live(backend), 3, 'w, its gradient and the loss');
  assert.ok(
    Math.abs((w.grad as Tensor).dataSync()[0] - 4 * Math.exp(3)) < 1e-3,
    'Math.abs((w.grad as Tensor).dataSync()[0] - 4 * Math.exp(3)) < 1e-3',
  );
});

test('saved through two scopes, freed with the outer one when nothing is returned', () => {
  const backend = fresh();
  const w = ones(backend).requireGrad();
  scope(() => {
    const loss = scope(() => scope(() => w.exp().exp()).sum());
    loss.backward();
  });
  assert.equal(live(backend), 2);
  scope(() => {
    scope(() => w.exp().exp().sum());
  });
  assert.equal(live(backend), 2);
});

test('a scope that throws frees everything', () => {
  const backend = fresh();
  assert.throws(
    () =>
      scope(() => {
        ones(backend).exp();
        throw new Error('stop');
      }),
    /^Error: stop$/,
  );
  assert.equal(live(backend), 0);
  scope(() => ones(backend));
  assert.equal(live(backend), 1, 'the frames are in order again');
});

test('`using`: the block owns, keep lets out', () => {
  const backend = fresh();
  const compute = (): Tensor => {
    const block = openScope();
    try {
      const a = ones(backend).add(1);
      return block.keep(a.mul(2));
    } finally {
      block[Symbol.dispose]();
    }
  };
  const result = compute();
  assert.equal(live(backend), 1);
  assert.equal(result.dataSync()[0], 4);
});

test('scopes end in the reverse order of their beginning', () => {
  const [outer, inner] = [openScope(), openScope()];
  assert.throws(
    () => outer[Symbol.dispose](),
    /^Error: scope: scopes must end in the reverse order of their beginning$/,
  );
  inner[Symbol.dispose]();
  outer[Symbol.dispose]();
});

test('an async body is refused, whatever kind of promise it gives', () => {
  assert.throws(() => scope(() => ({ then: () => 1 })), /^Error: scope: the body returned a promise/);
  const backend = fresh();
  assert.throws(
    () => scope(async () => ones(backend)),
    /^Error: scope: the body returned a promise; a scope is synchronous, await outside of it$/,
  );
  assert.equal(live(backend), 0);
});

test('a tensor used after its scope names the op that made it', async () => {
  const backend = fresh();
  let late: Tensor | undefined;
  scope(() => {
    late = ones(backend).exp();
  });
  const gone = late as Tensor;
  const message = /made by exp, was used after its scope ended; return it from the scope or keep\(\) it$/;
  assert.throws(() => gone.add(1), message);
  assert.throws(() => gone.sum(), /^Error: sum: this tensor, made by exp/);
  assert.throws(() => gone.matmul(gone), message);
  assert.throws(() => gone.dataSync(), /^Error: dataSync: this tensor, made by exp/);
  await assert.rejects(gone.data(), message);
  assert.throws(() => keep(gone), /^Error: keep: this tensor, made by exp/);
  // Through a view too.
  assert.throws(() => gone.reshape([2, 4]).add(1), message);
});

test('a kept tensor whose history is gone says so in backward', () => {
  const backend = fresh();
  const w = ones(backend).requireGrad();
  let loss: Tensor | undefined;
  scope(() => {
    loss = keep(w.exp().square().sum());
  });
  assert.throws(
    () => (loss as Tensor).backward(),
    /^Error: backward of \w+: this tensor, made by exp, was used after its scope ended/,
  );
});

test('held intermediates outlive their scopes', () => {
  const backend = fresh();
  holdIntermediates(() => {
    let inner: Tensor | undefined;
    scope(() => {
      inner = ones(backend).mul(5);
    });
    assert.equal((inner as Tensor).dataSync()[0], 5);
  });
});

test('memory is flat over 300 training steps, with and without backward inside an inner scope', () => {
  const backend = fresh();
  const options = { backend };
  const xs = tensor.normal([16, 5], { seed: 1, ...options });
  const target = xs.square().sum(-1, { keepDims: true });
  const parameters = [
    tensor.normal([5, 12], { seed: 2, std: 0.4, ...options }),
    tensor.zeros([12], options),
    tensor.normal([12, 1], { seed: 3, std: 0.4, ...options }),
    tensor.zeros([1], options),
  ].map(t => t.requireGrad());
  const [w1, b1, w2, b2] = parameters;
  const step = (): number =>
    scope(() => {
      const hidden = scope(() => xs.matmul(w1).add(b1).gelu());
      const loss = hidden.matmul(w2).add(b2).sub(target).square().mean();
      loss.backward();
      noGrad(() =>
        parameters.forEach(p =>
          mapInto(
            'sgd',
            [expr.sub(expr.arg(0), expr.mul(expr.uniform(0), expr.arg(1)))],
            [p, p.grad as Tensor],
            [p],
            [0.02],
          ),
        ),
      );
      zeroGrad(parameters);
      return loss.dataSync()[0];
    });
  const first = step();
  for (let i = 0; i < 4; i++) step();
  const early = backend.stats();
  let last = first;
  for (let i = 0; i < 300; i++) last = step();
  const late = backend.stats();
  assert.ok(last < first / 10, `loss ${first} -> ${last}`);
  assert.deepEqual(
    [late.liveAllocations, late.liveBytes, late.peakBytes],
    [early.liveAllocations, early.liveBytes, early.peakBytes],
  );
});

test('gradients that accumulate leave no earlier ones behind', () => {
  const backend = fresh();
  const w = tensor([1, 2], { backend }).requireGrad();
  const factors = tensor([3, 4], { backend });
  const part = (): void =>
    scope(() => {
      w.mul(factors).sum().backward();
    });
  part();
  const after = live(backend);
  for (let i = 0; i < 5; i++) part();
  assert.deepEqual([...(w.grad as Tensor).dataSync()], [18, 24]);
  assert.equal(live(backend), after);
  zeroGrad([w]);
  assert.equal(live(backend), after - 1);
});

test('reading a view back leaves nothing behind', async () => {
  const backend = fresh();
  const x = tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { backend },
  );
  const before = live(backend);
  assert.deepEqual(Array.from(x.transpose().dataSync()), [1, 3, 2, 4]);
  assert.deepEqual(Array.from(await x.transpose().data()), [1, 3, 2, 4]);
  assert.equal(live(backend), before);
});
