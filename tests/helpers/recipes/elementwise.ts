// Recipes of elementwise ops: arithmetic, functions, comparisons, choice, casts.

import { dropout, map, randomLike, swiglu, unary, where } from '../../../src/autograd/index.js';
import * as e from '../../../src/tensor/expr.js';
import { tensor } from '../../../src/tensor/index.js';
import { randomWords } from '../../../src/tensor/threefry.js';
import type { Draw } from '../draw.js';
import { erf, sigmoid, zip, type Host } from '../host.js';
import type { Table } from '../recipe.js';
import {
  any,
  awayFrom0,
  cdf,
  compare,
  endCase,
  left,
  libm,
  limited,
  logic,
  one,
  powMagnitude,
  right,
  tanhPart,
  torchPow,
  two,
  withNumber,
} from './makeElementwise.js';

export const elementwise: Table = [
  two(
    'add',
    (x, y) => x.add(y),
    (x, y) => x + y,
  ),
  two(
    'sub',
    (x, y) => x.sub(y),
    (x, y) => x - y,
  ),
  two(
    'mul',
    (x, y) => x.mul(y),
    (x, y) => x * y,
    { errors: [[() => tensor.zeros([2]).mul(tensor.zeros([3])), /^mul: shapes \[2\] and \[3\] do not broadcast/]] },
  ),
  two(
    'div',
    (x, y) => x.div(y),
    (x, y) => x / y,
    { values: [any, (d, shape) => d.apart(shape, d.smooth ? 1 : 0.3)] },
  ),
  two('maximum', (x, y) => x.maximum(y), Math.max, { values: [left, right] }),
  two('minimum', (x, y) => x.minimum(y), Math.min, { values: [left, right] }),
  withNumber(
    'add',
    (x, n) => x.add(n),
    (x, n) => x + n,
  ),
  withNumber(
    'sub',
    (x, n) => x.sub(n),
    (x, n) => x - n,
  ),
  withNumber(
    'mul',
    (x, n) => x.mul(n),
    (x, n) => x * n,
  ),
  withNumber(
    'div',
    (x, n) => x.div(n),
    (x, n) => x / n,
  ),

  // Repeated squaring: each product rounds once, exponents up to 5 take four.
  ...[-3, -1, 0, 1, 2, 3, 5].map(n =>
    one(
      'pow',
      x => x.pow(n),
      x => torchPow(x, n),
      // Differences cannot follow x^-3 closer to 0 than this.
      { values: (d, s) => d.apart(s, d.smooth ? 1 : 0.5, 20), roundings: 8 },
    ),
  ),
  // exp(p log x): the error of the logarithm is multiplied by p and exponentiated.
  ...[0.5, -1.5, 2.25].map(p =>
    one(
      'pow',
      x => x.pow(p),
      x => torchPow(x, p),
      { values: (d, s) => d.positive(s, d.smooth ? 1 : 0.5, 30), roundings: libm, magnitude: x => powMagnitude(x, p) },
    ),
  ),
  // Whole exponents that are not multiplied out take the sign from x.
  ...[65, 66, -65, -66].map(p =>
    one(
      'pow',
      x => x.pow(p),
      x => torchPow(x, p),
      {
        values: (d, s) => zip(x => Math.fround(Math.sign(x) * (0.75 + (Math.abs(x) % 0.75))), [d.apart(s)]),
        roundings: 2 * libm,
        magnitude: x => powMagnitude(x, p),
        // Differences cannot follow them; gradients are in specialElementwise.ts.
        differentiable: false,
      },
    ),
  ),
  ...[Infinity, -Infinity, NaN].map(p =>
    one(
      'pow',
      x => x.pow(p),
      x => torchPow(x, p),
      { differentiable: false },
    ),
  ),
  {
    name: 'Tensor.clamp',
    extremes: endCase({
      run: x => x.clamp(2, 1),
      roundings: 0,
      reference: x => zip(v => (Number.isNaN(v) ? v : 1), [x]),
    }),
    make: d => ({
      inputs: [d.values(d.shape())],
      run: x => x.clamp(2, 1),
      roundings: 0,
      reference: x => zip(() => 1, [x]),
    }),
  },
  one(
    'clamp',
    x => x.clamp(-0.75, 1.25),
    x => Math.min(1.25, Math.max(-0.75, x)),
    { values: (d, s) => (d.smooth ? apartFrom(d, s, [-0.75, 1.25]) : d.values(s)) },
  ),
  one(
    'neg',
    x => x.neg(),
    x => -x,
    { ulps: [0, 0], roundings: 0 },
  ),
  one('abs', x => x.abs(), Math.abs, { ulps: [0, 0], values: (d, s) => d.kinked(s), roundings: 0 }),
  one(
    'square',
    x => x.square(),
    x => x * x,
    { ulps: [0.51, 0.51] },
  ),
  one('exp', x => x.exp(), Math.exp, { ulps: [2, 3], values: limited(20), roundings: libm }),
  // Near 1 the result vanishes; the reduced argument is exact, so the error stays relative to it but for the last
  // product with ln 2.
  one('log', x => x.log(), Math.log, {
    ulps: [2, 3],
    values: awayFrom0,
    roundings: libm,
    magnitude: x => Math.abs(Math.log(x)) + 0.25,
  }),
  one('sqrt', x => x.sqrt(), Math.sqrt, { ulps: [0.51, 3], values: awayFrom0 }),
  one(
    'rsqrt',
    x => x.rsqrt(),
    x => 1 / Math.sqrt(x),
    { ulps: [1.5, 3], values: awayFrom0, roundings: 3 },
  ),
  one('sin', x => x.sin(), Math.sin, { ulps: [2, 3], values: limited(20), roundings: libm, gradientScale: 1 }),
  one('cos', x => x.cos(), Math.cos, { ulps: [2, 3], values: limited(20), roundings: libm, gradientScale: 1 }),
  one('tanh', x => x.tanh(), Math.tanh, { ulps: [2, 3], values: limited(20), roundings: libm, gradientScale: 1 }),
  one('erf', x => x.erf(), erf, { ulps: [2, 3], values: limited(5), roundings: libm, gradientScale: 1 }),
  one('sigmoid', x => x.sigmoid(), sigmoid, {
    ulps: [4, 6],
    values: limited(30),
    roundings: libm + 2,
    gradientScale: 1,
  }),
  one(
    'softplus',
    x => x.softplus(),
    x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
    { ulps: [4, 6], values: limited(30), roundings: libm + 2 },
  ),
  one(
    'relu',
    x => x.relu(),
    x => (x < 0 ? 0 : x),
    { ulps: [0, 0], values: (d, s) => d.kinked(s), roundings: 0 },
  ),
  one(
    'silu',
    x => x.silu(),
    x => x * sigmoid(x),
    { ulps: [5, 7], values: limited(30), roundings: libm + 3, gradientScale: 1 },
  ),
  // 1 + erf cancels for negative x: the error is relative to |x|.
  one(
    'gelu',
    x => x.gelu(),
    x => x * cdf(x),
    { ulps: [4, 6], values: limited(5), roundings: libm + 4, magnitude: x => Math.abs(x), gradientScale: 1 },
  ),
  one(
    'geluTanh',
    x => x.geluTanh(),
    x => 0.5 * x * (1 + tanhPart(x)),
    {
      ulps: [8, 10],
      // The cubic's own rounding moves tanh by at most that of its argument, below 4 where tanh still moves.
      values: limited(5),
      roundings: 2 * libm + 4,
      magnitude: x => Math.abs(x),
      gradientScale: 1,
    },
  ),
  one('floor', x => x.floor(), Math.floor, {
    ulps: [0, 0],
    values: (d, s) => (d.smooth ? apartFrom(d, s, []) : d.values(s)),
    roundings: 0,
    differentiable: false,
  }),

  compare('eq', (x, y) => x === y),
  compare('ne', (x, y) => x !== y),
  compare('lt', (x, y) => x < y),
  compare('le', (x, y) => x <= y),
  compare('gt', (x, y) => x > y),
  compare('ge', (x, y) => x >= y),
  logic('and', (x, y) => x & y),
  logic('or', (x, y) => x | y),
  {
    name: 'Tensor.not',
    differentiable: false,
    errors: [[() => tensor.zeros([2]).not(), /^not: expected a bool tensor, got f32/]],
    make: d => ({
      inputs: [d.booleans(d.shape())],
      run: x => x.not(),
      roundings: 0,
      reference: x => zip(v => 1 - v, [x], 'bool'),
    }),
  },
  {
    name: 'Tensor.where',
    extremes: endCase(
      {
        run: (x, y) => x.le(y).where(x, y),
        roundings: 0,
        reference: (x, y) => zip((v, w) => (v <= w ? v : w), [x, y]),
      },
      2,
    ),
    errors: [
      [() => tensor.zeros([2]).where(1, 2), /^where: expected a bool tensor, got f32/],
      [() => tensor([true, false]).where(tensor.zeros([3]), 0), /^where: shapes \[2\] and \[3\] do not broadcast/],
    ],
    make(d) {
      const [a, b] = d.pair();
      const [condition] = d.pair();
      return {
        inputs: [d.booleans(condition), d.values(a), d.values(b)],
        run: (c, x, y) => c.where(x, y),
        roundings: 0,
        reference: (c, x, y) => zip((q, v, w) => (q ? v : w), [c, x, y]),
      };
    },
  },
  {
    name: 'autograd.where',
    errors: [[() => where(tensor.zeros([1]), 0, 1), /^where: expected a bool tensor/]],
    make: d => {
      const shape = d.shape();
      return {
        inputs: [d.booleans(shape), d.values(shape)],
        run: (c, x) => where(c, 0.5, x),
        roundings: 0,
        reference: (c, x) => zip((q, v) => (q ? 0.5 : v), [c, x]),
      };
    },
  },
  {
    name: 'autograd.swiglu',
    extremes: endCase({
      run: x => swiglu(x, x),
      roundings: libm + 4,
      reference: g => zip(x => x * sigmoid(x) * x, [g]),
    }),
    errors: [
      [
        () => swiglu(tensor.zeros([2, 3]), tensor.zeros([2, 4])),
        /^swiglu: shapes \[2,3\] and \[2,4\] do not broadcast/,
      ],
    ],
    make(d) {
      const shape = d.shape();
      return {
        inputs: [d.values(shape, { limit: 30 }), d.values(shape)],
        run: (g, u) => swiglu(g, u),
        roundings: libm + 4,
        reference: (g, u) => zip((x, y) => x * sigmoid(x) * y, [g, u]),
      };
    },
  },
  {
    name: 'autograd.unary',
    make: d => ({
      inputs: [d.positive(d.shape(), 1, 8)],
      run: unary('halfLog', x => e.mul(0.5, e.log(x))),
      roundings: libm + 1,
      reference: x => zip(v => 0.5 * Math.log(v), [x]),
      magnitude: x => zip(v => Math.abs(Math.log(v)) + 0.25, [x]),
    }),
  },
  {
    name: 'autograd.map',
    errors: [
      [
        () => map('three', e.arg(0), [tensor.zeros([2]), tensor.zeros([3])]),
        /^three: shapes \[2\] and \[3\] do not broadcast/,
      ],
    ],
    make(d) {
      const [a, b] = d.pair();
      // Uniforms reach the kernel as f32.
      const factor = Math.fround(d.normal());
      return {
        inputs: [d.values(a, { limit: 50 }), d.values(b, { limit: 50 }), d.positive([], 1, 5)],
        roundings: 6,
        run: (x, y, z) =>
          map('mixed', e.div(e.add(e.mul(e.arg(0), e.arg(1)), e.uniform(0)), e.arg(2)), [x, y, z], [factor]),
        reference: (x, y, z) => zip((p, q, r) => (p * q + factor) / r, [x, y, z]),
        magnitude: (x, y, z) => zip((p, q, r) => (Math.abs(p * q) + Math.abs(factor)) / r, [x, y, z]),
      };
    },
  },
  {
    name: 'Tensor.to',
    needsF64: true,
    make: d => ({ inputs: [d.values(d.shape())], run: x => x.to('f64').to(x.dtype), roundings: 0, reference: x => x }),
  },
  {
    name: 'Tensor.to',
    differentiable: false,
    extremes: endCase({
      run: x => x.to('i32'),
      roundings: 0,
      reference: x =>
        zip(v => (Number.isNaN(v) ? 0 : Math.min(2147483647, Math.max(-2147483648, Math.trunc(v))) + 0), [x], 'i32'),
    }),
    make: d => ({
      inputs: [d.values(d.shape())],
      run: x => x.to('i32'),
      roundings: 0,
      reference: x => zip(Math.trunc, [x], 'i32'),
    }),
  },
  {
    name: 'Tensor.to',
    differentiable: false,
    extremes: endCase({ run: x => x.to('bool'), roundings: 0, reference: x => zip(v => Number(v !== 0), [x], 'bool') }),
    make: d => ({
      inputs: [zip(Math.round, [d.values(d.shape(), { limit: 4 })])],
      run: x => x.to('bool'),
      roundings: 0,
      reference: x => zip(v => Number(v !== 0), [x], 'bool'),
    }),
  },
  {
    name: 'autograd.dropout',
    errors: [
      [() => dropout(tensor.zeros([2]), 1, 1), /^dropout: expected a probability from 0 up to 1, got 1/],
      [() => dropout(tensor.zeros([2]), 0.5, -1), /^seed: expected an integer from 0/],
    ],
    make(d) {
      const { seed } = d.drawn;
      const uniform = uniforms(seed, 2);
      return {
        inputs: [d.values(d.shape())],
        run: x => dropout(x, 0.25, seed, 2),
        roundings: 2,
        reference: x => ({ ...x, data: x.data.map((v, n) => (uniform(n) >= 0.25 ? v / 0.75 : 0)) }),
      };
    },
  },
  {
    name: 'autograd.randomLike',
    differentiable: false,
    views: false,
    make(d) {
      const { seed } = d.drawn;
      const uniform = uniforms(seed, 3);
      return {
        inputs: [d.values(d.shape())],
        run: x => randomLike(x, seed, 3),
        roundings: 0,
        reference: x => ({ ...x, data: x.data.map((_, n) => uniform(n)) }),
      };
    },
  },
];

/** The uniform of element n: the host's generator, itself held to published vectors in engine-random. */
const uniforms =
  (seed: number, stream: number) =>
  (n: number): number =>
    (randomWords(seed, stream, n)[0] >>> 8) * 2 ** -24;

/** Values at least 0.15 from every kink (and, for floor, from whole numbers). */
function apartFrom(d: Draw, shape: readonly number[], kinks: readonly number[]): Host {
  const h = d.values(shape, { limit: 3 });
  return zip(
    x => {
      if (kinks.length === 0) return Math.fround(Math.floor(x) + 0.5);
      const near = kinks.find(k => Math.abs(x - k) < 0.15);
      return Math.fround(near === undefined ? x : near + (x < near ? -0.15 : 0.15));
    },
    [h],
  );
}
