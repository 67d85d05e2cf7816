// Tokenizers against known ids (made with Hugging Face's tokenizers 0.23 from the fixtures' own tokenizer.json), from
// each source: a Hugging Face folder, GGUF metadata, a llama2.c vocabulary. Chat templates, streaming, and what bad
// files get.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import fc from 'fast-check';
import { FormatError } from '../src/io/errors.js';
import type { Tokenizer } from '../src/io/tokenizer.js';
import { tokenizerFromGGUF } from '../src/io/tokenizerGguf.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import { parseLlama2cVocabulary, tokenizerFromLlama2c } from '../src/io/tokenizerLlama2c.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';
import { TextStreamer } from '../src/io/tokenizerStream.js';

const fixtures = new URL('fixtures/tokenizer/', import.meta.url);
const readJson = (path: string): unknown => JSON.parse(readFileSync(new URL(path, fixtures), 'utf8'));

interface Case {
  text: string;
  ids: number[];
  decoded?: string;
}
const cases = readJson('bpe/cases.json') as Case[];
const tokenizerJson = readFileSync(new URL('bpe/tokenizer.json', fixtures), 'utf8');
const config = readJson('bpe/tokenizer_config.json') as { chat_template: string };
const { learned, cases: pieceCases } = readJson('pieces.json') as { learned: string[]; cases: Case[] };

const fromFolder = (): Promise<Tokenizer> => tokenizerFromFolder(fileURLToPath(new URL('bpe', fixtures)));

/** The fixture's tokenizer.json as the metadata a GGUF file would have. */
function ggufMetadata(): Record<string, unknown> {
  const { model } = JSON.parse(tokenizerJson) as {
    model: { vocab: Record<string, number>; merges: [string, string][] };
  };
  const tokens = Object.entries(model.vocab)
    .sort((a, b) => a[1] - b[1])
    .map(([token]) => token);
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'smollm',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': Int32Array.from(tokens, (_, id) => (id < 3 ? 3 : 1)),
    'tokenizer.ggml.merges': model.merges.map(pair => pair.join(' ')),
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2n,
    'tokenizer.ggml.padding_token_id': 0,
    'tokenizer.ggml.add_bos_token': false,
    'tokenizer.chat_template': config.chat_template,
  };
}

const bytePieces = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
const scores = [...new Array<number>(259).fill(0), ...learned.map((_, i) => -i)];

function piecesMetadata(): Record<string, unknown> {
  return {
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': ['<unk>', '<s>', '</s>', ...bytePieces, ...learned],
    'tokenizer.ggml.scores': Float32Array.from(scores),
    'tokenizer.ggml.token_type': [2, 3, 3, ...bytePieces.map(() => 6), ...learned.map(() => 1)],
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
    'tokenizer.ggml.unknown_token_id': 0,
  };
}

const llama2cPieces = [
  '<unk>',
  '\n<s>\n',
  '\n</s>\n',
  ...bytePieces,
  ...learned.map(piece => piece.replaceAll('▁', ' ')),
];

function checkByteLevel(tokenizer: Tokenizer): void {
  for (const { text, ids } of cases) {
    assert.deepEqual(tokenizer.encode(text), ids, text);
    assert.deepEqual(tokenizer.encodePrompt(text), ids, text);
    assert.equal(tokenizer.decode(ids), text);
  }
  assert.deepEqual(
    [tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId, tokenizer.unkTokenId],
    [1, 2, 0, undefined],
  );
  assert.equal(tokenizer.vocabSize, 330);
  assert.deepEqual(tokenizer.stopTokenIds, [2, 0]);
  assert.equal(tokenizer.decode([1, 2], { skipSpecialTokens: true }), '');
}

test('tokenizer.json gives the known ids', async () => checkByteLevel(await fromFolder()));

test('GGUF metadata of byte-level BPE gives the same ids', () => checkByteLevel(tokenizerFromGGUF(ggufMetadata())));

