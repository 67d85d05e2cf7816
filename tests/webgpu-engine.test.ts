// Tensors, autograd and modules on the WebGPU backend: the CPU's values and gradients, compositions included, and no
// read-back but the one that is asked for.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCpuBackend, type Backend } from '../src/backends/index.js';
import { scope } from '../src/autograd/index.js';
import { withBackend } from '../src/devices.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { openForTests } from './helpers/webgpu.js';

const gpu = await openForTests();
const cpu = createCpuBackend();

const normal = (shape: readonly number[], seed: number, std = 1): Tensor => tensor.normal(shape, { seed, std });

/** Functions of some leaves, with their shapes. */
const cases: readonly { name: string; shapes: number[][]; f: (...x: Tensor[]) => Tensor; roundings?: number }[] = [
  {
    name: 'arithmetic with broadcasts',
    shapes: [[4, 5], [5], [4, 1]],
    f: (a, b, c) => a.mul(b).add(c).sub(b.square()).div(c.square().add(1)),
  },
  {
    name: 'element functions',
    shapes: [[130]],
    f: x => x.exp().add(x.tanh()).add(x.erf()).add(x.sin().mul(x.cos())).add(x.square().add(1).log()).add(x.sigmoid()),
  },
  {
    name: 'activations',
    shapes: [[7, 9]],
    f: x => x.gelu().add(x.geluTanh()).add(x.silu()).add(x.relu()).add(x.softplus()),
  },
  { name: 'softmax', shapes: [[5, 67]], f: x => x.softmax(-1).square() },
  { name: 'log of softmax over the first axis', shapes: [[9, 4]], f: x => x.logSoftmax(0) },
  { name: 'variance and norm', shapes: [[6, 31]], f: x => x.variance(-1).sum().add(x.norm()) },
  {
    name: 'products',
    shapes: [
      [2, 3, 17, 8],
      [3, 8, 12],
    ],
    f: (a, b) => a.matmul(b),
  },
  {
    name: 'a product with a transposed weight',
    shapes: [
      [2, 9, 16],
      [20, 16],
    ],
    f: (a, b) => a.matmulT(b).tanh(),
  },
  { name: 'views', shapes: [[4, 6, 5]], f: x => x.permute([2, 0, 1]).slice(1, 1, 3).reshape([-1]).square() },
  {
    name: 'rows',
    shapes: [[7, 5]],
    f: x =>
      x
        .takeRows([6, 0, 0, 3])
        .mul(x.takeRows([1, 1, 2, -1]))
        .scatterAddRows([0, 2, 2, 1], 3),
  },
  { name: 'a maximum', shapes: [[5, 40]], f: x => x.max(-1).mul(x.min(0).sum()) },
  { name: 'a running sum and a triangle', shapes: [[8, 8]], f: x => x.cumsum(0).tril().add(x.triu(1)) },
];

function run(backend: Backend, { shapes, f }: (typeof cases)[number]): Promise<number[][]> {
  return withBackend(backend, () => {
    const leaves = shapes.map((shape, i) => normal(shape, 11 + i, 0.7).requireGrad());
    const output = f(...leaves);
    output.backward({ gradient: normal(output.shape, 5) });
    return Promise.all([output, ...leaves.map(l => l.grad as Tensor)].map(async t => Array.from(await t.data())));
  });
}

function close(actual: readonly number[], expected: readonly number[], what: string, roundings = 64): void {
  assert.equal(actual.length, expected.length, what);
  const bound = roundings * 2 ** -24 * Math.max(2 ** -100, ...expected.map(Math.abs));
  actual.forEach((a, i) =>
    assert.ok(
      Math.abs(a - expected[i]) <= bound,
      `${what}: element ${i} is ${a}, expected ${expected[i]}, allowed ${bound}`,
    ),
  );
}

if (gpu) {
  for (const c of cases) {
    test(`WebGPU: ${c.name}, values and gradients as on the CPU`, async () => {
      const [actual, expected] = [await run(gpu, c), await run(cpu, c)];
      actual.forEach((values, i) => close(values, expected[i], i === 0 ? 'value' : `gradient ${i - 1}`, c.roundings));
    });
  }

  test('WebGPU: argmax, topk, comparisons, bools and casts', async () => {
    const results = async (backend: Backend): Promise<number[][]> =>
      withBackend(backend, () => {
        const x = normal([6, 33], 3);
        const { values, indices } = x.topk(4);
        const chosen = x.gt(0).and(x.lt(1)).or(x.eq(x)).not().to('f32');
        return Promise.all(
          [x.argmax(-1), values, indices, chosen, x.mul(10).to('i32'), x.ge(0).to('i32').sum(0)].map(async t =>
            Array.from(await t.data()),
          ),
        );
      });
    assert.deepEqual(await results(gpu), await results(cpu));
  });

  test('WebGPU: training a small network gives the losses of the CPU and reads back nothing but the loss', async () => {
    const train = async (backend: Backend): Promise<number[]> => {
      const state = withBackend(backend, () => ({
        x: normal([32, 10], 1),
        y: normal([32, 3], 2),
        w: normal([16, 10], 3, 0.3).requireGrad(),
        v: normal([3, 16], 4, 0.3).requireGrad(),
      }));
      const losses: number[] = [];
      for (let i = 0; i < 15; i++) {
        const reads: number = backend === gpu ? gpu.counters.reads : 0;
        const loss = withBackend(backend, () =>
          scope(() => {
            const value = state.x.matmulT(state.w).gelu().matmulT(state.v).sub(state.y).square().mean();
            value.backward();
            return value.detach();
          }),
        );
        for (const name of ['w', 'v'] as const) {
          const old = state[name];
          state[name] = old
            .detach()
            .sub((old.grad as Tensor).mul(0.2))
            .requireGrad();
        }
        losses.push(await loss.item());
        if (backend === gpu) assert.equal(gpu.counters.reads, reads + 1);
      }
      return losses;
    };
    const [actual, expected] = [await train(gpu), await train(cpu)];
    assert.ok(expected[14] < 0.9 * expected[0], 'expected[14] < 0.9 * expected[0]');
    close(actual, expected, 'losses', 256);
  });
}
