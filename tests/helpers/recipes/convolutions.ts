// Recipes of nn/conv.ts and nn/ssru.ts, which are no ops by themselves but compositions: values and gradients all the
// same.

import { causalConv1d, conv1d, patchEmbedding } from '../../../src/nn/conv.js';
import { ssru } from '../../../src/nn/ssru.js';
import { tensor } from '../../../src/tensor/index.js';
import { build, get, sigmoid, type Host } from '../host.js';
import type { Recipe, Table } from '../recipe.js';
import { flat, joined, sequenceOfRows, someStarts } from './scans.js';

const z = (...shape: number[]) => tensor.zeros(shape);
const silu = (x: number): number => x * sigmoid(x);

/** What is optional: a state before the sequences, a bias, an activation. */
const causal = (carried: boolean, biased: boolean, activation?: 'silu'): Recipe => ({
  name: 'nn.causalConv1d',
  gradientRoundings: [256, 'those of weights sum over all rows'],
  errors: carried
    ? [
        [
          () => causalConv1d(z(3, 2), z(2, 1, 4), null, Int32Array.of(0), { state: z(1, 4, 2) }),
          /^causalConv1d: the state is f32\[1,4,2\], expected f32\[1,3,2\]$/,
        ],
        [
          () => causalConv1d(z(3, 2), z(2, 1, 4), null, Int32Array.of(1)),
          /^causalConv1d: the first sequence starts at row 1 of 3, expected row 0/,
        ],
        [
          () => causalConv1d(z(3, 2), z(3, 1, 4), null, Int32Array.of(0)),
          /^causalConv1d: x \[3,2\], weight \[3,1,4\] and bias none do not fit \[N,d\], \[d,1,k\], \[d\]$/,
        ],
        [
          () => causalConv1d(z(3, 2), z(2, 2, 4), null, Int32Array.of(0)),
          /^causalConv1d: x \[3,2\], weight \[2,2,4\] and bias none do not fit/,
        ],
        [
          () => causalConv1d(z(3, 2), z(2, 1, 0), null, Int32Array.of(0)),
          /^causalConv1d: x \[3,2\], weight \[2,1,0\] and bias none do not fit/,
        ],
        [
          () => causalConv1d(z(3, 2), z(2, 1, 4), z(3), Int32Array.of(0)),
          /^causalConv1d: x \[3,2\], weight \[2,1,4\] and bias \[3\] do not fit/,
        ],
        [
          () => causalConv1d(z(3, 2), z(2, 1, 4), null, Int32Array.of(0), { activation: 'slu' }),
          /^activation 'slu' is not known; known: /,
        ],
      ]
    : [],
  make(d) {
    const [rows, width] = d.shape(2, 2, { cap: d.smooth ? 20 : 1000 });
    const taps = 1 + d.integer(5);
    const starts = someStarts(d, rows);
    const sequences = sequenceOfRows(starts, rows);
    const inputs = [d.values([rows, width], { limit: 20 }), d.values([width, 1, taps], { limit: 3 })];
    if (biased) inputs.push(d.values([width], { limit: 3 }));
    if (carried) inputs.push(d.values([starts.length, taps - 1, width], { limit: 20 }));
    const named = <T>(given: readonly T[]) => ({
      x: given[0],
      weight: given[1],
      bias: biased ? given[2] : null,
      state: carried ? given[biased ? 3 : 2] : null,
    });
    const compute = (given: readonly Host[], f: (x: number) => number): Host => {
      const { x, weight, bias, state } = named(given);
      const input = (s: number, t: number, c: number): number =>
        t >= 0 ? get(x, [starts[s] + t, c]) : state ? get(state, [s, taps - 1 + t, c]) : 0;
      const isSize = f(-1) > 0;
      const output = build([rows, width], ([row, c]) => {
        const s = sequences[row];
        let sum = bias ? f(get(bias, [c])) : 0;
        for (let j = 0; j < taps; j++) sum += f(get(weight, [c, 0, j]) * input(s, row - starts[s] - (taps - 1) + j, c));
        // The slope of silu is at most 1.1.
        return activation ? (isSize ? 1.1 * sum : silu(sum)) : sum;
      });
      const after = build([starts.length, taps - 1, width], ([s, j, c]) =>
        f(input(s, (starts[s + 1] ?? rows) - starts[s] - (taps - 1) + j, c)),
      );
      return flat(output, after);
    };
    return {
      inputs,
      run(...given) {
        const { x, weight, bias, state } = named(given);
        const made = causalConv1d(x, weight, bias, starts, { state, ...(activation ? { activation } : {}) });
        return joined(made.output, made.state);
      },
      roundings: taps + 12,
      gradientScale: 1,
      reference: (...given) => compute(given, v => v),
      magnitude: (...given) => compute(given, Math.abs),
    };
  },
});

