// The orthogonal map of this library: R as a product of r Householder reflections, one free vector each. Nothing of size d x d.

import { map } from '../autograd/elementwise.js';
import { arg, mul, sub } from '../tensor/expr.js';
import { create } from '../tensor/create.js';
import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import { orthonormalRows, reflectionsOf } from './householder.js';
import type { OrthogonalMap } from './orthogonal.js';

/** x - 2 (x . v) v, one kernel. Arguments: x, its dot product with v, v. */
const reflected = sub(arg(0), mul(mul(2, arg(1)), arg(2)));

/** Rows divided by their lengths; a row of zeros stays. Scaled by the largest entry first, so that squares neither overflow nor vanish. */
function unitRows(x: Tensor): Tensor {
  const largest = x.detach().abs().max(1, { keepDims: true });
  const scaled = x.div(largest.eq(0).where(1, largest));
  // At least 1, or 0: the bound only keeps a row of zeros from dividing by 0.
  return scaled.mul(scaled.square().sum(1, { keepDims: true }).maximum(0.5).rsqrt());
}

/**
 * R^T = H_1 .. H_r E S, with H_i = I - 2 v_i v_i^T / |v_i|^2, E the first r columns of the identity and S fixed `signs` [r]. The trained `V`
 * [r, d] holds the v_i as rows; what is left of the diagonal takes no part. O(d r^2). R is orthonormal for any V (a v_i of zeros reflects
 * nothing), every R has such a form, and the v_i up to length have as many dimensions as the Stiefel manifold: dr - r(r+1)/2. Only
 * directions matter, so the gradient of v_i is orthogonal to it.
 */
export const compactHouseholder: OrthogonalMap = {
  name: 'householder',

  initial(R, target = R) {
    const { vectors, signs } = reflectionsOf(orthonormalRows('householder', R));
    const options = { dtype: target.dtype, backend: target.backend };
    const V = Float64Array.from(vectors.flatMap(v => [...v]));
    return { parameters: { V: create.from(V, R.shape, options).requireGrad(), signs: create.from(signs, [signs.length], options) } };
  },

  rotation({ V, signs }) {
    const [r, d] = V.shape;
    const options = { dtype: V.dtype, backend: V.backend };
    const unit = unitRows(V.triu());
    let R = create.eye(r, options);
    if (d > r) R = concat([R, create.zeros([r, d - r], options)], 1);
    // Rows of R are columns of the product: H_r comes first, H_1 last.
    for (let i = r - 1; i >= 0; i--) {
      const v = unit.slice(0, i, i + 1);
      R = map('reflect', reflected, [R, R.matmulT(v), v]);
    }
    return R.mul(signs.unsqueeze(1));
  },
};
