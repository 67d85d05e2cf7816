// GEMM against loops in f64, elementwise within k * 2^-24 * sum |a||b|, over the edges of tiles and blocks, any
// strides, every path.

import assert from 'node:assert/strict';
import v8 from 'node:v8';
import { test } from 'node:test';
import fc from 'fast-check';
import { supportsRelaxedSimd } from '../src/backends/cpu/wasm/emit/assembler.js';
import { createGemm, type GemmPath, type WasmView } from '../src/backends/cpu/wasm/products/gemm.js';

v8.setFlagsFromString('--experimental-wasm-relaxed-simd'); // Node 20 has relaxed SIMD behind this flag; later versions always
const relaxedModes = supportsRelaxedSimd() ? [false, true] : [false];
const paths: (GemmPath | undefined)[] = [undefined, 'packed', 'direct', 'dot'];
const runs = { seed: Number(process.env.FC_SEED ?? 20240404), numRuns: Number(process.env.FC_RUNS ?? 60) };

/** A memory whose data lies below, and whose scratch lies above a guard that must not change. */
function machine() {
  const memory = new WebAssembly.Memory({ initial: 64 });
  let top = 64;
  let scratchEnd = 0;
  const allocate = (bytes: number): number => {
    const at = top;
    top += Math.ceil(bytes / 16) * 16 + 16;
    const missing = top - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    return at;
  };
  const scratch = (bytes: number): number => {
    const at = allocate(bytes + 16);
    scratchEnd = at + bytes;
    new Uint8Array(memory.buffer, scratchEnd, 16).fill(0xa5);
    return at;
  };
  const checkScratch = (): void => {
    if (scratchEnd > 0)
      assert.ok(
        new Uint8Array(memory.buffer, scratchEnd, 16).every(x => x === 0xa5),
        'wrote past the scratch',
      );
    scratchEnd = 0;
  };
  const reset = (): void => {
    top = 64;
  };
  return { memory, allocate, scratch, checkScratch, reset };
}

interface Layout {
  /** Order of the last two axes in memory. */
  transposed: boolean;
  /** Unused elements after each row and between elements. */
  rowGap: number;
  step: number;
}

/**
 * Strides of [..., rows, columns] for a layout; `repeat[i]`: leading axis i has stride 0. Also the elements spanned.
 */
function layOut(
  lead: readonly number[],
  rows: number,
  columns: number,
  layout: Layout,
  repeat: readonly boolean[],
): { strides: number[]; span: number } {
  const inner = layout.transposed ? rows : columns;
  const outer = layout.transposed ? columns : rows;
  const rowLength = inner * layout.step + layout.rowGap;
  let step = outer * rowLength;
  const strides = layout.transposed ? [layout.step, rowLength] : [rowLength, layout.step];
  for (let i = lead.length - 1; i >= 0; i--) {
    strides.unshift(repeat[i] ? 0 : step);
    if (!repeat[i]) step *= lead[i];
  }
  return { strides, span: step };
}

const hash = (seed: number, i: number): number => {
  let x = Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
  return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
};

interface Case {
  m: number;
  n: number;
  k: number;
  lead: number[];
  a: Layout;
  b: Layout;
  c: Layout;
  repeatA: boolean[];
  repeatB: boolean[];
  seed: number;
}

function check(
  machineOf: ReturnType<typeof machine>,
  gemm: ReturnType<typeof createGemm>,
  given: Case,
  what: string,
): Float32Array {
  const { memory, allocate, checkScratch, reset } = machineOf;
  const { m, n, k, lead, seed } = given;
  reset();
  const place = (
    rows: number,
    columns: number,
    layout: Layout,
    repeat: readonly boolean[],
  ): WasmView & { span: number } => {
    const { strides, span } = layOut(lead, rows, columns, layout, repeat);
    return { byteOffset: allocate(4 * span), shape: [...lead, rows, columns], strides, span };
  };
  const a = place(m, k, given.a, given.repeatA);
  const b = place(k, n, given.b, given.repeatB);
  const output = place(m, n, given.c, []);
  const floats = (view: WasmView & { span: number }) => new Float32Array(memory.buffer, view.byteOffset, view.span);
  floats(a).forEach((_, i, all) => (all[i] = 2 * hash(seed, i) - 1));
  floats(b).forEach((_, i, all) => (all[i] = 2 * hash(seed + 1, i) - 1));
  const untouched = -77;
  floats(output).fill(untouched);
  assert.equal(gemm.matmul({ a, b, output }), true);
  checkScratch();

  const [x, y, z] = [floats(a), floats(b), floats(output)];
  const written = new Uint8Array(z.length);
  const count = lead.reduce((p, s) => p * s, 1);
  const at = (view: WasmView, batch: number): number => {
    let offset = 0;
    for (let axis = lead.length - 1; axis >= 0; axis--) {
      offset += (batch % lead[axis]) * view.strides[axis];
      batch = Math.floor(batch / lead[axis]);
    }
    return offset;
  };
  const [rows, columns] = [lead.length, lead.length + 1];
  for (let batch = 0; batch < count; batch++) {
    const [a0, b0, c0] = [at(a, batch), at(b, batch), at(output, batch)];
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        let size = 0;
        for (let p = 0; p < k; p++) {
          const term =
            x[a0 + i * a.strides[rows] + p * a.strides[columns]] * y[b0 + p * b.strides[rows] + j * b.strides[columns]];
          sum += term;
          size += Math.abs(term);
        }
        const to = c0 + i * output.strides[rows] + j * output.strides[columns];
        written[to] = 1;
        if (!(Math.abs(z[to] - sum) <= k * 2 ** -24 * size)) {
          assert.fail(`${what}: [${batch}, ${i}, ${j}] is ${z[to]}, expected ${sum} within ${k * 2 ** -24 * size}`);
        }
      }
    }
  }
  z.forEach((value, i) =>
    assert.ok(written[i] === 1 || value === untouched, `${what}: element ${i} between rows was written`),
  );
  return z.slice();
}