const alongTime = (biased: boolean): Recipe => ({
  name: 'nn.conv1d',
  gradientRoundings: [256, 'those of weights sum over all time steps'],
  errors: biased
    ? [
        [
          () => conv1d(z(1, 5, 2), z(4, 3, 3), null),
          /^conv1d: x \[1,5,2\], weight \[4,3,3\] and bias none do not fit \[B,T,C\], \[out,C,k\], \[out\]$/,
        ],
        [() => conv1d(z(1, 5, 2), z(4, 2, 3), z(3)), /^conv1d: .* and bias \[3\] do not fit/],
        [() => conv1d(z(5, 2), z(4, 2, 3), null), /^conv1d: x \[5,2\], weight/],
        [
          () => conv1d(z(1, 5, 2), z(4, 2, 3), null, { stride: 0 }),
          /^conv1d: stride must be a whole number from 1, got 0$/,
        ],
        [
          () => conv1d(z(1, 5, 2), z(4, 2, 3), null, { padding: 0.5 }),
          /^conv1d: padding must be a whole number from 0, got 0.5$/,
        ],
        [
          () => conv1d(z(1, 2, 2), z(4, 2, 5), null, { padding: 1 }),
          /^conv1d: a kernel of 5 does not fit 2 time steps padded by 1$/,
        ],
      ]
    : [],
  make(d) {
    const [batch, channels, out, taps] = [1 + d.integer(3), 1 + d.integer(5), 1 + d.integer(6), 1 + d.integer(4)];
    const length = d.side(d.smooth ? 6 : 65);
    const [stride, padding] = [1 + d.integer(3), d.integer(3)];
    const pad = Math.max(padding, Math.ceil((taps - length) / 2));
    const steps = Math.floor((length + 2 * pad - taps) / stride) + 1;
    const inputs = [d.values([batch, length, channels], { limit: 20 }), d.values([out, channels, taps], { limit: 3 })];
    if (biased) inputs.push(d.values([out], { limit: 3 }));
    const compute = ([x, weight, bias]: readonly Host[], f: (v: number) => number): Host =>
      build([batch, steps, out], ([b, t, o]) => {
        let sum = biased ? f(get(bias, [o])) : 0;
        for (let j = 0; j < taps; j++) {
          const at = t * stride + j - pad;
          if (at < 0 || at >= length) continue;
          for (let c = 0; c < channels; c++) sum += f(get(x, [b, at, c]) * get(weight, [o, c, j]));
        }
        return sum;
      });
    return {
      inputs,
      run: (x, weight, bias) => conv1d(x, weight, biased ? bias : null, { stride, padding: pad }),
      roundings: taps * channels + 4,
      gradientScale: 1,
      reference: (...given) => compute(given, v => v),
      magnitude: (...given) => compute(given, Math.abs),
    };
  },
});

