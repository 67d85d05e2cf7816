// Sums, extremes and what is composed of them. Axes default to all; reduced axes disappear unless keepDims is given.
// Values at the ends of the number line are torch's: a NaN is the largest and the smallest of all, a sum of nothing is
// 0, its mean NaN.

import { apply, scalarType } from '../autograd/primitives.js';
import { cast, sub } from '../autograd/elementwise.js';
import { largest, softmaxLast } from '../autograd/softmax.js';
import { arg, toF, toI } from './expr.js';
import { create } from './create.js';
import { isFloat } from './dtype.js';
import { concat } from './layout.js';
import { formatShape, normalizeAxes, normalizeAxis, ShapeError, sizeOf } from './shape.js';
import type { AxisOptions, Tensor } from './tensor.js';

type Axes = number | readonly number[];

function finish(x: Tensor, reduced: Tensor, axes: readonly number[], { keepDims = false }: AxisOptions): Tensor {
  return keepDims ? reduced : reduced.reshape(x.shape.filter((_, i) => !axes.includes(i)));
}

/** Integers and bools as f32: their differences, squares and sums do not overflow then. */
const asFloat = (x: Tensor): Tensor => (isFloat(x.dtype) ? x : cast(x, 'f32'));

export function sum(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = normalizeAxes('sum', axes, x.rank);
  const leaf = arg(0, scalarType(x.dtype));
  const dtype = isFloat(x.dtype) ? x.dtype : 'i32';
  const reduced = apply('reduceSum', [x], {
    output: isFloat(dtype) ? toF(leaf) : toI(leaf),
    shape: x.shape,
    axes: list,
    uniforms: [],
    dtype,
    label: 'sum',
  })[0];
  return finish(x, reduced, list, options);
}

export function mean(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = normalizeAxes('mean', axes, x.rank);
  return sum(asFloat(x), list, options).div(sizeOf(list.map(a => x.shape[a])));
}

/** The axes of an extremum, none of them empty. */
function extremumAxes(label: string, x: Tensor, axes: Axes | undefined): number[] {
  const list = normalizeAxes(label, axes, x.rank);
  if (list.some(a => x.shape[a] === 0))
    throw new ShapeError(`${label}: no elements along axes [${list.join(',')}] of ${formatShape(x.shape)}`);
  return list;
}

export function max(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = extremumAxes('max', x, axes);
  return finish(x, largest(x, list), list, options);
}

/** Turns the order of values round, without overflow: done twice it gives them back. */
const reversed = (x: Tensor): Tensor => (x.dtype === 'bool' ? x.not() : x.dtype === 'i32' ? sub(-1, x) : x.neg());

export function min(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = extremumAxes('min', x, axes);
  return finish(x, reversed(largest(reversed(x), list)), list, options);
}

/**
 * Mean squared distance from the mean; `correction` 1 divides by n - 1. As in torch a divisor below 0 counts as 0: NaN
 * for nothing and for values that are all the same, else infinity.
 */
export function variance(x: Tensor, axes?: Axes, options: AxisOptions & { correction?: number } = {}): Tensor {
  const list = normalizeAxes('variance', axes, x.rank);
  const n = sizeOf(list.map(a => x.shape[a]));
  const centred = x.sub(mean(x, list, { keepDims: true }));
  return sum(centred.square(), list, options).div(Math.max(0, n - (options.correction ?? 0)));
}

/**
 * log(sum(exp(x))), shifted by the largest so that nothing overflows; where that is infinite it is the result.
 * -Infinity of nothing.
 */
export function logSumExp(x: Tensor, axis: number, options: AxisOptions = {}): Tensor {
  const at = normalizeAxis('logSumExp', axis, x.rank);
  const values = asFloat(x);
  const top = largest(values.detach(), [at]);
  const shift = top.abs().eq(Infinity).where(0, top);
  const result = sum(values.sub(shift).exp(), at, { keepDims: true }).log().add(shift);
  return finish(x, result, [at], options);
}

