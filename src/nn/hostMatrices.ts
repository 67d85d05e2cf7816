// Small matrices as rows of numbers on the host, in f64: what is computed once, for starting values, checks and
// reports. Nothing here is differentiated. Source: Golub and Van Loan, Matrix Computations, 5.2 (Gram-Schmidt) and 8.5
// (Jacobi).

export function dot(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k < x.length; k++) sum += x[k] * y[k];
  return sum;
}

export const lengthOf = (x: ArrayLike<number>): number => Math.sqrt(dot(x, x));

/** Takes off a row what lies along others, which are orthonormal: twice over, for f64 accuracy. In place. */
function removeProjections(row: Float64Array, others: readonly Float64Array[]): void {
  for (let pass = 0; pass < 2; pass++) {
    for (const other of others) {
      const along = dot(row, other);
      for (let k = 0; k < row.length; k++) row[k] -= along * other[k];
    }
  }
}

/**
 * Gram-Schmidt in place; directions keep their signs. @throws RangeError naming a row that depends on those before it
 */
export function orthonormalize(rows: readonly Float64Array[]): void {
  rows.forEach((row, i) => {
    const before = lengthOf(row);
    removeProjections(row, rows.slice(0, i));
    const length = lengthOf(row);
    if (!(length > 1e-9 * before && Number.isFinite(length)))
      throw new RangeError(`orthonormal rows: row ${i} depends on those before it, or is not finite`);
    for (let k = 0; k < row.length; k++) row[k] /= length;
  });
}

/**
 * Orthonormal rows with the span of the given ones, which stay as they are: a row that depends on those before drops
 * out.
 */
export function orthonormalBasis(rows: readonly Float64Array[]): Float64Array[] {
  const basis: Float64Array[] = [];
  for (const given of rows) {
    const row = given.slice();
    removeProjections(row, basis);
    const length = lengthOf(row);
    if (length > 1e-6 * lengthOf(given)) basis.push(row.map(x => x / length));
  }
  return basis;
}

/** How far rows R [r, d] are from orthonormal: the entry of |R R^T - I| that is largest, or the first that is NaN. */
export function orthonormalityError(
  R: ArrayLike<number>,
  [r, d]: readonly number[],
): { readonly error: number; readonly rows: readonly [number, number] } {
  let worst: { error: number; rows: [number, number] } = { error: 0, rows: [0, 0] };
  for (let i = 0; i < r; i++) {
    for (let j = 0; j <= i; j++) {
      let product = i === j ? -1 : 0;
      for (let k = 0; k < d; k++) product += R[i * d + k] * R[j * d + k];
      const error = Math.abs(product);
      if (Number.isNaN(error)) return { error, rows: [j, i] };
      if (error > worst.error) worst = { error, rows: [j, i] };
    }
  }
  return worst;
}

/** Eigenvalues and unit eigenvectors (as rows) of a symmetric matrix, which is overwritten: cyclic Jacobi rotations. */
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
