// Sums of some fifty thousand terms on the device, as the head of a model has them: products of a long k with plain and
// packed weights, cross-entropy of that many classes, reductions, rows added up by number. Held to f64 by bounds that
// the length does not enter: one running sum in f32 breaks them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { View } from '../src/backends/backend.js';
import type { WebGpuBackend } from '../src/backends/webgpu/index.js';
import { crossEntropy } from '../src/nn/crossEntropy.js';
import { tensor } from '../src/tensor/index.js';
import { eps32 } from './helpers/bounds.js';
import { dense, normals, onDevice, read, turned } from './helpers/deviceViews.js';
import { randomPacked } from './helpers/packedWeights.js';
import { openForTests } from './helpers/webgpu.js';

const length = 49_152;
const plain = await openForTests();
const others = plain && [
  await openForTests({ matmul: 'workgroup', reduce: 'workgroup', slices: 16, invocations: 4096 }),
  await openForTests({ tile: 8, slices: 1, bindingBytes: 2 ** 20 }),
];
const backends: readonly (readonly [WebGpuBackend | undefined, string])[] = [
  [plain, 'register'],
  [others?.[0], 'workgroup'],
  [others?.[1], 'small bindings'],
];

/** The element [row, column] of a matrix. */
type Element = (row: number, column: number) => number;

/**
 * y = x w, [m, k] by [k, n]: the largest error against f64, in roundings of the root of the sum of squares of an
 * element's terms. Of many rows some.
 */
function roundings(y: ArrayLike<number>, x: Element, w: Element, [m, n, k]: readonly number[]): number {
  let worst = 0;
  for (let i = 0; i < m; i += m > 8 ? 5 : 1) {
    for (let j = 0; j < n; j++) {
      let [sum, squares] = [0, 0];
      for (let p = 0; p < k; p++) {
        const term = x(i, p) * w(p, j);
        sum += term;
        squares += term * term;
      }
      const off = Math.abs(y[i * n + j] - sum) / (eps32 * Math.sqrt(squares));
      worst = off <= worst ? worst : Number.isNaN(off) ? Infinity : off;
    }
  }
  return worst;
}

for (const [backend, name] of backends) {
  if (!backend) continue;

  test(`${name}: a long k, plain and packed, in both orders`, async () => {
    const [large, few] = [
      [16, 32],
      [3, 8],
    ].map(([m, n]) => {
      const [xs, ws] = [normals(m * length, 1), normals(n * length, 2)];
      return { m, n, x: dense(backend, [m, length], xs), xs, ws, at: (i: number, p: number) => xs[i * length + p] };
    });
    const [q8, q4, f16] = [
      randomPacked('q8_0', large.n, length, 3),
      randomPacked('q4_0', length, large.n, 4),
      randomPacked('f16', length, few.n, 5),
    ];
    const acrossB = (sums: typeof large): View => dense(backend, [length, sums.n], sums.ws);
    const xTurned = turned(dense(backend, [length, few.m], few.xs));
    const cases: [string, View, Element, View, Element][] = [
      ['b across', large.x, large.at, acrossB(large), (p, j) => large.ws[p * large.n + j]],
      ['q8_0 along k', large.x, large.at, turned(onDevice(backend, 'q8_0', q8)), (p, j) => q8.values[j * length + p]],
      ['q4_0 across', large.x, large.at, onDevice(backend, 'q4_0', q4), (p, j) => q4.values[p * large.n + j]],
      ['b along k', few.x, few.at, turned(dense(backend, [few.n, length], few.ws)), (p, j) => few.ws[j * length + p]],
      ['a transposed', xTurned, (i, p) => few.xs[p * few.m + i], acrossB(few), (p, j) => few.ws[p * few.n + j]],
      ['f16 across', few.x, few.at, onDevice(backend, 'f16', f16), (p, j) => f16.values[p * few.n + j]],
    ];
    for (const [what, a, xAt, b, wAt] of cases) {
      const [m, n] = [a.shape[0], b.shape[1]];
      const y = dense(backend, [m, n]);
      backend.kernels.matmul({ a, b, output: y });
      const off = roundings(await read(backend, y), xAt, wAt, [m, n, length]);
      assert.ok(off <= 64, `${what}, [${m}, ${n}]: off by ${off} roundings`);
    }
  });

  test(`${name}: reductions along either axis, and rows added up by number`, async () => {
    const [rows, columns] = [length, 4];
    const values = normals(rows * columns, 6);
    const x = tensor(values, [rows, columns], { backend });
    const one = (): number => 1;
    const along = roundings(await x.transpose().contiguous().sum(-1).data(), (i, p) => values[p * columns + i], one, [
      columns,
      1,
      rows,
    ]);
    const across = roundings(await x.sum(0).data(), (i, p) => values[p * columns + i], one, [columns, 1, rows]);
    // Every third row goes to the same target.
    const output = dense(backend, [3, columns]);
    backend.kernels.scatterAdd({
      input: x.view('test'),
      indices: Int32Array.from({ length: rows }, (_, r) => r % 3),
      output,
    });
    const added = roundings(
      await read(backend, output),
      (t, r) => (r % 3 === t ? 1 : 0),
      (r, j) => values[r * columns + j],
      [3, columns, rows],
    );
    for (const off of [along, across, added])
      assert.ok(off <= 32, `off by ${along} along the rows, ${across} across, ${added} by number`);
  });

  test(`${name}: cross-entropy of as many classes, and its gradient`, async () => {
    for (const rows of [2, 5]) {
      const values = normals(rows * length, 7).map(v => 3 * v);
      const labels = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % length);
      const logits = tensor(values, [rows, length], { backend }).requireGrad();
      const loss = crossEntropy(logits, labels);
      const losses = await loss.data();
      loss.sum().backward();
      const gradient = (await logits.grad?.data()) as Float32Array;
      let [worstLoss, worstGradient] = [0, 0];
      for (let i = 0; i < rows; i++) {
        const row = values.subarray(i * length, (i + 1) * length);
        const total = row.reduce((sum, v) => sum + Math.exp(v), 0);
        const expected = Math.log(total) - row[labels[i]];
        worstLoss = Math.max(worstLoss, Math.abs(losses[i] - expected) / (eps32 * expected));
        row.forEach((v, j) => {
          const p = Math.exp(v) / total;
          const off = Math.abs(gradient[i * length + j] - (p - (j === labels[i] ? 1 : 0)));
          worstGradient = Math.max(worstGradient, off / (eps32 * (j === labels[i] ? 1 : p)));
        });
      }
      assert.ok(worstLoss <= 4, `${rows} rows: losses are off by ${worstLoss} roundings`);
      // A logit less the largest is rounded before its exponential is taken.
      assert.ok(worstGradient <= 32, `${rows} rows: gradients are off by ${worstGradient} roundings`);
    }
  });
}
