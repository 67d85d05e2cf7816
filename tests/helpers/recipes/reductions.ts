// Recipes of reductions and what is composed of them, and of products of matrices.

import { einsum, tensor } from '../../../src/tensor/index.js';
import type { Tensor } from '../../../src/tensor/tensor.js';
import type { Draw } from '../draw.js';
import { build, fold, get, indicesOf, product, sizeOf, total, type Host } from '../host.js';
import type { Recipe, Table } from '../recipe.js';

const z = (...shape: number[]) => tensor.zeros(shape);
const badAxis = (name: string, run: (x: Tensor) => unknown): readonly [() => unknown, RegExp] => [
  () => run(z(2, 3)),
  new RegExp(`^${name}: axis 2 is out of range for rank 2$`),
];
const count = (h: Host, axes: readonly number[]): number => sizeOf(axes.map(a => h.shape[a]));

/** A reduction over drawn axes, or all, with and without keepDims. */
function reduction(
  name: string,
  f: (values: number[]) => number,
  run: (x: Tensor, axes: number[] | undefined, keepDims: boolean) => Tensor,
  options: {
    values?: (d: Draw, shape: readonly number[]) => Host;
    empty?: boolean;
    magnitude?: (values: number[]) => number;
    roundings?: (n: number) => number;
    errors?: Recipe['errors'];
    /** At least two values are reduced. */
    several?: boolean;
  } = {},
): Recipe {
  const {
    values = (d, s) => d.values(s),
    empty = true,
    magnitude,
    roundings = n => n + 2,
    errors = [],
    several = false,
  } = options;
  return {
    name: `Tensor.${name}`,
    errors: [badAxis(name, x => run(x, [2], false)), ...errors],
    make(d) {
      const shape = several ? [...d.shape(0, 3, { empty }), 2 + d.integer(3)] : d.shape(0, 4, { empty });
      const drawn = d.axes(shape.length);
      const axes = several && drawn && !drawn.includes(shape.length - 1) ? [...drawn, shape.length - 1] : drawn;
      const keepDims = d.flip();
      const list = axes ?? shape.map((_, i) => i);
      const x = values(d, shape);
      return {
        inputs: [x],
        run: t => run(t, axes, keepDims),
        roundings: roundings(count(x, list)),
        reference: h => fold(h, list, f, keepDims),
        ...(magnitude ? { magnitude: (h: Host) => fold(h, list, magnitude, keepDims) } : {}),
      };
    },
  };
}

/** One function along a drawn axis that keeps the shape. */
function along(
  name: string,
  f: (row: number[], k: number) => number,
  run: (x: Tensor, axis: number) => Tensor,
  options: {
    magnitude?: (row: number[], k: number) => number;
    roundings?: (n: number) => number;
    limit?: number;
    empty?: boolean;
    /** g minus its mean under the softmax: what is left may be far below g. */
    gradientScale?: number;
  } = {},
): Recipe {
  const { magnitude, roundings = n => n + 16, limit = 40, empty = false, gradientScale } = options;
  return {
    name: `Tensor.${name}`,
    errors: [badAxis(name, x => run(x, 2))],
    make(d) {
      const shape = d.shape(1, 4, { empty });
      const axis = d.axis(shape.length);
      const at = axis < 0 ? axis + shape.length : axis;
      const row = (h: Host, i: readonly number[]): number[] =>
        Array.from({ length: shape[at] }, (_, k) =>
          get(
            h,
            i.map((x, j) => (j === at ? k : x)),
          ),
        );
      return {
        inputs: [d.values(shape, { limit })],
        run: x => run(x, axis),
        roundings: roundings(shape[at]),
        reference: h => build(shape, i => f(row(h, i), i[at])),
        ...(magnitude ? { magnitude: (h: Host) => build(shape, i => magnitude(row(h, i), i[at])) } : {}),
        ...(gradientScale === undefined ? {} : { gradientScale }),
      };
    },
  };
}

