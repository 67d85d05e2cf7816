// Mutants of limits, defaults and borders: each stands for a kind that random mutants once got away with.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/jinja/lexer.ts': [
    ['eight digits behind \\U', 'const hex = x ?? u ?? long;', 'const hex = x ?? u;', 'jinja', 'all that are kept'],
  ],
  'src/io/jinja/formatNumber.ts': [
    [
      'zeros before groups of digits',
      'whole.padStart(missing - Math.floor((missing - 1) / (size + 1))',
      'whole.padStart(missing - Math.floor(missing / (size + 1))',
      'jinja',
      'all that are kept',
    ],
    [
      'the digit behind the point counts',
      'general(x, digits, alternate, digits - 1)',
      'general(x, digits, alternate, digits)',
      'jinja',
      'all that are kept',
    ],
  ],
  'src/io/jinja/format.ts': [
    [
      'zeros stand behind 0x',
      'sign: signOf(whole < 0n) + integerPrefix({ type, alternate }),\n      text: integerDigits',
      'sign: signOf(whole < 0n),\n      text: integerPrefix({ type, alternate }) + integerDigits',
      'jinja',
      'all that are kept',
    ],
  ],
  'src/io/jinja/render.ts': [
    [
      'one parameter twice',
      'const open = parameters.slice(placed);',
      'const open = parameters;',
      'jinja',
      'all that are kept',
    ],
  ],
  'src/io/tokenizerPattern.ts': [
    [
      'a pattern of a text with -',
      "(/[.*+?^${}()|[\\]\\\\/]/g, '\\\\$&')",
      "(/[.*+?^${}()|[\\]\\\\/-]/g, '\\\\$&')",
      'edge-values-tokenizers',
      'pre-tokenizers',
    ],
  ],
  'src/io/tokenizerModels.ts': [
    [
      'what is no token is left out before merges',
      "Array.from(piece).filter(isToken).join('')",
      'piece',
      'edge-values-tokenizers',
      'models',
    ],
  ],
};
