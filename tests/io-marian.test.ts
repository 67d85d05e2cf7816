// marian's binary models: what is read of a small one, its configuration, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { isMarian, openMarian } from '../src/io/marian.js';
import { parseMarianSettings } from '../src/io/marianSettings.js';
import { isFloatDType } from '../src/io/storedDType.js';
import type { TensorFile } from '../src/io/tensorFile.js';
import { llama2cBytes } from './helpers/llama2cBytes.js';
import { floats, intgemm8, marianBytes, marianTypes, settings, smallMarian } from './helpers/marianBytes.js';
import type { MarianItem, MarianSpec } from './helpers/marianBytes.js';

const open = (spec: Partial<MarianSpec> = {}): Promise<TensorFile> =>
  openMarian(memorySource(marianBytes({ items: smallMarian(), ...spec }), 'model.bin'));

test('marian: quantised numbers are divided by their multiplier, and lie as [outputs, inputs]', async () => {
  const file = await open();
  assert.equal(file.format, 'marian');
  assert.deepEqual(
    [...file.tensors.values()].map(({ name, dtype, shape }) => [name, dtype, shape]),
    [
      ['Wemb', 'INTGEMM8', [4, 2]],
      ['encoder_l1_ffn_W1', 'INTGEMM8', [3, 2]],
      ['encoder_l1_ffn_b1', 'F32', [1, 3]],
    ],
  );
  const expected: [string, number[]][] = [
    ['Wemb', [0.25, 0.5, 0.75, 1, 1.25, 1.5, -1.75, 31.75]],
    ['encoder_l1_ffn_W1', [1, 2, 3, 4, 5, -6]],
    ['encoder_l1_ffn_b1', [0.5, -1, 2]],
  ];
  for (const [name, values] of expected) {
    assert.deepEqual([...(await file.readFloat32(name))], values, name);
    assert.deepEqual([...(await file.readFloat64(name))], values, name);
  }
  assert.equal((await file.readBytes('Wemb')).length, 8);
  assert.equal(isFloatDType('INTGEMM8'), true);
  await assert.rejects(file.readInt32('Wemb'), /'Wemb' is INTGEMM8, expected whole numbers/);
});

test('marian: f32 of a quotient that is not exact is the nearest one', async () => {
  const file = await open({ items: [intgemm8('Wemb', [1, 3], [1, 10, 100], Math.fround(153.83)), settings('a: 1')] });
  const multiplier = Math.fround(153.83);
  assert.deepEqual([...(await file.readFloat64('Wemb'))], [1 / multiplier, 10 / multiplier, 100 / multiplier]);
  const single = [1, 10, 100].map(value => Math.fround(value / multiplier));
  assert.deepEqual([...(await file.readFloat32('Wemb'))], single);
});

test('marian: its configuration is the metadata', async () => {
  const { metadata } = await open();
  const expected = { type: 'transformer', 'dim-emb': 2, 'dim-vocabs': [4, 4], 'tied-embeddings-all': true };
  assert.deepEqual(metadata, expected);
});

test('marian: the settings that marian writes', () => {
  const text = [
    'a: true',
    'b: false',
    'c: -1.5e-3',
    'd: ""',
    "e: 'x: y'",
    'f: v1.9.56 94aeaa46 2021-04-28 00:28:35 +0100',
    'g:',
    '  - one',
    '  - 2',
    'h: []',
    'i: [1, two]',
    'j: ../path/x.bin',
    'k-2:',
    '- 3',
    '',
  ].join('\n');
  assert.deepEqual(parseMarianSettings(text, 'x'), {
    a: true,
    b: false,
    c: -0.0015,
    d: '',
    e: 'x: y',
    f: 'v1.9.56 94aeaa46 2021-04-28 00:28:35 +0100',
    g: ['one', 2],
    h: [],
    i: [1, 'two'],
    j: '../path/x.bin',
    'k-2': [3],
  });
  const refused: [string, RegExp][] = [
    ['a: 1\na: 2', /^x: line 2: a is given twice$/],
    ['a:\nb: 1', /^x: a: expected a value, found none$/],
    ['a:', /^x: a: expected a value, found none$/],
    ['- 1', /^x: line 1: expected "key: value" or "- value", got "- 1"$/],
    ['a: 1\n  - 1', /line 2/],
    ['a:\n  b: 1', /^x: a: expected a value/],
    ['a: &b 1', /line 1/],
    ['a: {b: 1}', /line 1/],
    ['a: [[1]]', /line 1/],
    ['a: |', /line 1/],
    ['a: 1 # one', /line 1/],
    ['a:\n  - b: 1', /line 2/],
    ['a: "x\\n"', /line 1/],
    ['a b: 1', /line 1/],
  ];
  for (const [text, message] of refused) {
    assert.throws(() => parseMarianSettings(text, 'x'), { name: 'FormatError', message }, text);
  }
});

