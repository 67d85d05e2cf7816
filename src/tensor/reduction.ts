// Sums, extremes and what is composed of them. Axes default to all; reduced axes disappear unless keepDims is given.

import { apply, scalarType } from '../autograd/primitives.js';
import { softmaxLast } from '../autograd/softmax.js';
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

export function sum(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = normalizeAxes('sum', axes, x.rank);
  const leaf = arg(0, scalarType(x.dtype));
  const dtype = isFloat(x.dtype) ? x.dtype : 'i32';
  const reduced = apply('reduceSum', [x], { output: isFloat(dtype) ? toF(leaf) : toI(leaf), shape: x.shape, axes: list, uniforms: [], dtype, label: 'sum' })[0];
  return finish(x, reduced, list, options);
}

export function mean(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = normalizeAxes('mean', axes, x.rank);
  return sum(x, list, options).div(sizeOf(list.map(a => x.shape[a])));
}

export function max(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  const list = normalizeAxes('max', axes, x.rank);
  if (list.some(a => x.shape[a] === 0)) throw new ShapeError(`max: no elements along axes [${list.join(',')}] of ${formatShape(x.shape)}`);
  return finish(x, apply('reduceMax', [x], { axes: list })[0], list, options);
}

export function min(x: Tensor, axes?: Axes, options: AxisOptions = {}): Tensor {
  return max(x.neg(), axes, options).neg();
}

/** Mean squared distance from the mean; `correction` 1 divides by n - 1. */
export function variance(x: Tensor, axes?: Axes, options: AxisOptions & { correction?: number } = {}): Tensor {
  const list = normalizeAxes('variance', axes, x.rank);
  const n = sizeOf(list.map(a => x.shape[a]));
  const centred = x.sub(mean(x, list, { keepDims: true }));
  return sum(centred.square(), list, options).div(n - (options.correction ?? 0));
}

export function logSumExp(x: Tensor, axis: number, options: AxisOptions = {}): Tensor {
  const top = max(x.detach(), axis, { keepDims: true });
  const result = sum(x.sub(top).exp(), axis, { keepDims: true }).log().add(top);
  return options.keepDims ? result : result.squeeze(axis);
}

function positions(x: Tensor, axis: number): Tensor {
  const shape = x.shape.map((side, i) => (i === axis ? side : 1));
  return create.arange(0, x.shape[axis], { dtype: 'i32', backend: x.backend }).reshape(shape);
}

export function argmax(x: Tensor, axis: number, options: AxisOptions = {}): Tensor {
  const at = normalizeAxis('argmax', axis, x.rank);
  const values = x.detach();
  return firstTrue(values.eq(max(values, at, { keepDims: true })), at, options);
}

/** The smallest position along `axis` that is true: a maximum of negated positions. */
function firstTrue(hit: Tensor, axis: number, options: AxisOptions): Tensor {
  return max(hit.where(positions(hit, axis).neg(), -hit.shape[axis]), axis, options).neg();
}

export function topk(x: Tensor, k: number): { values: Tensor; indices: Tensor } {
  const n = x.shape[x.rank - 1];
  if (x.rank === 0 || !Number.isInteger(k) || k < 1 || k > n) throw new ShapeError(`topk: expected k from 1 to ${n ?? 0}, got ${k}`);
  const at = positions(x, x.rank - 1);
  const values: Tensor[] = [];
  const indices: Tensor[] = [];
  let taken = at.lt(0).expand(x.shape); // nothing yet
  for (let i = 0; i < k; i++) {
    const rest = taken.where(-Infinity, x.detach());
    // What was taken is out, also where only -Infinity is left.
    const index = firstTrue(rest.eq(max(rest, -1, { keepDims: true })).and(taken.not()), x.rank - 1, { keepDims: true });
    const hit = at.eq(index);
    values.push(hit.where(x, 0).sum(-1, { keepDims: true }));
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
  return at === x.rank - 1 ? softmaxLast(x) : softmaxLast(x.transpose(at, -1)).transpose(at, -1);
}

export function logSoftmax(x: Tensor, axis: number): Tensor {
  return x.sub(logSumExp(x, axis, { keepDims: true }));
}

/** Square root of the sum of squares. */
export function norm(x: Tensor): Tensor {
  return sum(x.square()).sqrt();
}