test('GGUF pre-tokenizers split as their models do', () => {
  const pieces = (pre: string, text: string): string[] => {
    // Merges that would join what a pre-tokenizer keeps apart; llama-bpe takes whole words that are tokens without
    // merges.
    const metadata = ggufMetadata();
    const added = ['12', '123', 'n!', '!?Ċ', "'LL"].filter(
      word => !(metadata['tokenizer.ggml.tokens'] as string[]).includes(word),
    );
    const tokens = [...(metadata['tokenizer.ggml.tokens'] as string[]), ...added];
    const tokenizer = tokenizerFromGGUF({
      ...metadata,
      'tokenizer.ggml.pre': pre,
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': tokens.map((_, id) => (id < 3 ? 3 : 1)),
      'tokenizer.ggml.merges': ['1 2', '12 3', 'n !', ...(metadata['tokenizer.ggml.merges'] as string[])],
    });
    return tokenizer.encode(text).map(id => tokenizer.idToToken(id)!);
  };
  assert.deepEqual(pieces('gpt-2', '1231n!'), ['123', '1', 'n', '!']);
  assert.deepEqual(pieces('smollm', '1231n!'), ['1', '2', '3', '1', 'n', '!']);
  assert.deepEqual(pieces('qwen2', '1231n!'), ['1', '2', '3', '1', 'n', '!']);
  assert.deepEqual(pieces('default', '1231n!'), ['123', '1', 'n', '!']);
  assert.deepEqual(pieces('llama-bpe', "1231n'LL!?\n"), ['123', '1', 'n', "'LL", '!?Ċ']);
  assert.deepEqual(pieces('qwen2', "n'LL!?\n"), ['n', "'", 'L', 'L', '!', '?', 'Ċ']);
  assert.throws(() => pieces('tekken', 'a'), /FormatError.*pre-tokenizer "tekken" is not known; known are smollm/s);
});

test('GGUF: BOS is added where the metadata or the pre-tokenizer says so', () => {
  assert.deepEqual(
    tokenizerFromGGUF({ ...ggufMetadata(), 'tokenizer.ggml.add_bos_token': true })
      .encodePrompt('hi')
      .slice(0, 1),
    [1],
  );
  const { 'tokenizer.ggml.add_bos_token': _, ...silent } = ggufMetadata();
  assert.notEqual(tokenizerFromGGUF(silent).encode('hi')[0], 1);
  assert.equal(tokenizerFromGGUF({ ...silent, 'tokenizer.ggml.pre': 'llama-bpe' }).encode('hi')[0], 1);
});

test('GGUF: EOS added behind a text is no part of a prompt', () => {
  const tokenizer = tokenizerFromGGUF({
    ...ggufMetadata(),
    'tokenizer.ggml.add_bos_token': true,
    'tokenizer.ggml.add_eos_token': true,
  });
  const bare = tokenizer.encode('hi', { addSpecialTokens: false });
  assert.deepEqual(tokenizer.encode('hi'), [1, ...bare, 2]);
  assert.deepEqual(tokenizer.encodePrompt('hi'), [1, ...bare]);
});

test('GGUF: a second token of the same text decodes', () => {
  const metadata = ggufMetadata();
  const tokens = [...(metadata['tokenizer.ggml.tokens'] as string[]), 'a'];
  const tokenizer = tokenizerFromGGUF({
    ...metadata,
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': tokens.map((_, id) => (id < 3 ? 3 : 1)),
  });
  assert.equal(tokenizer.decode([tokens.length - 1]), 'a');
  assert.equal(tokenizer.encode('a')[0], tokens.indexOf('a'));
});

test('GGUF metadata of SentencePiece gives the known ids', () => {
  const tokenizer = tokenizerFromGGUF(piecesMetadata());
  for (const { text, ids, decoded } of pieceCases) {
    assert.deepEqual(tokenizer.encode(text), ids, text);
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), decoded);
  }
  assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.unkTokenId], [1, 2, 0]);
});

test('text that continues another gets no space in front', () => {
  const tokenizer = tokenizerFromGGUF(piecesMetadata());
  const join = (a: string, b: string): string =>
    tokenizer.decode(
      [...tokenizer.encodePrompt(a), ...tokenizer.encode(b, { addSpecialTokens: false, continuation: true })],
      { skipSpecialTokens: true },
    );
  assert.equal(join('the tide', ' is low'), 'the tide is low');
  assert.equal(join('the tide', 's'), 'the tides');
  assert.equal(tokenizer.decode(tokenizer.encode('the'), { skipSpecialTokens: true }), 'the');
});

