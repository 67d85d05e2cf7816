// The fused SIMD kernels against plain f64 loops, on sizes around vectors and blocks, with plain and with fused
// multiply-add. Bounds: a sum of k terms is off by at most k * 2^-24 * sum |terms|, an element function by a few ULP;
// each check says what it allows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import type { FusedKernel, View } from '../src/backends/backend.js';
import { instantiate, load, ModuleBuilder, supportsRelaxedSimd } from '../src/backends/cpu/wasm/emit/assembler.js';
import { createWasmKernels } from '../src/backends/cpu/wasm/index.js';
import { LaneMath } from '../src/backends/cpu/wasm/emit/lanes.js';
import { Arena, numbers, ulps } from './helpers/wasmArena.js';

if (process.versions.node.startsWith('20.')) setFlagsFromString('--experimental-wasm-relaxed-simd');

const arena = new Arena();
const variants = [false, true]
  .filter(relaxed => !relaxed || supportsRelaxedSimd())
  .map(relaxed => {
    const { fused } = createWasmKernels(arena.context(relaxed));
    return { label: relaxed ? ', fused multiply-add' : '', fused };
  });

const eps = 2 ** -24;
const sides = [1, 3, 4, 5, 15, 16, 17, 63, 64, 65];

type Call = Parameters<FusedKernel>[0];

/** Runs a kernel, which must take the call and write its outputs only. */
function run(
  fused: Map<string, FusedKernel>,
  name: string,
  call: Omit<Call, 'attributes'> & { attributes?: Call['attributes'] },
): void {
  const kernel = fused.get(name);
  assert.ok(kernel, `no kernel ${name}`);
  assert.ok(
    arena.run(call.outputs, () => kernel({ attributes: {}, ...call })),
    `${name} declined`,
  );
}

/** |got - expected| <= bound, element by element. */
function near(what: string, got: readonly number[], expected: readonly number[], bound: (i: number) => number): void {
  assert.equal(got.length, expected.length);
  got.forEach((value, i) => {
    if (!(Math.abs(value - expected[i]) <= bound(i)))
      assert.fail(`${what}, element ${i}: ${value}, expected ${expected[i]} +- ${bound(i)}`);
  });
}

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
const rowsOf = (xs: readonly number[], n: number): number[][] =>
  Array.from({ length: xs.length / n }, (_, i) => xs.slice(i * n, (i + 1) * n));
const range = <T>(n: number, value: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => value(i));

/** A case for each side and variant, on a fresh arena. */
function eachSide(
  name: string,
  body: (n: number, fused: Map<string, FusedKernel>, random: () => number) => void,
  sizes = sides,
): void {
  for (const { label, fused } of variants) {
    test(`${name}${label}`, () => {
      for (const n of sizes) {
        arena.clear();
        body(n, fused, numbers(n + 1));
      }
    });
  }
}

// --- softmax and cross-entropy
// ------------------------------------------------------------------------------------------

function softmax(row: readonly number[]): number[] {
  const top = Math.max(...row);
  const exps = row.map(x => Math.exp(x - top));
  const total = sum(exps);
  return exps.map(x => x / total);
}

eachSide('softmax', (n, fused, random) => {
  // the first row would overflow unshifted
  const x = arena.view([2, 3, n], { value: i => 20 * random() + (i < n ? 1000 : 0) });
  const y = arena.view([2, 3, n]);
  run(fused, 'softmax', { inputs: [x], outputs: [y] });
  const expected = rowsOf(arena.read(x), n).flatMap(softmax);
  // The difference x - max is rounded (its size times 2^-24 relative to the result), exp and the division add a few
  // ULP, the sum n terms.
  near('softmax', arena.read(y), expected, i => (48 + 8 + n) * eps * expected[i] + 1e-37);
});

eachSide('softmax.vjp', (n, fused, random) => {
  const y = arena.view([4, n], { value: () => Math.abs(random()) });
  const g = arena.view([4, n], { value: () => random() });
  const dx = arena.view([4, n]);
  run(fused, 'softmax.vjp', { inputs: [y, g], outputs: [dx] });
  const [ys, gs] = [y, g].map(v => rowsOf(arena.read(v), n));
  const expected = ys.flatMap((row, i) => {
    const inner = sum(row.map((v, j) => v * gs[i][j]));
    return row.map((v, j) => v * (gs[i][j] - inner));
  });
  const size = ys.flatMap((row, i) =>
    row.map((v, j) => v * (Math.abs(gs[i][j]) + (n + 4) * sum(row.map((w, k) => Math.abs(w * gs[i][k]))))),
  );
  near('softmax.vjp', arena.read(dx), expected, i => 4 * eps * size[i]);
});

