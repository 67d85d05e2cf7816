// Softmax over the last axis, shifted by the row's maximum, and its VJP.

import type { RowKernel } from './rowKernels.js';

export const softmax: RowKernel = {
  name: 'softmax',
  inputs: [{ name: 'x', along: 'row' }],
  outputs: [{ name: 'y', along: 'row' }],
  functions: ['expBelow'],
  body(row) {
    row.pass({ reads: ['x'], max: { top: 'x' } });
    row.pass({ reads: ['x'], sum: { total: 'expBelow(x - top)' } });
    row.let('scale', '1.0 / total');
    row.pass({ reads: ['x'], write: { y: 'expBelow(x - top) * scale' } });
  },
};

/** dx = y (g - sum(g y)) */
export const softmaxVjp: RowKernel = {
  name: 'softmax.vjp',
  inputs: [
    { name: 'y', along: 'row' },
    { name: 'g', along: 'row' },
  ],
  outputs: [{ name: 'dx', along: 'row' }],
  body(row) {
    row.pass({ reads: ['y', 'g'], sum: { inner: 'y * g' } });
    row.pass({ reads: ['y', 'g'], write: { dx: 'y * (g - inner)' } });
  },
};
