// The edit's WGSL kernels against its composition in f64: values, gradients, rows that are not edited, both variants, several slots.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createCpuBackend } from '../src/backends/index.js';
import type { WebGpuBackend } from '../src/backends/webgpu/index.js';
import { edit, type EditBank } from '../src/reft/index.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { Random } from '../src/tensor/threefry.js';
import { openForTests } from './helpers/webgpu.js';

const oracle = createCpuBackend({ simd: false });
const software = await openForTests();
const forGpus = await openForTests({ reduce: 'workgroup' });

type Name = 'A' | 'b' | 'C' | 'e' | 'P';
const forms: readonly (readonly Name[])[] = [['A', 'b', 'C', 'P'], ['A', 'b', 'P'], ['A', 'b', 'C', 'e', 'P'], ['b', 'C', 'P'], ['b', 'P'], ['C', 'P'], ['A', 'e', 'P']];

interface Case { rows: number; width: number; rank: number; slots: number; edited: number; form: number; shared: boolean; seed: number }

/** Values and gradients of everything, by name. */
async function run(backend: WebGpuBackend | typeof oracle, dtype: 'f32' | 'f64', c: Case): Promise<Map<string, number[]>> {
  const random = new Random(c.seed);
  const numbers = (length: number): Float64Array => Float64Array.from({ length }, () => Math.fround(random.normal()));
  const make = (shape: number[]): Tensor => create.from(numbers(shape.reduce((a, b) => a * b, 1)), shape, { dtype, backend });
  const h = make([c.rows, c.width]).requireGrad();
  const shape = { A: [c.slots, c.rank, c.width], b: [c.slots, c.rank], C: [c.slots, c.rank, c.width], e: [c.slots, c.rank], P: [c.slots, c.rank, c.width] };
  const bank = Object.fromEntries(forms[c.form].map(name => [name, make(shape[name]).requireGrad()])) as unknown as EditBank & Record<Name, Tensor>;
  // loreft's C and P are one tensor.
  if (c.shared && bank.C) Object.assign(bank, { P: bank.C });
  const order = Array.from({ length: c.rows }, (_, i) => i).sort(() => random.next() - 0.5);
  const indices = Int32Array.from(order.slice(0, c.edited));
  const slots = indices.map(() => random.integer(c.slots));
  const scale = create.from(Float64Array.from(indices, () => Math.fround(random.normal())), [c.edited], { dtype, backend });
  const weight = make([c.rows, c.width]);
  const y = edit(h, bank, { indices, slots, scale });
  y.mul(weight).sum().backward();
  const result = new Map<string, number[]>([['h', [...await h.data()]], ['y', [...await y.data()]], ['edited', [...indices]]]);
  result.set('dh', [...await (h.grad as Tensor).data()]);
  for (const name of forms[c.form]) result.set(`d${name}`, [...await (bank[name].grad as Tensor).data()]);
  return result;
}

for (const [name, gpu] of [['an invocation a result', software], ['a workgroup a sum', forGpus]] as const) {
  if (!gpu) continue;
  test(`edit on WebGPU, ${name}: values and gradients are the composition's, other rows are copied to the bit`, async () => {
    let [taken, calls] = [0, 0];
    for (const kernel of ['edit', 'edit.vjp']) {
      const own = gpu.fused.get(kernel);
      assert.ok(own);
      gpu.fused.set(kernel, call => {
        const done = own(call);
        taken += Number(done);
        calls++;
        return done;
      });
    }
    const drawn = fc.record({
      rows: fc.integer({ min: 1, max: 9 }), width: fc.constantFrom(1, 3, 64, 65, 200), rank: fc.constantFrom(1, 2, 5), slots: fc.integer({ min: 1, max: 3 }),
      edited: fc.integer({ min: 1, max: 9 }), form: fc.nat(forms.length - 1), shared: fc.boolean(), seed: fc.nat(1000),
    });
    await fc.assert(fc.asyncProperty(drawn, async given => {
      const c = { ...given, edited: Math.min(given.edited, given.rows) };
      const [there, here] = [await run(gpu, 'f32', c), await run(oracle, 'f64', c)];
      for (const [what, expected] of here) {
        const found = there.get(what) as number[];
        const size = Math.max(1, ...expected.map(Math.abs));
        expected.forEach((v, i) => assert.ok(Math.abs(found[i] - v) <= 3e-6 * size * Math.sqrt(c.width), `${what}[${i}]: ${found[i]}, expected ${v}`));
      }
      const [h, y, edited] = ['h', 'y', 'edited'].map(what => there.get(what) as number[]);
      y.forEach((v, i) => { if (!edited.includes(Math.floor(i / c.width))) assert.equal(v, h[i]); });
    }), { numRuns: 40 });
    assert.equal(taken, calls, 'every call was taken');
    assert.ok(calls > 60);
  });
}

if (software) {
  test('two dispatches forward; a bank larger than a binding is left to the composition', async () => {
    const small = await openForTests({ bindingBytes: 4096 });
    assert.ok(small);
    const call = async (gpu: WebGpuBackend): Promise<number> => {
      const h = create.zeros([4, 600], { backend: gpu });
      const P = create.full([1, 4, 600], 0.5, { backend: gpu });
      await gpu.flush();
      const before = gpu.counters.dispatches;
      const y = edit(h, { A: P, P }, { indices: Int32Array.of(2), slots: Int32Array.of(0), scale: create.full([1], 1, { backend: gpu }) });
      const dispatches = gpu.counters.dispatches - before;
      assert.equal((await y.data()).length, 2400);
      return dispatches;
    };
    assert.ok(await call(software) <= 4, 'the edit, the scale and the slots');
    assert.ok(await call(small) > 4);
  });
}
