// Moving elements without computing: views, joins, splits, rows by number. Checks shapes, then applies a primitive.

import { apply } from '../autograd/primitives.js';
import {
  broadcastShapes,
  formatShape,
  normalizeAxes,
  normalizeAxis,
  resolveReshape,
  sameShape,
  ShapeError,
  type Shape,
} from './shape.js';
import { create } from './create.js';
import { packedMatrix } from './packing.js';
import { packedError, Tensor } from './tensor.js';

export function reshape(x: Tensor, shape: Shape): Tensor {
  const to = resolveReshape(x.shape, shape);
  if (x.packing && !sameShape(to, x.shape)) throw packedError('reshape', x);
  return sameShape(to, x.shape) ? x : apply('reshape', [x], { shape: to })[0];
}

export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const order = axes.map(a => normalizeAxis('permute', a, x.rank));
  if (order.length !== x.rank || new Set(order).size !== x.rank) {
    throw new ShapeError(`permute: [${axes.join(',')}] does not name each axis of ${formatShape(x.shape)} once`);
  }
  if (x.packing && order.some((a, i) => a < x.rank - 2 !== i < x.rank - 2)) throw packedError('permute', x);
  return order.every((a, i) => a === i) ? x : apply('permute', [x], { axes: order })[0];
}

export function transpose(x: Tensor, a: number, b: number): Tensor {
  const [i, j] = [normalizeAxis('transpose', a, x.rank), normalizeAxis('transpose', b, x.rank)];
  const axes = x.shape.map((_, axis) => axis);
  [axes[i], axes[j]] = [axes[j], axes[i]];
  return permute(x, axes);
}

/** A side of -1 stays as it is. */
export function expand(x: Tensor, to: Shape): Tensor {
  const shape = to.map((side, axis) => (side === -1 ? (x.shape[axis - to.length + x.rank] ?? -1) : side));
  if (sameShape(x.shape, shape)) return x;
  if (shape.some(side => side < 0) || !sameShape(broadcastShapes('expand', x.shape, shape), shape)) {
    throw new ShapeError(`expand: ${formatShape(x.shape)} cannot become ${formatShape(to)}`);
  }
  if (x.packing && !sameShape(shape.slice(-2), x.shape.slice(-2))) throw packedError('expand', x);
  return apply('expand', [x], { shape })[0];
}

export function squeeze(x: Tensor, axes?: number | readonly number[]): Tensor {
  const drop =
    axes === undefined ? x.shape.flatMap((side, i) => (side === 1 ? [i] : [])) : normalizeAxes('squeeze', axes, x.rank);
  for (const axis of drop)
    if (x.shape[axis] !== 1)
      throw new ShapeError(`squeeze: axis ${axis} of ${formatShape(x.shape)} has size ${x.shape[axis]}, expected 1`);
  return reshape(
    x,
    x.shape.filter((_, i) => !drop.includes(i)),
  );
}

export function unsqueeze(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('unsqueeze', axis, x.rank + 1);
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

export function slice(x: Tensor, axis: number, start: number, end?: number): Tensor {
  const at = normalizeAxis('slice', axis, x.rank);
  const side = x.shape[at];
  const from = start < 0 ? start + side : start;
  const to = end === undefined ? side : end < 0 ? end + side : end;
  if (!Number.isInteger(start) || !Number.isInteger(to) || !(from >= 0 && to >= from && to <= side)) {
    throw new ShapeError(`slice: ${start}..${end ?? ''} is out of range for axis ${at} of ${formatShape(x.shape)}`);
  }
  if (from === 0 && to === side) return x;
  if (x.packing && (at < x.rank - 2 || x.strides[at] === 1)) throw packedError(`slice of axis ${at}`, x);
  const starts = x.shape.map((_, i) => (i === at ? from : 0));
  return apply('slice', [x], { starts, shape: x.shape.map((s, i) => (i === at ? to - from : s)) })[0];
}

export function select(x: Tensor, axis: number, index: number): Tensor {
  const at = normalizeAxis('select', axis, x.rank);
  const i = index < 0 ? index + x.shape[at] : index;
  if (!Number.isInteger(index) || i < 0 || i >= x.shape[at])
    throw new ShapeError(`select: index ${index} is out of range for axis ${at} of ${formatShape(x.shape)}`);
  return squeeze(slice(x, at, i, i + 1), at);
}

export function split(x: Tensor, sizes: readonly number[], axis: number): Tensor[] {
  const at = normalizeAxis('split', axis, x.rank);
  const total = sizes.reduce((a, b) => a + b, 0);
  if (total !== x.shape[at] || sizes.some(size => size < 0))
    throw new ShapeError(
      `split: sizes ${sizes.join('+')} do not add to ${x.shape[at]}, axis ${at} of ${formatShape(x.shape)}`,
    );
  let start = 0;
  return sizes.map(size => slice(x, at, start, (start += size)));
}

/** Joins along an existing axis; other sides must agree. */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  if (tensors.length === 0) throw new ShapeError('concat: needs at least one tensor');
  const at = normalizeAxis('concat', axis, tensors[0].rank);
  const shape = [...tensors[0].shape];
  const starts: number[][] = [];
  let end = 0;
  for (const t of tensors) {
    if (t.rank !== shape.length || t.dtype !== tensors[0].dtype || t.shape.some((s, i) => i !== at && s !== shape[i])) {
      throw new ShapeError(
        `concat: ${t.dtype}${formatShape(t.shape)} does not join ${tensors[0].dtype}${formatShape(tensors[0].shape)} along axis ${at}`,
      );
    }
    starts.push(shape.map((_, i) => (i === at ? end : 0)));
    end += t.shape[at];
  }
  if (tensors.length === 1) return tensors[0];
  shape[at] = end;
  return apply('assemble', tensors, { shape, starts, covered: true })[0];
}