eachSide('crossEntropy and its vjp', (n, fused, random) => {
  const rows = 5;
  const logits = arena.view([rows, n], { value: i => 12 * random() + (i < n ? 500 : 0) });
  const labels = arena.view([rows], { dtype: 'i32', value: i => (i === 2 ? -100 : (i * 31) % n) });
  const [loss, top, total] = range(3, () => arena.view([rows]));
  run(fused, 'crossEntropy', { inputs: [logits, labels], outputs: [loss, top, total] });
  const xs = rowsOf(arena.read(logits), n);
  const ids = arena.read(labels);
  const tops = xs.map(row => Math.max(...row));
  const totals = xs.map((row, i) => sum(row.map(x => Math.exp(x - tops[i]))));
  assert.deepEqual([...arena.read(top)], tops);
  near('total', arena.read(total), totals, i => (n + 40) * eps * totals[i]);
  // Relative error of the sum, 3 ULP of the logarithm, rounding of max - chosen and of the addition.
  const exact = xs.map((row, i) => (ids[i] < 0 ? 0 : Math.log(totals[i]) + (tops[i] - row[ids[i]])));
  near('loss', arena.read(loss), exact, i => (n + 40) * eps + 4 * eps * (Math.log(totals[i]) + Math.abs(exact[i])));
  assert.equal(arena.read(loss)[2], 0);

  const g = arena.view([rows], { value: () => random() });
  const dlogits = arena.view([rows, n]);
  run(fused, 'crossEntropy.vjp', { inputs: [logits, labels, top, total, g], outputs: [dlogits] });
  const gs = arena.read(g);
  const sums = arena.read(total);
  const expected = xs.flatMap((row, i) =>
    row.map((x, j) => (ids[i] < 0 ? 0 : (Math.exp(x - tops[i]) / sums[i] - Number(j === ids[i])) * gs[i])),
  );
  // exp(x - max): the rounding of the difference is up to |x - max| / 2 units of 2^-23; then a subtraction from 1.
  near('dlogits', arena.read(dlogits), expected, i => {
    const r = Math.floor(i / n);
    return ids[r] < 0 ? 0 : 40 * eps * (Math.abs(expected[i]) + Math.abs(gs[r]) * Number(i % n === ids[r])) + 1e-37;
  });
});

// --- norms
// --------------------------------------------------------------------------------------------------------------

eachSide('rmsNorm and its vjp', (n, fused, random) => {
  const rows = 3;
  const [x, g] = range(2, () => arena.view([rows, n], { value: () => 3 * random() }));
  const weight = arena.view([n], { value: () => 1 + random() });
  const [y, rstd, dx] = [arena.view([rows, n]), arena.view([rows]), arena.view([rows, n])];
  run(fused, 'rmsNorm', { inputs: [x, weight], outputs: [y, rstd], attributes: { eps: 1e-5 } });
  const [xs, gs] = [x, g].map(v => rowsOf(arena.read(v), n));
  const w = arena.read(weight);
  const r = xs.map(row => 1 / Math.sqrt(sum(row.map(v => v * v)) / n + 1e-5));
  near('rstd', arena.read(rstd), r, i => (n + 8) * eps * r[i]);
  const expected = xs.flatMap((row, i) => row.map((v, j) => v * r[i] * w[j]));
  near('y', arena.read(y), expected, i => (n + 12) * eps * Math.abs(expected[i]));

  run(fused, 'rmsNorm.vjp', { inputs: [x, weight, rstd, g], outputs: [dx] });
  const size: number[] = [];
  const gradient = xs.flatMap((row, i) => {
    const terms = row.map((v, j) => v * w[j] * gs[i][j]);
    return row.map((v, j) => {
      size.push(r[i] * Math.abs(gs[i][j] * w[j]) + Math.abs(v) * r[i] ** 3 * (sum(terms.map(Math.abs)) / n));
      return r[i] * gs[i][j] * w[j] - (v * r[i] ** 3 * sum(terms)) / n;
    });
  });
  near('dx', arena.read(dx), gradient, i => (4 * n + 32) * eps * size[i]); // rstd enters three times with the error of n terms
});

