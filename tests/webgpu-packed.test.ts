// Packed weights on the device: decoding and rows by number are exact, products in both orientations are within k
// roundings of f64 loops over independently decoded values; in software's and GPUs' kernels, windows of rows, batches,
// and bindings too small for the matrix. Nothing is expanded to f32 on the way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packedRowBytes } from '../src/tensor/packing.js';
import { sizeOf } from '../src/tensor/shape.js';
import type { View } from '../src/backends/backend.js';
import type { WebGpuBackend } from '../src/backends/webgpu/index.js';
import { dense, normals, onDevice, read, turned } from './helpers/deviceViews.js';
import { allPackings, columnsFor, halfValue, randomPacked } from './helpers/packedWeights.js';
import { openForTests } from './helpers/webgpu.js';

const plain = await openForTests();
const others = plain && [
  await openForTests({ matmul: 'workgroup', slices: 16, invocations: 4096 }),
  await openForTests({ bindingBytes: 4096 }),
];
const backends: readonly (readonly [WebGpuBackend | undefined, string])[] = [
  [plain, 'register'],
  [others?.[0], 'workgroup'],
  [others?.[1], 'small bindings'],
];

const rowsFrom = (view: View, from: number, to: number): View => ({
  ...view,
  shape: [to - from, view.shape[1]],
  offset: view.offset + from * view.shape[1],
});

/**
 * y [m, n] = x [m, k] w, held to k roundings of the sum of sizes; `w(p, j)` is an element of [k, n]. Of large products
 * every seventh row.
 */
function checkProduct(
  y: ArrayLike<number>,
  x: Float32Array,
  w: (p: number, j: number) => number,
  [m, n, k]: readonly number[],
  what: string,
): void {
  for (let i = 0; i < m; i += m * n * k > 2 ** 20 ? 7 : 1) {
    for (let j = 0; j < n; j++) {
      let [sum, size] = [0, 0];
      for (let p = 0; p < k; p++) {
        const term = x[i * k + p] * w(p, j);
        sum += term;
        size += Math.abs(term);
      }
      const off = Math.abs(y[i * n + j] - sum);
      if (!(off <= (k + 4) * 2 ** -24 * size))
        assert.fail(`${what}: [${i}, ${j}] is ${y[i * n + j]}, expected ${sum}, off by ${off}`);
    }
  }
}

