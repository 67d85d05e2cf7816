// Orthogonal maps that take a free matrix X [r, d] to an orthonormal one near it: its QR and its polar factor. No base
// point, O(d r^2).

import { create } from '../../tensor/create.js';
import type { Tensor } from '../../tensor/tensor.js';
import { orthonormalRows } from './householder.js';
import type { OrthogonalMap } from './maps.js';
import { inverseCholesky, inverseSqrt } from './smallMatrices.js';

/** `X` [r, d], trained, starts at R itself. */
const initial =
  (op: string): OrthogonalMap['initial'] =>
  (R, target = R) => {
    const data = Float64Array.from(orthonormalRows(op, R).flatMap(row => [...row]));
    return {
      parameters: { X: create.from(data, R.shape, { dtype: target.dtype, backend: target.backend }).requireGrad() },
    };
  };

const cholesky = (X: Tensor): Tensor => inverseCholesky(X.matmulT(X)).matmul(X);

/**
 * R with X = L R, L lower triangular with a positive diagonal: Gram-Schmidt from the first row on (Absil, Mahony and
 * Sepulchre 2008, Optimization Algorithms on Matrix Manifolds, example 4.1.3). By two Cholesky factorisations of a Gram
 * matrix, the second of which removes what the first leaves (Yamamoto et al. 2015, CholeskyQR2); rows must not depend
 * on each other beyond a condition number of about 1e3 in f32.
 */
export const qrRetraction: OrthogonalMap = {
  name: 'qr',
  batched: true,
  initial: initial('qr'),
  rotation: ({ X }) => cholesky(cholesky(X)),
};

/**
 * R = (X X^T)^-1/2 X, the orthonormal matrix nearest to X (Absil, Mahony and Sepulchre 2008, eq. 4.8); X must have rank
 * r.
 */
export const polarRetraction: OrthogonalMap = {
  name: 'polar',
  batched: true,
  initial: initial('polar'),
  rotation: ({ X }) => inverseSqrt(X.matmulT(X)).matmul(X),
};
