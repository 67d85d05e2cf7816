// Recipes of fused ops, through the functions that users call. Their kernels, where a machine has them, are held to the
// composition.

import { attention } from '../../../src/nn/attention.js';
import { crossEntropy } from '../../../src/nn/crossEntropy.js';
import { layerNorm } from '../../../src/nn/layerNorm.js';
import { rmsNorm } from '../../../src/nn/rmsNorm.js';
import { rope } from '../../../src/nn/rope.js';
import { edit, editActivations, type EditActivation } from '../../../src/reft/editOp.js';
import { tensor } from '../../../src/tensor/index.js';
import type { Draw } from '../draw.js';
import { build, erf, get, sigmoid, sizeOf, total, zip, type Host } from '../host.js';
import { beside } from '../machines.js';
import type { Case, Recipe, Table } from '../recipe.js';
import { scanRecipes } from './scans.js';
import { smallMatrixRecipes } from './smallMatrices.js';

const z = (...shape: number[]) => tensor.zeros(shape);
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const lse = (v: number[]): number => {
  const top = Math.max(...v);
  return top + Math.log(total(v.map(x => Math.exp(x - top))));
};
const lastRow = (h: Host, i: readonly number[]): number[] =>
  range(h.shape[h.shape.length - 1]).map(k => get(h, [...i.slice(0, -1), k]));
const meanSquare = (row: number[]): number => total(row.map(x => x * x)) / row.length;

const softmax: Recipe = {
  name: 'fused.softmax',
  fused: 'softmax',
  make(d) {
    const shape = d.shape(1, 4, { empty: false });
    return {
      // exp(x - top): the difference's rounding is multiplied by its size, at most 80 here.
      inputs: [d.values(shape, { limit: 40 })],
      run: x => x.softmax(-1),
      roundings: shape[shape.length - 1] + 100,
      gradientScale: 1,
      reference: h => build(h.shape, i => Math.exp(get(h, i) - lse(lastRow(h, i)))),
    };
  },
};

const rms: Recipe = {
  name: 'fused.rmsNorm',
  fused: 'rmsNorm',
  errors: [[() => rmsNorm(z(2, 3), z(4), 1e-5), /^rmsNorm: weight \[4\] does not match the last axis of \[2,3\]$/]],
  make(d) {
    const shape = d.shape(1, 4, { empty: false });
    const n = shape[shape.length - 1];
    // Rows near 0 bend within sqrt(eps), which differences must be able to follow.
    const eps = d.smooth ? 0.25 : 2 ** -17;
    const x = d.values(shape);
    const w = d.values([n]);
    const least = Math.min(...range(x.data.length / n).map(r => meanSquare([...x.data.slice(r * n, (r + 1) * n)])));
    return {
      inputs: [x, w],
      run: (a, b) => rmsNorm(a, b, eps),
      roundings: n + 12,
      reference: (a, b) => build(a.shape, i => (get(a, i) / Math.sqrt(meanSquare(lastRow(a, i)) + eps)) * get(b, i)),
      // g w / rms, of which the part along x is taken away.
      gradientScale: (3 * Math.max(...w.data.map(Math.abs))) / Math.sqrt(least + eps),
    };
  },
};

