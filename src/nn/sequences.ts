// Rows [N, ..] that are the tokens of several sequences, one after the other: sequence s has rows starts[s] up to
// starts[s + 1], the last one up to N. A sequence may have no rows.

import { concat } from '../tensor/layout.js';
import { formatShape, sameShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

/** Throws unless every row of `rows` belongs to one sequence. */
export function checkStarts(op: string, starts: Int32Array, rows: number): void {
  const bad = starts.findIndex((start, s) => start < (s === 0 ? 0 : starts[s - 1]) || start > rows);
  if (bad >= 0)
    throw new RangeError(
      `${op}: sequence ${bad} starts at row ${starts[bad]}, expected a row from ${bad === 0 ? 0 : starts[bad - 1]} to ${rows}`,
    );
  if (rows > 0 && starts[0] !== 0)
    throw new RangeError(
      `${op}: the first sequence starts at row ${starts[0] ?? 'none'} of ${rows}, expected row 0: every row belongs to a sequence`,
    );
}

/** Throws unless `state`, where there is one, holds `shape` for each sequence, in the dtype of the rows `x`. */
export function checkState(
  op: string,
  state: Tensor | null,
  x: Tensor,
  starts: Int32Array,
  shape: readonly number[],
): void {
  const expected = [starts.length, ...shape];
  if (state && (!sameShape(state.shape, expected) || state.dtype !== x.dtype))
    throw new ShapeError(
      `${op}: the state is ${state.dtype}${formatShape(state.shape)}, expected ${x.dtype}${formatShape(expected)}`,
    );
}

/** One past the last row of sequence s. */
export const endOf = (starts: Int32Array, s: number, rows: number): number => starts[s + 1] ?? rows;

/** The last row of each sequence, [S, ..]; of one without rows what `before` [S, ..] holds for it, or zeros. */
export function lastRows(x: Tensor, starts: Int32Array, before: Tensor | null): Tensor {
  const rows = x.shape[0];
  const isEmpty = (s: number): boolean => endOf(starts, s, rows) === starts[s];
  const someEmpty = starts.some((_, s) => isEmpty(s));
  if (!someEmpty && starts.length === rows) return x;
  const missing = (s: number): number => (before ? rows + s : -1);
  const from = starts.map((_, s) => (isEmpty(s) ? missing(s) : endOf(starts, s, rows) - 1));
  return (someEmpty && before ? concat([x, before]) : x).takeRows(from);
}