eachSide('layerNorm and its vjp', (n, fused, random) => {
  const rows = 3;
  const [x, g] = range(2, () => arena.view([rows, n], { value: i => 3 * random() + (i < n ? 10 : 0) }));
  const [weight, bias] = range(2, () => arena.view([n], { value: () => 1 + random() }));
  const [y, mean, rstd, dx] = [arena.view([rows, n]), arena.view([rows]), arena.view([rows]), arena.view([rows, n])];
  const epsilon = 1e-2; // with one element the variance is 0
  run(fused, 'layerNorm', { inputs: [x, weight, bias], outputs: [y, mean, rstd], attributes: { eps: epsilon } });
  const [xs, gs] = [x, g].map(v => rowsOf(arena.read(v), n));
  const [w, b] = [weight, bias].map(v => arena.read(v));
  const m = xs.map(row => sum(row) / n);
  const r = xs.map((row, i) => 1 / Math.sqrt(sum(row.map(v => (v - m[i]) ** 2)) / n + epsilon));
  const most = xs.map(row => Math.max(...row.map(Math.abs)));
  near('mean', arena.read(mean), m, i => (n + 4) * eps * most[i]);
  // An error of the mean moves every element by as much, and rstd by that over the root of eps at most.
  const off = (i: number): number => (2 * n + 16) * eps * (1 + most[i] * r[i]);
  near('rstd', arena.read(rstd), r, i => off(i) * r[i] * 2);
  const normal = xs.flatMap((row, i) => row.map(v => (v - m[i]) * r[i]));
  near(
    'y',
    arena.read(y),
    normal.map((v, i) => v * w[i % n] + b[i % n]),
    i => (3 * off(Math.floor(i / n)) * (1 + Math.abs(normal[i])) + 4 * eps) * (w[i % n] + b[i % n]),
  );

  run(fused, 'layerNorm.vjp', { inputs: [x, weight, mean, rstd, g], outputs: [dx] });
  const size: number[] = [];
  const gradient = xs.flatMap((row, i) => {
    const gw = row.map((_, j) => gs[i][j] * w[j]);
    const [a, c] = [sum(gw) / n, sum(gw.map((v, j) => v * normal[i * n + j])) / n];
    const wide = sum(gw.map((v, k) => Math.abs(v) * (1 + Math.abs(normal[i * n + k])))) / n;
    return row.map((_, j) => {
      const at = normal[i * n + j];
      size.push(r[i] * (Math.abs(gw[j]) + sum(gw.map(Math.abs)) / n + (1 + Math.abs(at)) * wide));
      return r[i] * (gw[j] - a - at * c);
    });
  });
  near('dx', arena.read(dx), gradient, i => 4 * off(Math.floor(i / n)) * size[i]);
});

// --- rope
// ---------------------------------------------------------------------------------------------------------------

eachSide(
  'rope turns pairs and turns them back',
  (half, fused, random) => {
    for (const tables of [1, 2]) {
      arena.clear();
      const [B, T, H, D] = [2, 3, 2, 2 * half];
      // Heads between the heads of other projections: strides of [B, T, 3 H, D] without the last axis.
      const x = arena.view([B, T, H, D], { strides: [T * 3 * H * D, 3 * H * D, D, 1], value: () => random() });
      const angles = range(tables * T * half, () => 3 * random());
      const cos = arena.view([tables, T, half], { value: i => Math.cos(angles[i]) });
      const sin = arena.view([tables, T, half], { value: i => Math.sin(angles[i]) });
      const [y, back] = range(2, () => arena.view([B, T, H, D]));
      run(fused, 'rope', { inputs: [x, cos, sin], outputs: [y], attributes: { inverse: 0 } });
      const xs = arena.read(x);
      const [c, s] = [cos, sin].map(v => arena.read(v));
      const expected = xs.map((v, i) => {
        const d = i % D;
        const t = Math.floor(i / (D * H)) % T;
        const at = ((tables === 1 ? 0 : Math.floor(i / (D * H * T))) * T + t) * half + (d % half);
        return d < half ? v * c[at] - xs[i + half] * s[at] : v * c[at] + xs[i - half] * s[at];
      });
      near('y', arena.read(y), expected, () => 4 * eps * 2); // two products below 1 and their sum
      run(fused, 'rope', { inputs: [y, cos, sin], outputs: [back], attributes: { inverse: 1 } });
      near('inverse', arena.read(back), xs, () => 16 * eps * 2);
    }
  },
  [1, 2, 3, 4, 5, 16, 17, 32],
);

