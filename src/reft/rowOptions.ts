// What may differ from row to row of a batch in one call: how much of an edit acts, and which rows of its R. Turned
// into what the edited tokens need; which tokens those are is layout.ts's work.

import { create } from '../tensor/create.js';
import { formatShape } from '../tensor/shape.js';
import { Tensor } from '../tensor/tensor.js';
import type { Intervention } from './intervention.js';
import type { SequenceLayout } from './layout.js';

export interface RowOptions {
  /**
   * c of each row of the batch, times the intervention's own: [batch] numbers, or a tensor, into which gradients flow.
   */
  readonly scale?: readonly number[] | Tensor;
  /** The rows of R that act: one list for all rows of the batch, or a list for each (null: all of them). */
  readonly subspaces?: readonly number[] | readonly (readonly number[] | null)[];
}

/** The same for every intervention of a set, or by intervention. */
export type RowOptionsFor = RowOptions | ((intervention: Intervention) => RowOptions);

/** What is given for one intervention. */
export const rowOptionsOf = (rows: RowOptionsFor, intervention: Intervention): RowOptions =>
  typeof rows === 'function' ? rows(intervention) : rows;

/**
 * For the edited tokens `indices` = b * width + column: c [m] and the mask [m, rank], where they are given. @throws
 * RangeError naming what does not fit
 */
export function rowOptionsAt(
  options: RowOptions,
  indices: Int32Array,
  layout: Pick<SequenceLayout, 'batch' | 'width' | 'rowOf' | 'rowCount'> & { rank: number },
  like: Tensor,
): { scale?: Tensor; mask?: Tensor } {
  const { width, rank, rowOf } = layout;
  const batch = layout.rowCount ?? layout.batch;
  const rows = indices.map(i => {
    const row = Math.floor(i / width);
    return rowOf ? rowOf[row] : row;
  });
  const { scale, subspaces } = options;
  const { backend } = like;
  const dtype = like.dtype as 'f32';
  const result: { scale?: Tensor; mask?: Tensor } = {};
  if (scale instanceof Tensor) {
    if (formatShape(scale.shape) !== formatShape([batch]))
      throw new RangeError(
        `scale: expected shape [${batch}], one for each row of the batch, got ${formatShape(scale.shape)}`,
      );
    result.scale = scale.takeRows(rows);
  } else if (scale) {
    if (scale.length !== batch || !scale.every(Number.isFinite))
      throw new RangeError(
        `scale: expected ${batch} finite numbers, one for each row of the batch, got [${scale.join(',')}]`,
      );
    result.scale = create.from(
      Float64Array.from(rows, b => scale[b]),
      [rows.length],
      { dtype, backend },
    );
  }
  if (subspaces) {
    const lists = listsFor(subspaces, batch);
    const mask = new Float64Array(rows.length * rank);
    for (const list of lists) {
      for (const i of list ?? [])
        if (!(Number.isInteger(i) && i >= 0 && i < rank))
          throw new RangeError(`subspaces: row ${i} is out of range, R has rows 0..${rank - 1}`);
    }
    rows.forEach((b, m) => {
      const list = lists[b];
      if (!list) mask.fill(1, m * rank, (m + 1) * rank);
      else for (const i of list) mask[m * rank + i] = 1;
    });
    result.mask = create.from(mask, [rows.length, rank], { dtype, backend });
  }
  return result;
}

function listsFor(
  subspaces: NonNullable<RowOptions['subspaces']>,
  batch: number,
): readonly (readonly number[] | null)[] {
  if (subspaces.every(s => typeof s === 'number'))
    return Array.from({ length: batch }, () => subspaces as readonly number[]);
  if (subspaces.some(s => typeof s === 'number'))
    throw new RangeError('subspaces: expected row numbers, or a list of them for each row of the batch, got both');
  if (subspaces.length !== batch)
    throw new RangeError(`subspaces: ${subspaces.length} lists for ${batch} rows of the batch`);
  return subspaces as readonly (readonly number[] | null)[];
}
