// The exponential map on the Stiefel manifold, in low-rank form, and the exponential of small matrices.

import { create } from '../../tensor/create.js';
import { concat } from '../../tensor/layout.js';
import type { Tensor } from '../../tensor/tensor.js';
import type { OrthogonalMap } from './maps.js';
import { directionOf, initialAt } from './tangent.js';

const halvings = 6;
const terms = 8;

/**
 * exp(K) - I of small matrices [.., n, n]: a Taylor polynomial of K / 2^6, squared six times in the form E -> 2E + E^2,
 * which keeps what is small (Higham, Functions of Matrices, 10.3). Within rounding of f64 for norms up to about 4, of
 * f32 up to about 20.
 */
export function expMinusIdentity(K: Tensor): Tensor {
  const Z = K.mul(2 ** -halvings);
  // Horner: Z (I + Z/2 (I + Z/3 (...))).
  let E = Z.mul(1 / terms);
  for (let k = terms - 1; k >= 1; k--) E = Z.add(Z.matmul(E)).mul(1 / k);
  for (let i = 0; i < halvings; i++) E = E.mul(2).add(E.matmul(E));
  return E;
}

/**
 * R^T = exp(A) R0^T for the skew-symmetric A = R0^T K^T R0 + B^T R0 - R0^T B of the direction K R0 + B that X [r, d]
 * names at the base R0 [r, d]: the geodesic of the canonical metric (Edelman, Arias and Smith 1998, eq. 2.42). A maps
 * the span of R0 and B into itself, where it is the 2r x 2r matrix [[K, I], [-B B^T, 0]] (transposed); the first rows
 * of its exponential are R's coordinates in R0 and B, and no QR of B is needed, which has no derivative at the start,
 * where B is 0. O(d r^2).
 */
export const matrixExponential: OrthogonalMap = {
  name: 'exponential',
  batched: true,
  initial: initialAt('exponential'),
  rotation({ X, base }) {
    const { inner, outer, gram } = directionOf(X, base);
    const [r] = base.shape.slice(-2);
    // In units of B near its size, so that the matrix is balanced: its norm is then about that of A.
    const unit = gram.detach().square().sum([-2, -1], { keepDims: true }).sqrt().sqrt().maximum(1);
    const options = { dtype: X.dtype, backend: X.backend };
    const eye = create.eye(r, options);
    const zeros = create.zeros(inner.shape, options);
    const K = concat([concat([inner, eye.mul(unit)], -1), concat([gram.div(unit).neg(), zeros], -1)], -2);
    const E = expMinusIdentity(K).slice(-2, 0, r);
    return E.slice(-1, 0, r).add(eye).matmul(base).add(E.slice(-1, r).div(unit).matmul(outer));
  },
};
