// Principal angles between the spans of two sets of rows, in f64 on the host. Source: Björck and Golub 1973, with the
// cosines as singular values of Q_a Q_b^T and, where those are close to 1, the sines, so that small angles keep their
// digits.

import { dot, orthonormalBasis, symmetricEigen } from '../nn/hostMatrices.js';
import type { Shape } from '../tensor/shape.js';

/** Rows a [m, d] and b [n, d] to min(rank a, rank b) angles in radians, rising. */
export function principalAngles(a: ArrayLike<number>, aShape: Shape, b: ArrayLike<number>, bShape: Shape): number[] {
  if (aShape[1] !== bShape[1])
    throw new RangeError(`principalAngles: rows of ${aShape[1]} and of ${bShape[1]} numbers`);
  const [p, q] = [orthonormalBasis(rowsOf(a, aShape)), orthonormalBasis(rowsOf(b, bShape))].sort(
    (x, y) => x.length - y.length,
  );
  const products = p.map(x => q.map(y => dot(x, y)));
  const gram = products.map(x => products.map(y => dot(x, y)));
  // The part of each row of p that q does not reach gives the sines.
  const rest = p.map((x, i) => q.reduce((r, y, j) => r.map((v, k) => v - products[i][j] * y[k]), x));
  const sines = rest.map(x => rest.map(y => dot(x, y)));
  const cos = singularValues(gram).sort((x, y) => y - x);
  const sin = singularValues(sines).sort((x, y) => x - y);
  return cos.map((c, i) => (c > Math.SQRT1_2 ? Math.asin(sin[i]) : Math.acos(c)));
}

const rowsOf = (data: ArrayLike<number>, [m, d]: Shape): Float64Array[] =>
  Array.from({ length: m }, (_, i) => Float64Array.from({ length: d }, (__, k) => data[i * d + k]));

/** Square roots of the eigenvalues of a symmetric matrix, which lie from 0 to 1 but for rounding. */
const singularValues = (gram: readonly (readonly number[])[]): number[] =>
  Array.from(symmetricEigen(gram.map(row => Float64Array.from(row))).values, v =>
    Math.sqrt(Math.min(1, Math.max(0, v))),
  );