const mean = (v: number[]): number => total(v) / v.length;
const lse = (v: number[]): number => {
  const top = Math.max(...v);
  return top + Math.log(total(v.map(x => Math.exp(x - top))));
};
const largest = (v: number[]): number => Math.max(...v.map(Math.abs));

const argExtremum = (name: 'argmax' | 'argmin'): Recipe => ({
  name: `Tensor.${name}`,
  differentiable: false,
  errors: [
    badAxis(name, x => x[name](2)),
    [() => z(2, 0)[name](1), new RegExp(`^${name}: no elements along axes \\[1\\] of \\[2,0\\]$`)],
  ],
  make(d) {
    const shape = d.shape(1, 4, { empty: false });
    const axis = d.axis(shape.length);
    const keepDims = d.flip();
    const sign = name === 'argmax' ? 1 : -1;
    return {
      inputs: [d.values(shape)],
      run: x => x[name](axis, { keepDims }),
      roundings: 0,
      reference: h =>
        fold(
          h,
          [axis < 0 ? axis + shape.length : axis],
          v => v.reduce((best, x, k) => (sign * x > sign * v[best] ? k : best), 0),
          keepDims,
          'i32',
        ),
    };
  },
});

const topkOrder = (v: readonly number[]): number[] => v.map((_, k) => k).sort((a, b) => v[b] - v[a] || a - b);

export const reductions: Table = [
  reduction('sum', total, (x, axes, keepDims) => x.sum(axes, { keepDims }), {
    magnitude: v => total(v.map(Math.abs)),
    errors: [[() => z(2, 3).sum([0, -2]), /^sum: axis 0 is named twice$/]],
  }),
  reduction('mean', mean, (x, axes, keepDims) => x.mean(axes, { keepDims }), {
    magnitude: v => mean(v.map(Math.abs)),
    empty: false,
  }),
  reduction(
    'max',
    v => Math.max(...v),
    (x, axes, keepDims) => x.max(axes, { keepDims }),
    {
      values: (d, s) => d.kinked(s),
      empty: false,
      roundings: () => 0,
      errors: [[() => z(2, 0).max(1), /^max: no elements along axes \[1\] of \[2,0\]$/]],
    },
  ),
  {
    ...reduction(
      'max',
      v => Math.min(...v),
      (x, axes, keepDims) => x.min(axes, { keepDims }),
      { values: (d, s) => d.kinked(s), empty: false, roundings: () => 0 },
    ),
    name: 'Tensor.min',
    errors: [badAxis('min', x => x.min(2)), [() => z(0).min(), /^min: no elements along axes \[0\] of \[0\]$/]],
  },
  ...[0, 1].map(correction =>
    reduction(
      'variance',
      v => total(v.map(x => (x - mean(v)) ** 2)) / (v.length - correction),
      (x, axes, keepDims) => x.variance(axes, { keepDims, correction }),
      {
        // The mean's own error enters each square. One value with correction 1 gives 0/0.
        // Where all are equal the gradient is 0, and nothing says how exactly differences must be.
        values: (d, s) => (d.smooth ? d.distinct(s) : d.values(s)),
        several: correction === 1,
        empty: false,
        magnitude: v => total(v.map(x => x * x + mean(v.map(Math.abs)) ** 2)) / Math.max(1, v.length - correction),
        roundings: n => 3 * n + 8,
      },
    ),
  ),
  {
    name: 'Tensor.logSumExp',
    errors: [badAxis('logSumExp', x => x.logSumExp(2))],
    make(d) {
      // Of nothing it is -Infinity, which no differences follow.
      const shape = d.shape(1, 4, { empty: !d.smooth });
      const axis = d.axis(shape.length);
      const keepDims = d.flip();
      const at = axis < 0 ? axis + shape.length : axis;
      return {
        inputs: [d.values(shape, { limit: 300 })],
        run: x => x.logSumExp(axis, { keepDims }),
        roundings: shape[at] + 20,
        reference: h => fold(h, [at], lse, keepDims),
        magnitude: h => fold(h, [at], v => largest(v) + 1, keepDims),
      };
    },
  },
  argExtremum('argmax'),
  argExtremum('argmin'),
  ...[true, false].map((values): Recipe => ({
    name: 'Tensor.topk',
    differentiable: values,
    errors: [
      [() => z(2, 3).topk(4), /^topk: expected k from 1 to 3, got 4$/],
      [() => z(2, 3).topk(0), /^topk: expected k from 1 to 3, got 0$/],
    ],
    make(d) {
      const shape = d.shape(1, 3, { empty: false, cap: 400 });
      const n = shape[shape.length - 1];
      const k = Math.min(4, 1 + d.integer(n));
      return {
        inputs: [d.kinked(shape)],
        run: x => x.topk(k)[values ? 'values' : 'indices'],
        roundings: 0,
        reference: h =>
          build(
            [...shape.slice(0, -1), k],
            i => {
              const row = Array.from({ length: n }, (_, j) => get(h, [...i.slice(0, -1), j]));
              const at = topkOrder(row)[i[i.length - 1]];
              return values ? row[at] : at;
            },
            values ? 'float' : 'i32',
          ),
      };
    },
  })),
  along(
    'cumsum',
    (row, k) => total(row.slice(0, k + 1)),
    (x, axis) => x.cumsum(axis),
    {
      magnitude: (row, k) => total(row.slice(0, k + 1).map(Math.abs)),
      roundings: n => n + 1,
      limit: Infinity,
      empty: true,
    },
  ),
  // exp(x - top): the difference's rounding is multiplied by its size, at most 80 here.
  along(
    'softmax',
    (row, k) => Math.exp(row[k] - lse(row)),
    (x, axis) => x.softmax(axis),
    { roundings: n => n + 100, gradientScale: 1, empty: true },
  ),
  {
    ...along(
      'logSoftmax',
      (row, k) => row[k] - lse(row),
      (x, axis) => x.logSoftmax(axis),
      { magnitude: row => largest(row) + 1, roundings: n => n + 20, gradientScale: 1, empty: true },
    ),
    errors: [badAxis('logSoftmax', x => x.logSoftmax(2))],
  },
  {
    name: 'Tensor.norm',
    make(d) {
      const shape = d.shape(0, 4);
      return {
        inputs: [d.apart(shape, 0.1)],
        run: x => x.norm(),
        roundings: sizeOf(shape) + 3,
        reference: h => ({ shape: [], dtype: 'float', data: Float64Array.of(Math.hypot(...h.data)) }),
      };
    },
  },
];

