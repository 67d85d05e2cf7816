// The Cayley map on the Stiefel manifold, in low-rank form.

import type { OrthogonalMap } from './maps.js';
import { identityLike, inverse } from './smallMatrices.js';
import { directionOf, initialAt } from './tangent.js';

/**
 * R^T = (I - A/2)^-1 (I + A/2) R0^T for the skew-symmetric A = R0^T K^T R0 + B^T R0 - R0^T B of the direction K R0 + B
 * that X [r, d] names at the base R0 [r, d] (Wen and Yin 2013, A feasible method for optimization with orthogonality
 * constraints, lemma 4). Written in the bases R0 and B, the d x d inverse is one of F = I - K/2 + B B^T / 4, r x r: R =
 * (2 F^-1 - I) R0 + F^-1 B. Its symmetric part is at least I, so that it is never singular. O(d r^2). Reaches every R
 * of which no row combination is turned by 180 degrees from R0.
 */
export const cayley: OrthogonalMap = {
  name: 'cayley',
  batched: true,
  initial: initialAt('cayley'),
  rotation({ X, base }) {
    const { inner, outer, gram } = directionOf(X, base);
    const eye = identityLike(X.matmulT(base).detach());
    const G = inverse(eye.sub(inner.mul(0.5)).add(gram.mul(0.25)));
    return G.mul(2).sub(eye).matmul(base).add(G.matmul(outer));
  },
};
