// Functions and their first two derivatives in f64 against values that mpmath computed with 60 digits
// (scripts/functionValues.py), over the range of f64. The functions in f32 are swept by the recipes' checks
// (helpers/sweep.ts).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gradientsOf, holdIntermediates } from '../src/autograd/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { oracle } from './helpers/machines.js';

type Row = readonly (number | string)[];
const table = JSON.parse(readFileSync(new URL('fixtures/functionValues.json', import.meta.url), 'utf8')) as Record<
  string,
  Row[]
>;
const functions = [
  'exp',
  'log',
  'sqrt',
  'rsqrt',
  'sin',
  'cos',
  'tanh',
  'erf',
  'sigmoid',
  'softplus',
  'silu',
  'gelu',
  'geluTanh',
] as const;
const eps = 2 ** -53;

/** Of the value relative to it; 1 + erf and 1 + tanh cancel, so GELU's is relative to x. */
const valueBound = (name: string, x: number, want: number): number =>
  8 * eps * Math.max(Math.abs(want), name.startsWith('gelu') ? Math.abs(x) : 0);
/**
 * Derivatives of powers and exponentials relative to themselves, of functions that level off relative to 1: their
 * slopes are differences from 1.
 */
const slopeBound = (name: string, want: number): number =>
  ['exp', 'log', 'sqrt', 'rsqrt'].includes(name) ? 16 * eps * Math.abs(want) : 1000 * eps * Math.max(1, Math.abs(want));

for (const name of functions) {
  test(`${name}: value and two derivatives in f64 equal exact ones over the whole range`, () => {
    const rows = table[name].map(row => row.map(Number));
    assert.ok(rows.length >= 40, `${rows.length} points`);
    const x = tensor(
      Float64Array.from(rows, row => row[0]),
      [rows.length],
      { dtype: 'f64', backend: oracle.backend },
    ).requireGrad();
    const found = holdIntermediates(() => {
      const y = x[name]();
      const first = gradientsOf(y.sum(), [x], { createGraph: true })[0] as Tensor;
      return [y, first, gradientsOf(first.sum(), [x])[0] as Tensor];
    }).map(t => t.dataSync());
    rows.forEach(([at, ...exact], i) =>
      exact.forEach((want, order) => {
        const got = found[order][i];
        const bound = (order === 0 ? valueBound(name, at, want) : slopeBound(name, want)) + 2 ** -1060;
        assert.ok(
          got === want || Math.abs(got - want) <= bound,
          `derivative ${order} of ${name} at ${at} is ${got}, expected ${want}`,
        );
      }),
    );
  });
}
