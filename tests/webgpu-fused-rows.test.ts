// The fused row kernels of WebGPU: their recipes with a workgroup for each row and with small bindings, rows wider than
// the recipes draw against the f64 composition, what they decline, and how many dispatches they are. One invocation a
// row is in webgpu-ops.test.ts as well.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scope, swiglu } from '../src/autograd/index.js';
import type { WebGpuBackend, WebGpuOptions } from '../src/backends/webgpu/index.js';
import { crossEntropy } from '../src/nn/crossEntropy.js';
import { layerNorm } from '../src/nn/layerNorm.js';
import { AdamW } from '../src/nn/optim.js';
import { rmsNorm } from '../src/nn/rmsNorm.js';
import { rope } from '../src/nn/rope.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { closeTo, compareValues, hostOf, type Values } from './helpers/bounds.js';
import { cotangentFor, floatFunction, gradientsOn } from './helpers/cases.js';
import { checkTableOn, gradientsAwaited, readAll } from './helpers/checksAwaited.js';
import { Draw } from './helpers/draw.js';
import type { Host } from './helpers/host.js';
import { counted, oracle, place, type Machine } from './helpers/machines.js';
import { fusedRecipes } from './helpers/recipes/fused.js';
import type { Case } from './helpers/recipe.js';
import { openForTests } from './helpers/webgpu.js';

const ofRows = ['softmax', 'rmsNorm', 'layerNorm', 'rope', 'crossEntropy'];
const recipes = fusedRecipes.filter(r => ofRows.includes(r.fused ?? ''));

interface Variant extends Machine {
  readonly backend: WebGpuBackend;
  /** Calls that each fused kernel took. */
  readonly taken: Map<string, number>;
}

async function variant(name: string, options: WebGpuOptions): Promise<Variant | undefined> {
  const backend = await openForTests(options);
  const taken = new Map<string, number>();
  return backend && { name, backend: counted(backend, taken), dtype: 'f32', taken };
}

const invocation = await variant('an invocation a row', { reduce: 'invocation' });
const workgroup = await variant('a workgroup a row', { reduce: 'workgroup' });
const small = await variant('small bindings', { reduce: 'invocation', bindingBytes: 4096 });
const variants = [invocation, workgroup, small].filter(v => v !== undefined);

for (const machine of [workgroup, small]) if (machine) checkTableOn(machine, recipes, 8);

const numbers = (seed: number): Draw =>
  new Draw({ sides: [], extra: [1], seed, scale: 1, kind: 'normal' }, { smooth: true, cap: Infinity });

const onOracle = (f: () => Tensor): Host =>
  scope(() => {
    const y = f();
    return hostOf({ shape: y.shape, dtype: y.dtype, data: y.dataSync() });
  });

interface WideCase extends Case {
  readonly op: string;
  readonly width: number;
  readonly gradients: readonly number[][];
}

/**
 * Shapes with what the f64 compositions give; bounds are relative to the largest entry, and grow with the root of the
 * width.
 */
function wideCases(): WideCase[] {
  return [
    [1, 1],
    [7, 3],
    [33, 64],
    [5, 65],
    [5, 577],
    [2, 2047],
    [2, 2500],
  ].flatMap(([rows, n]) => {
    const draw = numbers(rows * n);
    const x = draw.values([rows, n]);
    const [w, b] = [draw.values([n]), draw.values([n])];
    const labels = Int32Array.from({ length: rows }, (_, i) => (i % 5 === 3 ? -100 : (i * 7919) % n));
    const cases: [string, Host[], Case['run'], number][] = [
      ['softmax', [x], p => p.softmax(-1), 1],
      ['rmsNorm', [x, w], (p, q) => rmsNorm(p, q, 1e-2), 10],
      ['layerNorm', [x, w, b], (p, q, r) => layerNorm(p, q, r, 0.25), 10],
      ['crossEntropy', [x], p => crossEntropy(p.mul(3), labels), 1],
    ];
    return cases.map(([op, inputs, run, gradientScale]) => {
      const value = onOracle(() => run(...inputs.map(h => place(h, oracle))));
      const c: Case = { inputs, run, gradientScale, roundings: 2 * Math.sqrt(n) + 64, reference: () => value };
      return { ...c, op, width: n, gradients: gradientsOn(floatFunction(c)[0], inputs, cotangentFor(7), oracle) };
    });
  });
}

const wide = variants.length > 0 ? wideCases() : [];

