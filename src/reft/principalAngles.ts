// Principal angles between the spans of two sets of rows, in f64 on the host. Source: Björck and Golub 1973, with the
// cosines as singular values of Q_a Q_b^T and, where those are close to 1, the sines, so that small angles keep their
// digits.

import type { Shape } from '../tensor/shape.js';

type Rows = Float64Array[];

/** Rows a [m, d] and b [n, d] to min(rank a, rank b) angles in radians, rising. */
export function principalAngles(a: ArrayLike<number>, aShape: Shape, b: ArrayLike<number>, bShape: Shape): number[] {
  if (aShape[1] !== bShape[1])
    throw new RangeError(`principalAngles: rows of ${aShape[1]} and of ${bShape[1]} numbers`);
  const [p, q] = [orthonormal(rowsOf(a, aShape)), orthonormal(rowsOf(b, bShape))].sort((x, y) => x.length - y.length);
  const products = p.map(x => q.map(y => dot(x, y)));
  const gram = products.map(x => products.map(y => dot(x, y)));
  // The part of each row of p that q does not reach gives the sines.
  const rest = p.map((x, i) => q.reduce((r, y, j) => r.map((v, k) => v - products[i][j] * y[k]), x));
  const sines = rest.map(x => rest.map(y => dot(x, y)));
  const cos = eigenvalues(gram)
    .map(v => Math.sqrt(Math.min(1, Math.max(0, v))))
    .sort((x, y) => y - x);
  const sin = eigenvalues(sines)
    .map(v => Math.sqrt(Math.min(1, Math.max(0, v))))
    .sort((x, y) => x - y);
  return cos.map((c, i) => (c > Math.SQRT1_2 ? Math.asin(sin[i]) : Math.acos(c)));
}

const rowsOf = (data: ArrayLike<number>, [m, d]: Shape): Rows =>
  Array.from({ length: m }, (_, i) => Float64Array.from({ length: d }, (__, k) => data[i * d + k]));

function dot(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k < x.length; k++) sum += x[k] * y[k];
  return sum;
}

/** Gram-Schmidt, twice over; rows that depend on earlier ones drop out. */
function orthonormal(rows: Rows): Rows {
  const result: Rows = [];
  for (const row of rows) {
    let v = row;
    for (let pass = 0; pass < 2; pass++) {
      for (const q of result) {
        const c = dot(v, q);
        v = v.map((x, k) => x - c * q[k]);
      }
    }
    const norm = Math.sqrt(dot(v, v));
    if (norm > 1e-6 * Math.sqrt(dot(row, row))) result.push(v.map(x => x / norm));
  }
  return result;
}

/** Of a small symmetric matrix, by Jacobi rotations. */
function eigenvalues(matrix: number[][]): number[] {
  const a = matrix.map(row => [...row]);
  const n = a.length;
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += a[p][q] ** 2;
    if (off < 1e-30) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (a[p][q] === 0) continue;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        for (let k = 0; k < n; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
        for (let k = 0; k < n; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
      }
    }
  }
  return a.map((row, i) => row[i]);
}