const patches = (biased: boolean): Recipe => ({
  name: 'nn.patchEmbedding',
  gradientRoundings: [256, 'those of weights sum over all patches'],
  errors: biased
    ? [
        [
          () => patchEmbedding(z(1, 3, 4, 4), z(5, 2, 2, 2)),
          /^patchEmbedding: pixelValues \[1,3,4,4\], weight \[5,2,2,2\] and bias none do not fit \[B,C,H,W\], \[out,C,h,w\], \[out\]$/,
        ],
        [() => patchEmbedding(z(1, 2, 4, 4), z(5, 2, 2, 2), z(4)), /^patchEmbedding: .* and bias \[4\] do not fit/],
        [() => patchEmbedding(z(2, 4, 4), z(5, 2, 2, 2)), /^patchEmbedding: pixelValues \[2,4,4\], weight/],
        [
          () => patchEmbedding(z(1, 2, 4, 5), z(5, 2, 2, 2)),
          /^patchEmbedding: an image of 4x5 is not made of whole patches of 2x2$/,
        ],
      ]
    : [],
  make(d) {
    const [batch, channels, out] = [1 + d.integer(2), 1 + d.integer(3), 1 + d.integer(5)];
    const [h, w, down, across] = [1 + d.integer(3), 1 + d.integer(3), 1 + d.integer(3), 1 + d.integer(3)];
    const inputs = [
      d.values([batch, channels, down * h, across * w], { limit: 20 }),
      d.values([out, channels, h, w], { limit: 3 }),
    ];
    if (biased) inputs.push(d.values([out], { limit: 3 }));
    const compute = ([x, weight, bias]: readonly Host[], f: (v: number) => number): Host =>
      build([batch, down * across, out], ([b, patch, o]) => {
        const [top, left] = [Math.floor(patch / across) * h, (patch % across) * w];
        let sum = biased ? f(get(bias, [o])) : 0;
        for (let c = 0; c < channels; c++)
          for (let i = 0; i < h; i++)
            for (let j = 0; j < w; j++) sum += f(get(x, [b, c, top + i, left + j]) * get(weight, [o, c, i, j]));
        return sum;
      });
    return {
      inputs,
      run: (x, weight, bias) => patchEmbedding(x, weight, biased ? bias : null),
      roundings: channels * h * w + 4,
      gradientScale: 1,
      reference: (...given) => compute(given, v => v),
      magnitude: (...given) => compute(given, Math.abs),
    };
  },
});

const unit: Recipe = {
  name: 'nn.ssru',
  make(d) {
    const [rows, width] = d.shape(2, 2);
    const starts = someStarts(d, rows);
    const sequences = sequenceOfRows(starts, rows);
    const carried = d.flip();
    const inputs = [d.values([rows, width], { limit: 8 }), d.values([rows, width], { limit: 20 })];
    // A cell that relu bends at 0 cannot be followed by differences: all of them stay above it.
    if (d.smooth) inputs[1] = build([rows, width], i => 2 + Math.abs(get(inputs[1], i)));
    if (carried) inputs.push(d.smooth ? d.positive([starts.length, width]) : d.values([starts.length, width]));
    const compute = ([forget, candidate, cell]: readonly Host[], isSize: boolean): Host => {
      const c = new Float64Array(rows * width);
      const final = build([starts.length, width], ([s, k]) => (carried ? get(cell, [s, k]) : 0));
      for (let i = 0; i < c.length; i++) {
        const at = sequences[Math.floor(i / width)] * width + (i % width);
        const [f, next] = [sigmoid(forget.data[i]), candidate.data[i]];
        final.data[at] = isSize
          ? f * Math.abs(final.data[at]) + (1 - f) * Math.abs(next)
          : f * final.data[at] + (1 - f) * next;
        c[i] = isSize ? final.data[at] : Math.max(0, final.data[at]);
      }
      return flat({ shape: [rows, width], data: c, dtype: 'float' }, final);
    };
    return {
      inputs,
      run(forget, candidate, cell) {
        const made = ssru(forget, candidate, starts, cell ?? null);
        return joined(made.output, made.cell);
      },
      roundings: 16 + 8 * rows,
      gradientScale: 1,
      reference: (...given) => compute(given, false),
      magnitude: (...given) => compute(given, true),
    };
  },
};

export const convolutions: Table = [
  causal(false, false),
  causal(false, true, 'silu'),
  causal(true, true),
  causal(true, false, 'silu'),
  alongTime(false),
  alongTime(true),
  patches(false),
  patches(true),
  unit,
];