const layer: Recipe = {
  name: 'fused.layerNorm',
  fused: 'layerNorm',
  gradientRoundings: [
    256,
    'the gradient of x is what is left of g w after its mean and its part along x are taken away',
  ],
  errors: [
    [() => layerNorm(z(2, 3), z(4), z(3), 1e-5), /^layerNorm: weight \[4\] does not match the last axis of \[2,3\]$/],
    [
      () => layerNorm(z(2, 3), z(3), z(1, 3), 1e-5),
      /^layerNorm: bias \[1,3\] does not match the last axis of \[2,3\]$/,
    ],
  ],
  make(d) {
    const shape = d.shape(1, 4, { empty: false });
    const n = shape[shape.length - 1];
    const eps = d.smooth ? 0.25 : 2 ** -17;
    const [x, w, b] = [d.values(shape), d.values([n]), d.values([n])];
    const spread = (row: number[]): number => {
      const mean = total(row) / n;
      return Math.sqrt(meanSquare(row.map(v => v - mean)) + eps);
    };
    const rows = range(x.data.length / n).map(r => [...x.data.slice(r * n, (r + 1) * n)]);
    return {
      inputs: [x, w, b],
      run: (p, q, r) => layerNorm(p, q, r, eps),
      roundings: 2 * n + 16,
      reference: (p, q, r) =>
        build(p.shape, i => {
          const row = lastRow(p, i);
          return ((get(p, i) - total(row) / n) / spread(row)) * get(q, i.slice(-1)) + get(r, i.slice(-1));
        }),
      // The mean is as exact as the largest entry of the row, and divided by what may be much smaller.
      magnitude: (p, q, r) =>
        build(p.shape, i => {
          const row = lastRow(p, i);
          const largest = Math.max(...row.map(Math.abs)) / spread(row);
          return largest * (1 + largest) * Math.abs(get(q, i.slice(-1))) + Math.abs(get(r, i.slice(-1)));
        }),
      gradientScale:
        3 *
        Math.max(
          ...rows.map(row => {
            const largest = Math.max(...row.map(Math.abs)) / spread(row);
            return (1 + largest) * (1 + Math.max(...w.data.map(Math.abs)) / spread(row));
          }),
        ),
    };
  },
};

/** Tables of angles [B or 1, T, D/2]; as inputs, or held while only x takes a gradient. */
const rotary = (held: boolean): Recipe => ({
  name: 'fused.rope',
  fused: 'rope',
  errors: held
    ? []
    : [
        [
          () => rope(z(1, 2, 1, 4), z(1, 3, 2), z(1, 3, 2)),
          /^rope: tables \[1,3,2\] and \[1,3,2\] do not fit \[1,2,1,4\], expected \[1\|1,2,1 to 2\]$/,
        ],
        [
          () => rope(z(1, 2, 1, 4), z(1, 2, 3), z(1, 2, 3)),
          /^rope: tables \[1,2,3\] and \[1,2,3\] do not fit \[1,2,1,4\], expected \[1\|1,2,1 to 2\]$/,
        ],
      ],
  make(d) {
    const [B, T, H] = [1 + d.integer(2), d.side(20), 1 + d.integer(3)];
    const half = d.side(d.smooth ? 4 : 40);
    const angles = d.values([d.flip() ? 1 : B, T, half], { limit: 6 });
    const [cos, sin] = [Math.cos, Math.sin].map(f => zip(x => Math.fround(f(x)), [angles]));
    const rest = d.flip() ? 0 : d.side(5);
    const pairs = d.flip() ? 'halves' : 'interleaved';
    const x = d.values([B, T, H, 2 * half + rest]);
    const rotated = (x: Host, c: Host, s: Host, f: (x: number) => number): Host =>
      build(x.shape, ([b, t, h, k]) => {
        if (k >= 2 * half) return f(get(x, [b, t, h, k]));
        const [j, first] = pairs === 'halves' ? [k % half, k < half] : [Math.floor(k / 2), k % 2 === 0];
        const [one, other] = pairs === 'halves' ? [j, j + half] : [2 * j, 2 * j + 1];
        const [p, q] = [get(x, [b, t, h, one]), get(x, [b, t, h, other])];
        const [cj, sj] = [get(c, [b, t, j]), get(s, [b, t, j])];
        return first ? f(p * cj) + f(-q * sj) : f(q * cj) + f(p * sj);
      });
    const c: Case = {
      inputs: [x, cos, sin],
      run: (a, p, q) => rope(a, p, q, { pairs }),
      roundings: 3,
      reference: (a, p, q) => rotated(a, p, q, v => v),
      magnitude: (a, p, q) => rotated(a, p, q, Math.abs),
    };
    return held
      ? {
          ...c,
          inputs: [x],
          run: a => rope(a, beside(a, cos), beside(a, sin), { pairs }),
          reference: a => rotated(a, cos, sin, v => v),
          magnitude: a => rotated(a, cos, sin, Math.abs),
        }
      : c;
  },
});

