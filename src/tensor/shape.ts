// Shapes and strides as plain number arrays: sizes, broadcasting, axes, and every error about them.
// Nothing here touches data. Strides count elements; a stride of 0 repeats.

export type Shape = readonly number[];

/** A shape or layout that an operation cannot take; the message names the operation, what it expected and what came. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError';
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(',')}]`;
}

export function sizeOf(shape: Shape): number {
  let n = 1;
  for (const side of shape) n *= side;
  return n;
}

export function checkShape(op: string, shape: Shape): void {
  for (const side of shape) {
    if (!Number.isSafeInteger(side) || side < 0) throw new ShapeError(`${op}: ${formatShape(shape)} is not a shape`);
  }
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((side, i) => side === b[i]);
}

/** Row-major strides of a contiguous tensor. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** True when the elements lie densely in row-major order; sides of 1 may have any stride. */
export function isContiguous(shape: Shape, strides: Shape): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return sizeOf(shape) === 0;
    step *= shape[i];
  }
  return true;
}

/** NumPy's rule: align at the last axis, sides equal or 1. */
export function broadcastShapes(op: string, ...shapes: Shape[]): number[] {
  const rank = Math.max(0, ...shapes.map(s => s.length));
  const result = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (let i = 0; i < shape.length; i++) {
      const at = rank - shape.length + i;
      if (shape[i] === 1) continue;
      if (result[at] !== 1 && result[at] !== shape[i]) {
        throw new ShapeError(
          `${op}: shapes ${shapes.map(formatShape).join(' and ')} do not broadcast (axis ${at - rank})`,
        );
      }
      result[at] = shape[i];
    }
  }
  return result;
}

/** Strides that read a tensor of `shape` as if it had shape `to`: 0 on repeated axes. */
export function broadcastStrides(shape: Shape, strides: Shape, to: Shape): number[] {
  const lead = to.length - shape.length;
  return to.map((_, i) => (i < lead || shape[i - lead] === 1 ? 0 : strides[i - lead]));
}

/** A negative axis counts from the end. */
export function normalizeAxis(op: string, axis: number, rank: number): number {
  const at = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || at < 0 || at >= rank)
    throw new ShapeError(`${op}: axis ${axis} is out of range for rank ${rank}`);
  return at;
}

/** Sorted, distinct, non-negative axes; undefined means all. */
export function normalizeAxes(op: string, axes: number | readonly number[] | undefined, rank: number): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, i) => i);
  const list = (typeof axes === 'number' ? [axes] : [...axes])
    .map(a => normalizeAxis(op, a, rank))
    .sort((a, b) => a - b);
  for (let i = 1; i < list.length; i++) {
    if (list[i] === list[i - 1]) throw new ShapeError(`${op}: axis ${list[i]} is named twice`);
  }
  return list;
}

/** The axes of `to` along which a tensor of `shape` is repeated by broadcasting. */
export function broadcastAxes(shape: Shape, to: Shape): number[] {
  const lead = to.length - shape.length;
  const axes: number[] = [];
  for (let i = 0; i < to.length; i++) if (i < lead || (shape[i - lead] === 1 && to[i] !== 1)) axes.push(i);
  return axes;
}

/** Resolves one -1 in a new shape from the number of elements. */
export function resolveReshape(from: Shape, to: Shape): number[] {
  const wild = to.indexOf(-1);
  const rest = to.reduce((n, side, i) => (i === wild ? n : n * side), 1);
  const size = sizeOf(from);
  const shape = [...to];
  if (wild >= 0) shape[wild] = rest === 0 ? 0 : size / rest;
  if (to.lastIndexOf(-1) !== wild || shape.some(s => !Number.isInteger(s) || s < 0) || sizeOf(shape) !== size) {
    throw new ShapeError(`reshape: ${formatShape(from)} has ${size} elements and cannot become ${formatShape(to)}`);
  }
  return shape;
}

/** Strides of a reshaped view, or undefined when only a copy can have that shape. */
export function reshapeStrides(shape: Shape, strides: Shape, to: Shape): number[] | undefined {
  if (sizeOf(shape) === 0) return contiguousStrides(to);
  const old = shape.map((side, i) => ({ side, stride: strides[i] })).filter(d => d.side !== 1);
  const result = new Array<number>(to.length);
  let at = old.length - 1;
  let side = 1; // elements of the current run of old axes not yet used
  let stride = 1;
  for (let i = to.length - 1; i >= 0; i--) {
    if (to[i] === 1) {
      result[i] = 1;
      continue;
    }
    if (side === 1) {
      ({ side, stride } = old[at--]);
    }
    while (side % to[i] !== 0) {
      if (at < 0 || old[at].stride !== stride * side) return undefined;
      side *= old[at--].side;
    }
    result[i] = stride;
    stride *= to[i];
    side /= to[i];
  }
  return result;
}
