// Rows, examples and batches: what each form of a row becomes, what a bad one gets, and that batches are padded and
// drawn as said.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import fc from 'fast-check';
import { batches, collate, parseRowBytes, parseRows, promptIds, readRows, tokenizeRow } from '../src/data/index.js';
import type { Row } from '../src/data/index.js';
import { FormatError } from '../src/io/errors.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';

const tokenizer = await tokenizerFromFolder(fileURLToPath(new URL('fixtures/tokenizer/bpe', import.meta.url)));
const end = tokenizer.eosTokenId!;
const row = (value: unknown): Row => parseRows(JSON.stringify(value), 'rows.jsonl')[0]!;
const textOf = (ids: ArrayLike<number>): string => tokenizer.decode(ids);

test('prompt and completion are verbatim, tokenised apart, with a labelled end token', () => {
  const example = tokenizeRow(row({ prompt: 'the ti', completion: 'de is low' }), tokenizer);
  const prompt = tokenizer.encode('the ti');
  const answer = [...tokenizer.encode('de is low'), end];
  assert.deepEqual([...example.ids], [...prompt, ...answer]);
  assert.equal(example.promptLength, prompt.length);
  assert.deepEqual([...example.labels], [...prompt.map(() => -100), ...answer]);
  assert.deepEqual([example.truncated, example.where], [0, 'rows.jsonl:1']);
});

test('messages go through the chat template, labelled from the last assistant turn on', () => {
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'hi' },
    { role: 'assistant', content: 'hello' },
    { role: 'user', content: 'tide?' },
    { role: 'assistant', content: 'low' },
  ];
  const example = tokenizeRow(row({ messages }), tokenizer);
  const prompt = tokenizer.applyChatTemplate(messages.slice(0, -1), { addGenerationPrompt: true });
  assert.equal(textOf(example.ids.subarray(0, example.promptLength)), prompt);
  assert.equal(textOf(example.ids.subarray(example.promptLength)), 'low<|im_end|>');
  assert.deepEqual([...example.ids.subarray(0, example.promptLength)], tokenizer.chat(messages.slice(0, -1)).ids);
  assert.ok(
    example.labels.subarray(0, example.promptLength).every(label => label === -100),
    'example.labels.subarray(0, example.promptLength).every(label => lab...',
  );
});

test('an instruction is one user turn, with its input under it', () => {
  const textWith = (input?: string): string =>
    textOf(tokenizeRow(row({ instruction: 'add', input, output: 'two' }), tokenizer).ids);
  assert.equal(textWith('1 1'), '<|im_start|>user\nadd\n\n1 1<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>');
  assert.equal(textWith(''), textWith(undefined));
  assert.equal(textWith(), '<|im_start|>user\nadd<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>');
});

test('a text is labelled whole and has no prompt', () => {
  const example = tokenizeRow(row({ text: 'the tide' }), tokenizer);
  assert.deepEqual([...example.ids], [...tokenizer.encode('the tide'), end]);
  assert.deepEqual(example.labels, example.ids);
  assert.equal(example.promptLength, 0);
});

test('maxLength cuts the prompt from the left and never the completion', () => {
  const whole = tokenizeRow(row({ prompt: 'the lighthouse keeper', completion: ' waits' }), tokenizer);
  const answerLength = whole.ids.length - whole.promptLength;
  const cut = tokenizeRow(row({ prompt: 'the lighthouse keeper', completion: ' waits' }), tokenizer, {
    maxLength: answerLength + 2,
  });
  assert.deepEqual([...cut.ids], [...whole.ids.slice(whole.promptLength - 2)]);
  assert.deepEqual([cut.promptLength, cut.truncated], [2, whole.promptLength - 2]);
  assert.throws(
    () => tokenizeRow(row({ prompt: 'a', completion: 'b c d' }), tokenizer, { maxLength: 4 }),
    /rows\.jsonl:1: the completion has \d+ tokens/,
  );
  assert.equal(tokenizeRow(row({ text: 'the tide is low' }), tokenizer, { maxLength: 3 }).ids.length, 3);
  assert.throws(() => tokenizeRow(row({ text: 'a' }), tokenizer, { maxLength: 1 }), RangeError);
});

test('a prompt has the same ids in training and in generation', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), fc.string({ minLength: 1 }), (prompt, completion) => {
      const ids = promptIds({ prompt }, tokenizer);
      const example = tokenizeRow(row({ prompt, completion }), tokenizer);
      assert.deepEqual([...example.ids.subarray(0, example.promptLength)], ids);
      assert.equal(textOf(example.ids.subarray(example.promptLength, -1)), completion);
    }),
    { seed: 5, numRuns: 100 },
  );
});