/** [.., m, k] and [.., k, n] on tile edges with broadcasting leading axes. */
function factors(d: Draw): [number[], number[]] {
  const [m, n, k] = d.capped([d.side(), d.side(), d.side()], d.smooth ? 60 : 140_000);
  const empty = d.integer(20);
  const [batchA, batchB] = d.pair(d.shape(0, 2, { cap: 4 }));
  return [
    [...batchA, empty === 1 ? 0 : m, empty === 0 ? 0 : k],
    [...batchB, empty === 0 ? 0 : k, n],
  ];
}

const matmul = (name: 'matmul' | 'matmulT'): Recipe => ({
  name: `Tensor.${name}`,
  errors:
    name === 'matmul'
      ? [
          [() => z(2, 3).matmul(z(4, 5)), /^matmul: inner sides differ, \[2,3\] x \[4,5\]$/],
          [
            () => z(2, 3).matmul(tensor.zeros([3, 2], { dtype: 'f64' })),
            /^matmul: expected two f32 or two f64 tensors, got f32 and f64$/,
          ],
          [() => tensor.scalar(1).matmul(z(1)), /^matmul: expected rank 1 or more, got \[\] and \[1\]$/],
          [() => z(2, 2, 3).matmul(z(3, 3, 4)), /^matmul: shapes \[2\] and \[3\] do not broadcast/],
        ]
      : [[() => z(2, 3).matmulT(z(5, 4)), /^matmul: inner sides differ, \[2,3\] x \[4,5\]$/]],
  make(d) {
    const [a, b] = factors(d);
    const swap = (s: number[]): number[] => [...s.slice(0, -2), s[s.length - 1], s[s.length - 2]];
    const plain = (h: Host): Host => (name === 'matmul' ? h : build(swap([...h.shape]), i => get(h, swap([...i]))));
    return {
      inputs: [d.values(a), d.values(name === 'matmul' ? b : swap(b))],
      run: (x, y) => x[name](y),
      roundings: a[a.length - 1] + 2,
      reference: (x, y) => product(x, plain(y)),
      magnitude: (x, y) => product(x, plain(y), Math.abs),
    };
  },
});

