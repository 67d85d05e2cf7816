// Two texts in one sequence, and the types of tokens: what Hugging Face's tokenizers 0.23.3 writes for each kind of
// post-processor (fixtures/tokenizer/pairs.json), and what is refused.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Tokenizer } from '../src/io/tokenizer.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';

type Row = [special: boolean, first: string, second: string | null, ids: number[], tokenTypeIds: number[]];
const { words, processors } = JSON.parse(
  readFileSync(new URL('fixtures/tokenizer/pairs.json', import.meta.url), 'utf8'),
) as { words: string[]; processors: { name: string; post_processor: object | null; rows: Row[] }[] };

function tokenizerWith(post_processor: object | null, config: object = {}): Tokenizer {
  const json = {
    added_tokens: words.slice(1, 4).map((content, i) => ({ id: i + 1, content, special: true })),
    pre_tokenizer: { type: 'WhitespaceSplit' },
    post_processor,
    model: { type: 'WordLevel', unk_token: '?', vocab: Object.fromEntries(words.map((word, id) => [word, id])) },
  };
  return tokenizerFromFiles({ tokenizerJson: JSON.stringify(json), tokenizerConfig: JSON.stringify(config) }, 'T');
}

for (const { name, post_processor, rows } of processors) {
  test(`one text and two, by post-processor ${name}`, () => {
    const tokenizer = tokenizerWith(post_processor);
    for (const [addSpecialTokens, first, second, ids, tokenTypeIds] of rows) {
      const options = { addSpecialTokens };
      const typed =
        second === null ? tokenizer.encodeTyped(first, options) : tokenizer.encodePair(first, second, options);
      assert.deepEqual(typed, { ids, tokenTypeIds }, JSON.stringify([addSpecialTokens, first, second]));
      if (second === null) assert.deepEqual(tokenizer.encode(first, options), ids);
    }
  });
}

const special = (id: string): object => ({ SpecialToken: { id, type_id: 0 } });
const sequence = (id: string): object => ({ Sequence: { id, type_id: 0 } });
const a = sequence('A');

test('settings that name bos and eos write them around each of two texts', () => {
  const config = { bos_token: '[C]', eos_token: '</s>', add_bos_token: true, add_eos_token: true };
  const tokenizer = tokenizerWith({ type: 'TemplateProcessing', single: [a, special('[S]')] }, config);
  assert.deepEqual(tokenizer.encode('a'), [1, 4, 3]);
  const both = { ids: [1, 4, 3, 1, 5, 6, 3], tokenTypeIds: [0, 0, 0, 1, 1, 1, 1] };
  assert.deepEqual(tokenizer.encodePair('a', 'b c'), both);
  // What they leave open is as in the template.
  const front = tokenizerWith(
    { type: 'TemplateProcessing', single: [a, special('[S]')] },
    { ...config, add_eos_token: null },
  );
  assert.deepEqual(front.encode('a'), [1, 4, 2]);
  assert.deepEqual(front.encodePair('a', 'b'), { ids: [1, 4, 2, 1, 5, 2], tokenTypeIds: [0, 0, 0, 1, 1, 1] });
});

test('a template without a pair writes two texts one after the other', () => {
  const tokenizer = tokenizerWith({ type: 'TemplateProcessing', single: [special('[C]'), a] });
  assert.deepEqual(tokenizer.encodePair('a', 'b'), { ids: [4, 5], tokenTypeIds: [0, 1] });
});

test('a second text is taken as a first one is', () => {
  const tokenizer = tokenizerWith({ type: 'BertProcessing', sep: ['[S]', 2], cls: ['[C]', 1] });
  assert.deepEqual(tokenizer.encodePair('a', 'b [S]').ids, [1, 4, 2, 5, 2, 2]);
  // As text, a character at a time: none is a word.
  assert.deepEqual(tokenizer.encodePair('a', '[S]', { splitSpecialTokens: true }).ids, [1, 4, 2, 0, 0, 0, 2]);
  assert.throws(() => tokenizer.encodePair('a', 3 as unknown as string), /T: encodePair: expected a text, got 3/);
});

test('templates that are refused', () => {
  const refuse = (post_processor: object, message: RegExp): void => {
    assert.throws(() => tokenizerWith(post_processor), { name: 'FormatError', message });
  };
  const template = (fields: object): object => ({ type: 'TemplateProcessing', single: [a], ...fields });
  refuse(template({ single: [a, a] }), /post_processor: single: expected A, each once, it has A, A/);
  refuse(template({ single: [sequence('B')] }), /single: expected A, each once, it has B/);
  refuse(template({ pair: [a] }), /post_processor: pair: expected A, B, each once, it has A/);
  refuse(template({ pair: [a, sequence('B'), a] }), /pair: expected A, B, each once, it has A, B, A/);
  refuse(template({ pair: [a, sequence('C')] }), /post_processor: TemplateProcessing: pair/);
  refuse(template({ pair: [a, sequence('B'), special('[X]')] }), /post_processor: "\[X\]" is not in the vocabulary/);
  const step = { type: 'BertProcessing', sep: ['[S]', 2], cls: ['[C]', 1] };
  const twice = tokenizerWith({ type: 'Sequence', processors: [step, step] });
  assert.deepEqual(twice.encode('a'), [1, 1, 4, 2, 2]);
  assert.throws(() => twice.encodePair('a', 'b'), /T: encodePair: post_processor: several steps add special tokens/);
});
