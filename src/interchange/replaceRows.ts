// Replacing rows of hidden states: other rows come out as they were, bit for bit, and gradients pass to whichever row
// is read.

import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';

/** h [.., d] with the rows of `indices` (distinct) replaced by what `change` makes of them, [m, d] to [m, d]. */
export function replaceRows(h: Tensor, indices: Int32Array, change: (rows: Tensor) => Tensor): Tensor {
  if (indices.length === 0) return h;
  const flat = h.reshape([-1, h.shape[h.rank - 1]]);
  const [count] = flat.shape;
  const order = Int32Array.from({ length: count }, (_, row) => row);
  indices.forEach((row, i) => {
    if (row < 0 || row >= count)
      throw new RangeError(`replaceRows: row ${row} is out of range, the hidden states have ${count}`);
    if (order[row] !== row) throw new RangeError(`replaceRows: row ${row} is replaced twice`);
    order[row] = count + i;
  });
  return concat([flat, change(flat.takeRows(indices))])
    .takeRows(order)
    .reshape(h.shape);
}