/** llama2.c's `encode` (run.c), word for word: the oracle for its vocabularies. */
function llama2cEncode(text: string): number[] {
  const ids = new Map(llama2cPieces.map((piece, id) => [piece, id]));
  const tokens = [1];
  if (text !== '') tokens.push(ids.get(' ')!);
  for (const character of text) {
    const id = ids.get(character);
    if (id !== undefined) tokens.push(id);
    else for (const byte of new TextEncoder().encode(character)) tokens.push(byte + 3);
  }
  for (;;) {
    let best = { score: -1e10, at: -1, id: -1 };
    for (let i = 0; i + 1 < tokens.length; i++) {
      const id = ids.get(llama2cPieces[tokens[i]!]! + llama2cPieces[tokens[i + 1]!]!);
      if (id !== undefined && scores[id]! > best.score) best = { score: scores[id]!, at: i, id };
    }
    if (best.at < 0) return tokens;
    tokens.splice(best.at, 2, best.id);
  }
}

test('a llama2.c vocabulary encodes as llama2.c does', () => {
  const tokenizer = tokenizerFromLlama2c({ pieces: llama2cPieces, scores });
  const word = fc.constantFrom(
    ' ',
    '  ',
    'the',
    ' keeper',
    'hello',
    'lighthouse',
    'é',
    '日本',
    '🤖',
    '\n',
    'tide',
    '1989',
    'x',
  );
  fc.assert(
    fc.property(
      fc.array(word, { maxLength: 12 }).map(words => words.join('')),
      text => {
        assert.deepEqual(tokenizer.encode(text), llama2cEncode(text));
        assert.equal(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: true }), text);
      },
    ),
    { seed: 7, numRuns: 200 },
  );
});

function llama2cFile(): Uint8Array {
  const parts: Buffer[] = [Buffer.from(Int32Array.of(24).buffer)];
  llama2cPieces.forEach((piece, id) => {
    const bytes = Buffer.from(piece);
    const head = Buffer.alloc(8);
    head.writeFloatLE(scores[id]!, 0);
    head.writeInt32LE(bytes.length, 4);
    parts.push(head, bytes);
  });
  return Buffer.concat(parts);
}

test('llama2.c vocabulary files are read, bad ones refused', () => {
  const file = llama2cFile();
  assert.deepEqual(parseLlama2cVocabulary(file, 'tok.bin'), { pieces: llama2cPieces, scores });
  assert.throws(
    () => parseLlama2cVocabulary(file.subarray(0, file.length - 1), 'tok.bin'),
    /FormatError.*tok\.bin: piece \d+: expected a length/s,
  );
  assert.throws(() => parseLlama2cVocabulary(file.subarray(0, 9), 'tok.bin'), /ends within the header of piece 0/);
  assert.throws(() => parseLlama2cVocabulary(new Uint8Array(2), 'tok.bin'), FormatError);
  assert.throws(
    () => tokenizerFromLlama2c({ pieces: ['a'], scores: [0] }, 'tok.bin'),
    /tok\.bin: expected <unk>, BOS, EOS and 256 byte pieces/,
  );
});

test('decode refuses ids outside the vocabulary and takes none', async () => {
  const tokenizer = await fromFolder();
  assert.throws(() => tokenizer.decode([5, 330]), /RangeError.*id 330 is not in the vocabulary \(0 to 329\)/s);
  assert.throws(() => tokenizer.decode([-1]), RangeError);
  assert.throws(() => tokenizer.decode([1.5]), RangeError);
  assert.equal(tokenizer.decode([]), '');
});

test('streaming gives the whole text in whole characters', async () => {
  for (const tokenizer of [await fromFolder(), tokenizerFromGGUF(piecesMetadata())]) {
    const id = fc.integer({ min: 0, max: tokenizer.vocabSize - 1 });
    fc.assert(
      fc.property(fc.array(id, { maxLength: 30 }), ids => {
        const streamer = new TextStreamer(tokenizer);
        const pieces = [...ids.map(next => streamer.push(next)), streamer.end()];
        assert.equal(pieces.join(''), tokenizer.decode(ids, { skipSpecialTokens: true }));
      }),
      { seed: 11, numRuns: 300 },
    );
    const streamer = new TextStreamer(tokenizer);
    const shown = tokenizer.encode('café 🤖 now').map(next => streamer.push(next));
    assert.equal(shown.join(''), 'café 🤖 now');
    assert.ok(
      shown.every(piece => !piece.includes('\uFFFD')),
      'no character comes in parts',
    );
    assert.equal(streamer.end(), '');
  }
});