for (const machine of variants) {
  test(`${machine.name}: rows of many widths give the values and gradients of the f64 composition`, async () => {
    for (const c of wide) {
      const what = `${machine.name}: ${c.op} of [${c.inputs[0].shape.join(',')}]`;
      const before = machine.taken.get(c.op) ?? 0;
      const [values] = await readAll(() => [c.run(...c.inputs.map(h => place(h, machine)))]);
      closeTo(Array.from((values as Values).data), Array.from(c.reference().data), c.roundings, what);
      const gradients = await gradientsAwaited(c, machine);
      gradients.forEach((g, i) => closeTo(g, c.gradients[i], c.roundings, `${what}, gradient ${i}`, c.gradientScale));
      // Rows that do not fit a binding are left to the composition.
      assert.equal(
        (machine.taken.get(c.op) ?? 0) - before,
        4 * c.width > machine.backend.settings.bindingBytes - 256 ? 0 : 2,
        what,
      );
    }
  });

  test(`${machine.name}: more rows than one binding or one side of a grid holds`, async () => {
    const rows = machine === workgroup ? 65_600 : 5_000;
    const before = machine.taken.get('rmsNorm') ?? 0;
    const [y] = await readAll(() => {
      const x = tensor.arange(0, rows, { backend: machine.backend }).reshape([rows, 1]);
      return [rmsNorm(x, tensor.ones([1], { backend: machine.backend }), 1)];
    });
    Array.from((y as Values).data).forEach((v, i) =>
      assert.ok(Math.abs(v - i / Math.sqrt(i * i + 1)) <= 1e-6, `row ${i} is ${v}`),
    );
    assert.equal(machine.taken.get('rmsNorm'), before + 1);
  });

  test(`${machine.name}: rows apart and rows repeated are taken, elements apart are not`, async () => {
    const { backend, taken } = machine;
    const calls: [string, (x: Tensor) => Tensor, number][] = [
      ['rows in another order', x => x.permute([1, 0, 2]).softmax(-1), 1],
      ['a window of each row', x => x.slice(2, 3, 11).softmax(-1), 1],
      ['rows repeated', x => x.slice(0, 0, 1).expand([6, 5, 17]).softmax(-1), 1],
      ['columns as rows', x => x.permute([0, 2, 1]).softmax(-1), 0],
      ['columns as rows, softmax over the first axis', x => x.softmax(0), 0],
    ];
    const x = numbers(3).values([6, 5, 17]);
    for (const [what, f, count] of calls) {
      const before = taken.get('softmax') ?? 0;
      const [values] = await readAll(() => [f(place(x, machine))]);
      assert.equal((taken.get('softmax') ?? 0) - before, count, what);
      compareValues(
        values as Values,
        onOracle(() => f(place(x, oracle))),
        undefined,
        120,
        machine,
      );
    }
    assert.equal(backend.fused.get('softmax')?.({ inputs: [null], outputs: [], attributes: {} }), false);
    // One invocation for so long a row would take longer than the composition.
    const before = taken.get('softmax') ?? 0;
    const [long] = await readAll(() => [tensor.zeros([2, 8192], { backend }).softmax(-1)]);
    assert.ok(
      Array.from((long as Values).data).every(v => Math.abs(v * 8192 - 1) <= 1e-6),
      'Array.from((long as Values).data).every(v => Math.abs(v * 8192 - 1)...',
    );
    assert.equal((taken.get('softmax') ?? 0) - before, machine === workgroup ? 1 : 0);
  });

  test(`${machine.name}: what is declined records nothing`, () =>
    scope(() => {
      const { backend } = machine;
      const view = (shape: number[], dtype: 'f32' | 'i32' = 'f32') =>
        tensor.zeros(shape, { dtype, backend }).view('test');
      const { counters } = backend;
      const calls = [
        ['softmax', [view([3, 4], 'i32')], [view([3, 4])]],
        ['softmax', [view([0, 4])], [view([0, 4])]],
        ['softmax', [view([3, 0])], [view([3, 0])]],
        ['rmsNorm', [view([3, 4]), null], [view([3, 4]), view([3])]],
        ['crossEntropy', [view([3, 4]), view([3])], [view([3]), view([3]), view([3])]],
        ['rope', [view([1, 2, 1, 4], 'i32'), view([1, 2, 2]), view([1, 2, 2])], [view([1, 2, 1, 4])]],
      ] as const;
      const before = counters.dispatches;
      for (const [name, inputs, outputs] of calls)
        assert.equal(backend.fused.get(name)?.({ inputs, outputs, attributes: { eps: 1, inverse: 0 } }), false, name);
      assert.equal(counters.dispatches, before);
    }));

  test(`${machine.name}: NaN stays in its row, large finite masks weigh nothing`, async () => {
    const { backend } = machine;
    const n = 40;
    const masked = (i: number): boolean => (i >= n && i < 2 * n && i % 2 === 1) || (i >= 2 * n && i < 3 * n);
    const data = Float32Array.from({ length: 4 * n }, (_, i) => (i === 17 ? NaN : masked(i) ? -3.4e38 : i % 7));
    const [y, normed, loss] = (await readAll(() => {
      const x = tensor(data, [4, n], { backend });
      return [
        x.softmax(-1),
        rmsNorm(x.slice(0, 0, 1).contiguous(), tensor.ones([n], { backend }), 1e-5),
        crossEntropy(x, Int32Array.of(0, 0, 0, -1)),
      ];
    })) as Values[];
    const row = (r: number): number[] => Array.from(y.data).slice(r * n, (r + 1) * n);
    assert.ok(row(0).every(Number.isNaN), 'row(0).every(Number.isNaN)');
    assert.ok(Array.from(normed.data).every(Number.isNaN), 'Array.from(normed.data).every(Number.isNaN)');
    assert.ok(
      row(1).every((v, j) => (j % 2 === 1 ? v === 0 : v > 0)),
      'masked entries are 0',
    );
    assert.ok(
      row(2).every(v => Math.abs(v - 1 / n) <= 1e-8),
      'a row of masks is even',
    );
    assert.ok(
      Math.abs(row(3).reduce((a, b) => a + b, 0) - 1) <= 1e-6,
      'Math.abs(row(3).reduce((a, b) => a + b, 0) - 1) <= 1e-6',
    );
    assert.ok(Number.isNaN(loss.data[0]), 'Number.isNaN(loss.data[0])');
    assert.ok(
      Number.isFinite(loss.data[1]) && Math.abs(loss.data[2] - Math.log(n)) <= 1e-6,
      'Number.isFinite(loss.data[1]) && Math.abs(loss.data[2] - Math.log(n...',
    );
    assert.equal(loss.data[3], 0);
  });

  test(`${machine.name}: one dispatch for each kernel, for SwiGLU, and for a whole step of AdamW`, async () => {
    const { backend } = machine;
    const { counters } = backend;
    const make = (shape: number[]): Tensor => tensor.normal(shape, { seed: 1, backend });
    const dispatches = (body: () => unknown): number => {
      const before = counters.dispatches;
      body();
      return counters.dispatches - before;
    };
    await readAll(() => {
      const [x, w, g] = [make([40, 24]), make([24]), make([40, 24])];
      const heads = make([1, 5, 2, 8]);
      const [cos, sin] = [make([1, 5, 4]), make([1, 5, 4])];
      const labels = Int32Array.from({ length: 40 }, (_, i) => i % 24);
      const gradient = make([40]);
      assert.ok(4 * x.size < backend.settings.bindingBytes, '4 * x.size < backend.settings.bindingBytes');
      const forward: [string, () => Tensor][] = [
        ['softmax', () => x.softmax(-1)],
        ['rmsNorm', () => rmsNorm(x, w, 1e-5)],
        ['layerNorm', () => layerNorm(x, w, w, 1e-5)],
        ['rope', () => rope(heads, cos, sin)],
        ['crossEntropy', () => crossEntropy(x, labels)],
        ['swiglu', () => swiglu(x, g)],
      ];
      for (const [what, f] of forward) assert.equal(dispatches(f), 1, what);
      const leaf = x.detach().requireGrad();
      const backward: [string, Tensor, Tensor][] = [
        ['softmax', leaf.softmax(-1), g],
        ['rmsNorm', rmsNorm(leaf, w, 1e-5), g],
        ['layerNorm', layerNorm(leaf, w, w, 1e-5), g],
        ['crossEntropy', crossEntropy(leaf, labels), gradient],
      ];
      for (const [what, y, dy] of backward) {
        leaf.grad = null;
        assert.equal(
          dispatches(() => y.backward({ gradient: dy })),
          1,
          `${what}.vjp`,
        );
      }
      const turned = heads.detach().requireGrad();
      const y = rope(turned, cos, sin);
      assert.equal(
        dispatches(() => y.backward({ gradient: heads })),
        1,
        'rope backward',
      );
      const [gate, up] = [x.detach().requireGrad(), g.detach().requireGrad()];
      const gated = swiglu(gate, up);
      assert.equal(
        dispatches(() => gated.backward({ gradient: g })),
        1,
        'swiglu backward: both gradients at once',
      );
      const p = make([30]).requireGrad();
      p.grad = make([30]);
      const optimizer = new AdamW([p]);
      assert.equal(
        dispatches(() => optimizer.step()),
        1,
        'AdamW',
      );
      optimizer.dispose();
      return [];
    });
  });

  test(`${machine.name}: every row kernel took calls`, () => {
    const names = [...machine.taken.keys()].filter(name => ofRows.includes(name.split('.')[0]));
    assert.equal(names.length, 9);
    for (const name of names) assert.ok((machine.taken.get(name) ?? 0) > 0, name);
  });
}
