// The edit's WGSL kernels against its composition in f64: values and gradients for every activation and set of
// matrices, both variants, several slots; rows that are not edited to the bit; what is declined, and how many
// dispatches there are.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createCpuBackend } from '../src/backends/index.js';
import type { WebGpuBackend } from '../src/backends/webgpu/index.js';
import { edit, type EditBank } from '../src/reft/index.js';
import { editActivations, type EditActivation } from '../src/reft/editOp.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import { runs } from './helpers/draw.js';
import { openForTests } from './helpers/webgpu.js';

const oracle = createCpuBackend({ simd: false });
const software = await openForTests();
const forGpus = await openForTests({ reduce: 'workgroup' });

type Name = 'A' | 'b' | 'C' | 'e' | 'P';
const forms: readonly (readonly Name[])[] = [
  ['A', 'b', 'C', 'P'],
  ['A', 'b', 'P'],
  ['A', 'b', 'C', 'e', 'P'],
  ['b', 'C', 'P'],
  ['b', 'P'],
  ['C', 'P'],
  ['A', 'e', 'P'],
];

interface Case {
  rows: number;
  width: number;
  rank: number;
  slots: number;
  edited: number;
  form: number;
  shared: boolean;
  seed: number;
  activation?: EditActivation;
}

/** Values and gradients of everything, by name. */
async function run(
  backend: WebGpuBackend | typeof oracle,
  dtype: 'f32' | 'f64',
  c: Case,
): Promise<Map<string, number[]>> {
  const random = new Random(c.seed);
  const numbers = (length: number): Float64Array => Float64Array.from({ length }, () => Math.fround(random.normal()));
  const make = (shape: number[]): Tensor =>
    create.from(numbers(shape.reduce((a, b) => a * b, 1)), shape, { dtype, backend });
  const h = make([c.rows, c.width]).requireGrad();
  const shape = {
    A: [c.slots, c.rank, c.width],
    b: [c.slots, c.rank],
    C: [c.slots, c.rank, c.width],
    e: [c.slots, c.rank],
    P: [c.slots, c.rank, c.width],
  };
  const bank = Object.fromEntries(
    forms[c.form].map(name => [name, make(shape[name]).requireGrad()]),
  ) as unknown as EditBank & Record<Name, Tensor>;
  // loreft's C and P are one tensor.
  if (c.shared && bank.C) Object.assign(bank, { P: bank.C });
  const order = Array.from({ length: c.rows }, (_, i) => i).sort(() => random.next() - 0.5);
  const indices = Int32Array.from(order.slice(0, c.edited));
  const slots = indices.map(() => random.integer(c.slots));
  const scale = create.from(
    Float64Array.from(indices, () => Math.fround(random.normal())),
    [c.edited],
    { dtype, backend },
  );
  const weight = make([c.rows, c.width]);
  const y = edit(h, { ...bank, activation: c.activation ?? 'linear' }, { indices, slots, scale });
  y.mul(weight).sum().backward();
  const result = new Map<string, number[]>([
    ['h', [...(await h.data())]],
    ['y', [...(await y.data())]],
    ['edited', [...indices]],
  ]);
  result.set('dh', [...(await (h.grad as Tensor).data())]);
  for (const name of forms[c.form]) result.set(`d${name}`, [...(await (bank[name].grad as Tensor).data())]);
  return result;
}

/** How often the backend's edit kernels were called, and took the call. */
function countTaken(gpu: WebGpuBackend): { calls: number; taken: number } {
  const count = { calls: 0, taken: 0 };
  for (const kernel of ['edit', 'edit.vjp']) {
    const own = gpu.fused.get(kernel);
    assert.ok(own, 'own');
    gpu.fused.set(kernel, call => {
      const done = own(call);
      count.taken += Number(done);
      count.calls++;
      return done;
    });
  }
  return count;
}

async function check(gpu: WebGpuBackend, c: Case): Promise<void> {
  const [there, here] = [await run(gpu, 'f32', c), await run(oracle, 'f64', c)];
  for (const [what, expected] of here) {
    const found = there.get(what) as number[];
    const size = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
    const bound = 3e-6 * size * Math.sqrt(c.width);
    expected.forEach((v, i) => {
      if (!(Math.abs(found[i] - v) <= bound))
        assert.fail(`${what}[${i}]: ${found[i]}, expected ${v}: ${JSON.stringify(c)}`);
    });
  }
  const [h, y, edited] = ['h', 'y', 'edited'].map(what => there.get(what) as number[]);
  y.forEach((v, i) => {
    if (!edited.includes(Math.floor(i / c.width))) assert.equal(v, h[i]);
  });
}

