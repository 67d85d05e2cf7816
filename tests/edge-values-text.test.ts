// Limits, defaults and borders of what reads and writes text: names that are near, answers in rendered conversations,
// llama2.c vocabularies, JSON that keeps its numbers. The right values are stated, not taken from the code.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { findAnswer, type AnswerTemplate } from '../src/io/chatAnswer.js';
import type { ChatMessage } from '../src/io/chatMessages.js';
import { FormatError } from '../src/io/errors.js';
import { tokenizerOf } from '../src/io/autoTokenizer.js';
import { nearNames } from '../src/io/nearNames.js';
import { JsonFloat, parseJson } from '../src/io/orderedJson.js';
import { decodeUtf8, findFraction, parseJsonObject } from '../src/io/strictJson.js';
import type { ResolvedModel } from '../src/io/resolve.js';
import { parseLlama2cVocabulary, tokenizerFromLlama2c } from '../src/io/tokenizerLlama2c.js';
import { checkIds, checkLabels, checkPromptLength, shownValue } from '../src/io/tokenIds.js';
import { checkOptionKeys } from '../src/optionKeys.js';

const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return `${(error as Error).constructor.name}: ${(error as Error).message}`;
  }
  return 'no error';
};

describe('names that are near', () => {
  test('two edits for short names, a quarter of the length for long ones', () => {
    assert.deepEqual(nearNames('abcdefgh', ['abcdefXY', 'abcdeXYZ', 'abcdefg', 'abcdefghij', 'abcdefghijk']), [
      'abcdefg',
      'abcdefXY',
      'abcdefghij',
    ]);
    assert.deepEqual(nearNames('abcdefghijkl', ['abcdefghiXYZ', 'abcdefghWXYZ']), ['abcdefghiXYZ']);
    assert.deepEqual(nearNames('abc', ['xyc', 'xyz']), ['xyc']);
    assert.deepEqual(nearNames('', ['a', 'ab', 'abc']), ['a', 'ab']);
    // Never more than fifty edits.
    const long = 'x'.repeat(400);
    assert.deepEqual(nearNames(long, ['x'.repeat(350), 'x'.repeat(349)]).length, 2, 'ends of each other are near');
    assert.deepEqual(nearNames(long, [`${'x'.repeat(350)}${'y'.repeat(50)}`]).length, 1);
    assert.deepEqual(nearNames(long, [`${'x'.repeat(349)}${'y'.repeat(51)}`]), []);
  });

  test('insertions, deletions and replacements count one each', () => {
    assert.deepEqual(nearNames('kitten', ['sitting', 'sittin', 'kiten', 'kiitten']), ['kiitten', 'kiten', 'sittin']);
    assert.deepEqual(nearNames('abcd', ['badc', 'abdc', 'bcda']), ['abdc', 'bcda']);
    // A shift is two edits, however far.
    assert.deepEqual(nearNames('xabcdef', ['abcdefy']), ['abcdefy']);
    assert.deepEqual(nearNames('abcdefy', ['xabcdef']), ['xabcdef']);
  });

  test('an end of the other is nearer than one edit, from three letters on', () => {
    assert.deepEqual(nearNames('weight', ['eight!', 'model.layers.0.weight', 'weigh', 'ght']), [
      'ght',
      'model.layers.0.weight',
      'weigh',
    ]);
    assert.deepEqual(nearNames('ab', ['xxxxxab']), []);
    assert.deepEqual(nearNames('xxxxxab', ['ab']), []);
    assert.deepEqual(nearNames('abc', ['xxxxxabc']), ['xxxxxabc']);
    assert.deepEqual(nearNames('abc', ['abcxxxxx']), []);
    assert.deepEqual(nearNames('abc', ['bc', `${'x'.repeat(497)}abc`, `${'x'.repeat(498)}abc`]), [
      `${'x'.repeat(497)}abc`,
      'bc',
    ]);
  });

  test('nearest first, then by name, three unless told otherwise', () => {
    assert.deepEqual(nearNames('aaaa', ['aaad', 'aaac', 'aaab', 'aaaa', 'aaae']), ['aaaa', 'aaab', 'aaac']);
    assert.deepEqual(nearNames('aaaa', ['aaad', 'aaac', 'aaab'], 1), ['aaab']);
  });

  test('an option that is not known is refused with the one that is near', () => {
    const known = { alpha: true, beta: true } as const;
    assert.equal(
      messageOf(() => checkOptionKeys('f', {}, known)),
      'no error',
    );
    assert.equal(
      messageOf(() => checkOptionKeys('f', { alpa: 1 }, known)),
      'RangeError: f: there is no option "alpa"; did you mean alpha?',
    );
    assert.equal(
      messageOf(() => checkOptionKeys('f', { zzzzzz: 1 }, known)),
      'RangeError: f: there is no option "zzzzzz"',
    );
    for (const [given, shown] of [
      [null, 'null'],
      [[], 'an array'],
      ['a', 'string'],
      [undefined, 'undefined'],
    ] as const)
      assert.equal(
        messageOf(() => checkOptionKeys('f', given, known)),
        `TypeError: f: expected an object of options, got ${shown}`,
      );
    assert.equal(
      messageOf(() => checkOptionKeys('f', { toString: 1 }, known)),
      'RangeError: f: there is no option "toString"',
    );
  });
});