test('chat: template, system message, ids without further special tokens', async () => {
  const tokenizer = await fromFolder();
  const { text, ids } = tokenizer.chat('hi', { system: 'Be brief.' });
  assert.equal(
    text,
    '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n',
  );
  assert.deepEqual(ids, tokenizer.encode(text, { addSpecialTokens: false }));
  assert.equal(ids[0], 1);
  assert.deepEqual(tokenizer.chat([{ role: 'user', content: 'hi' }]), tokenizer.chat('hi'));
  assert.deepEqual(tokenizer.chatAnswer([{ role: 'user', content: 'hi' }], ' low tide '), {
    lead: '',
    text: ' low tide ',
    endTokenId: 2,
  });
});

test('chat: a model without a template gets the plain one, with BOS where the tokenizer adds it', () => {
  const tokenizer = tokenizerFromGGUF(piecesMetadata());
  const { text, ids } = tokenizer.chat('hi', { system: 'Be brief.' });
  assert.equal(text, 'System: Be brief.\nUser: hi\nAssistant:');
  assert.equal(ids[0], 1);
  assert.deepEqual(tokenizer.chatAnswer([{ role: 'user', content: 'hi' }], 'yes'), {
    lead: '',
    text: ' yes',
    endTokenId: 2,
  });
});

test('chat templates: functions, Llama-2 white space, failures', () => {
  const withTemplate = (chatTemplate: string): Tokenizer =>
    tokenizerFromFiles({ tokenizerJson, tokenizerConfig: JSON.stringify(config), chatTemplate }, 'T');
  assert.equal(
    withTemplate("{{ messages | tojson }}{{ bos_token }}{{ strftime_now('%Y') | length }}").applyChatTemplate([
      { role: 'user', content: 'é' },
    ]),
    '[{"role": "user", "content": "é"}]<|im_start|>4',
  );
  const llama2 = withTemplate(
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]" +
      "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
  );
  assert.deepEqual(llama2.chatAnswer([{ role: 'user', content: 'hi' }], ' yes '), {
    lead: '',
    text: ' yes ',
    endTokenId: 2,
  });
  assert.throws(
    () => withTemplate("{{ raise_exception('roles must alternate') }}").chat('hi'),
    /T: chat template failed on 1 messages: roles must alternate/,
  );
  assert.throws(() => withTemplate('{% for %}').chat('hi'), /FormatError.*T: chat template cannot be parsed/s);
  const listed = {
    ...config,
    chat_template: [
      { name: 'tool_use', template: 'x' },
      { name: 'default', template: 'y' },
    ],
  };
  assert.equal(tokenizerFromFiles({ tokenizerJson, tokenizerConfig: JSON.stringify(listed) }).chat('hi').text, 'y');
});

test('special tokens come from special_tokens_map.json where the config has none', () => {
  const tokenizer = tokenizerFromFiles({ tokenizerJson, specialTokensMap: '{"eos_token":{"content":"<|im_end|>"}}' });
  assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId], [undefined, 2, 2]);
  const without = tokenizerFromFiles({ tokenizerJson, specialTokensMap: '{"eos_token":"</s>"}' }, 'T');
  assert.equal(without.eosTokenId, undefined);
  assert.throws(
    () => without.requireEos(),
    /^Error: T: has no end-of-sequence token: "<\/s>" is not in the vocabulary$/,
  );
});