for (const [name, gpu] of [
  ['an invocation alone', software],
  ['a workgroup together', forGpus],
] as const) {
  if (!gpu) continue;
  const count = countTaken(gpu);

  test(`edit on WebGPU, ${name}: values and gradients are the composition's, other rows are copied`, async () => {
    const drawn = fc.record({
      rows: fc.integer({ min: 1, max: 9 }),
      width: fc.constantFrom(1, 64, 65, 200),
      rank: fc.constantFrom(1, 5),
      slots: fc.constantFrom(1, 3),
      edited: fc.integer({ min: 1, max: 9 }),
      form: fc.nat(forms.length - 1),
      shared: fc.boolean(),
      seed: fc.nat(1000),
    });
    await fc.assert(
      fc.asyncProperty(drawn, given => check(gpu, { ...given, edited: Math.min(given.edited, given.rows) })),
      runs(gpu === software ? 12 : 6),
    );
    const form = 2;
    await check(gpu, { rows: 300, width: 64, rank: 2, slots: 1, edited: 277, form, shared: false, seed: 3 });
    await check(gpu, { rows: 7, width: 4096, rank: 32, slots: 1, edited: 6, form, shared: false, seed: 4 });
    await check(gpu, { rows: 70, width: 64, rank: 9, slots: 2, edited: 61, form, shared: false, seed: 5 });
  });

  test(`edit on WebGPU, ${name}: ${gpu === software ? 'every activation' : 'some activations'}`, async () => {
    // Widths are kept small: far out, derivatives cancel.
    for (const [n, activation] of editActivations.entries()) {
      // The text of an activation is the same in both; workgroups take software a second each to compile.
      if (gpu === forGpus && n % 3 !== 1) continue;
      await check(gpu, {
        rows: 6,
        width: 8,
        rank: 2,
        slots: 1 + (n % 2),
        edited: 4,
        form: n === 2 ? 4 : n % 3,
        shared: false,
        seed: 20 + n,
        activation,
      });
    }
  });

  test(`edit on WebGPU, ${name}: rows that are not edited keep their bits, and NaN stays in its row`, async () => {
    // NaN with a payload, -0, and a number below the normal ones.
    const odd: Record<number, number> = { 4: 0x7fc01234, 1: 0x80000000, 3: 0x00000017 };
    const bits = Uint32Array.from({ length: 6 * 8 }, (_, i) => odd[i >> 3] ?? 0x3f800000 + i);
    const h = create.from(new Float32Array(bits.buffer), [6, 8], { backend: gpu });
    const P = create.full([1, 2, 8], 0.5, { backend: gpu });
    const y = edit(h, { A: P, P }, { indices: Int32Array.of(5, 0), slots: Int32Array.of(0, 0) });
    const result = new Uint32Array(((await y.data()) as Float32Array).slice().buffer);
    for (const row of [1, 2, 3, 4])
      assert.deepEqual(result.slice(8 * row, 8 * row + 8), bits.slice(8 * row, 8 * row + 8), `row ${row}`);
    const values = [...(await y.data())];
    values.forEach((v, i) => assert.equal(Number.isNaN(v), i >> 3 === 4, `row ${i >> 3}`));
    // u = 4 and more, h' = h + 2 * 0.5 * u
    assert.ok(
      values.slice(40).every(v => v > 5),
      'edited',
    );
  });

  test(`edit on WebGPU, ${name}: the same bits every time`, async () => {
    const c: Case = { rows: 90, width: 64, rank: 2, slots: 1, edited: 77, form: 2, shared: false, seed: 9 };
    assert.deepEqual(await run(gpu, 'f32', c), await run(gpu, 'f32', c));
  });

  test(`edit on WebGPU, ${name}: every call was taken`, () => {
    assert.equal(count.taken, count.calls);
    assert.ok(count.calls > 20, 'count.calls > 20');
  });
}

