// The SIMD kernels of scans against plain f64 loops, on sizes around vectors, blocks of columns and channels, and
// groups of time steps, with plain and with fused multiply-add; what they write lies in their outputs. Several threads
// give one thread's bits.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { FusedKernel, View } from '../src/backends/backend.js';
import { scope } from '../src/autograd/index.js';
import { createWasmKernels } from '../src/backends/cpu/wasm/index.js';
import { linearScan } from '../src/nn/linearScan.js';
import { selectiveScan } from '../src/nn/selectiveScan.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { cpu, type Machine } from './helpers/machines.js';
import { bitsOf, threadedMachine } from './helpers/threaded.js';
import { Arena, numbers } from './helpers/wasmArena.js';

const arena = new Arena();
const variants = [false, true].map(relaxed => ({
  label: relaxed ? ', fused multiply-add' : '',
  fused: createWasmKernels(arena.context(relaxed)).fused,
}));

const eps = 2 ** -24;
type Call = Parameters<FusedKernel>[0];

function run(fused: Map<string, FusedKernel>, name: string, call: Omit<Call, 'attributes'> & Partial<Call>): void {
  const kernel = fused.get(name) as FusedKernel;
  assert.ok(
    arena.run(call.outputs, () => kernel({ attributes: {}, ...call })),
    `${name} declined`,
  );
}

/** Entry by entry within so many roundings of the largest entry. */
function near(what: string, view: View, expected: Float64Array, roundings: number): void {
  const got = arena.read(view);
  assert.equal(got.length, expected.length, what);
  const bound = roundings * eps * expected.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-30);
  got.forEach((v, i) => {
    if (!(Math.abs(v - expected[i]) <= bound)) assert.fail(`${what}, element ${i}: ${v}, expected ${expected[i]}`);
  });
}

const host = (view: View): Float64Array => Float64Array.from(arena.read(view));
const zerosLike = (view: View): Float64Array => new Float64Array(view.shape.reduce((n, side) => n * side, 1));

const rowsOf = (starts: readonly number[], rows: number): [s: number, first: number, end: number][] =>
  starts.map((first, s) => [s, first, starts[s + 1] ?? rows]);

const linearCases = [
  ...[1, 3, 4, 5, 15, 16, 17].map(columns => ({ rows: 9, columns, starts: [0, 4, 4, 5] })),
  { rows: 3, columns: 4101, starts: [0, 1] },
  { rows: 2, columns: 20, starts: [0, 2, 2] },
];

for (const { label, fused } of variants) {
  for (const carried of [false, true]) {
    test(`linearScan and its vjp${carried ? ', from a state' : ''}${label}`, () => {
      for (const { rows, columns, starts } of linearCases) {
        arena.clear();
        const random = numbers(rows * columns);
        const of = (count: number): View => arena.view([count, columns], { value: () => random() });
        const [a, b, g] = [of(rows), of(rows), of(rows)];
        const initial = carried ? of(starts.length) : null;
        const h = arena.view([rows, columns]);
        const indices = Int32Array.from(starts);
        run(fused, 'linearScan', { inputs: [a, b, initial], outputs: [h], indices });
        const [as, bs, gs] = [a, b, g].map(host);
        const before = initial && host(initial);
        const states = zerosLike(h);
        const [da, db, dInitial] = [zerosLike(a), zerosLike(b), zerosLike(initial ?? a)];
        for (const [s, first, end] of rowsOf(starts, rows)) {
          for (let c = 0; c < columns; c++) {
            const stateBefore = (row: number): number =>
              row > first ? states[(row - 1) * columns + c] : before ? before[s * columns + c] : 0;
            for (let row = first; row < end; row++)
              states[row * columns + c] = as[row * columns + c] * stateBefore(row) + bs[row * columns + c];
            let d = 0;
            for (let row = end - 1; row >= first; row--) {
              const at = row * columns + c;
              d = gs[at] + d;
              db[at] = d;
              da[at] = d * stateBefore(row);
              d *= as[at];
            }
            if (before) dInitial[s * columns + c] = d;
          }
        }
        near('h', h, states, 2 * rows);
        const outputs = [arena.view(a.shape), arena.view(b.shape), ...(initial ? [arena.view(initial.shape)] : [])];
        run(fused, 'linearScan.vjp', { inputs: [a, initial, h, g], outputs, indices });
        [da, db, dInitial].slice(0, outputs.length).forEach((d, i) => near(`gradient ${i}`, outputs[i], d, 4 * rows));
      }
    });
  }
}

const selectiveCases = [
  ...[1, 3, 4, 5, 16].map(n => ({ rows: 7, d: 3, n, starts: [0, 4, 4, 5] })),
  // Beyond a block of channels, going forward and going back, and beyond a group of steps.
  { rows: 4, d: 131, n: 5, starts: [0, 3] },
  { rows: 150, d: 2, n: 4, starts: [0, 130, 130] },
];