describe('ids and lengths as they come', () => {
  test('each is named with its place', () => {
    assert.equal(
      messageOf(() => checkIds('ids', [0, 4], 5)),
      'no error',
    );
    assert.equal(
      messageOf(() => checkIds('ids', Int32Array.of(0, 2 ** 30))),
      'no error',
    );
    assert.equal(
      messageOf(() => checkIds('ids', [0, 5], 5)),
      'RangeError: ids: token 5 at 1 is outside the vocabulary of 5',
    );
    assert.equal(
      messageOf(() => checkIds('ids', [-1])),
      'RangeError: ids: token -1 at 0 is outside any vocabulary',
    );
    assert.equal(
      messageOf(() => checkIds('ids', [0, 1.5])),
      'RangeError: ids: token 1.5 at 1 is no whole number',
    );
    assert.equal(
      messageOf(() => checkIds('ids', [NaN])),
      'RangeError: ids: token NaN at 0 is no whole number',
    );
    assert.equal(
      messageOf(() => checkIds('ids', [0, '1'])),
      'TypeError: ids: expected token ids, got "1" at 1',
    );
    assert.equal(
      messageOf(() => checkIds('ids', 'abc')),
      'TypeError: ids: expected token ids, an array or an Int32Array, got "abc"',
    );
    assert.equal(
      messageOf(() => checkIds('ids', new DataView(new ArrayBuffer(4)))),
      'TypeError: ids: expected token ids, an array or an Int32Array, got a value of type DataView',
    );
    const holes = new Array<number>(2);
    holes[0] = 1;
    assert.equal(
      messageOf(() => checkIds('ids', holes)),
      'TypeError: ids: expected token ids, got undefined at 1',
    );
  });

  test('labels may be negative, and no more than the vocabulary', () => {
    assert.equal(
      messageOf(() => checkLabels('labels', [-100, -1, 0, 4], 5)),
      'no error',
    );
    assert.equal(
      messageOf(() => checkLabels('labels', [0, 5], 5)),
      'RangeError: labels: label 5 at 1 is outside the vocabulary of 5',
    );
    assert.equal(
      messageOf(() => checkLabels('labels', [0.5])),
      'RangeError: labels: label 0.5 at 0 is no whole number',
    );
    assert.equal(
      messageOf(() => checkLabels('labels', [null])),
      'TypeError: labels: expected labels, got null at 0',
    );
  });

  test('a prompt length from 0 to all tokens', () => {
    for (const length of [0, 1, 3])
      assert.equal(
        messageOf(() => checkPromptLength('p', length, 3)),
        'no error',
      );
    for (const [given, shown] of [
      [-1, '-1'],
      [4, '4'],
      [1.5, '1.5'],
      [NaN, 'NaN'],
      ['1', '"1"'],
      [undefined, 'undefined'],
      [null, 'null'],
      [[1], 'an array'],
      [() => 0, 'a function'],
      [new Map(), 'a value of type Map'],
      [Object.create(null), 'a value of type object'],
    ] as const)
      assert.equal(
        messageOf(() => checkPromptLength('p', given, 3)),
        `RangeError: p: expected a prompt length from 0 to the 3 tokens there are, got ${shown}`,
      );
  });

  test('a long text is cut at forty characters', () => {
    assert.equal(shownValue('x'.repeat(40)), `"${'x'.repeat(40)}"`);
    assert.equal(shownValue('x'.repeat(41)), `"${'x'.repeat(40)}..."`);
  });
});

