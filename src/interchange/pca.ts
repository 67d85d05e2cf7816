// Principal components of hidden states, for interchanges in their space: eigenvectors of the covariance by cyclic
// Jacobi rotations on the host, in f64. O(d^3) a sweep: meant for a few hundred dimensions. The kind itself is in
// kinds.ts. Source: Golub and Van Loan, Matrix Computations, 8.5.

import { create } from '../tensor/create.js';
import { hostBackend } from '../devices.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { InterchangeSpace } from './space.js';

export interface PrincipalComponents {
  /** [k, d], orthonormal rows, of falling variance. */
  readonly components: Float64Array;
  readonly mean: Float64Array;
  /** What states are divided by first; ones unless standardised. */
  readonly std: Float64Array;
  /** Of each component. */
  readonly variances: Float64Array;
}

/**
 * The first k components of states [n, d], after their mean was taken off and, when `standardize`, each coordinate
 * divided by its deviation.
 * @throws RangeError for fewer than two states or k outside 1..d
 */
export async function principalComponents(
  states: Tensor,
  k: number,
  { standardize = true } = {},
): Promise<PrincipalComponents> {
  const [n, d] = states.shape;
  if (states.rank !== 2 || n < 2)
    throw new RangeError(
      `principalComponents: expected states [n, d] with n of 2 or more, got ${formatShape(states.shape)}`,
    );
  if (!(Number.isInteger(k) && k > 0 && k <= d))
    throw new RangeError(`principalComponents: expected 1 to ${d} components, got ${k}`);
  const data = Float64Array.from(await states.data());
  const mean = new Float64Array(d);
  for (let i = 0; i < data.length; i++) mean[i % d] += data[i] / n;
  const std = new Float64Array(d);
  for (let i = 0; i < data.length; i++) std[i % d] += (data[i] - mean[i % d]) ** 2 / n;
  // A coordinate that never moves has no scale of its own.
  for (let j = 0; j < d; j++) std[j] = standardize && std[j] > 0 ? Math.sqrt(std[j]) : 1;
  const covariance = Array.from({ length: d }, () => new Float64Array(d));
  for (let row = 0; row < n; row++) {
    for (let i = 0; i < d; i++) {
      const x = (data[row * d + i] - mean[i]) / std[i] / n;
      for (let j = i; j < d; j++) covariance[i][j] += (x * (data[row * d + j] - mean[j])) / std[j];
    }
  }
  for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) covariance[i][j] = covariance[j][i];
  const { values, vectors } = symmetricEigen(covariance);
  const order = Array.from(values, (_, i) => i)
    .sort((a, b) => values[b] - values[a])
    .slice(0, k);
  return {
    components: Float64Array.from(order.flatMap(i => [...vectors[i]])),
    mean,
    std,
    variances: Float64Array.from(order, i => values[i]),
  };
}

/** Puts components into an intervention's space. */
export function setPrincipalComponents(space: InterchangeSpace, { components, mean, std }: PrincipalComponents): void {
  const d = mean.length;
  const backend = hostBackend(space.parameters().components.backend);
  const give = (name: string, data: Float64Array, shape: number[]): void => {
    space.set(name, create.from(data, shape, { dtype: 'f64', backend }));
  };
  give('components', components, [components.length / d, d]);
  give('mean', mean, [d]);
  give('std', std, [d]);
}

/** Eigenvalues and unit eigenvectors (as rows) of a symmetric matrix, which is overwritten. */
export function symmetricEigen(A: Float64Array[]): { values: Float64Array; vectors: Float64Array[] } {
  const n = A.length;
  const vectors = A.map((_, i) => new Float64Array(n).fill(1, i, i + 1));
  const total = A.reduce((sum, row) => sum + row.reduce((a, b) => a + b * b, 0), 0);
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += A[p][q] ** 2;
    if (off <= 1e-30 * total) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (A[p][q] === 0) continue;
        const theta = (A[q][q] - A[p][p]) / (2 * A[p][q]);
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        for (const row of A) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
        rotateRows(A[p], A[q], c, s);
        rotateRows(vectors[p], vectors[q], c, s);
      }
    }
  }
  return { values: Float64Array.from(A, (row, i) => row[i]), vectors };
}

function rotateRows(x: Float64Array, y: Float64Array, c: number, s: number): void {
  for (let k = 0; k < x.length; k++) [x[k], y[k]] = [c * x[k] - s * y[k], s * x[k] + c * y[k]];
}
