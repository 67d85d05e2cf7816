// How recipes of elementwise ops are made: of one tensor, of two, of a tensor and a number; their values, and those at
// the ends of the number line.

import { tensor } from '../../../src/tensor/index.js';
import type { Tensor } from '../../../src/tensor/tensor.js';
import type { Draw } from '../draw.js';
import { erf, zip, type Host } from '../host.js';
import type { Case, Recipe } from '../recipe.js';

export type Values = (d: Draw, shape: readonly number[]) => Host;
export const any: Values = (d, shape) => d.values(shape);
export const limited =
  (limit: number): Values =>
  (d, shape) =>
    d.values(shape, { limit });

/** Differences cannot follow functions that bend without end near 0. */
export const awayFrom0: Values = (d, shape) => d.positive(shape, d.smooth ? 1 : 0.25);

const largest32 = (2 - 2 ** -23) * 2 ** 127;
const ordinary = [1, -1, 2.5, -2.5, 85, -85, 150, -150];
const ends = [
  NaN,
  Infinity,
  -Infinity,
  0,
  -0,
  ...ordinary,
  1e-30,
  -1e-30,
  1e-40,
  -1e-40,
  2 ** -149,
  largest32,
  -largest32,
].map(Math.fround);
/** A case of every value, or of every pair, that is not ordinary. */
export const endCase = (c: Omit<Case, 'inputs'>, inputs: 1 | 2 = 1): Case => {
  const column = (list: readonly number[]): Host => ({
    shape: [list.length],
    data: Float64Array.from(list),
    dtype: 'float',
  });
  if (inputs === 1) return { ...c, inputs: [column(ends)] };
  return { ...c, inputs: [column(ends.flatMap(x => ends.map(() => x))), column(ends.flatMap(() => ends))] };
};

interface UnaryOptions {
  values?: Values;
  roundings?: number;
  /** What the error is relative to, from x. */
  magnitude?: (x: number) => number;
  differentiable?: boolean;
  gradientRoundings?: Recipe['gradientRoundings'];
  /** Slopes that vanish where the function saturates are off by roundings of the steepest one. */
  gradientScale?: number;
  dtype?: Host['dtype'];
  ulps?: Recipe['ulps'];
  errors?: Recipe['errors'];
}

export const one = (
  name: string,
  run: (x: Tensor) => Tensor,
  f: (x: number) => number,
  options: UnaryOptions = {},
): Recipe => {
  const {
    values = any,
    roundings = 1,
    magnitude,
    differentiable,
    gradientRoundings,
    gradientScale,
    dtype = 'float',
    ulps,
    errors,
  } = options;
  const always: Omit<Case, 'inputs'> = {
    run,
    roundings,
    reference: x => zip(f, [x], dtype),
    ...(magnitude ? { magnitude: (x: Host) => zip(magnitude, [x]) } : {}),
    ...(gradientScale === undefined ? {} : { gradientScale }),
  };
  return {
    name: `Tensor.${name}`,
    differentiable,
    gradientRoundings,
    errors,
    ulps,
    extremes: endCase(always),
    make: d => ({ ...always, inputs: [values(d, d.shape())] }),
  };
};

export const two = (
  name: string,
  run: (x: Tensor, y: Tensor) => Tensor,
  f: (x: number, y: number) => number,
  options: {
    values?: [Values, Values];
    differentiable?: boolean;
    dtype?: Host['dtype'];
    errors?: Recipe['errors'];
  } = {},
): Recipe => {
  const { values = [any, any], differentiable, dtype, errors = [] } = options;
  const always: Omit<Case, 'inputs'> = { run, roundings: 1, reference: (x, y) => zip(f, [x, y], dtype) };
  return {
    name: `Tensor.${name}`,
    differentiable,
    errors: [
      [
        () => run(tensor.zeros([2, 3]), tensor.zeros([2, 4])),
        new RegExp(`^${name}: shapes \\[2,3\\] and \\[2,4\\] do not broadcast \\(axis -1\\)$`),
      ],
      ...errors,
    ],
    extremes: endCase(always, 2),
    make(d) {
      const [a, b] = d.pair();
      // Sums over broadcast axes in the gradient are covered by the default bound.
      return { ...always, inputs: [values[0](d, a), values[1](d, b)] };
    },
  };
};

/** A tensor and a number, in place of two tensors. */
export const withNumber = (
  name: string,
  run: (x: Tensor, n: number) => Tensor,
  f: (x: number, n: number) => number,
): Recipe => ({
  name: `Tensor.${name}`,
  extremes: endCase({ run: x => run(x, -2.5), roundings: 1, reference: x => zip(v => f(v, -2.5), [x]) }),
  make(d) {
    // The number reaches an f32 kernel rounded: take one that is exact.
    const n = Math.fround(d.normal()) || 1;
    return { inputs: [d.apart(d.shape())], run: x => run(x, n), roundings: 1, reference: x => zip(v => f(v, n), [x]) };
  },
});

/** Distinct entries when gradients are taken, offset so that the two tensors never meet. */
export const left: Values = (d, shape) => (d.smooth ? d.distinct(shape, 0.3) : d.values(shape));
export const right: Values = (d, shape) => (d.smooth ? spread(d, shape) : d.values(shape));
function spread(d: Draw, shape: readonly number[]): Host {
  const h = d.distinct(shape, 0.3);
  return zip(x => Math.fround(x * 7.31 + Math.sign(x) * 9 * d.drawn.scale), [h]);
}

/** C's pow, with roots for 1/2 and -1/2. JavaScript's gives NaN where torch gives 1. */
export function torchPow(x: number, p: number): number {
  if (Math.abs(p) === 0.5) return p > 0 ? Math.sqrt(x) : 1 / Math.sqrt(x);
  if (x === 1 || (x === -1 && Math.abs(p) === Infinity)) return 1;
  return x ** p;
}
/** The exponent's rounding, p log|x| of them, is one of the result. */
export function powMagnitude(x: number, p: number): number {
  const size = Math.abs(torchPow(x, p)) * (2 + Math.abs(p * Math.log(Math.abs(x))));
  return Number.isFinite(size) ? size : 0;
}

/** 4 ULP, a polynomial after range reduction. */
export const libm = 8;
export const cdf = (x: number): number => 0.5 * (1 + erf(x / Math.SQRT2));
export const tanhPart = (x: number): number => Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));
export const compare = (name: 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge', f: (x: number, y: number) => boolean): Recipe =>
  two(
    name,
    (x, y) => x[name](y),
    (x, y) => Number(f(x, y)),
    { differentiable: false, dtype: 'bool', values: [ties, ties] },
  );
const ties: Values = (d, shape) => zip(x => Math.round(x), [d.values(shape, { limit: 3 })]);
export const logic = (name: 'and' | 'or', f: (x: number, y: number) => number): Recipe => ({
  name: `Tensor.${name}`,
  differentiable: false,
  errors: [[() => tensor.zeros([2])[name](tensor.zeros([2])), new RegExp(`^${name}: expected a bool tensor, got f32`)]],
  make(d) {
    const [a, b] = d.pair();
    return {
      inputs: [d.booleans(a), d.booleans(b)],
      run: (x, y) => x[name](y),
      roundings: 0,
      reference: (x, y) => zip(f, [x, y], 'bool'),
    };
  },
});
