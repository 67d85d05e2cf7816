// Kernels of nn/smallMatrices.ts on the CPU: n x n matrices with n of a few dozen at most, in f64 on the host. Their
// share of a training step is microseconds, so they are plain loops and no WebAssembly; what is of size d is not
// computed here.

import { sizeOf } from '../../../../tensor/shape.js';
import type { FusedKernel, View } from '../../../backend.js';
import type { WasmContext } from '../context.js';
import { denseFloats } from './rowFunction.js';

/** In place: X becomes its inverse, by Gauss-Jordan sweeps without pivoting. */
function invert(x: Float64Array, n: number): void {
  for (let k = 0; k < n; k++) {
    const pivot = 1 / x[k * n + k];
    for (let j = 0; j < n; j++) if (j !== k) x[k * n + j] *= pivot;
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const factor = x[i * n + k];
      for (let j = 0; j < n; j++) if (j !== k) x[i * n + j] -= factor * x[k * n + j];
      x[i * n + k] = -factor * pivot;
    }
    x[k * n + k] = pivot;
  }
}

/** L^-1 of S = L L^T, row by row; the upper triangle is 0. */
function invertCholesky(S: Float64Array, n: number): Float64Array {
  const Y = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    const row = Y.subarray(k * n, (k + 1) * n);
    let rest = S[k * n + k];
    for (let j = 0; j < k; j++) {
      let w = 0;
      for (let i = 0; i <= j; i++) w += Y[j * n + i] * S[i * n + k];
      rest -= w * w;
      for (let i = 0; i <= j; i++) row[i] -= w * Y[j * n + i];
    }
    row[k] = 1;
    const scale = 1 / Math.sqrt(rest);
    for (let i = 0; i <= k; i++) row[i] *= scale;
  }
  return Y;
}

/**
 * Eigenvectors as columns, and eigenvalues, of a symmetric S, which is overwritten: cyclic Jacobi (Golub and Van Loan,
 * 8.5).
 */
function eigen(S: Float64Array, n: number): { vectors: Float64Array; values: Float64Array } {
  const V = new Float64Array(n * n);
  for (let i = 0; i < n; i++) V[i * (n + 1)] = 1;
  for (let sweep = 0; sweep < 30; sweep++) {
    let off = 0;
    let all = 0;
    for (let at = 0; at < n * n; at++) {
      all += S[at] ** 2;
      if (at % (n + 1) !== 0) off += S[at] ** 2;
    }
    if (!(off > 1e-30 * all)) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(S, V, n, p, q);
  }
  return { vectors: V, values: Float64Array.from({ length: n }, (_, i) => S[i * (n + 1)]) };
}

/** One Jacobi rotation: entry (p, q) of S becomes 0. */
function rotate(S: Float64Array, V: Float64Array, n: number, p: number, q: number): void {
  const apq = S[p * n + q];
  if (apq === 0) return;
  const theta = (S[q * n + q] - S[p * n + p]) / (2 * apq);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (let k = 0; k < n; k++) {
    const [a, b] = [S[k * n + p], S[k * n + q]];
    S[k * n + p] = c * a - s * b;
    S[k * n + q] = s * a + c * b;
  }
  for (let k = 0; k < n; k++) {
    const [a, b] = [S[p * n + k], S[q * n + k]];
    S[p * n + k] = c * a - s * b;
    S[q * n + k] = s * a + c * b;
    const [x, y] = [V[k * n + p], V[k * n + q]];
    V[k * n + p] = c * x - s * y;
    V[k * n + q] = s * x + c * y;
  }
}

/** V M V^T, or V^T M V. */
function similar(V: Float64Array, M: Float64Array, n: number, transposed: boolean): Float64Array {
  const at = (i: number, k: number): number => (transposed ? V[k * n + i] : V[i * n + k]);
  const half = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let k = 0; k < n; k++) for (let j = 0; j < n; j++) half[i * n + j] += at(i, k) * M[k * n + j];
  const result = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let k = 0; k < n; k++) for (let j = 0; j < n; j++) result[i * n + j] += half[i * n + k] * at(j, k);
  return result;
}

export function smallMatrixKernels({ memory, byteOffsetOf: at }: WasmContext): [string, FusedKernel][] {
  /** Runs `body` for each matrix, with windows of `size` numbers on every view. */
  const forEach = (
    views: readonly View[],
    sizes: readonly number[],
    body: (...windows: Float32Array[]) => void,
  ): void => {
    const count = sizeOf(views[0].shape) / sizes[0];
    for (let i = 0; i < count; i++)
      body(...views.map((view, v) => new Float32Array(memory.buffer, at(view) + 4 * i * sizes[v], sizes[v])));
  };
  const sideOf = (x: View): number => x.shape[x.shape.length - 1];
  return [
    [
      'inverse',
      ({ inputs: [x], outputs: [y] }) => {
        if (!x || !denseFloats([x, y])) return false;
        const n = sideOf(x);
        forEach([x, y], [n * n, n * n], (from, to) => {
          const work = Float64Array.from(from);
          invert(work, n);
          to.set(work);
        });
        return true;
      },
    ],
    [
      'inverseCholesky',
      ({ inputs: [S], outputs: [y] }) => {
        if (!S || !denseFloats([S, y])) return false;
        const n = sideOf(S);
        forEach([S, y], [n * n, n * n], (from, to) => {
          to.set(invertCholesky(Float64Array.from(from), n));
        });
        return true;
      },
    ],
    [
      'inverseSqrt',
      ({ inputs: [S], outputs: [y, vectors, values] }) => {
        if (!S || !denseFloats([S, y, vectors, values])) return false;
        const n = sideOf(S);
        forEach([S, y, vectors, values], [n * n, n * n, n * n, n], (from, to, toVectors, toValues) => {
          const found = eigen(Float64Array.from(from), n);
          const roots = new Float64Array(n * n);
          found.values.forEach((value, i) => (roots[i * (n + 1)] = 1 / Math.sqrt(value)));
          to.set(similar(found.vectors, roots, n, false));
          toVectors.set(found.vectors);
          toValues.set(found.values);
        });
        return true;
      },
    ],
    // The divided differences of x^-1/2 at the eigenvalues (Daleckii and Krein): -1 / (a b (a + b)) for roots a and b.
    [
      'inverseSqrt.vjp',
      ({ inputs: [vectors, values, g], outputs: [dS] }) => {
        if (!vectors || !values || !g || !denseFloats([vectors, values, g, dS])) return false;
        const n = sideOf(dS);
        forEach([vectors, values, g, dS], [n * n, n, n * n, n * n], (V, from, gradient, to) => {
          const Q = Float64Array.from(V);
          const inner = similar(Q, Float64Array.from(gradient), n, true);
          const roots = Array.from(from, Math.sqrt);
          for (let i = 0; i < n; i++)
            for (let j = 0; j < n; j++) inner[i * n + j] /= -roots[i] * roots[j] * (roots[i] + roots[j]);
          to.set(similar(Q, inner, n, false));
        });
        return true;
      },
    ],
  ];
}