test('marian: broken files are refused by what is wrong', async () => {
  const small = smallMarian();
  const changed = (i: number, change: Partial<MarianItem>): MarianItem[] =>
    small.map((item, j) => (i === j ? { ...item, ...change } : item));
  const cases: [Partial<MarianSpec>, RegExp][] = [
    [{ version: 2n }, /is version 2 of marian's format, expected 1/],
    [{ count: 1n << 40n }, /the number of items is 1099511627776, expected at most \d+/],
    [{ count: 5n }, /item 4: the length of its name is \d+/],
    [{ count: 3n }, /item 0: expected a name/],
    [{ padding: 256n }, /the padding of data is 256, expected at most 255/],
    [{ padding: 0n, items: small.slice(2) }, /has \d+ bytes, its items end at \d+/],
    [{ items: changed(0, { dataBytes: 1n << 33n }) }, /item 0: its bytes is 8589934592, expected at most/],
    [{ items: changed(0, { dataBytes: 512n }) }, /item 'Wemb' \[4,2\]: expected 12 or 256 bytes, it has 512/],
    [{ items: changed(0, { shape: [4, 100] }) }, /item 'Wemb' \[4,100\]: expected 404 or 512 bytes, it has 256/],
    [{ items: changed(0, { shape: [4, -2] }) }, /item 'Wemb' \[4,-2\]: a side is -2/],
    [{ items: changed(0, { shape: [8] }) }, /item 'Wemb' \[8\]: expected a matrix/],
    [
      { items: changed(0, { shape: [1, 1, 1, 1, 1, 1, 1, 4, 2] }) },
      /item 0: its number of sides is 9, expected at most 8/,
    ],
    [
      { items: changed(0, { type: 0x4102 }) },
      /item 'Wemb' \[4,2\]: type 0x4102 is not supported; supported are 0x101, /,
    ],
    [{ items: changed(1, { name: 'Wemb' }) }, /has two items 'Wemb'/],
    [{ items: changed(1, { name: 'a\0b' }) }, /item 1: expected a name that ends with its one zero byte/],
    [
      { items: changed(1, { name: 'x'.repeat(1000) }) },
      /item 1: the length of its name is 1001, expected at most 1000/,
    ],
    [{ items: small.slice(0, 3) }, /has no item 'special:model.yml'/],
    [{ items: changed(3, { type: marianTypes.f32 }) }, /special:model.yml: expected type 0x101, it has 0x404/],
    [{ items: [settings('a: {}')] }, /model.bin \(special:model.yml\): line 1/],
    [{ items: [intgemm8('W', [1, 1], [1], 0), settings('a: 1')] }, /expected a positive multiplier .*, got 0/],
    [{ items: [intgemm8('W', [1, 1], [1], NaN), settings('a: 1')] }, /expected a positive multiplier .*, got NaN/],
    [{ items: [intgemm8('W', [1, 1], [1], Infinity), settings('a: 1')] }, /multiplier .*, got Infinity/],
    [
      { items: [{ ...floats('b', [1, 3], [1, 2, 3]), shape: [1, 65] }, settings('a: 1')] },
      /'b' \[1,65\]: expected 260 or 512/,
    ],
  ];
  for (const [spec, message] of cases) {
    await assert.rejects(
      open(spec),
      error => error instanceof FormatError && message.test(error.message),
      `${message}`,
    );
  }
  const whole = marianBytes({ items: small });
  for (const bytes of [whole.subarray(0, -1), whole.subarray(0, 20), Uint8Array.from([...whole, 0])]) {
    await assert.rejects(openMarian(memorySource(bytes, 'model.bin')), FormatError);
  }
});

test('marian: a file is known by its first bytes', async () => {
  const looks = (bytes: Uint8Array): Promise<boolean> => isMarian(memorySource(bytes, 'x.bin'));
  assert.equal(await looks(marianBytes({ items: smallMarian() })), true);
  assert.equal(await looks(llama2cBytes({ dim: 1, heads: 1, kvHeads: 1 })), false);
  assert.equal(await looks(new Uint8Array(10)), false);
  assert.equal(await looks(marianBytes({ items: [], count: 1n << 20n })), false);
});