// --- the edit
// -----------------------------------------------------------------------------------------------------------

interface EditCase {
  A: boolean;
  b: boolean;
  C: boolean;
  e: boolean;
}
const editCases: readonly EditCase[] = [
  { A: true, b: true, C: true, e: false }, // loreft
  { A: true, b: true, C: false, e: false }, // direft
  { A: true, b: true, C: true, e: true }, // noreft
  { A: false, b: true, C: true, e: false }, // consreft
  { A: false, b: true, C: false, e: false }, // lobireft
  { A: false, b: false, C: true, e: true },
];

for (const { label, fused } of variants) {
  for (const which of editCases) {
    const name = Object.entries(which)
      .filter(([, there]) => there)
      .map(([key]) => key)
      .join(' ');
    test(`edit and its vjp with ${name}${label}`, () => {
      const sizes = [
        [1, 1, 1, 1],
        [3, 5, 2, 2],
        [6, 16, 4, 2],
        [9, 65, 5, 3],
        [9, 33, 8, 1],
        [4, 7, 13, 2],
      ];
      const asProducts = [
        [30, 65, 5, 1],
        [75, 16, 1, 1],
        [13, 7, 13, 1],
      ];
      for (const [n, d, r, s] of [...sizes, ...asProducts]) {
        arena.clear();
        const random = numbers(n * d + r);
        const draw = (shape: number[]): View => arena.view(shape, { value: () => random() });
        const h = draw([n, d]);
        const indices = Int32Array.from(
          range(n, i => i)
            .filter(i => n === 1 || i % 3 !== 1)
            .reverse(),
        ); // any order
        const m = indices.length;
        const slots = arena.view([m], { dtype: 'i32', value: i => (i * 5 + 1) % s });
        const A = which.A ? draw([s, r, d]) : null;
        const b = which.b ? draw([s, r]) : null;
        const C = which.C ? draw([s, r, d]) : null;
        const e = which.e ? draw([s, r]) : null;
        const P = draw([s, r, d]);
        const scale = draw([m]);
        const [result, u] = [arena.view([n, d]), arena.view([m, r])];
        const inputs = [h, slots, A, b, C, e, P, scale];
        run(fused, 'edit', { inputs, outputs: [result, u], attributes: { activation: 0 }, indices });

        const read = (v: View | null, size: number): number[] => (v ? arena.read(v) : new Array<number>(size).fill(0));
        const [hs, As, bs, Cs, es, Ps] = [
          read(h, 0),
          read(A, s * r * d),
          read(b, s * r),
          read(C, s * r * d),
          read(e, s * r),
          read(P, 0),
        ];
        const [slot, c] = [arena.read(slots), arena.read(scale)];
        const bank = (i: number, k: number, j: number): number => (slot[i] * r + k) * d + j;
        const expectedU = range(m, i =>
          range(
            r,
            k =>
              bs[slot[i] * r + k] -
              es[slot[i] * r + k] +
              sum(range(d, j => (As[bank(i, k, j)] - Cs[bank(i, k, j)]) * hs[indices[i] * d + j])),
          ),
        );
        // All values are below 1: d products of size 2 at most, two biases.
        const uBound = (d + 6) * eps * (2 * d + 2);
        near('u', arena.read(u), expectedU.flat(), () => uBound);
        const expected = [...hs];
        indices.forEach((row, i) =>
          range(d, j => (expected[row * d + j] += c[i] * sum(range(r, k => Ps[bank(i, k, j)] * expectedU[i][k])))),
        );
        const outBound = r * uBound + (r + 4) * eps * (r * (2 * d + 2) + 1);
        near("h'", arena.read(result), expected, i => (indices.includes(Math.floor(i / d)) ? outBound : 0));

        const g = draw([n, d]);
        const gs = arena.read(g);
        const us = arena.read(u);
        const there = [
          ['A', A],
          ['b', b],
          ['C', C],
          ['e', e],
          ['P', P],
        ] as const;
        const gradients = there.filter(([, v]) => v).map(([key, v]) => [key, arena.view(v!.shape)] as const);
        const dh = arena.view([n, d]);
        run(fused, 'edit.vjp', {
          inputs: [...inputs, u, g],
          outputs: [dh, ...gradients.map(([, v]) => v)],
          attributes: { activation: 0 },
          indices,
        });
        const want: Record<string, number[]> = {
          h: [...gs],
          A: new Array<number>(s * r * d).fill(0),
          b: new Array<number>(s * r).fill(0),
          P: new Array<number>(s * r * d).fill(0),
        };
        indices.forEach((row, i) => {
          for (let k = 0; k < r; k++) {
            const du = c[i] * sum(range(d, j => Ps[bank(i, k, j)] * gs[row * d + j]));
            want.b[slot[i] * r + k] += du;
            for (let j = 0; j < d; j++) {
              want.h[row * d + j] += (As[bank(i, k, j)] - Cs[bank(i, k, j)]) * du;
              want.A[bank(i, k, j)] += du * hs[row * d + j];
              want.P[bank(i, k, j)] += c[i] * us[i * r + k] * gs[row * d + j];
            }
          }
        });
        want.C = want.A.map(v => -v);
        want.e = want.b.map(v => -v);
        const duBound = (d + 4) * eps * d;
        near('dh', arena.read(dh), want.h, () => 2 * r * (duBound + (r + 4) * eps * d) + eps);
        const size: Record<string, number> = { A: d, b: d, C: d, e: d, P: 2 * d + 2 };
        for (const [key, view] of gradients)
          near(`d${key}`, arena.read(view), want[key], () => m * (duBound + (m + 4) * eps * size[key]));
      }
    });
  }
}

