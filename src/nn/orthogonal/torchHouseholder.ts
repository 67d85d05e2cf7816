// PyTorch's orthogonal map, step for step, for runs that must follow a Python one. It holds a d x d matrix: for
// anything else use compactHouseholder.

import { create } from '../../tensor/create.js';
import { concat } from '../../tensor/layout.js';
import { formatShape, ShapeError } from '../../tensor/shape.js';
import { orthonormalRows, reflect, reflectionsOf } from './householder.js';
import type { OrthogonalMap } from './maps.js';

/**
 * torch.nn.utils.parametrizations.orthogonal with its default map `householder` and trivialization: Q is the first r
 * columns of H_1 .. H_r with H_i = I - tau_i v_i v_i^T, v_i = (0.., 1 at i, X below), tau_i = 2 / (1 + |X_i|^2), column
 * i times int(X_ii); R^T = B Q. `original` X [d, r] is trained (its strictly lower part), `base` B [d, d] is fixed.
 * Never decay X: its diagonal leaves -1, int() makes it 0 and R vanishes.
 */
export const torchHouseholder: OrthogonalMap = {
  name: 'torchHouseholder',
  batched: false,

  initial(R, target = R) {
    const rows = orthonormalRows('torchHouseholder', R);
    const [r, d] = R.shape;
    // B: the rows of R as columns, completed by the remaining columns of the same reflections. X = -I then gives R.
    // O(d^2 r).
    const { vectors } = reflectionsOf(rows);
    const base = new Float64Array(d * d);
    for (let j = 0; j < d; j++) {
      const column = rows[j] ?? new Float64Array(d).fill(1, j, j + 1);
      if (j >= r) for (let i = r - 1; i >= 0; i--) reflect(column, vectors[i], i);
      column.forEach((x, k) => (base[k * d + j] = x));
    }
    const X = new Float64Array(d * r);
    for (let i = 0; i < r; i++) X[i * (r + 1)] = -1;
    const options = { dtype: target.dtype, backend: target.backend };
    return {
      parameters: { original: create.from(X, [d, r], options).requireGrad(), base: create.from(base, [d, d], options) },
    };
  },

  rotation({ original, base }) {
    const [d, r] = original.shape;
    if (original.rank !== 2 || r > d || formatShape(base.shape) !== `[${d},${d}]`) {
      throw new ShapeError(
        `torchHouseholder: expected original [d, r] and base [d, d], got ${formatShape(original.shape)} and ${formatShape(base.shape)}`,
      );
    }
    const options = { dtype: original.dtype, backend: original.backend };
    const A = original.tril(-1);
    const tau = A.square().sum(0).add(1).pow(-1).mul(2);
    let identity = create.eye(r, options);
    if (d > r) identity = concat([identity, create.zeros([d - r, r], options)], 0);
    const V = A.add(identity);
    let Q = identity;
    for (let i = r - 1; i >= 0; i--) {
      const v = V.slice(1, i, i + 1);
      Q = Q.sub(v.matmul(v.transpose().matmul(Q)).mul(tau.slice(0, i, i + 1)));
    }
    // int(X_ii), which carries no gradient.
    const diagonal = original.detach().mul(identity).sum(0).to('i32').to(original.dtype);
    return base.matmul(Q.mul(diagonal)).transpose();
  },
};
