// Householder reflections on the host in f64, for starting values: O(d r^2), no d x d matrix. What is differentiated
// does not belong here.

import { formatShape, ShapeError } from '../../tensor/shape.js';
import type { Tensor } from '../../tensor/tensor.js';
import { lengthOf, orthonormalize } from '../hostMatrices.js';

/**
 * Rows of R [r, d] with r at most d, read back and made orthonormal in f64 (they may be a little off: a file rounds).
 */
export function orthonormalRows(op: string, R: Tensor): Float64Array[] {
  const [r, d] = R.shape;
  if (R.rank !== 2 || r === 0 || r > d)
    throw new ShapeError(`${op}: expected R [r, d] with r from 1 to d, got ${formatShape(R.shape)}`);
  const data = R.detach().dataSync();
  const rows = Array.from({ length: r }, (_, i) => Float64Array.from(data.subarray(i * d, (i + 1) * d)));
  orthonormalize(rows);
  return rows;
}

/**
 * For orthonormal rows, unit vectors v_i (zero before entry i) and signs s_i such that row j is s_j H_1 .. H_r e_j,
 * with H_i = I - 2 v_i v_i^T (Golub and Van Loan, Matrix Computations, 5.2). The signs are chosen so that nothing
 * cancels.
 */
export function reflectionsOf(rows: readonly Float64Array[]): { vectors: Float64Array[]; signs: Float64Array } {
  const rest = rows.map(row => row.slice());
  const signs = new Float64Array(rows.length);
  const vectors = rest.map((x, i) => {
    signs[i] = x[i] > 0 ? -1 : 1;
    const v = x.slice().fill(0, 0, i);
    v[i] -= signs[i] * lengthOf(v);
    const length = lengthOf(v);
    for (let k = i; k < v.length; k++) v[k] /= length;
    for (const other of rest.slice(i)) reflect(other, v, i);
    return v;
  });
  return { vectors, signs };
}

/** x becomes (I - 2 v v^T) x, for a unit v that is zero before entry `from`. */
export function reflect(x: Float64Array, v: Float64Array, from = 0): void {
  let dot = 0;
  for (let k = from; k < x.length; k++) dot += v[k] * x[k];
  for (let k = from; k < x.length; k++) x[k] -= 2 * dot * v[k];
}