/** `<role>content<tail>` for each turn. */
function turns({
  tail = '<end>\n',
  opening = '<assistant>',
  special = { '<end>': 7, '<assistant>': 8, '<pad>': 9 },
  stops = [7],
  content = (message: ChatMessage): string => `${message.content as string}${'call' in message ? '{call}' : ''}`,
  tailOf = (_message: ChatMessage): string => tail,
  generated = (_text: string): [number, number][] => [],
}: {
  tail?: string;
  opening?: string;
  special?: Record<string, number>;
  stops?: number[];
  content?: (message: ChatMessage) => string;
  tailOf?: (message: ChatMessage) => string;
  generated?: (text: string) => [number, number][];
} = {}): AnswerTemplate {
  return {
    special: new Map(Object.entries(special)),
    stopTokenIds: stops,
    render(messages, addGenerationPrompt) {
      const text =
        messages.map(message => `<${message.role}>${content(message)}${tailOf(message)}`).join('') +
        (addGenerationPrompt ? opening : '');
      return { text, generated: generated(text) };
    },
  };
}
const user: ChatMessage = { role: 'user', content: 'hi' };
const answer = (content: string, more = {}): ChatMessage => ({ role: 'assistant', content, ...more });

describe('where an answer stands', () => {
  test('from the prompt to the token that ends the turn', () => {
    assert.deepEqual(findAnswer(turns(), [user], answer('ho')), { lead: '', text: 'ho', endTokenId: 7 });
    assert.deepEqual(findAnswer(turns(), [user], answer('a<end>b')), { lead: '', text: 'a<end>b', endTokenId: 7 });
    assert.deepEqual(findAnswer(turns(), [user], answer('ho', { call: 1 })), {
      lead: '',
      text: 'ho{call}',
      endTokenId: 7,
    });
    // A turn before it with the same letters as the answer, or as the marker that stands in for one.
    const same = [user, answer('90817263544536271809'), { role: 'user', content: '90817263544536271809' }];
    assert.deepEqual(findAnswer(turns(), same, answer('ho')), { lead: '', text: 'ho', endTokenId: 7 });
  });

  test('a turn that is left out, or that holds nothing that is written', () => {
    assert.equal(
      messageOf(() => findAnswer(turns({ content: ({ role }) => role }), [user], answer('ho'))),
      "Error: the chat template leaves out what the assistant's last turn says",
    );
    assert.equal(
      messageOf(() => findAnswer(turns(), [user], answer(' '))),
      'no error',
      'white space is written',
    );
    assert.equal(
      messageOf(() => findAnswer(turns(), [user], answer('', { name: 'x', tool_calls: [] }))),
      "Error: the chat template writes nothing for the assistant's last turn (name, tool_calls)",
    );
    assert.deepEqual(findAnswer(turns(), [user], answer('', { call: 1 })), { lead: '', text: '{call}', endTokenId: 7 });
  });

  test('of several tokens behind it the first that generation stops at, or the first of all', () => {
    const special = { '<a>': 3, '<b>': 4, '<bb>': 5, '<assistant>': 8 };
    const of = (tail: string, stops: number[]) => findAnswer(turns({ tail, special, stops }), [user], answer('ho'));
    assert.deepEqual(of('<a><b>', [4]), { lead: '', text: 'ho<a>', endTokenId: 4 });
    assert.deepEqual(of('<a><b>', [3, 4]), { lead: '', text: 'ho', endTokenId: 3 });
    assert.deepEqual(of('<a><b>', [99]), { lead: '', text: 'ho', endTokenId: 3 });
    assert.deepEqual(of(' .<b>', []), { lead: '', text: 'ho .', endTokenId: 4 });
    assert.deepEqual(of('\n', []), { lead: '', text: 'ho', endTokenId: undefined });
    assert.deepEqual(of('', [3]), { lead: '', text: 'ho', endTokenId: undefined });
    // The longer of two tokens that begin alike.
    const long = { '<b': 4, '<b>': 5 };
    assert.deepEqual(findAnswer(turns({ tail: '<b>', special: long, stops: [] }), [user], answer('ho')), {
      lead: '',
      text: 'ho',
      endTokenId: 5,
    });
  });

  test('another end than behind a text', () => {
    const of = (end: string, stops = [7]) =>
      findAnswer(
        turns({
          special: { '<end>': 7, '<call>': 6, '<x>': 5 },
          stops,
          tailOf: message => ('call' in message ? end : '<end>\n'),
        }),
        [user],
        answer('', { call: 1 }),
      );
    assert.deepEqual(of('<call>'), { lead: '', text: '{call}', endTokenId: 6 });
    assert.deepEqual(of('<call> <end> \n'), { lead: '', text: '{call}<call> ', endTokenId: 7 });
    assert.deepEqual(of('<x><call>', [6]), { lead: '', text: '{call}<x>', endTokenId: 6 });
    assert.deepEqual(of(' \n'), { lead: '', text: '{call}', endTokenId: undefined });
    assert.deepEqual(of('.'), { lead: '', text: '{call}.', endTokenId: undefined });
  });

  test('a prompt that opens the answer in a way of its own', () => {
    // The opening has "<think>", the conversation an empty block.
    const opened = turns({
      opening: '<assistant><think>',
      content: ({ role, content }) =>
        role === 'assistant' ? `<think></think>${content as string}` : (content as string),
    });
    assert.deepEqual(findAnswer(opened, [user], answer('ho')), { lead: '', text: '</think>ho', endTokenId: 7 });
    // Both begin alike, and go on in different ways.
    const other = turns({
      opening: '<assistant><think>\n',
      content: ({ role, content }) =>
        role === 'assistant' ? `<think></think>${content as string}` : (content as string),
    });
    assert.deepEqual(findAnswer(other, [user], answer('ho')), { lead: '', text: '</think>ho', endTokenId: 7 });
    // Nothing in common: the answer is all behind the head.
    const none = turns({ opening: '<bot>' });
    assert.deepEqual(findAnswer(none, [user], answer('ho')), { lead: '', text: 'assistant>ho', endTokenId: 7 });
    // The conversation before the answer is written anew.
    const again: AnswerTemplate = {
      ...turns(),
      render: (messages, add) => ({ text: `${messages.length}|${turns().render(messages, add).text}`, generated: [] }),
    };
    assert.deepEqual(findAnswer(again, [user], answer('ho')), { lead: '', text: 'ho', endTokenId: 7 });
    const wild: AnswerTemplate = {
      ...turns(),
      render: (messages, add) => {
        const last = messages.at(-1)!.content as string;
        return { text: `${last.length}|${turns().render(messages, add).text}`, generated: [] };
      },
    };
    assert.equal(
      messageOf(() => findAnswer(wild, [user], answer('ho!'))),
      'Error: the chat template writes the conversation in another way once it is answered, so that the answer cannot be told from it',
    );
  });

  test('what stands before a generation block is read, not learned', () => {
    const block = (from: number, to: number) =>
      turns({
        generated: () => [
          [0, 2],
          [from, to],
        ],
      });
    const prompt = '<user>hi<end>\n<assistant>'.length;
    assert.deepEqual(findAnswer(block(prompt + 1, prompt + 3), [user], answer('hoho')), {
      lead: 'h',
      text: 'oho',
      endTokenId: 7,
    });
    assert.deepEqual(findAnswer(block(prompt - 3, prompt + 3), [user], answer('hoho')), {
      lead: '',
      text: 'hoho',
      endTokenId: 7,
    });
    // A block that ends where the answer begins, or begins where it ends, is another's.
    for (const [from, to] of [
      [prompt - 3, prompt],
      [prompt + 4, prompt + 9],
    ] as const)
      assert.deepEqual(findAnswer(block(from, to), [user], answer('hoho')), { lead: '', text: 'hoho', endTokenId: 7 });
    assert.deepEqual(findAnswer(block(prompt + 3, prompt + 4), [user], answer('hoho')), {
      lead: 'hoh',
      text: 'o',
      endTokenId: 7,
    });
  });
});