test('bad tokenizer files are FormatErrors that name the field', () => {
  const json = JSON.parse(tokenizerJson) as Record<string, unknown> & { model: Record<string, unknown> };
  const load = (change: Record<string, unknown>): unknown =>
    tokenizerFromFiles({ tokenizerJson: JSON.stringify({ ...json, ...change }) }, 'T');
  const bad: [Record<string, unknown>, RegExp][] = [
    [{ model: undefined }, /T: model: /],
    [{ model: { ...json.model, vocab: { a: -1 } } }, /T: model\.vocab\["a"\]: expected an id from 0/],
    [{ model: { ...json.model, merges: ['a b c'] } }, /T: model\.merges\[0\]: expected two tokens, got "a b c"/],
    [
      { model: { ...json.model, merges: ['a \u0100'] } },
      /T: model\.merges\[0\]: expected a pair whose union is in the vocabulary/,
    ],
    [{ model: { type: 'Unigram', vocab: [['a']] } }, /T: model\.vocab: expected \[piece, score\]/],
    [
      { pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'Sideways', invert: false } },
      /: pre_tokenizer: Split: behavior: /,
    ],
    [
      { pre_tokenizer: { type: 'Split', pattern: {}, behavior: 'Isolated', invert: false } },
      /: pre_tokenizer: Split: pattern: /,
    ],
    [
      { pre_tokenizer: { type: 'UnicodeScripts' } },
      /: pre_tokenizer: type "UnicodeScripts" is not supported; supported are Sequence, Split, /,
    ],
    [
      { normalizer: { type: 'Strip', strip_left: true, strip_right: false, strip_middle: true } },
      /: normalizer: Strip: .*strip_middle/,
    ],
    [{ decoder: { type: 'Nope' } }, /T: cannot be used as a tokenizer: decoder: type "Nope" is not supported/],
    [
      { model: { ...json.model, merges: [], continuing_subword_prefix: '##' } },
      /: model\.continuing_subword_prefix: "##" is not supported/,
    ],
    [{ model: { ...json.model, dropout: 0.1 } }, /: model\.dropout: 0\.1 is not supported/],
    [
      { post_processor: { type: 'TemplateProcessing', single: [] } },
      /post_processor: single: expected A, each once, it has no text/,
    ],
    [{ added_tokens: [{ id: 1e9, content: 'x' }] }, /T: added_tokens\.0\.id/],
  ];
  for (const [change, message] of bad)
    assert.throws(
      () => load(change),
      error => error instanceof FormatError && message.test(error.message),
    );
  assert.throws(() => tokenizerFromFiles({ tokenizerJson: '{' }, 'T'), /FormatError.*T: is not JSON/s);
  assert.throws(
    () => tokenizerFromFiles({ tokenizerJson, generationConfig: '{"eos_token_id":"x"}' }, 'T'),
    /T \(generation_config\.json\): eos_token_id/,
  );
});

test('bad GGUF metadata is a FormatError that names the key', () => {
  const bad: [Record<string, unknown>, RegExp][] = [
    [{ 'tokenizer.ggml.model': undefined }, /tokenizer\.ggml\.model: expected a string, got nothing/],
    [{ 'tokenizer.ggml.model': 'rwkv' }, /tokenizer\.ggml\.model: "rwkv" is not supported/],
    [{ 'tokenizer.ggml.tokens': [] }, /tokenizer\.ggml\.tokens: expected a list of strings, got a list of 0/],
    [{ 'tokenizer.ggml.tokens': ['a', 1] }, /tokenizer\.ggml\.tokens: expected a list of strings/],
    [{ 'tokenizer.ggml.token_type': [1] }, /tokenizer\.ggml\.token_type: expected 330 entries, one a token, got 1/],
    [{ 'tokenizer.ggml.merges': ['ab'] }, /tokenizer\.ggml\.merges\[0\]: expected two tokens/],
    [
      { 'tokenizer.ggml.eos_token_id': 'two' },
      /tokenizer\.ggml\.eos_token_id: expected a whole number, got string two/,
    ],
    [{ 'tokenizer.ggml.add_bos_token': 1 }, /tokenizer\.ggml\.add_bos_token: expected true or false/],
  ];
  for (const [change, message] of bad) {
    assert.throws(
      () => tokenizerFromGGUF({ ...ggufMetadata(), ...change }, 'M'),
      error => error instanceof FormatError && message.test(error.message),
    );
  }
  assert.throws(
    () => tokenizerFromGGUF({ ...piecesMetadata(), 'tokenizer.ggml.scores': undefined }),
    /scores: expected a score for each token/,
  );
  assert.throws(
    () =>
      tokenizerFromGGUF({
        ...piecesMetadata(),
        'tokenizer.ggml.tokens': (piecesMetadata()['tokenizer.ggml.tokens'] as string[]).map((piece, id) =>
          id === 300 ? 'x'.repeat(2000) : piece,
        ),
      }),
    /token 300 has 2000 characters/,
  );
});

test('a changed tokenizer.json loads or is a FormatError', () => {
  fc.assert(
    fc.property(
      fc.nat(tokenizerJson.length - 1),
      fc.constantFrom('', '0', '"', '{', '}', '[', 'x', ',', 'null', '-1'),
      fc.integer({ min: 0, max: 12 }),
      (at, put, cut) => {
        try {
          tokenizerFromFiles({ tokenizerJson: tokenizerJson.slice(0, at) + put + tokenizerJson.slice(at + cut) });
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      },
    ),
    { seed: 3, numRuns: 300 },
  );
});