for (const { label, fused } of variants) {
  for (const carried of [false, true]) {
    test(`selectiveScan and its vjp${carried ? ', from states' : ''}${label}`, () => {
      for (const { rows, d, n, starts } of selectiveCases) {
        arena.clear();
        const random = numbers(rows * d * n);
        const of = (shape: number[], value = random): View => arena.view(shape, { value });
        const [x, dt, A] = [
          of([rows, d]),
          of([rows, d], () => Math.abs(random())),
          of([d, n], () => -Math.abs(random())),
        ];
        const [B, C, D] = [of([rows, n]), of([rows, n]), of([d])];
        const initial = carried ? of([starts.length, d, n]) : null;
        const both = arena.view([rows + starts.length * n, d]);
        const g = of(both.shape as number[]);
        const indices = Int32Array.from(starts);
        const inputs = [x, dt, A, B, C, D, initial];
        run(fused, 'selectiveScan', { inputs, outputs: [both], indices });

        const [xs, dts, As, Bs, Cs, Ds, gs] = [x, dt, A, B, C, D, g].map(host);
        const expected = zerosLike(both);
        const sums = { dx: zerosLike(x), ddt: zerosLike(dt), dA: zerosLike(A), dB: zerosLike(B), dC: zerosLike(C) };
        const before = initial ? host(initial) : new Float64Array(starts.length * d * n);
        const dInitial = new Float64Array(before.length);
        for (const [s, first, end] of rowsOf(starts, rows)) {
          for (let c = 0; c < d; c++) {
            for (let k = 0; k < n; k++) {
              const place = (s * d + c) * n + k;
              const h = [before[place]];
              for (let row = first; row < end; row++) {
                const [i, j] = [row * d + c, row * n + k];
                h.push(Math.exp(dts[i] * As[c * n + k]) * h[row - first] + dts[i] * Bs[j] * xs[i]);
                expected[i] += Cs[j] * h[row - first + 1] + (k === 0 ? Ds[c] * xs[i] : 0);
              }
              expected[rows * d + place] = h[end - first];
              let dh = gs[rows * d + place];
              for (let row = end - 1; row >= first; row--) {
                const [i, j] = [row * d + c, row * n + k];
                dh += Cs[j] * gs[i];
                sums.dC[j] += gs[i] * h[row - first + 1];
                sums.dB[j] += dh * dts[i] * xs[i];
                const q = dh * Math.exp(dts[i] * As[c * n + k]);
                sums.dA[c * n + k] += q * h[row - first] * dts[i];
                sums.dx[i] += dh * dts[i] * Bs[j] + (k === 0 ? Ds[c] * gs[i] : 0);
                sums.ddt[i] += dh * Bs[j] * xs[i] + q * h[row - first] * As[c * n + k];
                dh = q;
              }
              dInitial[place] = dh;
            }
          }
        }
        near('output and state', both, expected, 8 * rows + n + 32);

        const block = 64;
        const shares = [Math.ceil(d / block), rows, n];
        const shapes = [x.shape, x.shape, A.shape, shares, shares, ...(initial ? [initial.shape] : [])];
        const outputs = shapes.map(shape => arena.view(shape));
        run(fused, 'selectiveScan.vjp', { inputs: [...inputs, g], outputs, indices, attributes: { block } });
        const [dx, ddt, dA, dB, dC, dState] = outputs;
        const roundings = 16 * rows + 4 * n + d + 64;
        near('gradient of x', dx, sums.dx, roundings);
        near('gradient of dt', ddt, sums.ddt, roundings);
        near('gradient of A', dA, sums.dA, roundings);
        for (const [name, view, sum] of [
          ['B', dB, sums.dB],
          ['C', dC, sums.dC],
        ] as const) {
          const parts = arena.read(view);
          const total = Float64Array.from(sum, (_, i) => {
            let all = 0;
            for (let at = i; at < parts.length; at += rows * n) all += parts[at];
            return all;
          });
          const largest = sum.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
          total.forEach((v, i) =>
            assert.ok(
              Math.abs(v - sum[i]) <= roundings * eps * largest,
              `gradient of ${name}, element ${i}: ${v}, expected ${sum[i]}`,
            ),
          );
        }
        if (dState) near('gradient of the state', dState, dInitial, roundings);
      }
    });
  }
}

const three = threadedMachine(3);
after(() => three.backend.close());

test("scans of many columns and channels: one thread's bits on three", () => {
  const onMachine = ({ backend }: Machine): string[] =>
    scope(() => {
      const [rows, d, n, starts] = [9, 331, 16, Int32Array.of(0, 5)];
      const draw = (shape: number[], seed: number): Tensor => tensor.normal(shape, { seed, backend }).requireGrad();
      const [a, b, x, dt] = [1, 2, 3, 4].map(seed => draw([rows, d], seed));
      const [A, B, C, D] = [draw([d, n], 5), draw([rows, n], 6), draw([rows, n], 7), draw([d], 8)];
      const scanned = linearScan(a, b, starts).states;
      const { output, state } = selectiveScan({ x, dt: dt.softplus(), A: A.exp().neg(), B, C, D }, starts);
      const all = scanned.mul(output).sum().add(state.square().sum());
      all.backward();
      return [scanned, output, state, ...[a, b, x, dt, A, B, C, D].map(t => t.grad as Tensor)].map(t =>
        bitsOf(t.dataSync()),
      );
    });
  assert.deepEqual(onMachine(three), onMachine(cpu));
});