test('edit declines other activations and types before writing', () => {
  const { fused } = variants[0];
  arena.clear();
  const make = (shape: number[], dtype: View['dtype'] = 'f32'): View => arena.view(shape, { dtype, value: () => 1 });
  const indices = Int32Array.of(0);
  const outputs = [make([2, 4]), make([1, 2])];
  const banks = [make([1, 2, 4]), null, null, null, make([1, 2, 4]), make([1])];
  const kernel = fused.get('edit')!;
  const call = { inputs: [make([2, 4]), make([1], 'i32'), ...banks], outputs, attributes: { activation: 2 }, indices };
  assert.ok(!arena.run(outputs, () => kernel(call)), '!arena.run(outputs, () => kernel(call))');
  const wide = { ...call, attributes: { activation: 0 }, inputs: [make([2, 4], 'f64'), ...call.inputs.slice(1)] };
  assert.ok(!arena.run(outputs, () => kernel(wide)), '!arena.run(outputs, () => kernel(wide))');
  assert.ok(
    arena.run(outputs, () => kernel({ ...call, attributes: { activation: 0 } })),
    'arena.run(outputs, () => kernel({ ...call, attributes: { activation...',
  );
});

test('row kernels decline other types and layouts before writing', () => {
  const { fused } = variants[0];
  arena.clear();
  const wide = arena.view([2, 4], { dtype: 'f64', value: () => 1 });
  const across = arena.view([2, 4], { strides: [1, 2], value: () => 1 });
  const y = arena.view([2, 4], { value: () => 5 });
  for (const x of [wide, across]) {
    const [row, weight] = [arena.view([2], { value: () => 1 }), arena.view([4], { value: () => 1 })];
    const calls: [string, (View | null)[], View[]][] = [
      ['softmax', [x], [y]],
      ['softmax.vjp', [y, x], [arena.view([2, 4], { value: () => 2 })]],
      ['rmsNorm', [x, weight], [y, row]],
      ['layerNorm', [x, weight, weight], [y, row, arena.view([2], { value: () => 1 })]],
    ];
    for (const [name, inputs, outputs] of calls) {
      assert.ok(!arena.run(outputs, () => fused.get(name)!({ inputs, outputs, attributes: { eps: 1e-5 } })), name);
    }
  }
});