test('bad rows are one error with file and line', () => {
  const good = '{"prompt":"a","completion":"b"}';
  const bad: [string, RegExp][] = [
    ['{"prompt":"a"', /rows\.jsonl:3: is not JSON/],
    ['["a"]', /rows\.jsonl:3: expected a JSON object/],
    ['{"prompt":"a"}', /rows\.jsonl:3: completion: /],
    ['{"prompt":"a","completion":""}', /rows\.jsonl:3: completion: is empty/],
    ['{"prompt":1,"completion":"b"}', /rows\.jsonl:3: prompt: .*string/],
    ['{"question":"a","answer":"b"}', /rows\.jsonl:3: expected one of .*"messages".*; got the keys question, answer/],
    ['{}', /rows\.jsonl:3: expected one of .*; got no keys/],
    ['{"prompt":"a","completion":"b","text":"c"}', /rows\.jsonl:3: expected one of/],
    [
      '{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}',
      /rows\.jsonl:3: messages: expected the last turn to be the assistant's, got "user"/,
    ],
    [
      '{"messages":[{"role":"assistant","content":"a"}]}',
      /rows\.jsonl:3: messages: expected a turn and the assistant's answer/,
    ],
    [
      '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":" "}]}',
      /rows\.jsonl:3: messages: the last turn is empty/,
    ],
    ['{"messages":[{"role":"user"},{"role":"assistant","content":"a"}]}', /rows\.jsonl:3: messages\.0\.content/],
    ['{"instruction":"a","output":""}', /rows\.jsonl:3: output: is empty/],
    ['{"text":" "}', /rows\.jsonl:3: text: is empty/],
  ];
  for (const [line, message] of bad) {
    assert.throws(
      () => parseRows(`${good}\r\n\n${line}\n`, 'rows.jsonl'),
      error => error instanceof FormatError && message.test(error.message),
      line,
    );
  }
  assert.throws(() => parseRows(' \n\n', 'rows.jsonl'), /FormatError.*rows\.jsonl: has no rows/s);
  assert.throws(
    () => parseRowBytes(Buffer.from(`${good}\n${good}\n{"text":"\xff"}`, 'latin1'), 'rows.jsonl'),
    /FormatError.*rows\.jsonl:3: is not UTF-8/s,
  );
  assert.equal(parseRows(`\uFEFF${good}\n`, 'rows.jsonl').length, 1);
  assert.equal(parseRows('{"prompt":"a","completion":"b","id":7}', 'rows.jsonl')[0]!.kind, 'completion');
});

test('a prompt without tokens is refused', () => {
  assert.throws(
    () => tokenizeRow(row({ prompt: '', completion: 'a' }), tokenizer),
    /rows\.jsonl:1: the prompt has no tokens; use \{"text"\}/,
  );
});

test('rows are read from files', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'rows-'));
  try {
    const path = join(folder, 'rows.jsonl');
    await writeFile(path, '{"text":"é"}\n{"text":"b"}');
    assert.deepEqual(
      (await readRows(path)).map(({ where }) => where),
      [`${path}:1`, `${path}:2`],
    );
    await assert.rejects(readRows(join(folder, 'none.jsonl')), /FormatError.*none\.jsonl: cannot be read/s);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('collate pads to the longest on either side', () => {
  const short = { ids: Int32Array.of(5, 6), labels: Int32Array.of(-100, 6), promptLength: 1 };
  const long = { ids: Int32Array.of(7, 8, 9), labels: Int32Array.of(-100, -100, 9), promptLength: 2 };
  const right = collate([short, long], { padTokenId: 2 });
  assert.deepEqual(right, {
    shape: [2, 3],
    inputIds: Int32Array.of(5, 6, 2, 7, 8, 9),
    attentionMask: Int32Array.of(1, 1, 0, 1, 1, 1),
    labels: Int32Array.of(-100, 6, -100, -100, -100, 9),
    promptLengths: [1, 2],
    starts: [0, 0],
  });
  const left = collate([short, long], { padTokenId: 2, side: 'left' });
  assert.deepEqual([...left.inputIds], [2, 5, 6, 7, 8, 9]);
  assert.deepEqual([...left.attentionMask], [0, 1, 1, 1, 1, 1]);
  assert.deepEqual([...left.labels], [-100, -100, 6, -100, -100, 9]);
  assert.deepEqual(left.starts, [1, 0]);
  assert.throws(() => collate([], { padTokenId: 0 }), /RangeError.*at least one example/s);
});

test('batches visit everything once, the same way for a seed and epoch', () => {
  fc.assert(
    fc.property(fc.nat(60), fc.integer({ min: 1, max: 9 }), fc.maxSafeNat(), fc.nat(1000), (n, size, seed, epoch) => {
      const drawn = batches(n, size, seed, epoch);
      assert.deepEqual(
        drawn.flat().sort((a, b) => a - b),
        Array.from({ length: n }, (_, i) => i),
      );
      assert.ok(
        drawn.every((batch, i) => batch.length === (i < drawn.length - 1 ? size : n - size * (drawn.length - 1))),
        'drawn.every((batch, i) => batch.length === (i < drawn.length - 1 ? ...',
      );
      assert.deepEqual(drawn, batches(n, size, seed, epoch));
    }),
    { seed: 9 },
  );
  const orders = new Set(Array.from({ length: 40 }, (_, i) => batches(20, 20, i % 8, Math.floor(i / 8)).join()));
  assert.equal(orders.size, 40);
  assert.deepEqual(batches(10, 4, 42, 0), batches(10, 4, 42, 0));
  // Every number comes first about equally often.
  const firsts = new Array<number>(5).fill(0);
  for (let seed = 0; seed < 5000; seed++) firsts[batches(5, 1, seed, 0)[0]![0]!]!++;
  assert.ok(
    firsts.every(count => count > 850 && count < 1150),
    firsts.join(),
  );
  assert.throws(() => batches(3, 0, 1, 1), RangeError);
});
