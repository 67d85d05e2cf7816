// The orthogonal map of this library: R as a product of r Householder reflections, one free vector each. Nothing of
// size d x d.

import { map } from '../../autograd/elementwise.js';
import { add, arg, eq, le, mul, where, type Expr } from '../../tensor/expr.js';
import { create } from '../../tensor/create.js';
import { concat } from '../../tensor/layout.js';
import { orthonormalRows, reflectionsOf } from './householder.js';
import type { OrthogonalMap } from './maps.js';
import { inverse } from './smallMatrices.js';

// Of an element in row i and column j, the last two arguments:
const onOrAbove = (i: number): Expr => le(arg(i, 'i'), arg(i + 1, 'i'));
const onDiagonal = (i: number): Expr => eq(arg(i, 'i'), arg(i + 1, 'i'));
const upper = where(onOrAbove(1), arg(0), 0);
/**
 * Of the sum of two Gram matrices: what is above the diagonal, and half of the diagonal; 1 for a row of zeros, which
 * reflects nothing.
 */
const gram = add(arg(0), arg(1));
const halfGram = where(onDiagonal(2), where(eq(gram, 0), 1, mul(0.5, gram)), where(onOrAbove(2), gram, 0));
/** s_i (e_i + x), for what is already multiplied by signs. */
const fromIdentity = add(where(onDiagonal(2), arg(1), 0), arg(0));

/**
 * R^T = H_1 .. H_r E S, with H_i = I - 2 v_i v_i^T / |v_i|^2, E the first r columns of the identity and S fixed `signs`
 * [r]. The trained `V` [r, d] holds the v_i as rows; what is left of the diagonal takes no part. O(d r^2). R is
 * orthonormal for any V (a v_i of zeros reflects nothing), every R has such a form, and the v_i up to length have as
 * many dimensions as the Stiefel manifold: dr - r(r+1)/2. Only directions matter, so the gradient of v_i is orthogonal
 * to it.
 *
 * The product is I - V^T T V with T^-1 the upper triangle of V V^T, its diagonal halved (Joffrain et al. 2006,
 * Accumulating Householder transformations, revisited): a few products of matrices in place of r reflections, and for
 * many R at once, [.., r, d].
 */
export const compactHouseholder: OrthogonalMap = {
  name: 'householder',
  batched: true,

  initial(R, target = R) {
    const { vectors, signs } = reflectionsOf(orthonormalRows('householder', R));
    const options = { dtype: target.dtype, backend: target.backend };
    const V = Float64Array.from(vectors.flatMap(v => [...v]));
    return {
      parameters: {
        V: create.from(V, R.shape, options).requireGrad(),
        signs: create.from(signs, [signs.length], options),
      },
    };
  },

  rotation({ V, signs }) {
    const [r, d] = V.shape.slice(-2);
    const options = { dtype: 'i32' as const, backend: V.backend };
    const rows = create.arange(0, r, options).unsqueeze(1);
    const columns = create.arange(0, r, options);
    const sign = signs.unsqueeze(-1);
    // Squares then neither overflow nor vanish. A row of zeros stays.
    const largest = V.detach().abs().max(-1, { keepDims: true });
    const U = V.div(largest.eq(0).where(1, largest));
    const [left, right] = U.split([r, d - r], -1);
    const triangle = map('upper', upper, [left, rows, columns]);
    const T = inverse(map('halfGram', halfGram, [triangle.matmulT(triangle), right.matmulT(right), rows, columns]));
    const factor = triangle.transpose().matmul(T.transpose()).mul(sign.neg());
    const square = map('fromIdentity', fromIdentity, [factor.matmul(triangle), sign, rows, columns]);
    return d > r ? concat([square, factor.matmul(right)], -1) : square;
  },
};
