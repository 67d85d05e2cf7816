// Kept mutants of encoders, their heads and families.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/models/heads.ts': [
    [
      'the cross-entropy of several classes',
      'logits.softplus().sub(logits.mul(targets))',
      'logits.softplus().add(logits.mul(targets))',
      'models-encoders',
      'what heads minimise',
    ],
    [
      'one number is a regression',
      'if (problemType) return problemType;',
      "if (problemType === 'regression') return problemType;",
      'models-encoders',
      'what heads minimise',
    ],
  ],
  'src/models/encoder.ts': [
    [
      'positions that skip padding',
      'ids[token] === padding ? -1 : next++',
      'next++',
      'models-encoders',
      'positions skip the padding id',
    ],
    ['the first real token', 'b * shape[1] + start', 'b * shape[1]', 'models-encoders', 'padding on either side'],
    [
      'token types',
      'type => type < 0 || type >= tokenTypes',
      'type => type < 0',
      'models-encoders',
      'inputs that do not fit',
    ],
  ],
  'src/models/tensorNames.ts': [
    ['old endings of names', 'file.tensors.has(old) ? old : name', 'name', 'models-encoders', 'old names of norms'],
  ],
  'src/models/clip.ts': [
    [
      'the token that ends a text',
      'row.indexOf(Math.max(...row))',
      'row.length - 1',
      'models-encoders',
      'golden values',
    ],
  ],
};