/** Joins along a new axis. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return concat(
    tensors.map(t => unsqueeze(t, axis)),
    axis,
  );
}

/** Zeros around: `before` and `after` for each axis. */
export function pad(x: Tensor, before: Shape, after: Shape): Tensor {
  if (
    before.length !== x.rank ||
    after.length !== x.rank ||
    [...before, ...after].some(n => !Number.isInteger(n) || n < 0)
  ) {
    throw new ShapeError(`pad: ${formatShape(before)} and ${formatShape(after)} do not pad ${formatShape(x.shape)}`);
  }
  return apply('assemble', [x], {
    shape: x.shape.map((s, i) => s + before[i] + after[i]),
    starts: [[...before]],
    covered: false,
  })[0];
}

function rowNumbers(op: string, indices: Int32Array | readonly number[], limit: number): Int32Array {
  const list = indices instanceof Int32Array ? indices : Int32Array.from(indices);
  for (let i = 0; i < list.length; i++) {
    if (list[i] >= limit || !Number.isInteger(indices[i]))
      throw new RangeError(`${op}: index ${indices[i]} at ${i} is out of range for ${limit} rows`);
  }
  return list;
}

export function takeRows(x: Tensor, indices: Int32Array | readonly number[]): Tensor {
  if (x.packing && (x.rank !== 2 || x.strides[1] !== 1)) throw packedError('takeRows of a transpose', x);
  if (x.rank === 0) throw new ShapeError('takeRows: a tensor of rank 0 has no rows');
  return apply('gather', [x], { indices: rowNumbers('takeRows', indices, x.shape[0]) })[0];
}

export function scatterAddRows(x: Tensor, indices: Int32Array | readonly number[], rows: number): Tensor {
  if (x.rank === 0 || x.shape[0] !== indices.length)
    throw new ShapeError(`scatterAddRows: ${indices.length} indices for shape ${formatShape(x.shape)}`);
  const summed = x.dtype === 'bool' ? x.to('i32') : x; // sums of bools count
  return apply('scatterAdd', [summed], { indices: rowNumbers('scatterAddRows', indices, rows), rows })[0];
}

export function contiguous(x: Tensor): Tensor {
  return x.isContiguous ? x : apply('copy', [x], {})[0];
}

/** The decoded f32 elements of packed weights as an ordinary tensor; any other tensor is given back as it is. */
export function unpack(x: Tensor): Tensor {
  if (!x.packing) return x;
  const matrix =
    x.rank === 2 ? x : new Tensor(x.storage, x.dtype, x.shape.slice(-2), x.strides.slice(-2), x.offset, x.packing);
  const { transposed } = packedMatrix(matrix);
  const dense = apply('unpack', [transposed ? matrix.transpose() : matrix], {})[0];
  return expand(transposed ? dense.transpose() : dense, x.shape);
}

export function triangle(x: Tensor, side: 'lower' | 'upper', diagonal: number): Tensor {
  if (x.rank < 2)
    throw new ShapeError(`${side === 'lower' ? 'tril' : 'triu'}: expected rank 2 or more, got ${formatShape(x.shape)}`);
  const [m, n] = x.shape.slice(-2);
  const options = { dtype: 'i32' as const, backend: x.backend };
  const rows = create.arange(0, m, options).reshape([m, 1]).add(diagonal);
  const columns = create.arange(0, n, options);
  return (side === 'lower' ? columns.le(rows) : columns.ge(rows)).where(x, 0);
}
