// Functions of small square matrices [..., n, n] that the orthogonal maps need: inverses without pivoting, of Cholesky
// factors, of square roots. As fused ops: the definition is ordinary ops (any backend, f64); the CPU computes them in
// f64 on the host (backends/cpu/wasm/fused). They take time n^3 and are meant for n up to about 64; nothing of size d
// belongs here.

import { map } from '../../autograd/elementwise.js';
import { defineFused, runFused, type FusedDefinition } from '../../autograd/fused.js';
import { arg, div, lt, mul, neg, sub, where } from '../../tensor/expr.js';
import { create } from '../../tensor/create.js';
import { concat } from '../../tensor/layout.js';
import { formatShape, ShapeError } from '../../tensor/shape.js';
import type { Tensor } from '../../tensor/tensor.js';

function side(op: string, x: Tensor): number {
  const n = x.shape[x.rank - 1];
  if (x.rank < 2 || n === 0 || x.shape[x.rank - 2] !== n)
    throw new ShapeError(`${op}: expected square matrices [.., n, n], got ${formatShape(x.shape)}`);
  return n;
}

/** A matrix [n, n] of host numbers beside x. */
function pattern(x: Tensor, n: number, entry: (i: number, j: number) => number): Tensor {
  const data = Float64Array.from({ length: n * n }, (_, at) => entry(Math.floor(at / n), at % n));
  return create.from(data, [n, n], { dtype: x.dtype, backend: x.backend });
}

export const identityLike = (x: Tensor): Tensor =>
  create.eye(x.shape[x.rank - 1], { dtype: x.dtype, backend: x.backend });

// One sweep of Gauss-Jordan elimination. Arguments: a_ij, a_ik, a_kj, a_kk, and whether i and j are k (1 or 0).
const [a, column, row, pivot, isRow, isColumn] = [0, 1, 2, 3, 4, 5].map(i => arg(i));
const swept = where(
  lt(0.5, isRow),
  where(lt(0.5, isColumn), div(1, pivot), div(row, pivot)),
  where(lt(0.5, isColumn), neg(div(column, pivot)), sub(a, mul(column, div(row, pivot)))),
);

/** dX for Y = X^-1: -Y^T dY Y^T. */
const inverseVjp: NonNullable<FusedDefinition['vjp']> = ({ outputs: [y], gradient }) => [
  y.transpose().matmul(gradient).matmulT(y).neg(),
];

const inverseOp = defineFused('inverse', {
  compose({ inputs: [x] }) {
    let y = x as Tensor;
    const n = y.shape[y.rank - 1];
    const eye = identityLike(y);
    for (let k = 0; k < n; k++) {
      const at = y.slice(-2, k, k + 1);
      y = map('sweep', swept, [
        y,
        y.slice(-1, k, k + 1),
        at,
        at.slice(-1, k, k + 1),
        eye.slice(1, k, k + 1),
        eye.slice(0, k, k + 1),
      ]);
    }
    return y;
  },
  saves: ({ outputs }) => [...outputs],
  vjp: inverseVjp,
});

/**
 * X^-1 by Gauss-Jordan elimination without pivoting, exact to rounding for triangular matrices and for those whose
 * symmetric part is positive definite (Golub and Van Loan, Matrix Computations, 4.2.2). [.., n, n]
 */
export function inverse(x: Tensor): Tensor {
  side('inverse', x);
  return inverseOp([x]);
}

/** A lower triangle with half its diagonal. */
const halfLower = (x: Tensor): Tensor =>
  x.mul(pattern(x, x.shape[x.rank - 1], (i, j) => (i > j ? 1 : i === j ? 0.5 : 0)));
const symmetric = (x: Tensor): Tensor => x.add(x.transpose()).mul(0.5);

const inverseCholeskyOp = defineFused('inverseCholesky', {
  compose({ inputs: [x] }) {
    const S = x as Tensor;
    const n = S.shape[S.rank - 1];
    // Row k of Y = L^-1 from those before: with w = Y_k S[:, k], the row is (e_k - w^T Y) / sqrt(s_kk - |w|^2).
    const eye = identityLike(S);
    let Y: Tensor | null = null;
    for (let k = 0; k < n; k++) {
      const e = eye.slice(0, k, k + 1).expand([...S.shape.slice(0, -2), 1, n]);
      const diagonal = S.slice(-2, k, k + 1).slice(-1, k, k + 1);
      if (!Y) {
        Y = e.mul(diagonal.rsqrt());
        continue;
      }
      const w: Tensor = Y.matmul(S.slice(-1, k, k + 1));
      const rest = diagonal.sub(w.square().sum(-2, { keepDims: true }));
      Y = concat([Y, e.sub(w.transpose().matmul(Y)).mul(rest.rsqrt())], Y.rank - 2);
    }
    return Y as Tensor;
  },
  saves: ({ outputs }) => [...outputs],
  // Murray 2016, Differentiation of the Cholesky decomposition, eq. 10, with L^-1 = Y: dS = Y^T half-lower(-dY Y^T) Y,
  // symmetrised.
  vjp({ outputs: [Y], gradient }) {
    const inner = halfLower(gradient.tril().matmulT(Y).neg());
    return [symmetric(Y.transpose().matmul(inner).matmul(Y))];
  },
});

const checkedSymmetric = (op: string, S: Tensor): Tensor => {
  side(op, S);
  return symmetric(S);
};

/** L^-1, lower triangular, of the symmetric part of S = L L^T, positive definite [.., n, n]; NaN where it is not. */
export const inverseCholesky = (S: Tensor): Tensor => inverseCholeskyOp([checkedSymmetric('inverseCholesky', S)]);

/**
 * Enough for eigenvalues that lie within a factor of about 1e4: each round raises the smallest by 9/4 until it is near
 * 1, and then squares its error.
 */
const rounds = 18;

const inverseSqrtDefinition: FusedDefinition = {
  compose({ inputs: [x] }) {
    const S = x as Tensor;
    const eye = identityLike(S);
    // Coupled Newton-Schulz (Higham, Functions of Matrices, 6.35); the largest row sum of |S| bounds its eigenvalues.
    const bound = S.detach().abs().sum(-1, { keepDims: true }).max(-2, { keepDims: true });
    let Y = S.div(bound);
    let Z = eye.expand(S.shape);
    for (let i = 0; i < rounds; i++) {
      const T = eye.mul(1.5).sub(Z.matmul(Y).mul(0.5));
      Y = Y.matmul(T);
      Z = T.matmul(Z);
    }
    return Z.mul(bound.rsqrt());
  },
  // The kernel keeps the eigenvectors (columns) and, in another matrix's first row, the eigenvalues.
  outputs: ({ inputs: [x] }) => {
    const { shape, dtype } = x as Tensor;
    return [
      { shape, dtype },
      { shape, dtype },
      { shape: shape.slice(0, -1), dtype },
    ];
  },
  saves: ({ inputs, outputs }) => [...inputs, outputs[1], outputs[2]],
  vjp({ inputs: [S], outputs: [, vectors, values], gradient }) {
    const made = runFused(
      gradient.backend,
      'inverseSqrt.vjp',
      [vectors, values, gradient.contiguous()],
      [{ shape: (S as Tensor).shape, dtype: 'f32' }],
    );
    return made && [made[0]];
  },
};

const inverseSqrtOp = defineFused('inverseSqrt', inverseSqrtDefinition);

/** S^-1/2, symmetric, of the symmetric part of S, positive definite [.., n, n]; NaN where it is not. */
export const inverseSqrt = (S: Tensor): Tensor => inverseSqrtOp([checkedSymmetric('inverseSqrt', S)]);