/** Plain, or with a bias of the scores (an input), a soft cap and windows to both sides. */
const attending = (plain: boolean): Recipe => ({
  name: 'fused.attention',
  fused: 'attention',
  gradientRoundings: [
    512,
    'dq and dk sum over keys and queries products of cancelling differences p (g v - sum p g v)',
  ],
  errors: [
    [
      () => attention(z(1, 3, 2, 4), z(1, 2, 2, 4), z(1, 2, 2, 4)),
      /^attention: q \[1,3,2,4\], k \[1,2,2,4\] and v \[1,2,2,4\] do not fit/,
    ],
    [
      () => attention(z(1, 2, 2, 4), z(1, 2, 2, 4), z(1, 2, 2, 4), { keyStart: new Int32Array(2) }),
      /^attention: keyStart and keyEnd need 1 entries, got 2 and 1$/,
    ],
    [
      () => attention(z(2, 2, 3, 4), z(2, 2, 5, 4), z(2, 2, 5, 4), { bias: z(2, 2, 3, 4) }),
      /^attention: bias f32 \[2,2,3,4\] does not fit f32 \[1\|2,2,3,5\]$/,
    ],
    [
      () => attention(z(1, 1, 1, 4), z(1, 1, 1, 4), z(1, 1, 1, 4), { softcap: -1 }),
      /^attention: softcap must be a positive number, or 0 for none, got -1$/,
    ],
    [
      () => attention(z(1, 1, 1, 4), z(1, 1, 1, 4), z(1, 1, 1, 4), { window: { before: 1, after: 0.5 } }),
      /^attention: window.after must be a whole number from 0, got 0.5$/,
    ],
  ],
  make(d) {
    const [B, KV, group] = [1 + d.integer(2), 1 + d.integer(2), 1 + d.integer(3)];
    const H = KV * group;
    const most = d.smooth ? 3 : 70;
    const [T, cached, D] = [d.side(most), d.integer(d.smooth ? 3 : 6), d.side(d.smooth ? 4 : 65)];
    const causal = d.flip();
    const S = causal ? T + cached : d.side(most);
    const causalOffset = causal ? cached : 0;
    const width = d.flip() ? 1 + d.integer(Math.max(2, S)) : 0;
    const window = plain || d.flip() ? width : { before: width, after: d.integer(4) };
    const softcap = plain || d.flip() ? 0 : 2;
    const biased = !plain && d.integer(4) > 0;
    const keyStart = Int32Array.from({ length: B }, () => (d.flip() ? 0 : d.integer(S + 1)));
    const keyEnd = Int32Array.from({ length: B }, (_, b) =>
      d.flip() ? S : keyStart[b] + d.integer(S - keyStart[b] + 1),
    );
    const scale = d.flip() ? undefined : 0.25;
    const factor = scale ?? 1 / Math.sqrt(D);
    const sees = (b: number, t: number, s: number): boolean =>
      s >= keyStart[b] &&
      s < keyEnd[b] &&
      (!causal || s <= t + causalOffset) &&
      (typeof window === 'number'
        ? window === 0 || s > t + causalOffset - window
        : s >= t + causalOffset - window.before && s <= t + causalOffset + window.after);
    const compute = (size: boolean, q: Host, k: Host, v: Host, bias?: Host): Host => {
      let row: { keys: number[]; weights: number[] } = { keys: [], weights: [] };
      return build([B, H, T, D], ([b, h, t, x]) => {
        const g = Math.floor(h / group);
        if (x === 0) {
          const keys = range(S).filter(s => sees(b, t, s));
          const dot = (s: number, f: (x: number) => number): number =>
            factor * total(range(D).map(j => f(get(q, [b, h, t, j]) * get(k, [b, g, s, j]))));
          const biasOf = (s: number): number => (bias ? get(bias, [bias.shape[0] === 1 ? 0 : b, h, t, s]) : 0);
          const capped = (score: number): number => (softcap ? softcap * Math.tanh(score / softcap) : score);
          const scores = keys.map(s => capped(dot(s, y => y)) + biasOf(s));
          const norm = lse(scores);
          // An error of the scores is an error of exp: their magnitude comes in as a factor.
          const extra = size ? 1 + Math.max(...keys.map(s => dot(s, Math.abs) + Math.abs(biasOf(s)))) : 1;
          row = { keys, weights: scores.map(score => Math.exp(score - norm) * extra) };
        }
        return total(
          row.keys.map((s, i) => row.weights[i] * (size ? Math.abs(get(v, [b, g, s, x])) : get(v, [b, g, s, x]))),
        );
      });
    };
    const inputs = [[B, H, T, D], [B, KV, S, D], [B, KV, S, D], ...(biased ? [[d.flip() ? 1 : B, H, T, S]] : [])].map(
      s => d.values(s, { limit: 3 }),
    );
    const [q, k, v] = inputs;
    const largest = (h: Host): number => Math.max(...h.data.map(Math.abs));
    return {
      inputs,
      roundings: 2 * D + S + 40,
      run: (a, b, c, bias) =>
        attention(a, b, c, {
          causal,
          causalOffset,
          window,
          softcap,
          bias,
          keyStart,
          keyEnd,
          ...(scale === undefined ? {} : { scale }),
        }),
      reference: (...given) => compute(false, ...(given as [Host, Host, Host])),
      magnitude: (...given) => compute(true, ...(given as [Host, Host, Host])),
      gradientScale: factor * largest(v) * Math.max(largest(q), largest(k), biased ? 1 / factor : 0),
    };
  },
});

