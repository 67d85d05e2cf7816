// RMS and layer normalisation over the last axis, with the VJPs of their input. Gradients of weights are sums over rows
// and stay compositions.

import type { RowKernel } from './rowKernels.js';

export const rmsNorm: RowKernel = {
  name: 'rmsNorm',
  inputs: [
    { name: 'x', along: 'row' },
    { name: 'w', along: 'row' },
  ],
  outputs: [
    { name: 'y', along: 'row' },
    { name: 'rstd', along: 'one' },
  ],
  scalars: ['eps'],
  body(row) {
    row.pass({ reads: ['x'], sum: { squares: 'x * x' } });
    row.let('r', '1.0 / sqrt(squares / size + eps)');
    row.set('rstd', 'r');
    row.pass({ reads: ['x', 'w'], write: { y: 'x * r * w' } });
  },
};

/** dx = r g w - x r^3 mean(g w x) */
export const rmsNormVjp: RowKernel = {
  name: 'rmsNorm.vjp',
  inputs: [
    { name: 'x', along: 'row' },
    { name: 'w', along: 'row' },
    { name: 'rstd', along: 'one' },
    { name: 'g', along: 'row' },
  ],
  outputs: [{ name: 'dx', along: 'row' }],
  body(row) {
    row.pass({ reads: ['x', 'w', 'g'], sum: { inner: 'x * (g * w)' } });
    row.let('across', '(rstd * rstd) * (rstd * (inner / size))');
    row.pass({ reads: ['x', 'w', 'g'], write: { dx: 'g * w * rstd - x * across' } });
  },
};

export const layerNorm: RowKernel = {
  name: 'layerNorm',
  inputs: [
    { name: 'x', along: 'row' },
    { name: 'w', along: 'row' },
    { name: 'b', along: 'row' },
  ],
  outputs: [
    { name: 'y', along: 'row' },
    { name: 'mean', along: 'one' },
    { name: 'rstd', along: 'one' },
  ],
  scalars: ['eps'],
  body(row) {
    row.pass({ reads: ['x'], sum: { total: 'x' } });
    row.let('middle', 'total / size');
    row.pass({ reads: ['x'], sum: { squares: '(x - middle) * (x - middle)' } });
    row.let('r', '1.0 / sqrt(squares / size + eps)');
    row.set('mean', 'middle');
    row.set('rstd', 'r');
    row.pass({ reads: ['x', 'w', 'b'], write: { y: '(x - middle) * r * w + b' } });
  },
};

/** With n = (x - mean) rstd: dx = rstd (g w - mean(g w) - n mean(g w n)) */
export const layerNormVjp: RowKernel = {
  name: 'layerNorm.vjp',
  inputs: [
    { name: 'x', along: 'row' },
    { name: 'w', along: 'row' },
    { name: 'mean', along: 'one' },
    { name: 'rstd', along: 'one' },
    { name: 'g', along: 'row' },
  ],
  outputs: [{ name: 'dx', along: 'row' }],
  body(row) {
    const normal = '((x - mean) * rstd)';
    row.pass({ reads: ['x', 'w', 'g'], sum: { total: 'g * w', inner: `g * w * ${normal}` } });
    row.let('middle', 'total / size');
    row.let('across', 'inner / size');
    row.pass({ reads: ['x', 'w', 'g'], write: { dx: `(g * w - middle - ${normal} * across) * rstd` } });
  },
};