test('powers of two', () => {
  for (const relaxed of [false, ...(variants.length > 1 ? [true] : [])]) {
    arena.clear();
    const m = new ModuleBuilder();
    const f = m.function('powers', { params: ['i32'], results: [] });
    f.store('v128.store', f.params[0], new LaneMath(f, relaxed).power2(load('v128.load', f.params[0])));
    const { powers } = instantiate(m.bytes(), arena.memory);
    const raise = (xs: readonly number[]): number[] => {
      const view = arena.view([4], { value: i => xs[i] });
      powers((view.allocation as unknown as { byteOffset: number }).byteOffset);
      return arena.read(view);
    };
    const random = numbers(5);
    for (let n = 0; n < 2000; n++) {
      const xs = range(4, () => Math.fround(n < 1000 ? 126 * random() : random()));
      raise(xs).forEach((got, i) => {
        assert.ok(ulps(got, 2 ** xs[i]) < 3, `2 ** ${xs[i]}: ${got}`);
      });
      if (n % 500 === 499) arena.clear();
    }
    assert.deepEqual(raise([0, -127, -Infinity, NaN]).slice(1), [0, 0, NaN]);
  }
});

// --- attention
// ----------------------------------------------------------------------------------------------------------

interface AttentionCase {
  B: number;
  KV: number;
  group: number;
  T: number;
  S: number;
  D: number;
  causal: number;
  causalOffset: number;
  window: number;
  start: number[];
  end: number[];
}
const attentionCases: readonly AttentionCase[] = [
  { B: 1, KV: 1, group: 1, T: 1, S: 1, D: 4, causal: 1, causalOffset: 0, window: 0, start: [0], end: [1] },
  // left padding: rows without keys
  { B: 2, KV: 2, group: 3, T: 7, S: 7, D: 8, causal: 1, causalOffset: 0, window: 0, start: [0, 3], end: [7, 7] },
  // right padding
  { B: 2, KV: 1, group: 2, T: 17, S: 17, D: 5, causal: 1, causalOffset: 0, window: 0, start: [0, 0], end: [17, 9] },
  { B: 1, KV: 2, group: 1, T: 35, S: 35, D: 16, causal: 1, causalOffset: 0, window: 4, start: [2], end: [35] },
  // decoding
  { B: 2, KV: 1, group: 3, T: 1, S: 21, D: 64, causal: 1, causalOffset: 20, window: 0, start: [0, 6], end: [21, 21] },
  { B: 1, KV: 1, group: 2, T: 3, S: 13, D: 7, causal: 1, causalOffset: 10, window: 5, start: [0], end: [13] },
  // the second row sees nothing
  { B: 2, KV: 1, group: 2, T: 5, S: 18, D: 12, causal: 1, causalOffset: 13, window: 0, start: [4, 18], end: [18, 18] },
  { B: 2, KV: 1, group: 1, T: 16, S: 33, D: 3, causal: 0, causalOffset: 0, window: 0, start: [0, 1], end: [33, 20] },
  // Panels of 8 queries and keys, and of 4 or 5 rows: one below, whole, one above.
  ...[6, 7, 8, 9, 39, 40, 41].map(n => ({
    B: 1,
    KV: 1,
    group: 2,
    T: n,
    S: n,
    D: 4,
    causal: 1,
    causalOffset: 0,
    window: 0,
    start: [0],
    end: [n],
  })),
  ...[5, 8, 9].map(n => ({
    B: 1,
    KV: 1,
    group: 1,
    T: n,
    S: n + 11,
    D: 9,
    causal: 1,
    causalOffset: 11,
    window: 7,
    start: [3],
    end: [n + 10],
  })),
  // two tiles of the VJP
  { B: 1, KV: 1, group: 2, T: 81, S: 90, D: 6, causal: 1, causalOffset: 9, window: 13, start: [2], end: [88] },
  { B: 2, KV: 1, group: 1, T: 81, S: 81, D: 5, causal: 1, causalOffset: 0, window: 0, start: [0, 30], end: [81, 81] },
  // the last queries see nothing
  { B: 2, KV: 1, group: 1, T: 40, S: 45, D: 8, causal: 1, causalOffset: 5, window: 6, start: [7, 0], end: [45, 21] },
  { B: 1, KV: 1, group: 1, T: 21, S: 30, D: 4, causal: 0, causalOffset: 2, window: 5, start: [0], end: [29] },
];

