// BERT's WordPiece vocabularies in a GGUF: the ids of the tokenizer.json that they are made from.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Tokenizer } from '../src/io/tokenizer.js';
import { tokenizerFromGGUF, type GgufMetadata } from '../src/io/tokenizerGguf.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';

const special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'];
const pieces = [
  'a',
  'b',
  '##a',
  '##b',
  'play',
  '##ing',
  '##s',
  'cafe',
  '.',
  ',',
  "'",
  '日',
  '▁',
  '##▁',
  '2',
  '##3',
  'the',
  'ℝ',
];
const texts = [
  '',
  'play',
  'Playing the plays, CAFÉ.',
  "a'b ab 23 3",
  'unknownword play',
  '日本 ▁ a▁ ℝ',
  '  tabs\tand\nlines the ',
  'the [MASK] plays [SEP] a',
  'x'.repeat(101),
];

/** The tokenizer.json of BERT's, and what llama.cpp's converter makes of it. */
function both(vocabulary: readonly string[], lowercase: boolean, change: GgufMetadata = {}): [Tokenizer, Tokenizer] {
  const words = [...special, ...vocabulary];
  const item = (id: string, type_id: number): object => ({ SpecialToken: { id, type_id } });
  const single = [item('[CLS]', 0), { Sequence: { id: 'A', type_id: 0 } }, item('[SEP]', 0)];
  const json = {
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single,
      pair: [...single, { Sequence: { id: 'B', type_id: 1 } }, item('[SEP]', 1)],
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
    },
  };
  const metadata = {
    'tokenizer.ggml.model': 'bert',
    'tokenizer.ggml.tokens': words.map((word, id) =>
      id < special.length ? word : word.startsWith('##') ? word.slice(2) : `▁${word}`,
    ),
    'tokenizer.ggml.token_type': words.map((_, id) => (id < special.length ? 3 : 1)),
    'tokenizer.ggml.cls_token_id': 2,
    'tokenizer.ggml.seperator_token_id': 3,
    'tokenizer.ggml.unknown_token_id': 1,
    'tokenizer.ggml.padding_token_id': 0,
    'tokenizer.ggml.mask_token_id': 4,
    ...change,
  };
  return [tokenizerFromFiles({ tokenizerJson: JSON.stringify(json) }, 'T'), tokenizerFromGGUF(metadata, 'G')];
}

test('a GGUF of BERT gives the same ids, texts and pairs', () => {
  const [folder, gguf] = both(pieces, true);
  for (const text of texts) {
    const ids = folder.encode(text);
    assert.deepEqual(gguf.encode(text), ids, JSON.stringify(text));
    assert.equal(gguf.decode(ids), folder.decode(ids));
    assert.deepEqual(gguf.encodePair(text, 'play'), folder.encodePair(text, 'play'));
  }
  // By hand: [CLS] play ##ing the play ##s , cafe . [SEP]
  assert.deepEqual(gguf.encode(texts[2]), [2, 9, 10, 21, 9, 11, 14, 12, 13, 3]);
  assert.deepEqual([gguf.bosTokenId, gguf.unkTokenId, gguf.padTokenId], [2, 1, 0]);
});

test('a GGUF of BERT that names no special tokens has those of BERT', () => {
  const named = ['cls', 'seperator', 'unknown', 'padding', 'mask'].map(name => `tokenizer.ggml.${name}_token_id`);
  const silent = Object.fromEntries([...named, 'tokenizer.ggml.token_type'].map(key => [key, undefined]));
  const [folder, gguf] = both(pieces, true, silent);
  for (const text of texts.slice(0, 7)) assert.deepEqual(gguf.encode(text), folder.encode(text), text);
  assert.equal(gguf.padTokenId, 0);
  assert.throws(
    () => tokenizerFromGGUF({ 'tokenizer.ggml.model': 'bert', 'tokenizer.ggml.tokens': ['▁a'] }, 'G'),
    /G: tokenizer\.ggml\.unknown_token_id: expected the unknown token of "bert", found none/,
  );
});

test('a GGUF of BERT whose vocabulary has capitals keeps those of a text', () => {
  const [folder, gguf] = both([...pieces, 'Play', 'É'], false);
  for (const text of texts) assert.deepEqual(gguf.encode(text), folder.encode(text), JSON.stringify(text));
  assert.deepEqual(gguf.encode('Play play'), [2, 23, 9, 3]);
});

test('the tokens around a text are left out where a GGUF says so', () => {
  const without = { 'tokenizer.ggml.add_bos_token': false, 'tokenizer.ggml.add_sep_token': false };
  const [, gguf] = both(pieces, true, without);
  assert.deepEqual(gguf.encode('play'), [9]);
});
