// The matrix product of the WebGPU backend over random shapes, transpositions, batches and strides against f64 loops,
// with the kernels of software and of GPUs; which tile a shape gets; a long k shared by several invocations; bindings
// too small for an operand; pipelines by structure.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { gelu, silu } from '../src/autograd/elementwise.js';
import { linear } from '../src/nn/linear.js';
import { create } from '../src/tensor/create.js';
import { contiguousStrides, sizeOf } from '../src/tensor/shape.js';
import { Random } from '../src/tensor/threefry.js';
import type { View } from '../src/backends/backend.js';
import type { Settings } from '../src/backends/webgpu/context.js';
import type { WebGpuBackend } from '../src/backends/webgpu/index.js';
import { chooseMatmul, type MatmulShape } from '../src/backends/webgpu/matmulChoice.js';
import { runs } from './helpers/draw.js';
import { openForTests } from './helpers/webgpu.js';

const plain = await openForTests();
const others = plain && [
  await openForTests({ matmul: 'workgroup' }),
  await openForTests({ bindingBytes: 4096, tile: 8, slices: 1 }),
  await openForTests({ slices: 16, invocations: 64 }),
];
const backends: readonly (readonly [WebGpuBackend | undefined, string])[] = [
  [plain, 'register'],
  [others?.[0], 'workgroup'],
  [others?.[1], 'small bindings'],
  [others?.[2], 'slices'],
];

interface Case {
  readonly batch: readonly number[];
  readonly m: number;
  readonly k: number;
  readonly n: number;
  /** Order of the axes in memory: whether each operand's last two are swapped, and the gap after each row. */
  readonly turned: readonly [boolean, boolean, boolean];
  readonly gap: number;
  /** Which operands repeat along the first leading axis. */
  readonly repeated: readonly [boolean, boolean];
  readonly seed: number;
}

const side = fc.constantFrom(1, 2, 3, 4, 5, 7, 8, 12, 13, 31, 64, 67);
const cases: fc.Arbitrary<Case> = fc.record({
  batch: fc.constantFrom([], [], [2], [3, 2]),
  m: side,
  k: side,
  n: side,
  turned: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()),
  gap: fc.constantFrom(0, 0, 0, 1, 4),
  repeated: fc.tuple(fc.boolean(), fc.boolean()),
  seed: fc.nat(10_000),
});

interface Placed {
  readonly view: View;
  readonly data: Float32Array;
  readonly at: (batch: readonly number[], row: number, column: number) => number;
}

/** A view on a block of its own, behind 4 elements (or 3, for odd seeds), filled with normals. */
function place(
  backend: WebGpuBackend,
  batch: readonly number[],
  [rows, columns]: readonly [number, number],
  turned: boolean,
  gap: number,
  repeated: boolean,
  seed: number,
): Placed {
  const line = (turned ? rows : columns) + gap;
  const lines = turned ? columns : rows;
  const inner = turned ? [1, line] : [line, 1];
  const leading = contiguousStrides([...batch, lines * line])
    .slice(0, -1)
    .map((s, d) => (repeated && d === 0 ? 0 : s));
  const offset = seed % 2 === 0 ? 4 : 3;
  const random = new Random(seed, 7);
  const data = Float32Array.from({ length: offset + sizeOf(batch) * lines * line + 1 }, () => random.normal());
  const allocation = backend.allocate(data.byteLength);
  backend.write(allocation, 0, data);
  const strides = [...leading, ...inner];
  return {
    view: { allocation, dtype: 'f32', shape: [...batch, rows, columns], strides, offset },
    data,
    at: (b, row, column) =>
      data[offset + b.reduce((sum, x, d) => sum + x * leading[d], 0) + row * inner[0] + column * inner[1]],
  };
}

async function check(backend: WebGpuBackend, { batch, m, k, n, turned, gap, repeated, seed }: Case): Promise<void> {
  const a = place(backend, batch, [m, k], turned[0], gap, repeated[0], seed);
  const b = place(backend, batch, [k, n], turned[1], gap, repeated[1], seed + 1);
  const output = place(backend, batch, [m, n], turned[2], gap, false, seed + 2);
  backend.kernels.matmul({ a: a.view, b: b.view, output: output.view });
  const found = await backend.read(output.view.allocation, 'f32', 0, output.data.length);
  const expected = Float64Array.from(output.data);
  const bounds = new Float64Array(output.data.length);
  const strides = output.view.strides;
  // Of large products every seventh element.
  const step = sizeOf(batch) * m * n * k > 2 ** 20 ? 7 : 1;
  const size = sizeOf(batch) * m * n;
  for (let e = 0; e < size; e++) {
    const index = contiguousStrides(output.view.shape).map((s, d) => Math.floor(e / s) % output.view.shape[d]);
    const [lead, [i, j]] = [index.slice(0, -2), index.slice(-2)];
    const to = output.view.offset + index.reduce((at, x, d) => at + x * strides[d], 0);
    if (e % step > 0) {
      expected[to] = found[to];
      continue;
    }
    let [sum, total] = [0, 0];
    for (let p = 0; p < k; p++) {
      const term = a.at(lead, i, p) * b.at(lead, p, j);
      sum += term;
      total += Math.abs(term);
    }
    expected[to] = sum;
    bounds[to] = (k + 4) * 2 ** -24 * total;
  }
  // Elements between rows are as they were.
  expected.forEach((value, at) => {
    if (!(Math.abs(found[at] - value) <= bounds[at]))
      assert.fail(`element ${at} is ${found[at]}, expected ${value} within ${bounds[at]}`);
  });
  for (const { view } of [a, b, output]) backend.free(view.allocation);
}