const sides = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129];
const layout: fc.Arbitrary<Layout> = fc.record({
  transposed: fc.boolean(),
  rowGap: fc.constantFrom(0, 0, 1, 3),
  step: fc.constantFrom(1, 1, 1, 2),
});
const anyCase = (side: fc.Arbitrary<number>, lead: fc.Arbitrary<number[]>): fc.Arbitrary<Case> =>
  fc.record({
    m: side,
    n: side,
    k: side,
    lead,
    a: layout,
    b: layout,
    c: layout,
    repeatA: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    repeatB: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    seed: fc.nat(1000),
  });

for (const relaxed of relaxedModes) {
  for (const prefer of paths) {
    const name = `${prefer ?? 'chosen'} path, ${relaxed ? 'fused' : 'plain'}`;
    const shared = machine();
    const gemm = createGemm(shared.memory, shared.scratch, { relaxed, prefer });

    test(`${name}: tile edges, transposes, gaps`, () => {
      fc.assert(
        fc.property(anyCase(fc.constantFrom(...sides), fc.constant([])), c => void check(shared, gemm, c, name)),
        runs,
      );
    });

    test(`${name}: batches, repeated and not, with sides from 0`, () => {
      const lead = fc.array(fc.constantFrom(1, 2, 3), { minLength: 1, maxLength: 3 });
      fc.assert(
        fc.property(anyCase(fc.constantFrom(0, 1, 2, 3, 4, 5, 9, 17), lead), c => void check(shared, gemm, c, name)),
        runs,
      );
    });
  }

  test(`k over several blocks and m over several slabs, ${relaxed ? 'fused' : 'plain'}`, () => {
    const dense: Layout = { transposed: false, rowGap: 0, step: 1 };
    const across: Layout = { transposed: true, rowGap: 0, step: 1 };
    const common = { lead: [], repeatA: [], repeatB: [], c: dense, seed: 7 };
    for (const prefer of paths) {
      const here = machine();
      const gemm = createGemm(here.memory, here.scratch, { relaxed, prefer });
      check(here, gemm, { ...common, m: 13, n: 21, k: 1027, a: dense, b: dense }, `long k, ${prefer}`);
      check(here, gemm, { ...common, m: 2, n: 37, k: 1027, a: dense, b: across }, `long k transposed, ${prefer}`);
      check(
        here,
        gemm,
        { ...common, m: 6, n: 11, k: 2603, a: dense, b: across },
        `k past what is packed at once, ${prefer}`,
      );
      check(here, gemm, { ...common, m: 1067, n: 9, k: 37, a: across, b: dense }, `long m, ${prefer}`);
      check(here, gemm, { ...common, m: 6, n: 2100, k: 33, a: dense, b: dense }, `long n, ${prefer}`);
      check(here, gemm, { ...common, m: 5, n: 2100, k: 33, a: dense, b: across }, `long n transposed, ${prefer}`);
      for (const m of [1, 2, 3])
        check(here, gemm, { ...common, m, n: 4099, k: 133, a: dense, b: dense }, `far B, ${m} rows, ${prefer}`);
    }
  });
}

test('the same bits every time and wherever the operands lie', () => {
  const here = machine();
  const gemm = createGemm(here.memory, here.scratch);
  const dense: Layout = { transposed: false, rowGap: 0, step: 1 };
  for (const [m, n, k] of [
    [33, 65, 127],
    [4, 9, 64],
    [1, 40, 31],
  ]) {
    const given: Case = { m, n, k, lead: [], a: dense, b: dense, c: dense, repeatA: [], repeatB: [], seed: 3 };
    const first = check(here, gemm, given, 'first');
    assert.deepEqual(check(here, gemm, given, 'again'), first);
    // The memory has grown and moved meanwhile; another engine starts fresh.
    const other = machine();
    other.allocate(1000);
    assert.deepEqual(check(other, createGemm(other.memory, other.scratch), given, 'elsewhere'), first);
  }
});

test('shared memory gives the same bits', () => {
  const here = machine();
  const dense: Layout = { transposed: false, rowGap: 0, step: 1 };
  const given: Case = {
    m: 17,
    n: 33,
    k: 65,
    lead: [2],
    a: dense,
    b: dense,
    c: dense,
    repeatA: [],
    repeatB: [],
    seed: 5,
  };
  const plain = check(here, createGemm(here.memory, here.scratch), given, 'unshared');
  const memory = new WebAssembly.Memory({ initial: 8, maximum: 64, shared: true });
  const other = { ...machine(), memory };
  const next = { at: 64 };
  other.allocate = bytes => {
    const at = next.at;
    next.at += Math.ceil(bytes / 16) * 16;
    return at;
  };
  other.reset = () => void (next.at = 64);
  other.checkScratch = () => undefined;
  assert.deepEqual(check(other, createGemm(memory, other.allocate), given, 'shared'), plain);
});
