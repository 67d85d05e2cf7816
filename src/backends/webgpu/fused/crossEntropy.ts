// Cross-entropy of each row of logits with its label, and its VJP. Of each row only the largest logit and the sum of
// exponentials are kept; a negative label takes no part.

import type { RowKernel } from './rowKernels.js';

export const crossEntropy: RowKernel = {
  name: 'crossEntropy',
  inputs: [
    { name: 'logits', along: 'row' },
    { name: 'label', along: 'one', type: 'i' },
  ],
  outputs: [
    { name: 'loss', along: 'one' },
    { name: 'top', along: 'one' },
    { name: 'total', along: 'one' },
  ],
  functions: ['expBelow', 'logOf'],
  body(row) {
    row.pass({ reads: ['logits'], max: { most: 'logits' } });
    row.pass({ reads: ['logits'], sum: { sum: 'expBelow(logits - most)' } });
    row.let('chosen', row.at('logits', 'u32(max(label, 0))'));
    row.set('loss', 'select(logOf(sum) + (most - chosen), 0.0, label < 0)');
    row.set('top', 'most');
    row.set('total', 'sum');
  },
};

export const crossEntropyVjp: RowKernel = {
  name: 'crossEntropy.vjp',
  inputs: [
    { name: 'logits', along: 'row' },
    { name: 'label', along: 'one', type: 'i' },
    { name: 'top', along: 'one' },
    { name: 'total', along: 'one' },
    { name: 'g', along: 'one' },
  ],
  outputs: [{ name: 'dlogits', along: 'row' }],
  functions: ['expBelow'],
  body(row) {
    row.let('share', 'g / total');
    row.pass({
      reads: ['logits'],
      write: { dlogits: 'select(expBelow(logits - top) * share - select(0.0, g, i32(j) == label), 0.0, label < 0)' },
    });
  },
};