function positions(x: Tensor, axis: number): Tensor {
  const shape = x.shape.map((side, i) => (i === axis ? side : 1));
  return create.arange(0, x.shape[axis], { dtype: 'i32', backend: x.backend }).reshape(shape);
}

/** Where the largest are: equal to `top`, the largest along an axis, or NaN. */
const hits = (x: Tensor, top: Tensor): Tensor => x.eq(top).or(x.eq(x).not());

export function argmax(x: Tensor, axis: number, options: AxisOptions = {}): Tensor {
  const [at] = extremumAxes('argmax', x, axis);
  const values = x.detach();
  return firstTrue(hits(values, largest(values, [at])), at, options);
}

export function argmin(x: Tensor, axis: number, options: AxisOptions = {}): Tensor {
  const [at] = extremumAxes('argmin', x, axis);
  const values = reversed(x.detach());
  return firstTrue(hits(values, largest(values, [at])), at, options);
}

/** The smallest position along `axis` that is true: a maximum of negated positions. */
function firstTrue(hit: Tensor, axis: number, options: AxisOptions): Tensor {
  return max(hit.where(positions(hit, axis).neg(), -hit.shape[axis]), axis, options).neg();
}

export function topk(x: Tensor, k: number): { values: Tensor; indices: Tensor } {
  const n = x.shape[x.rank - 1];
  if (x.rank === 0 || !Number.isInteger(k) || k < 1 || k > n)
    throw new ShapeError(`topk: expected k from 1 to ${n ?? 0}, got ${k}`);
  const last = x.rank - 1;
  const at = positions(x, last);
  const lowest = isFloat(x.dtype) ? -Infinity : x.dtype === 'i32' ? -0x80000000 : 0;
  const values: Tensor[] = [];
  const indices: Tensor[] = [];
  let taken = at.lt(0).expand(x.shape); // nothing yet
  for (let i = 0; i < k; i++) {
    const rest = taken.where(lowest, x.detach());
    // What was taken is out, also where only the lowest value is left.
    const index = firstTrue(hits(rest, largest(rest, [last])).and(taken.not()), last, { keepDims: true });
    const hit = at.eq(index);
    values.push(cast(hit.where(x, 0).sum(-1, { keepDims: true }), x.dtype));
    indices.push(index);
    taken = taken.or(hit);
  }
  return { values: concat(values, -1), indices: concat(indices, -1) };
}

/** Running sum along an axis: doubling steps, so log2(n) additions deep. */
export function cumsum(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('cumsum', axis, x.rank);
  let result = x;
  for (let step = 1; step < x.shape[at]; step *= 2) {
    const head = result.slice(at, 0, step);
    const tail = result.slice(at, step).add(result.slice(at, 0, x.shape[at] - step));
    result = concat([head, tail], at);
  }
  return result;
}

export function softmax(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('softmax', axis, x.rank);
  const values = asFloat(x);
  return at === x.rank - 1 ? softmaxLast(values) : softmaxLast(values.transpose(at, -1)).transpose(at, -1);
}

export function logSoftmax(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('logSoftmax', axis, x.rank);
  const values = asFloat(x);
  return values.sub(logSumExp(values, at, { keepDims: true }));
}

/**
 * Square root of the sum of squares, of values divided by the largest: it overflows only where the result does. Its
 * gradient at 0 is 0, as torch's.
 */
export function norm(x: Tensor): Tensor {
  const values = asFloat(x);
  const top = largest(
    values.detach().abs(),
    values.shape.map((_, axis) => axis),
  );
  // Of nothing, the largest is -Infinity.
  const scale = top.gt(0).and(top.lt(Infinity)).where(top, 1);
  const squares = sum(values.div(scale).square());
  const none = squares.eq(0);
  return none.where(0, none.where(1, squares).sqrt().mul(scale.reshape([])));
}