const entropy: Recipe = {
  name: 'fused.crossEntropy',
  fused: 'crossEntropy',
  errors: [
    [() => crossEntropy(z(2, 3), Int32Array.of(0)), /^crossEntropy: 1 labels for logits \[2,3\]$/],
    [() => crossEntropy(z(2, 3), Int32Array.of(0, 3)), /^crossEntropy: label 3 of row 1 is outside the 3 classes$/],
  ],
  make(d) {
    const [n, v] = d.capped([d.side(), d.side()], d.smooth ? 60 : 3000);
    const labels = Int32Array.from({ length: n }, () => (d.integer(4) === 0 ? -100 : d.integer(v)));
    const row = (h: Host, i: number): number[] => [...h.data.slice(i * v, (i + 1) * v)];
    return {
      inputs: [d.values([n, v], { limit: 200 })],
      run: x => crossEntropy(x, labels),
      roundings: v + 20,
      gradientScale: 3,
      reference: h => build([n], ([i]) => (labels[i] < 0 ? 0 : lse(row(h, i)) - row(h, i)[labels[i]])),
      magnitude: h => build([n], ([i]) => 1 + 2 * Math.max(...row(h, i).map(Math.abs))),
    };
  },
};

const activate: Record<EditActivation, (x: number) => number> = {
  linear: x => x,
  gelu: x => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu: x => Math.max(0, x),
  silu: x => x * sigmoid(x),
  tanh: Math.tanh,
  sigmoid,
  gelu_tanh: x => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/** Distinct rows in any order. */
function someRows(d: Draw, count: number): number[] {
  const rows = range(count).filter(() => d.flip());
  return d.flip() ? rows.reverse() : rows;
}

/** With the row scales held, as in training, or as an input. */
const editing = (held: boolean): Recipe => ({
  name: 'fused.edit',
  fused: 'edit',
  gradientRoundings: [256, 'gradients of the banks sum over rows and dimensions'],
  errors: held
    ? []
    : [
        [
          () => edit(z(2, 3), { P: z(1, 1, 3), A: z(1, 2, 3) }, { indices: Int32Array.of(0), slots: Int32Array.of(0) }),
          /^edit: A has shape \[1,2,3\], expected \[1,1,3\]$/,
        ],
        [
          () => edit(z(2, 3), { P: z(1, 1, 3), b: z(1, 1) }, { indices: Int32Array.of(2), slots: Int32Array.of(0) }),
          /^edit: row 2 is out of range, the hidden states have 2$/,
        ],
        [
          () =>
            edit(z(2, 3), { P: z(1, 1, 3), b: z(1, 1) }, { indices: Int32Array.of(1, 1), slots: Int32Array.of(0, 0) }),
          /^edit: row 1 is edited twice$/,
        ],
        [
          () => edit(z(2, 3), { P: z(1, 1, 3), b: z(1, 1) }, { indices: Int32Array.of(1), slots: Int32Array.of(1) }),
          /^edit: slot 1 is out of range, the bank has 1$/,
        ],
        [
          () => edit(z(2, 3), { P: z(1, 1, 3), b: z(1, 1) }, { indices: Int32Array.of(1), slots: Int32Array.of(0, 0) }),
          /^edit: 2 slots for 1 rows$/,
        ],
      ],
  make(d) {
    const [slots, r] = [1 + d.integer(3), 1 + d.integer(d.smooth ? 3 : 9)];
    const dim = d.side(d.smooth ? 5 : 129);
    const lead = d.shape(0, 2, { empty: false, cap: d.smooth ? 6 : 20 });
    const rows = someRows(d, sizeOf(lead));
    const slot = rows.map(() => d.integer(slots));
    const flags = d.integer(15) + 1; // which of A, b, C, e there are
    const has = [0, 1, 2, 3].map(bit => (flags >> bit) % 2 === 1);
    const names = editActivations.filter(a => !(d.smooth && a === 'relu'));
    // Half of them linear, which is what kernels take.
    const activation = d.flip() ? 'linear' : names[d.integer(names.length)];
    const small = (shape: number[]): Host => d.values(shape, { limit: 2 });
    const banks = [
      [slots, r, dim],
      [slots, r],
      [slots, r, dim],
      [slots, r],
      [slots, r, dim],
    ].map(small);
    const present = [...has, true];
    const scale = small([rows.length]);
    const h = d.values([...lead, dim], { limit: 20 });
    const inputs = [h, ...banks.filter((_, i) => present[i]), ...(held ? [] : [scale])];
    const spread = <T>(given: readonly T[]): (T | null)[] => {
      let next = 1;
      return [...present.map(p => (p ? given[next++] : null)), held ? null : given[next]];
    };
    const compute = (given: readonly Host[], f: (x: number) => number): Host => {
      const [A, b, C, e, P, c] = spread(given);
      const flat = { ...given[0], shape: [sizeOf(lead), dim] };
      const size = f(-1) > 0;
      const result = build(flat.shape, ([row, k]) => {
        const m = rows.indexOf(row);
        if (m < 0) return f(get(flat, [row, k]));
        const s = slot[m];
        const dot = (M: Host | null, j: number): number =>
          M ? total(range(dim).map(q => f(get(M, [s, j, q]) * get(flat, [row, q])))) : 0;
        const delta = total(
          range(r).map(j => {
            const inner = dot(A, j) + (b ? f(get(b, [s, j])) : 0);
            const u = A || b ? (size ? Math.abs(inner) + 1 : activate[activation](inner)) : 0;
            const rest = dot(C, j) + (e ? f(get(e, [s, j])) : 0);
            return f(get(P as Host, [s, j, k])) * (size ? u + rest : u - rest);
          }),
        );
        return f(get(flat, [row, k])) + f((c ?? scale).data[m]) * delta;
      });
      return { ...result, shape: [...lead, dim] };
    };
    return {
      inputs,
      roundings: dim + r + 24,
      run: (...t) => {
        const [A, b, C, e, P, c] = spread(t);
        return edit(
          t[0],
          { A, b, C, e, P: P as (typeof t)[0], activation },
          { indices: Int32Array.from(rows), slots: Int32Array.from(slot), scale: c ?? beside(t[0], scale) },
        );
      },
      reference: (...t) => compute(t, x => x),
      magnitude: (...t) => compute(t, Math.abs),
      gradientScale: 1,
    };
  },
});

export const fusedRecipes: Table = [
  softmax,
  rms,
  layer,
  rotary(false),
  rotary(true),
  attending(true),
  attending(false),
  entropy,
  editing(false),
  editing(true),
  ...smallMatrixRecipes,
  ...scanRecipes,
];