describe('a vocabulary of llama2.c', () => {
  const piece = (score: number, text: string | Uint8Array, length?: number): number[] => {
    const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
    const head = new DataView(new ArrayBuffer(8));
    head.setFloat32(0, score, true);
    head.setInt32(4, length ?? bytes.length, true);
    return [...new Uint8Array(head.buffer), ...bytes];
  };
  const file = (longest: number, ...pieces: number[][]): Uint8Array =>
    Uint8Array.from([longest, 0, 0, 0, ...pieces.flat()]);
  const parse = (bytes: Uint8Array) => parseLlama2cVocabulary(bytes, 'v.bin');

  test('pieces and scores, up to the longest length', () => {
    assert.deepEqual(parse(file(3, piece(-1.5, 'abc'), piece(0, ''), piece(2, '\ufeff'))), {
      pieces: ['abc', '', '\ufeff'],
      scores: [-1.5, 0, 2],
    });
    assert.deepEqual(parse(file(0)), { pieces: [], scores: [] });
    // Bytes that begin within a buffer.
    const inside = Uint8Array.from([9, 9, 9, ...file(1, piece(1, 'a'))]).subarray(3);
    assert.deepEqual(parse(inside), { pieces: ['a'], scores: [1] });
  });

  test('what ends too early or makes no sense is refused', () => {
    const refused = (bytes: Uint8Array, text: string): void =>
      assert.equal(
        messageOf(() => parse(bytes)),
        `FormatError: v.bin: ${text}`,
      );
    refused(new Uint8Array(3), 'expected a llama2.c vocabulary, got 3 bytes');
    const whole = file(3, piece(0, 'abc'));
    for (const cut of [5, 11]) refused(whole.subarray(0, cut), 'ends within the header of piece 0');
    for (const cut of [12, 14])
      refused(whole.subarray(0, cut), 'piece 0: expected a length up to 3 that the file holds, got 3');
    refused(file(2, piece(0, 'ab'), piece(0, 'abc')), 'piece 1: expected a length up to 2 that the file holds, got 3');
    refused(file(2, piece(0, 'ab', -1)), 'piece 0: expected a length up to 2 that the file holds, got -1');
    refused(file(2, piece(NaN, 'ab')), 'piece 0: score is NaN');
    refused(file(2, piece(0, 'a'), piece(0, Uint8Array.of(0xff))), 'piece 1 is not UTF-8');
  });

  const pieces = [
    '<unk>',
    '\n<s>\n',
    '\n</s>\n',
    ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`),
  ];
  const made = (more: readonly [string, number][], own = pieces): ReturnType<typeof tokenizerFromLlama2c> =>
    tokenizerFromLlama2c({
      pieces: [...own, ...more.map(([text]) => text)],
      scores: [...own.map(() => 0), ...more.map(([, score]) => score)],
    });

  test('a model without one beside it says so', async () => {
    const llama2c = { kind: 'llama2c', path: 'm.bin' } as ResolvedModel;
    await assert.rejects(tokenizerOf(llama2c), {
      message: 'm.bin: has no vocabulary beside it (a llama2.c tokenizer .bin)',
    });
  });

  test('a tokenizer needs the special pieces and those of all bytes', () => {
    const fault = (count: number) =>
      `FormatError: llama2.c vocabulary: expected <unk>, BOS, EOS and 256 byte pieces first, got ${count} pieces`;
    assert.equal(
      messageOf(() => made([])),
      'no error',
    );
    assert.equal(
      messageOf(() => made([], pieces.slice(0, 258))),
      fault(258),
    );
    assert.equal(
      messageOf(() => made([], pieces.with(3, 'x'))),
      fault(259),
    );
    assert.equal(
      messageOf(() => made([], pieces.with(258, 'x'))),
      fault(259),
    );
    assert.equal(
      messageOf(() => tokenizerFromLlama2c({ pieces, scores: [0] }, 'v.bin')),
      'FormatError: v.bin: 259 pieces and 1 scores',
    );
  });

  test('BOS and a space in front, bytes where no piece fits, the best neighbours merge', () => {
    const tokenizer = made([
      [' ', -1],
      ['a', -2],
      ['b', -3],
      ['ab', -4],
      [' a', -5],
    ]);
    assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.unkTokenId], [1, 2, 0]);
    assert.deepEqual(tokenizer.encode('ab'), [1, 259, 262]);
    assert.deepEqual(tokenizer.encode('a b'), [1, 263, 259, 261]);
    assert.deepEqual(tokenizer.encode('é'), [1, 259, 0xc3 + 3, 0xa9 + 3]);
    assert.deepEqual(tokenizer.encode('ab', { addSpecialTokens: false }), [259, 262]);
    assert.equal(tokenizer.decode([1, 259, 262, 0xc3 + 3, 0xa9 + 3, 2], { skipSpecialTokens: true }), 'abé');
    assert.equal(tokenizer.decode([0, 1, 2], { skipSpecialTokens: true }), '');
    assert.deepEqual(tokenizer.encode('<s>', { addSpecialTokens: false }), [1]);
  });
});

describe('JSON that keeps what it says', () => {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

  test('order of keys, whole numbers and floats', () => {
    const read = parseJson('{"2":1,"1":{"a":-1.0,"b":[1e2,12345678901234567890,-0,-0.0,1.5,0]},"__proto__":2}');
    assert.ok(read instanceof Map, 'keys that an object would move');
    assert.deepEqual([...read.keys()], ['2', '1', '__proto__']);
    const inner = read.get('1') as { a: unknown; b: unknown[] };
    assert.deepEqual(inner.a, new JsonFloat(-1));
    assert.deepEqual(inner.b, [new JsonFloat(100), 12345678901234567890n, -0, new JsonFloat(-0), 1.5, 0]);
    assert.deepEqual(parseJson(' [ ] '), []);
    assert.deepEqual(parseJson('{ }'), {});
    assert.deepEqual(parseJson('{"b": "\\"\\\\", "a" : null , "c":[true,false]}'), {
      b: '"\\',
      a: null,
      c: [true, false],
    });
    assert.ok(!(parseJson('{"01":1,"-1":2,"a1":3}') instanceof Map), 'keys that an object leaves where they are');
    assert.ok(parseJson('{"0":1}') instanceof Map, 'zero is an index');
    assert.deepEqual(parseJson('9007199254740991'), 9007199254740991);
    assert.deepEqual(parseJson('9007199254740992'), 9007199254740992n);
    assert.deepEqual(parseJson('-9007199254740992'), -9007199254740992n);
    assert.throws(() => parseJson('{"a":1,}'), SyntaxError);
  });

  test('fractions are found under their keys, at their depth alone', () => {
    const find = (text: string, depth = 1) => findFraction(text, ['k', 'l'], depth);
    assert.equal(find('{"k":[1,2]}', 2), undefined);
    assert.deepEqual(find('{"k":[1,2.0]}', 2), { key: 'k', number: '2.0' });
    assert.deepEqual(find('{"m":[1.5],"l":[1e2]}', 2), { key: 'l', number: '1e2' });
    assert.deepEqual(find('{"k":[1E-2]}', 2), { key: 'k', number: '1E-2' });
    assert.deepEqual(find('{"k":[-0]}', 2), { key: 'k', number: '-0' });
    assert.equal(find('{"k":[-1,0,-10]}', 2), undefined);
    assert.equal(find('{"k":[[1.5]]}', 2), undefined, 'deeper');
    assert.equal(find('{"k":1.5}', 1), undefined, 'no list');
    assert.equal(find('{"m":"k","n":[1.5]}', 2), undefined);
    assert.deepEqual(find('{"a\\"b":[1.5],"\\u006b":[2.5]}', 2), { key: 'k', number: '2.5' });
    assert.deepEqual(find('{"a":{"k":[1.5]}}', 3), { key: 'k', number: '1.5' });
    assert.equal(find('{"a":{"k":[1.5]}}', 2), undefined);
  });

  test('one object of UTF-8, no key twice', () => {
    const parse = (text: string | Uint8Array) =>
      parseJsonObject(typeof text === 'string' ? bytes(text) : text, 'f', 'it');
    assert.deepEqual(parse('{"a":{"b":1},"c":{"b":2},"b":3}'), { a: { b: 1 }, c: { b: 2 }, b: 3 });
    assert.deepEqual(parse('{"a":"a","b":["a","a"]}'), { a: 'a', b: ['a', 'a'] });
    for (const [text, message] of [
      ['{"a":1,"a":2}', "it has the key 'a' twice in one object"],
      ['{"a":1,"\\u0061" \n\t\r:2}', "it has the key 'a' twice in one object"],
      ['[{"x":1},{"a\\"":1,"a\\"":2}]', 'it must be a JSON object, it starts with [{"x":1},{"a\\"":1,"a'],
      [`{"${'k'.repeat(99)}":1,"${'k'.repeat(99)}":2}`, `it has the key '${'k'.repeat(80)}' twice in one object`],
      ['{"b":[{"a":1,"c":{"a":1},"a":2}]}', "it has the key 'a' twice in one object"],
      [' null', 'it must be a JSON object, it starts with null'],
      ['"text that is longer than twenty"', 'it must be a JSON object, it starts with "text that is longer'],
    ] as const)
      assert.equal(
        messageOf(() => parse(text)),
        `FormatError: f: ${message}`,
      );
    assert.match(
      messageOf(() => parse('{')),
      /^FormatError: f: it is not valid JSON \(/,
    );
    assert.equal(
      messageOf(() => parse(Uint8Array.of(0xff))),
      'FormatError: f: it is not valid UTF-8',
    );
    assert.equal(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61), 'f', 'it'), '\ufeffa');
    assert.ok(new FormatError('f', 'x') instanceof Error, 'an Error');
  });
});
