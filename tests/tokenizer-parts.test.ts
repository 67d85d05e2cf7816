// Single components of tokenizers, at what the golden tokenizers do not show: splits, decoders, replacements, ties and
// unknown characters. Values are those of Hugging Face's library.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cleanedUp } from '../src/io/tokenizerCleanUp.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import type { Tokenizer } from '../src/io/tokenizer.js';

/** A tokenizer whose model knows these words, with `?` for all others. */
function words(vocabulary: readonly string[], parts: object = {}): Tokenizer {
  const json = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    added_tokens: [],
    model: {
      type: 'WordLevel',
      unk_token: '?',
      vocab: Object.fromEntries(['?', ...vocabulary].map((word, id) => [word, id])),
    },
  };
  return tokenizerFromFiles({ tokenizerJson: JSON.stringify({ ...json, ...parts }) }, 'T');
}

const tokensOf = (tokenizer: Tokenizer, text: string): (string | undefined)[] =>
  tokenizer.encode(text).map(id => tokenizer.idToToken(id));

test('what becomes of the parts that a split matches', () => {
  const cuts = (behavior: string, invert = false): string[] => {
    // Whatever piece there is, is a word.
    const pieces = ['a', 'b', ' ', '  ', 'a ', ' b', 'a  ', '  b', ' a', 'b '];
    const split = { type: 'Split', pattern: { String: ' ' }, behavior, invert };
    return tokensOf(words(pieces, { pre_tokenizer: split }), 'a  b') as string[];
  };
  assert.deepEqual(cuts('Removed'), ['a', 'b']);
  assert.deepEqual(cuts('Isolated'), ['a', ' ', ' ', 'b']);
  assert.deepEqual(cuts('Contiguous'), ['a', '  ', 'b']);
  assert.deepEqual(cuts('MergedWithPrevious'), ['a ', ' ', 'b']);
  assert.deepEqual(cuts('MergedWithNext'), ['a', ' ', ' b']);
  assert.deepEqual(cuts('Removed', true), [' ', ' ']);
});

test('a prefix for the first piece alone goes to the piece that the text begins with', () => {
  const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: true };
  const tokenizer = words(['a', 'b', '▁a', '▁b'], {
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'WhitespaceSplit' }, metaspace] },
  });
  assert.deepEqual(tokensOf(tokenizer, 'a b'), ['▁a', 'b']);
  assert.deepEqual(tokensOf(tokenizer, ' a b'), ['a', 'b']);
});

test('a replacement is put as it stands', () => {
  const normalizer = { type: 'Replace', pattern: { Regex: 'b+' }, content: '$&$$' };
  assert.deepEqual(tokensOf(words(['a$&$$c'], { normalizer }), 'abbc'), ['a$&$$c']);
});

test('of two added tokens the longer one is found', () => {
  const added = [
    { id: 1, content: '<x>' },
    { id: 2, content: '<x>y' },
    { id: 3, content: 'y' },
  ].map(token => ({ ...token, special: true }));
  assert.deepEqual(words(['<x>', '<x>y', 'y'], { added_tokens: added }).encode('<x>y<x>y'), [2, 2]);
});

test('a half of a surrogate pair is U+FFFD to every model', () => {
  assert.deepEqual(tokensOf(words(['\uFFFD']), '\ud83e'), ['\uFFFD']);
});

test("a word's last token has a space behind it, but for the last of all", () => {
  const tokenizer = words(['lo', 'w</w>', 'er</w>'], { decoder: { type: 'BPEDecoder', suffix: '</w>' } });
  assert.equal(tokenizer.decode([1, 3, 2]), 'loer w');
});

test('decoders behind one that fuses see one text', () => {
  const strip = { type: 'Strip', content: ' ', start: 2, stop: 1 };
  const decoder = {
    type: 'Sequence',
    decoders: [{ type: 'Fuse' }, strip, { type: 'Replace', pattern: { String: 'ab' }, content: 'c' }],
  };
  const tokenizer = words([' ', 'a', 'b'], { decoder });
  assert.equal(tokenizer.decode([1, 1, 1, 2, 3, 1, 1]), ' c ');
  assert.equal(tokenizer.decode([1, 1]), '');
});

test('Unigram: a character that is no token costs ten more than the worst token', () => {
  const model = {
    type: 'Unigram',
    unk_id: 0,
    vocab: [
      ['?', 0],
      ['a', 5],
      ['ab', -20],
      ['c', -1],
    ],
  };
  const tokenizer = words([], { model });
  assert.deepEqual(tokenizer.encode('ab'), [2]);
  assert.deepEqual(tokenizer.encode('axxc'), [1, 0, 3]);
});

test('spaces that are cleaned up do not depend on how the text comes', () => {
  const parts = [' .', ' ?', ' !', ' ,', " ' ", " n't", " 'm", " 's", " 've", " 're"];
  const whole = (text: string): string => parts.reduce((t, part) => t.split(part).join(part.trim()), text);
  const character = fc.constantFrom(...Array.from(" '.,?!nmtsveroax"), ' ', "'", " n ' t", " ' ve", '  ');
  fc.assert(
    fc.property(fc.array(character, { maxLength: 20 }), pieces => {
      const cleaning = cleanedUp();
      assert.equal(pieces.map(piece => cleaning.push(piece)).join('') + cleaning.end(), whole(pieces.join('')));
    }),
    { seed: 2, numRuns: 2000 },
  );
  const cleaning = cleanedUp();
  assert.deepEqual(
    ['hello', ' w', ' ', '.', 'x'].map(piece => cleaning.push(piece)),
    ['hello', ' ', 'w', '', '.'],
  );
  assert.equal(cleaning.end(), 'x');
});
