// SentencePiece's own files: ids and texts of two small models as SentencePiece gives them (fixtures/tokenizer/
// sentencepiece, trained by its Python package 0.2.3), and what is refused.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AutoTokenizer } from '../src/io/autoTokenizer.js';
import { FormatError } from '../src/io/errors.js';
import { fieldsOfMessage } from '../src/io/protobuf.js';
import { tokenizerFromSentencePiece } from '../src/io/tokenizerSentencePiece.js';
import { marianBytes, smallMarian } from './helpers/marianBytes.js';
import { message, type MessageField } from './helpers/protobufBytes.js';

const fixture = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`fixtures/tokenizer/sentencepiece/${name}`, import.meta.url)));
interface Row {
  readonly text: string;
  readonly ids: number[];
  readonly decoded: string;
}

for (const [name, special] of [
  ['unigram', { bos: undefined, eos: 0, pad: 0, unk: 1, size: 83 }],
  ['bytes', { bos: 1, eos: 2, pad: 3, unk: 0, size: 339 }],
] as const) {
  test(`SentencePiece, ${name}: ids and texts are its own`, () => {
    const tokenizer = tokenizerFromSentencePiece(fixture(`${name}.model`), name);
    const { bosTokenId: bos, eosTokenId: eos, padTokenId: pad, unkTokenId: unk, vocabSize: size } = tokenizer;
    assert.deepEqual({ bos, eos, pad, unk, size }, special);
    for (const { text, ids, decoded } of JSON.parse(new TextDecoder().decode(fixture(`${name}.json`))) as Row[]) {
      assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
      // SentencePiece shows what it does not know by a sign of its own.
      assert.equal(tokenizer.decode(ids).replaceAll('<unk>', ' \u2047 '), decoded);
    }
  });
}

test('SentencePiece: the end token is put behind a text where that is asked for, and ends a generation', () => {
  const tokenizer = tokenizerFromSentencePiece(fixture('unigram.model'), 'x', { addEosToken: true });
  assert.deepEqual(tokenizer.encode('night'), [47, 28, 0]);
  assert.deepEqual(tokenizer.encode('night', { addSpecialTokens: false }), [47, 28]);
  assert.deepEqual(tokenizer.stopTokenIds, [0]);
  assert.equal(tokenizer.decode([47, 28, 0], { skipSpecialTokens: true }), 'night');
});

test('a marian model brings its vocabulary, whose texts all end with the end token', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'marian-'));
  try {
    await writeFile(join(folder, 'model.bin'), marianBytes({ items: smallMarian() }));
    await assert.rejects(AutoTokenizer.fromPretrained(folder), /has no vocabulary beside it \(one \.spm file/);
    await writeFile(join(folder, 'vocab.spm'), fixture('unigram.model'));
    const tokenizer = await AutoTokenizer.fromPretrained(folder);
    assert.deepEqual(tokenizer.encode('night night'), [47, 28, 47, 28, 0]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

const piece = (text: string, score = -1, type = 1n): MessageField => [1, message([1, text], [2, score], [3, type])];
const few = [piece('<unk>', 0, 2n), piece('▁a'), piece('b')];

test('SentencePiece: what a file does not say is as SentencePiece has it', () => {
  const tokenizer = tokenizerFromSentencePiece(message(...few), 'x');
  assert.deepEqual(tokenizer.encode(' ab  a '), [1, 2, 1]);
  // bos is 1 and eos is 2 unless they are named.
  assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId], [1, 2]);
  const none = message(...few, [2, message([41, -1n], [42, -1n])]);
  const without = tokenizerFromSentencePiece(none, 'x');
  assert.deepEqual([without.bosTokenId, without.eosTokenId], [undefined, undefined]);
});

test('SentencePiece: each setting that changes ids is followed', () => {
  const ids = (normalizer: Uint8Array, text: string): number[] =>
    tokenizerFromSentencePiece(message(...few, piece('▁'), piece('a'), [3, normalizer]), 'x').encode(text);
  assert.deepEqual(ids(message(), ' a  a'), [1, 1]);
  assert.deepEqual(ids(message([3, 0n]), ' a  a'), [4, 1]);
  assert.deepEqual(ids(message([4, 0n]), 'a  a'), [1, 3, 1]);
});

test('SentencePiece: other models and broken ones are refused by what is wrong', () => {
  const cases: [Uint8Array, RegExp][] = [
    [message(...few, [2, message([3, 2n])]), /^x: trainer_spec.model_type BPE is not supported$/],
    [message(...few, [2, message([3, 9n])]), /trainer_spec.model_type 9 is not supported/],
    [message(...few, [2, message([24, 1n])]), /trainer_spec.treat_whitespace_as_suffix is not supported/],
    [message(...few, [2, message([40, 1n])]), /trainer_spec.unk_id: expected the id of the unknown piece, got 1/],
    [message(...few, [2, message([40, 7n])]), /trainer_spec.unk_id: expected the id of the unknown piece, got 7/],
    [message(...few, [3, message([5, 0n])]), /normalizer_spec.escape_whitespaces: false is not supported/],
    [message(...few, [3, message([2, 'abc'])]), /Precompiled: expected a trie/],
    [message(...few, [5, message([2, 'abc'])]), /denormalizer_spec.precompiled_charsmap is not supported/],
    [message(), /has no pieces/],
    [message(...few, piece('')), /piece 3 is empty/],
    [message(...few, piece('b')), /pieces 2 and 3 are both "b"/],
    [message(...few, piece('c', NaN)), /piece 3: expected a finite score, got NaN/],
    [message(...few, piece('c', -1, 7n)), /piece 3: type 7 is not known/],
    [message(...few, [1, message([1, Uint8Array.of(0xff)])]), /piece 3 is not valid UTF-8/],
    [message(...few, [1, 3n]), /the model: field 1: expected bytes, it is integer/],
    [message(...few, [1, message([2, 1n])]), /piece 3: field 2: expected a float, it is integer/],
    [message(...few, [2, message([40, 'a'])]), /trainer_spec: field 40: expected a whole number, it is bytes/],
    [Uint8Array.of(0x0a, 3, 1), /the model, byte 2: expected 3 bytes, 1 are left/],
    [Uint8Array.of(0x0a, 5, 1), /the model, byte 2: field 1 says it has 5 bytes/],
    [Uint8Array.of(0x08), /the model, byte 1: expected 1 bytes, 0 are left/],
    [Uint8Array.of(0x0b), /the model, byte 1: field 1 is of wire type 3, which is not read/],
    [new Uint8Array(20).fill(0xff), /the model, byte 10: expected a number of at most ten bytes/],
  ];
  for (const [bytes, text] of cases) {
    assert.throws(
      () => tokenizerFromSentencePiece(bytes, 'x'),
      error => error instanceof FormatError && text.test(error.message),
      String(text),
    );
  }
});

test('fields of a message: each wire type', () => {
  const double = new Uint8Array(Float64Array.of(0.1).buffer);
  const bytes = Uint8Array.from([...message([1, -1n], [300, 1n << 62n], [2, 0.5], [3, 'é']), 0x21, ...double]);
  assert.deepEqual(
    [...fieldsOfMessage(bytes, 'x', 'y')].map(({ number, value }) => [number, value]),
    [
      [1, (1n << 64n) - 1n],
      [300, 1n << 62n],
      [2, 0.5],
      [3, Uint8Array.of(0xc3, 0xa9)],
      [4, 0.1],
    ],
  );
});