if (software) {
  test('NaN and numbers that overflow a cube pass through every activation as in the composition', async () => {
    // y = h + act(h_0) in column 1.
    const at = [NaN, 1e20, -1e20, 0, 3];
    const through = async (
      backend: WebGpuBackend | typeof oracle,
      dtype: 'f32' | 'f64',
      activation: EditActivation,
    ): Promise<number[][]> => {
      const h = create
        .from(
          at.flatMap(v => [v, 0, 0, 0]),
          [at.length, 4],
          { dtype, backend },
        )
        .requireGrad();
      const unit = (column: number): Tensor =>
        create.from(
          [0, 1, 2, 3].map(i => Number(i === column)),
          [1, 1, 4],
          { dtype, backend },
        );
      const rows = {
        indices: Int32Array.from(at.keys()),
        slots: new Int32Array(at.length),
        scale: create.ones([at.length], { dtype, backend }),
      };
      const y = edit(h, { A: unit(0), P: unit(1), b: create.zeros([1, 1], { dtype, backend }), activation }, rows);
      y.sum().backward();
      const column = async (t: Tensor, n: number): Promise<number[]> =>
        [...(await t.data())].filter((_, i) => i % 4 === n);
      return [await column(y, 1), await column(h.grad as Tensor, 0)];
    };
    for (const activation of editActivations) {
      const [there, here] = [await through(software, 'f32', activation), await through(oracle, 'f64', activation)];
      there.forEach((list, k) =>
        list.forEach((v, i) => {
          const want = here[k][i];
          const close = Object.is(v + 0, want + 0) || Math.abs(v - want) <= 1e-5 * Math.abs(want) + 2 ** -126;
          assert.ok(close, `${activation}, ${k === 0 ? 'value' : 'gradient'} at ${at[i]}: ${v}, expected ${want}`);
        }),
      );
    }
  });

  test('two dispatches forward, four or five backward; matrices larger than a binding are left to the composition', async () => {
    const small = await openForTests({ bindingBytes: 4096 });
    assert.ok(small, 'small');
    const call = async (gpu: WebGpuBackend, activation: EditActivation): Promise<[number, number]> => {
      const h = create.zeros([4, 600], { backend: gpu });
      const P = create.full([1, 4, 600], 0.5, { backend: gpu }).requireGrad();
      const gradient = create.zeros([4, 600], { backend: gpu });
      await gpu.flush();
      const marks = [gpu.counters.dispatches];
      const y = edit(
        h,
        { A: P, P, activation },
        { indices: Int32Array.of(2), slots: Int32Array.of(0), scale: create.full([1], 1, { backend: gpu }) },
      );
      marks.push(gpu.counters.dispatches);
      y.backward({ gradient });
      marks.push(gpu.counters.dispatches);
      assert.equal((await y.data()).length, 2400);
      return [marks[1] - marks[0], marks[2] - marks[1]];
    };
    // The scale is filled, and P's two gradients are added.
    assert.deepEqual(await call(software, 'linear'), [1 + 2, 4 + 1]);
    assert.deepEqual(await call(software, 'gelu'), [1 + 2, 5 + 1]);
    assert.ok((await call(small, 'linear'))[0] > 4, "(await call(small, 'linear'))[0] > 4");
  });

  test('what is declined records nothing', () => {
    const view = (shape: number[], dtype: 'f32' | 'i32' = 'f32') =>
      create.zeros(shape, { dtype, backend: software }).view('test');
    const [h, slots, P, scale, u, g] = [
      view([4, 8]),
      view([2], 'i32'),
      view([1, 2, 8]),
      view([2]),
      view([2, 2]),
      view([4, 8]),
    ];
    const high = view([1, 300, 8]);
    const indices = Int32Array.of(0, 1);
    const forward = {
      inputs: [h, slots, P, null, null, null, P, scale],
      outputs: [g, u],
      attributes: { activation: 0 },
      indices,
    };
    const backward = {
      inputs: [...forward.inputs, u, g],
      outputs: [view([4, 8]), view([1, 2, 8]), view([1, 2, 8])],
      attributes: { activation: 0 },
      indices,
    };
    const columns = { ...h, strides: [1, 4] };
    const before = software.counters.dispatches;
    for (const [name, call] of [
      ['edit', { ...forward, attributes: { activation: 99 } }],
      ['edit', { ...forward, indices: new Int32Array(0) }],
      ['edit', { ...forward, inputs: [columns, ...forward.inputs.slice(1)] }],
      ['edit', { ...forward, inputs: [...forward.inputs.slice(0, 6), high, scale] }],
      ['edit.vjp', { ...backward, attributes: { activation: 99 } }],
      ['edit.vjp', { ...backward, inputs: [...backward.inputs.slice(0, 9), columns] }],
    ] as const)
      assert.equal(software.fused.get(name)?.(call), false);
    assert.equal(software.counters.dispatches, before);
  });
}
