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
  'src/io/resolvePipNode.ts': [
    [
      'files of a package are moved after all are checked',
      '    for (const file of model.files) {\n      if (!(await hasPinned(folder, file)))',
      '    for (const file of model.files.slice(1)) {\n      if (!(await hasPinned(folder, file)))',
      'resolve',
      'several files',
    ],
    ['a file that is there stays', 'if (!(await hasPinned(folder, file))) await', 'await', 'resolve', 'several files'],
    ['the platform of a package', "['--platform', model.platform]", '[]', 'resolve', 'several files'],
    [
      'each file of a package has its hash',
      'if (sha256 !== expected)',
      'if (file === model.files[2] && sha256 !== expected)',
      'resolve',
      'several files',
    ],
  ],
  'src/io/resolveNode.ts': [
    [
      'all files of a pinned model must be there',
      'there.every(Boolean)',
      'there.some(Boolean)',
      'resolve',
      'several files',
    ],
    ['a shortlist is no model', ' && !isShortlist(name)', '', 'resolve', 'a path on disk'],
  ],
  'src/io/resolve.ts': [
    ['names that any folder has tell no alias', " && !names.includes('config.json')", '', 'resolve', 'tells the alias'],
  ],
  'src/io/tokenizerSentencePiece.ts': [
    [
      'spaces at the ends of a text',
      "replace('\\\\A +| +\\\\z', ''), ",
      '',
      'tokenizer-sentencePiece',
      'its own|followed',
    ],
    ['several spaces become one', ", replace(' {2,}', ' ')", '', 'tokenizer-sentencePiece', 'its own|followed'],
    [
      'pieces of bytes',
      'byte_fallback: model.byteFallback',
      'byte_fallback: false',
      'tokenizer-sentencePiece',
      'its own',
    ],
    [
      "a user's own piece is no special token",
      '[pieceTypes.unknown, pieceTypes.control]',
      '[pieceTypes.unknown, pieceTypes.control, pieceTypes.userDefined]',
      'tokenizer-sentencePiece',
      'its own',
    ],
    [
      'a score that is not finite',
      'if (!Number.isFinite(score)) throw',
      'if (false as boolean) throw',
      'tokenizer-sentencePiece',
      'refused',
    ],
  ],
  'src/io/protobuf.ts': [
    [
      'the length of a field is checked',
      'if (length > bytes.length - offset) throw',
      'if (false as boolean) throw',
      'tokenizer-sentencePiece',
      'refused',
    ],
  ],
  'src/io/autoTokenizer.ts': [
    ['marian ends every text', '{ addEosToken: true }', '{}', 'tokenizer-sentencePiece', 'a marian model'],
  ],
  'src/io/tokenizerTemplates.ts': [
    [
      "RoBERTa's types",
      '[...single, sep, { text: 1, type: 0 }, sep]',
      '[...single, sep, { text: 1, type: 1 }, sep]',
      'tokenizer-pairs',
      'Roberta',
    ],
    ["the type of BERT's last token", '{ ...sep, type: 1 }', 'sep', 'tokenizer-pairs', 'Bert'],
    ['the types of a template', 'type: part.Sequence.type_id', 'type: 0', 'tokenizer-pairs', 'template of'],
    [
      'each text once',
      "if (texts.toSorted().join(', ') === expected)",
      'if (texts.length > 0)',
      'tokenizer-pairs',
      'refused',
    ],
  ],
  'src/io/tokenizer.ts': [
    [
      'special tokens of a pair are left out',
      "if ('ids' in part && !addSpecialTokens) continue;",
      '',
      'tokenizer-pairs',
      'one text and two',
    ],
    [
      'bos and eos around a second text',
      '[...around(0), ...around(1)]',
      '[...around(0), ...around(0)]',
      'tokenizer-pairs',
      'settings that name',
    ],
  ],
  'src/io/tokenizerGgufBert.ts': [
    [
      'the mark at the start of a word',
      'token.slice(wordStart.length) : continuation + token',
      'token.slice(wordStart.length) : token',
      'tokenizer-gguf-bert',
      'same ids',
    ],
    ['a vocabulary with capitals', 'lowercase: !isCased', 'lowercase: true', 'tokenizer-gguf-bert', 'capitals'],
    ['the mark alone', ' && token !== wordStart', '', 'tokenizer-gguf-bert', 'same ids'],
  ],
  'src/io/tokenizerGguf.ts': [
    [
      'the separator of a GGUF of BERT',
      'addsSep ? sepToken : around.behind',
      'around.behind',
      'tokenizer-gguf-bert',
      'same ids',
    ],
  ],
};
