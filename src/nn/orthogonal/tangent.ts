// What the Cayley map and the matrix exponential share: a direction at a fixed base point of the Stiefel manifold, as a
// skew-symmetric d x d matrix of rank at most 2r that is never formed.

import { create } from '../../tensor/create.js';
import type { Tensor } from '../../tensor/tensor.js';
import { orthonormalRows } from './householder.js';
import type { OrthogonalMap } from './maps.js';

/** Parameters at a base point: `X` [r, d], trained from 0, and `base` [r, d], fixed. */
export const initialAt =
  (op: string): OrthogonalMap['initial'] =>
  (R, target = R) => {
    const rows = orthonormalRows(op, R);
    const options = { dtype: target.dtype, backend: target.backend };
    const base = create.from(Float64Array.from(rows.flatMap(row => [...row])), R.shape, options);
    return { parameters: { X: create.zeros(R.shape, options).requireGrad(), base } };
  };

export interface Direction {
  /** [.., r, r], skew-symmetric: movement within the rows' own span. */
  readonly inner: Tensor;
  /** [.., r, d], orthogonal to the base's rows: movement out of it. */
  readonly outer: Tensor;
  /** outer outer^T, [.., r, r]. */
  readonly gram: Tensor;
}

/** The tangent at the base that X names, inner base + outer: X but for the symmetric part of X base^T. */
export function directionOf(X: Tensor, base: Tensor): Direction {
  const along = X.matmulT(base);
  const outer = X.sub(along.matmul(base));
  return { inner: along.sub(along.transpose()).mul(0.5), outer, gram: outer.matmulT(outer) };
}