for (const { label, fused } of variants) {
  test(`attention and its vjp${label}`, () => {
    for (const { B, KV, group, T, S, D, causal, causalOffset, window, start, end } of attentionCases) {
      arena.clear();
      const random = numbers(T * S + D);
      const H = KV * group;
      // Heads inside a projection [B, T, heads, D], as a model has them; keys too.
      const heads = (count: number, length: number): View =>
        arena.view([B, count, length, D], {
          strides: [length * count * D, D, count * D, 1],
          value: () => 2 * random(),
        });
      const [q, k, v] = [heads(H, T), heads(KV, S), heads(KV, S)];
      // What nobody may see is not read for any result.
      for (const view of [k, v]) {
        const values = arena.read(view);
        arena.write(view, i => {
          const [b, s] = [Math.floor(i / (KV * S * D)), Math.floor(i / D) % S];
          return s >= start[b] && s < end[b] ? values[i] : NaN;
        });
      }
      const [keyStart, keyEnd] = [start, end].map(list => arena.view([B], { dtype: 'i32', value: i => list[i] }));
      const [o, lse] = [arena.view([B, H, T, D]), arena.view([B, H, T])];
      const behind = window > 0 ? window - 1 : 2 ** 30;
      const ahead = causal ? 0 : 2 ** 30;
      const attributes = { scale: 1 / Math.sqrt(D), softcap: 0, causalOffset, behind, ahead };
      run(fused, 'attention', { inputs: [q, k, v, keyStart, keyEnd, null], outputs: [o, lse], attributes });

      const g = arena.view([B, H, T, D], { value: () => random() });
      const [qs, ks, vs, gs] = [q, k, v, g].map(view => rowsOf(arena.read(view), D));
      const zeros = (n: number): number[][] => range(n, () => new Array<number>(D).fill(0));
      const expected = { o: zeros(B * H * T), dq: zeros(B * H * T), dk: zeros(B * KV * S), dv: zeros(B * KV * S) };
      const size = { dq: 0, dk: 0, dv: 0 };
      const expectedLse = new Array<number>(B * H * T).fill(0);
      const dot = (x: readonly number[], y: readonly number[]): number => sum(x.map((a, i) => a * y[i]));
      for (let row = 0; row < B * H * T; row++) {
        const [b, head, t] = [Math.floor(row / (H * T)), Math.floor(row / T) % H, row % T];
        const from = Math.max(start[b], window > 0 ? t + causalOffset - window + 1 : 0);
        const to = Math.min(end[b], causal ? t + causalOffset + 1 : S);
        if (to <= from) continue;
        const keyRow = (s: number): number => (b * KV + Math.floor(head / group)) * S + s;
        const seen = range(to - from, i => keyRow(from + i));
        const scores = seen.map(s => dot(qs[row], ks[s]) * attributes.scale);
        const top = Math.max(...scores);
        expectedLse[row] = top + Math.log(sum(scores.map(x => Math.exp(x - top))));
        const p = softmax(scores);
        seen.forEach((s, i) => range(D, d => (expected.o[row][d] += p[i] * vs[s][d])));
        const delta = dot(gs[row], expected.o[row]);
        seen.forEach((s, i) => {
          const ds = p[i] * (dot(gs[row], vs[s]) - delta) * attributes.scale;
          for (let d = 0; d < D; d++) {
            expected.dq[row][d] += ds * ks[s][d];
            expected.dk[s][d] += ds * qs[row][d];
            expected.dv[s][d] += p[i] * gs[row][d];
          }
        });
      }
      size.dq = size.dk = 2 * D * 2 * attributes.scale; // |ds| summed over a row is at most that of g v: D terms of 2
      size.dv = 1;
      // A score is a dot of D products below 4, exp turns its error into a relative one of p; then sums over keys or
      // queries.
      const relative = (4 * D * D * attributes.scale + 4 * D + S + T * group + 40) * eps;
      near('lse', arena.read(lse), expectedLse, () => relative);
      near('o', arena.read(o), expected.o.flat(), () => 2 * 2 * relative);

      const [dq, dk, dv] = [arena.view(q.shape), arena.view(k.shape), arena.view(v.shape)];
      run(fused, 'attention.vjp', {
        inputs: [q, k, v, keyStart, keyEnd, null, o, lse, g],
        outputs: [dq, dk, dv],
        attributes,
      });
      near('dq', arena.read(dq), expected.dq.flat(), () => 4 * 2 * relative * size.dq);
      near('dk', arena.read(dk), expected.dk.flat(), () => 4 * 2 * relative * size.dk * Math.min(T, 8) * group);
      near('dv', arena.read(dv), expected.dv.flat(), () => 4 * relative * size.dv * T * group);
    }
  });
}