const flat = (m: number, k: number, n: number, turned: Case['turned'] = [false, false, false]): Case => ({
  batch: [],
  m,
  k,
  n,
  turned,
  gap: 0,
  repeated: [false, false],
  seed: 2 * (m + n),
});

for (const [backend, name] of backends) {
  if (!backend) continue;

  test(`${name}: random shapes, strides, transpositions and batches`, async () => {
    await fc.assert(
      fc.asyncProperty(cases, one => check(backend, one)),
      runs(name === 'register' ? 30 : 15),
    );
  });

  test(`${name}: few rows, few columns and a long k; an empty k gives zeros`, async () => {
    for (const [m, k, n] of [
      [1, 576, 70],
      [4, 1000, 24],
      [8, 2048, 8],
      [3, 2049, 5],
      [130, 96, 4],
      [9, 5003, 11],
      [3, 33_001, 8],
    ]) {
      for (const turned of [
        [false, true, false],
        [true, false, false],
      ] as const)
        await check(backend, flat(m, k, n, turned));
    }
    await check(backend, flat(3, 0, 5));
  });
}

if (plain) {
  test('register: the large tile', async () => {
    assert.equal(chooseMatmul({ ...shape, m: 49, k: 512, n: 700 }, plain.settings).structure.rows, 16);
    await check(plain, flat(49, 512, 700));
  });

  test('an epilogue is computed after the product', async () => {
    const normal = (dims: number[], seed: number) => create.normal(dims, { backend: plain, seed });
    const [x, weight, bias, gate, residual] = [
      normal([2, 9, 40], 1),
      normal([21, 40], 2),
      normal([21], 3),
      normal([2, 9, 21], 4),
      normal([2, 9, 21], 5),
    ];
    const y = x.matmulT(weight).add(bias);
    for (const [actual, expected] of [
      [linear(x, weight, bias, { activation: 'gelu', residual }), residual.add(gelu(y))],
      [linear(x, weight, bias, { activation: 'silu', gate }), silu(gate).mul(y)],
    ]) {
      const [found, wanted] = await Promise.all([actual.data(), expected.data()]);
      found.forEach((value, i) => {
        assert.ok(
          Math.abs(value - wanted[i]) <= 1e-6 * Math.max(1, Math.abs(wanted[i])),
          `${value}, expected ${wanted[i]} at ${i}`,
        );
      });
    }
  });

  test('pipelines are made for structures, not for shapes', async () => {
    await check(plain, flat(24, 64, 96));
    const before = plain.counters.pipelines;
    for (const [m, k, n] of [
      [24, 68, 120],
      [61, 80, 72],
      [33, 72, 88],
    ])
      await check(plain, flat(m, k, n));
    assert.equal(plain.counters.pipelines, before);
  });
}

const shape: MatmulShape = { m: 128, k: 576, n: 1536, batches: 1, a: 'alongK', b: 'across', bTransposed: false };
const software: Settings = {
  matmul: 'register',
  tile: 16,
  slices: 4,
  invocations: 4,
  reduce: 'invocation',
  groups: 64,
  bindingBytes: 2 ** 27,
  storageBuffers: 8,
};
const gpu: Settings = { ...software, matmul: 'workgroup', slices: 64, invocations: 65536 };

test('the choice: shared panels for GPUs, except for few rows or columns; slices where tiles are few', () => {
  assert.equal(chooseMatmul(shape, gpu).kernel, 'workgroup');
  for (const few of [{ m: 1 }, { m: 4 }, { m: 8 }, { n: 4 }])
    assert.equal(chooseMatmul({ ...shape, ...few }, gpu).kernel, 'register', JSON.stringify(few));
  // A matrix times a vector: 16 neighbours along each row of a transposed b.
  assert.ok(
    chooseMatmul({ ...shape, m: 1, b: 'alongK' }, gpu).structure.slices >= 16,
    "chooseMatmul({ ...shape, m: 1, b: 'alongK' }, gpu).structure.slices...",
  );
  assert.equal(chooseMatmul({ ...shape, m: 8, k: 2048, n: 8 }, software).structure.slices, 4);
  assert.equal(chooseMatmul({ ...shape, m: 8, k: 2048, n: 8 }, { ...software, slices: 1 }).structure.slices, 1);
  assert.equal(chooseMatmul(shape, software).structure.rows, 16);
  assert.equal(chooseMatmul(shape, { ...software, tile: 8 }).structure.rows, 8);
});

test('every choice fits a workgroup: 256 invocations and 16 KiB of shared memory', () => {
  const sides = fc.constantFrom(1, 2, 3, 4, 7, 8, 9, 31, 64, 200, 1536, 49152);
  const loads = fc.constantFrom('single' as const, 'alongK' as const, 'across' as const);
  const drawn = fc.record({
    m: sides,
    n: sides,
    k: sides,
    batches: fc.constantFrom(1, 9),
    a: loads,
    b: loads,
    bTransposed: fc.boolean(),
    slices: fc.constantFrom(1, 4, 16, 64),
    invocations: fc.constantFrom(1, 4, 4096, 65536),
    matmul: fc.constantFrom('register' as const, 'workgroup' as const),
  });
  fc.assert(
    fc.property(drawn, ({ slices, invocations, matmul, ...one }) => {
      const { structure } = chooseMatmul(one, { ...software, slices, invocations, matmul });
      const { rows, columns, across, down } = structure;
      for (const x of [across, down, structure.slices, columns / 4])
        assert.ok(Number.isInteger(x) && x >= 1, JSON.stringify(structure));
      assert.ok(across * down * structure.slices <= 256, JSON.stringify(structure));
      if (structure.slices > 1)
        assert.ok(rows * columns * across * down * structure.slices <= 4096, JSON.stringify(structure));
    }),
    runs(500),
  );
});