for (const [backend, name] of backends) {
  if (!backend) continue;

  test(`${name}: decoding, windows of rows and rows by number are exact`, async () => {
    for (const packing of allPackings) {
      for (const [rows, side] of [
        [1, 2],
        [7, 33],
        [65, 96],
        [9, 416],
      ]) {
        const w = randomPacked(packing, rows, columnsFor(packing, side), rows + side);
        const view = onDevice(backend, packing, w);
        const [from, to] = [Math.floor(rows / 3), rows - Math.floor(rows / 4)];
        for (const window of [view, rowsFrom(view, from, to), rowsFrom(view, rows - 1, rows)]) {
          const output = dense(backend, window.shape);
          backend.kernels.unpack({ input: window, output });
          const start = window.offset;
          assert.deepEqual(
            Array.from(await read(backend, output), v => v + 0),
            Array.from(w.values.subarray(start, start + sizeOf(window.shape)), v => v + 0),
            `${packing} [${rows}, ${w.columns}] from ${start / w.columns}`,
          );
          const count = window.shape[0];
          const indices = Int32Array.from({ length: 11 }, (_, i) => (i % 4 === 1 ? -1 - i : (i * 5) % count));
          const picked = dense(backend, [11, w.columns], normals(11 * w.columns, 1));
          backend.kernels.gather({ input: window, indices, output: picked });
          const expected = Array.from({ length: 11 * w.columns }, (_, e) => {
            const index = indices[Math.floor(e / w.columns)];
            return index < 0 ? 0 : w.values[start + index * w.columns + (e % w.columns)] + 0;
          });
          assert.deepEqual(
            Array.from(await read(backend, picked), v => v + 0),
            expected,
            `${packing}: rows by number`,
          );
          for (const v of [output, picked]) backend.free(v.allocation);
        }
        backend.free(view.allocation);
      }
    }
  });

  // [tokens, side of the other operand, side along the packed rows]
  const small =
    name === 'register'
      ? [
          [1, 9, 96],
          [3, 40, 64],
          [9, 33, 35],
          [33, 62, 64],
        ]
      : [
          [1, 70, 96],
          [20, 66, 64],
          [3, 5, 160],
        ];
  for (const packing of allPackings) {
    test(`${name}: products with ${packing} weights and with their transpose`, async () => {
      // The large tile in software; rows of odd length in shared panels.
      const more =
        name === 'register' && packing === 'q4_0'
          ? [[64, 515, 512]]
          : name === 'workgroup' && packing === 'f16'
            ? [[9, 33, 35]]
            : [];
      for (const [m, other, side] of [...small, ...more]) {
        const columns = columnsFor(packing, side);
        const rows = other + 3;
        const w = randomPacked(packing, rows, columns, m * other);
        const whole = onDevice(backend, packing, w);
        const window = rowsFrom(whole, 2, rows - 1);
        const value = (r: number, c: number): number => w.values[(r + 2) * columns + c];
        const what = `${packing} [${rows}, ${columns}] for ${m} rows`;
        // x W^T decodes along k.
        const x = normals(m * columns, m);
        const forward = dense(backend, [m, other]);
        backend.kernels.matmul({ a: dense(backend, [m, columns], x), b: turned(window), output: forward });
        checkProduct(
          await read(backend, forward),
          x,
          (p, j) => value(j, p),
          [m, other, columns],
          `${what}, transposed`,
        );
        // g W decodes along n.
        const g = normals(m * other, m + 1);
        const back = dense(backend, [m, columns]);
        backend.kernels.matmul({ a: dense(backend, [m, other], g), b: window, output: back });
        checkProduct(await read(backend, back), g, (p, j) => value(p, j), [m, columns, other], what);
      }
    });
  }

  test(`${name}: batches share packed weights; a transposed first operand`, async () => {
    const w = randomPacked('q4_1', 12, 64, 5);
    const view = onDevice(backend, 'q4_1', w);
    const x = normals(3 * 10 * 64, 6);
    const input = dense(backend, [3, 10, 64], x);
    const output = dense(backend, [3, 10, 12]);
    const t = turned(view);
    backend.kernels.matmul({ a: input, b: { ...t, shape: [3, 64, 12], strides: [0, ...t.strides] }, output });
    checkProduct(await read(backend, output), x, (p, j) => w.values[j * 64 + p], [30, 12, 64], 'batches');
    // a [64, 10] read as [10, 64].
    const columns = Float32Array.from({ length: 640 }, (_, i) => x[(i % 10) * 64 + Math.floor(i / 10)]);
    const single = dense(backend, [10, 12]);
    backend.kernels.matmul({ a: { ...dense(backend, [10, 64], columns), strides: [1, 10] }, b: t, output: single });
    checkProduct(await read(backend, single), x, (p, j) => w.values[j * 64 + p], [10, 12, 64], 'a transposed');
  });

  test(`${name}: denormal scales, zero and the largest f16 numbers decode`, async () => {
    const halves = [0x0001, 0x8001, 0x03ff, 0x83ff, 0x0400, 0x8400, 0x0000, 0x8000, 0x7bff, 0xfbff, 0x3c00, 0x0200];
    const stored = Int32Array.from({ length: 6 }, (_, i) => halves[2 * i] | (halves[2 * i + 1] << 16));
    // q8_0: 12 blocks of quants 1, -1, 127, -128, ...; then the scales.
    const quants = Int32Array.from({ length: 96 }, () => 0x01 | (0xff << 8) | (0x7f << 16) | (0x80 << 24));
    const allocation = backend.allocate(4 * 102);
    backend.write(allocation, 0, Int32Array.from([...quants, ...stored]));
    const output = dense(backend, [1, 384]);
    backend.kernels.unpack({
      input: { allocation, dtype: 'f32', shape: [1, 384], strides: [384, 1], offset: 0, packing: 'q8_0' },
      output,
    });
    const expected = Array.from(
      { length: 384 },
      (_, c) => Math.fround(halfValue(halves[c >> 5]) * [1, -1, 127, -128][c & 3]) + 0,
    );
    assert.deepEqual(
      Array.from(await read(backend, output), v => v + 0),
      expected,
    );
  });
}

if (plain && others?.[1]) {
  const limited = others[1];

  test('packed weights are never expanded to f32 on the device', async () => {
    const [rows, columns] = [512, 512];
    const w = randomPacked('q8_0', rows, columns, 9);
    const fresh = await openForTests();
    assert.ok(fresh, 'fresh');
    const view = onDevice(fresh, 'q8_0', w);
    const [x, y, g] = [
      dense(fresh, [2, columns], normals(2 * columns, 1)),
      dense(fresh, [2, rows]),
      dense(fresh, [2, columns]),
    ];
    fresh.kernels.matmul({ a: x, b: turned(view), output: y });
    fresh.kernels.matmul({ a: y, b: view, output: g });
    fresh.kernels.gather({ input: view, indices: Int32Array.of(3, 500), output: x });
    await fresh.flush();
    const { peakBytes } = fresh.stats();
    assert.ok(peakBytes >= rows * packedRowBytes('q8_0', columns), `${peakBytes} bytes`);
    assert.ok(peakBytes < 2 * rows * columns, `${peakBytes} bytes at most, ${4 * rows * columns} would be f32`);
  });

  test('a packed row larger than a binding is refused by name', () => {
    const view: View = {
      allocation: limited.allocate(2 * 8192),
      dtype: 'f32',
      shape: [2, 4096],
      strides: [4096, 1],
      offset: 0,
      packing: 'f16',
    };
    const refused = { name: 'WebGPUError', kind: 'unsupported', message: /one row is larger than the 4096 bytes/ };
    assert.throws(() => limited.kernels.unpack({ input: view, output: dense(limited, [2, 4096]) }), refused);
    assert.throws(
      () => limited.kernels.matmul({ a: dense(limited, [1, 2]), b: view, output: dense(limited, [1, 4096]) }),
      refused,
    );
  });
}
