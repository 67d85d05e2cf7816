// Recipes of nn/smallMatrices.ts. Inputs are (n + 1) I plus entries below 1, so that neither the matrix nor its
// symmetric part is near singular. References are plain f64 loops by other algorithms than those of the library.

import { inverse, inverseCholesky, inverseSqrt } from '../../../src/nn/orthogonal/smallMatrices.js';
import { tensor, type Tensor } from '../../../src/tensor/index.js';
import { build, get, type Host } from '../host.js';
import { beside } from '../machines.js';
import type { Recipe } from '../recipe.js';

type Matrix = number[][];

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const symmetric = (a: Matrix): Matrix => a.map((row, i) => row.map((x, j) => (x + a[j][i]) / 2));

/** By Gauss-Jordan elimination with pivoting. */
function inverted(a: Matrix): Matrix {
  const n = a.length;
  const m = a.map((row, i) => [...row, ...range(n).map(j => Number(i === j))]);
  for (let k = 0; k < n; k++) {
    const best = range(n)
      .slice(k)
      .reduce((p, i) => (Math.abs(m[i][k]) > Math.abs(m[p][k]) ? i : p), k);
    [m[k], m[best]] = [m[best], m[k]];
    m[k] = m[k].map(x => x / m[k][k]);
    for (let i = 0; i < n; i++) if (i !== k) m[i] = m[i].map((x, j) => x - m[i][k] * m[k][j]);
  }
  return m.map(row => row.slice(n));
}

/** The inverse of the lower Cholesky factor of the symmetric part. */
function invertedCholesky(a: Matrix): Matrix {
  const s = symmetric(a);
  const l = s.map(row => row.map(() => 0));
  for (let i = 0; i < s.length; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = s[i][j] - range(j).reduce((t, k) => t + l[i][k] * l[j][k], 0);
      l[i][j] = i === j ? Math.sqrt(rest) : rest / l[j][j];
    }
  }
  return inverted(l);
}

/** The inverse square root of the symmetric part, by the iteration of Denman and Beavers. */
function invertedRoot(a: Matrix): Matrix {
  let y = symmetric(a);
  let z = y.map((row, i) => row.map((_, j) => Number(i === j)));
  for (let step = 0; step < 14; step++) {
    const [yi, zi] = [inverted(y), inverted(z)];
    const mean = (p: Matrix, q: Matrix): Matrix => p.map((row, i) => row.map((x, j) => (x + q[i][j]) / 2));
    [y, z] = [mean(y, zi), mean(z, yi)];
  }
  return z;
}

const recipe = (name: string, op: (x: Tensor) => Tensor, reference: (a: Matrix) => Matrix): Recipe => ({
  name: `fused.${name}`,
  fused: name,
  gradientRoundings: [512, 'products of three matrices'],
  errors: [
    [
      () => op(tensor.zeros([2, 3])),
      new RegExp(`^${name}: expected square matrices \\[\\.\\., n, n\\], got \\[2,3\\]$`),
    ],
  ],
  make(d) {
    const lead = d.shape(0, 2, { empty: false, cap: d.smooth ? 2 : 4 });
    const n = d.side(d.smooth ? 3 : 9);
    const shape = [...lead, n, n];
    const shift = build([n, n], ([i, j]) => (i === j ? n + 1 : 0));
    const all = (h: Host): Host => {
      const of = new Map<string, Matrix>();
      return build(h.shape, index => {
        const at = index.slice(0, -2);
        const key = at.join();
        if (!of.has(key))
          of.set(key, reference(range(n).map(i => range(n).map(j => get(h, [...at, i, j]) + get(shift, [i, j])))));
        return (of.get(key) as Matrix)[index[index.length - 2]][index[index.length - 1]];
      });
    };
    return {
      inputs: [d.values(shape, { limit: 1 })],
      run: x => op(x.add(beside(x, shift))),
      reference: all,
      magnitude: h => {
        const largest = Math.max(...all(h).data.map(Math.abs));
        return build(h.shape, () => largest);
      },
      roundings: 64 + 8 * n,
      gradientScale: 1,
    };
  },
});

export const smallMatrixRecipes: readonly Recipe[] = [
  recipe('inverse', inverse, inverted),
  recipe('inverseCholesky', inverseCholesky, invertedCholesky),
  recipe('inverseSqrt', inverseSqrt, invertedRoot),
];
