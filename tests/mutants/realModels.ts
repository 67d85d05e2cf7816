// Kept mutants: marian's binary models, models of several files inside packages, vocabularies of SentencePiece, pairs
// of texts.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/tensorFile.ts': [
    [
      'the multiplier of a quantised tensor',
      'values[i] /= multiplier;',
      'values[i] *= multiplier;',
      'io-marian',
      'divided by their multiplier',
    ],
  ],
  'src/io/marian.ts': [
    [
      'quantised matrices are stored transposed',
      "name.includes('Wemb') ? shape : shape.toReversed()",
      'shape',
      'io-marian',
      'divided by their multiplier',
    ],
    [
      'the bytes of an item are checked',
      'if (dataBytes !== needed && dataBytes !== padded)',
      'if (dataBytes < needed)',
      'io-marian',
      'broken files',
    ],
    ['one name twice', 'if (names.has(name)) throw', 'if (false as boolean) throw', 'io-marian', 'broken files'],
  ],
  'src/io/marianSettings.ts': [
    ['a setting given twice', 'if (settings.has(key)) throw', 'if (false as boolean) throw', 'io-marian', 'settings'],
    [
      'a list without items',
      'if (open?.items.length === 0) throw',
      'if (false as boolean) throw',
      'io-marian',
      'settings',
    ],
  ],
};
