// Components of tokenizers, one at a time, at their borders: what `fixtures/tokenizer/parts.json`
// (scripts/tokenizerParts.py) says Hugging Face's tokenizers makes of small texts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import { decoderOf } from '../src/io/tokenizerDecoders.js';
import { checkGrowth } from '../src/io/tokenizerGrowth.js';
import { normalizerOf } from '../src/io/tokenizerNormalizers.js';
import type { Component } from '../src/io/tokenizerParts.js';
import { splitterOf } from '../src/io/tokenizerSplits.js';
import type { Tokenizer } from '../src/io/tokenizer.js';

type Cases<Part, In, Out> = readonly (readonly [part: Part, cases: readonly (readonly [given: In, expected: Out])[]])[];
interface Parts {
  readonly normalizers: Cases<Component, string, string>;
  readonly preTokenizers: Cases<Component, string, string[]>;
  /** null where the library itself breaks. */
  readonly decoders: Cases<Component | null, string[], string | null>;
  /** null where it refuses the text. */
  readonly models: Cases<Component, string, number[] | null>;
  readonly added: Cases<object, string, number[]>;
  readonly addedTokens: object[];
  readonly processors: readonly (readonly [Component, number[]])[];
}
const parts = JSON.parse(readFileSync(new URL('fixtures/tokenizer/parts.json', import.meta.url), 'utf8')) as Parts;

const wordLevel = { type: 'WordLevel', vocab: { '?': 0, a: 1, b: 2 }, unk_token: '?' };
function made(more: object): Tokenizer {
  const json = {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: wordLevel,
    ...more,
  };
  return tokenizerFromFiles({ tokenizerJson: JSON.stringify(json) }, 'T');
}
const shown = (part: unknown, given: unknown): string => `${JSON.stringify(part)} of ${JSON.stringify(given)}`;

describe('components as in the original', () => {
  test('normalizers', () => {
    for (const [part, cases] of parts.normalizers) {
      const normalize = normalizerOf(part);
      for (const [text, expected] of cases) assert.equal(normalize(text), expected, shown(part, text));
    }
  });

  test('pre-tokenizers', () => {
    for (const [part, cases] of parts.preTokenizers) {
      const split = splitterOf(part);
      for (const [text, expected] of cases) {
        const pieces = text === '' ? [] : split({ text, first: true }).map(piece => piece.text);
        assert.deepEqual(pieces, text === '' ? [] : expected, shown(part, text));
      }
    }
  });

  test('decoders, a token at a time', () => {
    for (const [part, cases] of parts.decoders) {
      const start = decoderOf(part);
      for (const [tokens, expected] of cases) {
        if (expected === null) continue;
        const step = start();
        const text = [...tokens.flatMap(token => step.push(token)), ...step.end()].join('');
        assert.equal(text, expected, shown(part, tokens));
      }
    }
  });

  test('models', () => {
    for (const [model, cases] of parts.models) {
      const tokenizer = made({ model });
      for (const [text, expected] of cases) {
        if (expected === null) assert.throws(() => tokenizer.encode(text), Error, shown(model, text));
        else assert.deepEqual([...tokenizer.encode(text)], expected, shown(model, text));
      }
    }
  });

  test('added tokens and what stands around a text', () => {
    for (const [more, cases] of parts.added) {
      const tokenizer = made({ added_tokens: parts.addedTokens, ...more });
      for (const [text, expected] of cases) assert.deepEqual([...tokenizer.encode(text)], expected, shown(more, text));
    }
    for (const [part, expected] of parts.processors)
      assert.deepEqual(
        [...made({ added_tokens: parts.addedTokens, post_processor: part }).encode('a')],
        expected,
        JSON.stringify(part),
      );
  });
});

describe('how long a text may become', () => {
  const put = (length: number): Component => ({
    type: 'Replace',
    pattern: { String: 'a' },
    content: 'x'.repeat(length),
  });
  const refusal = (name: string): RegExp =>
    new RegExp(`^Error: ${name}: could make a text more than 100 times as long as it is$`);

  test('a hundred times, all replacements one after the other', () => {
    assert.doesNotThrow(() => checkGrowth('n', null));
    assert.doesNotThrow(() => checkGrowth('n', put(100)));
    assert.throws(() => checkGrowth('n', put(101)), refusal('n'));
    const both = (a: number, b: number): Component => ({ type: 'Sequence', normalizers: [put(a), put(b)] });
    assert.doesNotThrow(() => checkGrowth('n', both(10, 10)));
    assert.throws(() => checkGrowth('n', both(10, 11)), refusal('n'));
    assert.doesNotThrow(() => checkGrowth('n', both(0, 100)), 'nothing put is no division');
    assert.throws(() => checkGrowth('n', { type: 'Sequence', decoders: [put(10), put(11)] }), refusal('n'));
    assert.throws(() => checkGrowth('n', { type: 'Sequence', pretokenizers: [put(10), put(11)] }), refusal('n'));
    assert.throws(() => checkGrowth('n', { type: 'Metaspace', replacement: 'x'.repeat(101) }), refusal('n'));
    const precompiled = { type: 'Precompiled' };
    assert.doesNotThrow(() => checkGrowth('n', { type: 'Sequence', normalizers: [precompiled, put(5)] }));
    assert.throws(() => checkGrowth('n', { type: 'Sequence', normalizers: [precompiled, put(6)] }), refusal('n'));
  });

  test('in each part of a tokenizer', () => {
    for (const [name, key] of [
      ['normalizer', 'normalizers'],
      ['decoder', 'decoders'],
    ] as const)
      assert.throws(
        () => made({ [name]: { type: 'Sequence', [key]: [put(101)] } }),
        new RegExp(`${name}: could make a text more than 100 times as long as it is`),
      );
    const metaspace = { type: 'Metaspace', replacement: 'x'.repeat(101), prepend_scheme: 'first' };
    assert.throws(() => made({ pre_tokenizer: metaspace }), /pre_tokenizer: could make a text more than 100 times/);
  });
});
