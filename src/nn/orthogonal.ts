// Keeping R [r, d] orthonormal by construction: R is computed from free parameters by an orthogonal map, once a step, so that no
// optimizer can move it off the Stiefel manifold. The maps: compact Householder (ours) and torch's, for parity runs.

import { create } from '../tensor/create.js';
import { concat } from '../tensor/layout.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { orthonormalize } from './init.js';

export interface OrthogonalMap {
  readonly name: string;
  /** Parameters whose rotation is R [r, d] (orthonormalised first, if it is a little off). The trained ones require gradients. Reads R back. */
  initial(R: Tensor): { parameters: Record<string, Tensor> };
  /** R [r, d] with orthonormal rows, on the tape. */
  rotation(parameters: Readonly<Record<string, Tensor>>): Tensor;
}

/** The rows of R on the host, orthonormal in f64. */
function rowsOf(op: string, R: Tensor): Float64Array[] {
  const [r, d] = R.shape;
  if (R.rank !== 2 || r > d) throw new ShapeError(`${op}: expected R [r, d] with r at most d, got ${formatShape(R.shape)}`);
  const data = R.detach().dataSync();
  const rows = Array.from({ length: r }, (_, i) => Float64Array.from(data.subarray(i * d, (i + 1) * d)));
  orthonormalize(rows);
  return rows;
}

/**
 * Compact Householder: R^T = H_1 .. H_r E S, with H_i = I - 2 v_i v_i^T / |v_i|^2, E the first r columns of the identity and S fixed signs.
 * The trained `V` [r, d] holds the v_i as rows; entries left of the diagonal are masked. O(d r^2), nothing of size d x d; orthonormal for any V,
 * and only the direction of v_i matters, so its gradient never shrinks it. Every R has such a form (Golub and Van Loan, 5.2).
 */
export const compactHouseholder: OrthogonalMap = {
  name: 'householder',

  initial(R) {
    // Householder QR of R^T in f64: R's columns are orthonormal, so the triangular factor is the diagonal of signs.
    const a = rowsOf('householder', R);
    const [r, d] = R.shape;
    const V = new Float64Array(r * d);
    const signs = new Float64Array(r);
    for (let i = 0; i < r; i++) {
      const x = a[i];
      const norm = Math.sqrt(x.subarray(i).reduce((s, y) => s + y * y, 0));
      signs[i] = x[i] > 0 ? -1 : 1;
      const v = new Float64Array(d);
      v.set(x.subarray(i), i);
      v[i] -= signs[i] * norm;
      const length = Math.sqrt(v.reduce((s, y) => s + y * y, 0));
      for (let k = i; k < d; k++) V[i * d + k] = v[k] / length;
      for (let j = i; j < r; j++) {
        let dot = 0;
        for (let k = i; k < d; k++) dot += V[i * d + k] * a[j][k];
        for (let k = i; k < d; k++) a[j][k] -= 2 * dot * V[i * d + k];
      }
    }
    const options = { dtype: R.dtype, backend: R.backend };
    return { parameters: { V: create.from(V, [r, d], options).requireGrad(), signs: create.from(signs, [r], options) } };
  },

  rotation({ V, signs }) {
    const [r, d] = V.shape;
    const free = V.triu();
    const unit = free.mul(free.square().sum(1, { keepDims: true }).rsqrt());
    let R = create.eye(r, { dtype: V.dtype, backend: V.backend });
    if (d > r) R = concat([R, create.zeros([r, d - r], { dtype: V.dtype, backend: V.backend })], 1);
    // Rows of R are columns of the product: apply H_r first, H_1 last.
    for (let i = r - 1; i >= 0; i--) {
      const v = unit.slice(0, i, i + 1);
      R = R.sub(R.matmulT(v).mul(2).mul(v));
    }
    return R.mul(signs.unsqueeze(1));
  },
};

/**
 * torch.nn.utils.parametrizations.orthogonal with its default map, step for step: Q is the first r columns of H_1 .. H_r with
 * H_i = I - tau_i v_i v_i^T, v_i = (0.., 1 at i, X below), tau_i = 2 / (1 + |X_i|^2), column i times int(X_ii); R^T = B Q.
 * `original` X [d, r] is trained (its strictly lower part), `base` B [d, d] is fixed. Weight decay on X would make R vanish.
 */
export const torchHouseholder: OrthogonalMap = {
  name: 'torch',

  initial(R) {
    const rows = rowsOf('torch', R);
    const [r, d] = R.shape;
    // Complete the rows to a basis; column i of B is row i of R, so that X = -I gives R.
    for (let i = 0; rows.length < d; i++) {
      const e = new Float64Array(d);
      e[i] = 1;
      for (let pass = 0; pass < 2; pass++) {
        for (const row of rows) {
          const dot = e.reduce((s, x, k) => s + x * row[k], 0);
          row.forEach((x, k) => (e[k] -= dot * x));
        }
      }
      const length = Math.sqrt(e.reduce((s, x) => s + x * x, 0));
      if (length > 1e-8) rows.push(e.map(x => x / length));
    }
    const base = new Float64Array(d * d);
    rows.forEach((row, j) => row.forEach((x, i) => (base[i * d + j] = x)));
    const X = new Float64Array(d * r);
    for (let i = 0; i < r; i++) X[i * r + i] = -1;
    const options = { dtype: R.dtype, backend: R.backend };
    return { parameters: { original: create.from(X, [d, r], options).requireGrad(), base: create.from(base, [d, d], options) } };
  },

  rotation({ original, base }) {
    const [d, r] = original.shape;
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