const equations = [
  'ij,jk->ik',
  'bij,bjk->bik',
  'bij,bkj->bik',
  'ij->ji',
  'ij->i',
  'ijk->kj',
  'i,j->ij',
  'i,i->',
  'ij,ij->ij',
  'bhqd,bkhd->bhqk',
  'ij,k->ik',
  'ijk,jk->i',
  'ij->',
];

export const products: Table = [
  matmul('matmul'),
  matmul('matmulT'),
  {
    // Vectors on either side.
    name: 'Tensor.matmul',
    make(d) {
      const [m, k] = d.capped([d.side(), d.side()], d.smooth ? 60 : 10_000);
      const kind = d.integer(3);
      const sum =
        (f: (x: number) => number) =>
        (a: Host, b: Host): Host =>
          kind === 0
            ? build([], () => total(Array.from(a.data, (x, p) => f(x * b.data[p]))))
            : kind === 1
              ? build([m], ([i]) => total(Array.from({ length: k }, (_, p) => f(get(a, [i, p]) * b.data[p]))))
              : build([m], ([i]) => total(Array.from({ length: k }, (_, p) => f(a.data[p] * get(b, [p, i])))));
      const shapes = kind === 0 ? [[k], [k]] : kind === 1 ? [[m, k], [k]] : [[k], [k, m]];
      return {
        inputs: shapes.map(s => d.values(s)),
        run: (a, b) => a.matmul(b),
        roundings: k + 2,
        reference: sum(x => x),
        magnitude: sum(Math.abs),
      };
    },
  },
  {
    name: 'tensor.einsum',
    errors: [
      [() => einsum('ij,jk', z(2, 2), z(2, 2)), /^einsum 'ij,jk': expected letters, like/],
      [() => einsum('ij,jk->ik', z(2, 3), z(4, 2)), /^einsum .*: j is both 3 and 4$/],
      [() => einsum('ii->i', z(2, 2)), /^einsum .*: 'ii' repeats a letter$/],
      [() => einsum('ij->k', z(2, 2)), /: k is in no operand$/],
      [() => einsum('ij->jj', z(2, 2)), /the output repeats a letter$/],
      [() => einsum('ij->i', z(2)), /'ij' does not fit shape \[2\]$/],
      [() => einsum('i,i,i->i', z(1), z(1), z(1)), /3 operands named, 3 given, 1 or 2 taken$/],
    ],
    make(d) {
      const equation = equations[d.integer(equations.length)];
      const [left, output] = equation.split('->');
      const operands = left.split(',');
      const letters = [...new Set(left.replace(',', ''))];
      const sides = d.capped(
        letters.map(() => d.side(9)),
        d.smooth ? 60 : 2000,
      );
      const side = (l: string): number => sides[letters.indexOf(l)];
      const pick = (names: string, at: readonly number[]): number[] => [...names].map(l => at[letters.indexOf(l)]);
      const sum =
        (f: (x: number) => number) =>
        (...h: Host[]): Host => {
          const result = build([...output].map(side), () => 0);
          for (const at of indicesOf(sides)) {
            const to = pick(output, at).reduce((n, x, k) => n * result.shape[k] + x, 0);
            result.data[to] += f(h.reduce((p, x, t) => p * get(x, pick(operands[t], at)), 1));
          }
          return result;
        };
      return {
        inputs: operands.map(o => d.values([...o].map(side))),
        run: (...t) => einsum(equation, ...t),
        roundings: sizeOf(sides) + 2,
        reference: sum(x => x),
        magnitude: sum(Math.abs),
      };
    },
  },
];
