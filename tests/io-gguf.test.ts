// GGUF and llama2.c checkpoints: values against slow independent decoders and another parser, and one clear error for
// each broken rule.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gguf as parseWithLibrary } from '@huggingface/gguf';
import { memorySource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { openGguf } from '../src/io/gguf.js';
import { openLlama2c } from '../src/io/llama2c.js';
import { bytesOf, ggufBytes, smallGguf } from './helpers/ggufBytes.js';
import type { GgufSpec, GgufTensorSpec } from './helpers/ggufBytes.js';
import { llama2cBytes } from './helpers/llama2cBytes.js';

const open = (bytes: Uint8Array) => openGguf(memorySource(bytes, 'x.gguf'));

async function refused(bytes: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(open(bytes), (error: Error) => {
    assert.ok(error instanceof FormatError, String(error));
    assert.match(error.message, message);
    assert.match(error.message, /^x\.gguf: /);
    return true;
  });
}

/** An f16 by its definition. */
function half(low: number, high: number): number {
  const bits = low | (high << 8);
  const exponent = (bits >> 10) & 31;
  const size = exponent ? (1 + (bits & 1023) / 1024) * 2 ** (exponent - 15) : (bits & 1023) * 2 ** -24;
  return bits & 0x8000 ? -size : size;
}

/** Weight `i` of block-quantised bytes, from the layouts in ggml-common.h. */
function weight(type: number, data: Uint8Array, i: number): number {
  const block = Math.floor(i / 32);
  const j = i % 32;
  const nibble = (at: number): number => (j < 16 ? data[at + j] & 15 : data[at + j - 16] >> 4);
  if (type === 8) {
    const at = block * 34;
    return half(data[at], data[at + 1]) * ((data[at + 2 + j] << 24) >> 24);
  }
  if (type === 2) {
    const at = block * 18;
    return half(data[at], data[at + 1]) * (nibble(at + 2) - 8);
  }
  const at = block * 20;
  return half(data[at], data[at + 1]) * nibble(at + 4) + half(data[at + 2], data[at + 3]);
}

test('names, shapes (outermost first), types and values', async () => {
  const spec = smallGguf();
  const file = await open(ggufBytes(spec));
  assert.equal(file.format, 'gguf');
  assert.deepEqual(
    [...file.tensors.values()].map(({ name, dtype, shape }) => [name, dtype, shape]),
    [
      ['token_embd.weight', 'Q8_0', [3, 32]],
      ['norm', 'F32', [4]],
      ['blk.0.a.weight', 'Q4_1', [2, 64]],
      ['blk.0.b.weight', 'Q4_0', [1, 32]],
      ['half', 'F16', [2, 3]],
    ],
  );
  for (const { name, type, data } of spec.tensors.filter(tensor => [2, 3, 8].includes(tensor.type))) {
    const values = await file.readFloat32(name);
    assert.deepEqual(
      values,
      Float32Array.from(values, (_, i) => weight(type, data, i)),
      name,
    );
    assert.deepEqual(await file.readFloat64(name), Float64Array.from(values), name);
    assert.deepEqual(await file.readBytes(name), data);
    assert.ok(new Set(values).size > 8, 'new Set(values).size > 8');
  }
  assert.deepEqual(await file.readFloat32('norm'), Float32Array.of(1, -2.5, 3, 0.1));
  assert.deepEqual(await file.readFloat32('half'), Float32Array.of(1, -2, 65504, 2 ** -24, -0, Infinity));
});

test('quantised tensors longer than a chunk are whole', async () => {
  const blocks = 2 * Math.ceil((4 * 2 ** 20) / 20) + 3;
  const data = new Uint8Array(blocks * 20);
  for (let block = 0; block < blocks; block++) {
    data.set([0, 0x3c, 0, 0x40, block & 255, (block >> 8) & 255, (block >> 16) & 255], block * 20);
  }
  const tensors = [{ name: 'w', sides: [32, blocks], type: 3, data: new Uint8Array(0) }];
  const header = ggufBytes({ metadata: [], tensors });
  const bytes = new Uint8Array(header.length + Math.ceil(data.length / 32) * 32);
  bytes.set(header);
  bytes.set(data, header.length);
  const values = await (await open(bytes)).readFloat32('w');
  for (let i = 0; i < values.length; i += 997) assert.equal(values[i], weight(3, data, i), `weight ${i}`);
  assert.equal(values[values.length - 1], weight(3, data, values.length - 1));
});

test('metadata has plain values, and equals what @huggingface/gguf finds', async () => {
  const bytes = ggufBytes(smallGguf());
  const file = await open(bytes);
  assert.deepEqual(file.metadata, {
    'general.architecture': 'llama',
    'general.alignment': 32,
    'llama.block_count': 1,
    'llama.rope.freq_base': 10000,
    'test.i8': -5,
    'test.u16': 65535,
    'test.f64': 0.1,
    'test.u64': 2n ** 60n,
    'test.i64': -7,
    'test.flag': true,
    'tokenizer.ggml.tokens': ['<s>', 'Ġhello', 'wörld', '😀', ''],
    'tokenizer.ggml.scores': [0, -1, -2, -3.5, 4],
    'tokenizer.ggml.token_type': [3, 1, 1, 1, -1],
  });
  const fetchBytes: typeof fetch = async (_url, init) => {
    const [begin, end] = /bytes=(\d+)-(\d+)/
      .exec(new Headers(init?.headers).get('range') ?? '')
      ?.slice(1)
      .map(Number) ?? [0, 0];
    return new Response(bytes.slice(begin, end + 1).buffer);
  };
  const other = await parseWithLibrary('https://example.invalid/x.gguf', { fetch: fetchBytes });
  for (const [key, value] of Object.entries(file.metadata)) {
    const found = (other.metadata as Record<string, unknown>)[key];
    assert.deepEqual(typeof value === 'number' && typeof found === 'bigint' ? Number(found) : found, value, key);
  }
  for (const info of other.tensorInfos) {
    const tensor = file.tensors.get(info.name);
    assert.deepEqual([...info.shape].reverse().map(Number), tensor?.shape);
    assert.equal(Number(other.tensorDataOffset + info.offset), tensor?.byteOffset);
  }
});

test('strings keep a leading U+FEFF; keys like __proto__ are keys', async () => {
  const file = await open(
    ggufBytes({
      tensors: [],
      metadata: [
        ['tokens', { type: 'array', of: 'string', value: ['\ufeff', '\ufeffusing a longer piece of text', ''] }],
        ['__proto__', { type: 'string', value: 'x' }],
      ],
    }),
  );
  assert.deepEqual(file.metadata['tokens'], ['\ufeff', '\ufeffusing a longer piece of text', '']);
  assert.ok(Object.hasOwn(file.metadata, '__proto__'), "Object.hasOwn(file.metadata, '__proto__')");
  assert.equal(Object.getPrototypeOf(file.metadata), Object.prototype);
});

test('a header longer than the first piece read, with a vocabulary of real size', async () => {
  const tokens = Array.from({ length: 120_000 }, (_, i) => `token number ${i} of the vocabulary`);
  const prefix = ggufBytes({ tensors: [], metadata: [] });
  const encoded = new TextEncoder();
  const size = tokens.reduce((sum, token) => sum + 8 + token.length, 0);
  const bytes = new Uint8Array(24 + 8 + 6 + 4 + 12 + size);
  const view = new DataView(bytes.buffer);
  bytes.set(prefix.subarray(0, 16));
  view.setBigUint64(16, 1n, true);
  view.setBigUint64(24, 6n, true);
  bytes.set(encoded.encode('tokens'), 32);
  view.setUint32(38, 9, true);
  view.setUint32(42, 8, true);
  view.setBigUint64(46, BigInt(tokens.length), true);
  let at = 54;
  for (const token of tokens) {
    view.setBigUint64(at, BigInt(token.length), true);
    bytes.set(encoded.encode(token), at + 8);
    at += 8 + token.length;
  }
  assert.ok(bytes.length > 4 * 2 ** 20, 'bytes.length > 4 * 2 ** 20');
  assert.deepEqual((await open(bytes)).metadata['tokens'], tokens);
  await refused(bytes.slice(0, -1), /truncated: the header is not complete/);
});

const spec = smallGguf();
const withTensor = (index: number, change: Partial<GgufTensorSpec>): Uint8Array =>
  ggufBytes({ ...spec, tensors: spec.tensors.map((tensor, i) => (i === index ? { ...tensor, ...change } : tensor)) });
const withMetadata = (...metadata: GgufSpec['metadata']): Uint8Array => ggufBytes({ metadata, tensors: [] });

test('broken files are refused with what was expected', async () => {
  const good = ggufBytes(spec);
  for (const length of [0, 3, 10, 23, 30, 200, 500]) await refused(good.slice(0, length), /truncated/);
  // The last tensor is 12 bytes, padded to 32: cutting the padding is harmless, cutting data or adding bytes is not.
  await (await open(good.slice(0, -20))).readFloat32('half');
  await refused(good.slice(0, -21), /truncated: tensor 'half' \[2,3\] F16 takes bytes \d+ to \d+, the file has/);
  await refused(new Uint8Array([...good, 0]), /has \d+ bytes, its tensors end at/);
  await refused(new Uint8Array(64), /expected the four letters GGUF first/);
  await refused(ggufBytes({ ...spec, version: 1 }), /GGUF version 2 or 3, it is version 1/);
  await refused(ggufBytes({ ...spec, version: 0x03000000 }), /it is big-endian/);
  await (await open(ggufBytes({ ...spec, version: 2 }))).close();
  await refused(ggufBytes({ ...spec, tensorCount: 2n ** 60n }), /says it has 1152921504606846976 tensors/);
  await refused(ggufBytes({ ...spec, keyCount: 2n ** 31n }), /says it has 2147483648 metadata keys/);
  await refused(ggufBytes({ ...spec, tensorCount: 4n }), /starts at data byte|is not aligned|its tensors end at/);
  await refused(withTensor(0, { name: 'norm' }), /has the tensor 'norm' twice/);
  await refused(
    withTensor(0, { type: 10 }),
    /tensor 'token_embd.weight' \[3,32\] has the type Q2_K; types that can be read: F32, F16/,
  );
  await refused(withTensor(0, { type: 99 }), /has the type number 99/);
  await refused(withTensor(0, { sides: [48, 2] }), /must be a multiple of the 32 weights of a Q8_0 block/);
  await refused(withTensor(0, { sides: [] }), /must be a multiple of the 32 weights/);
  await refused(withTensor(0, { sides: [32, 3, 1, 1, 1] }), /has 5 dimensions, expected at most 4/);
  await refused(withTensor(0, { sides: [2n ** 40n, 2n ** 40n] }), /more than 2\^53 values/);
  await refused(withTensor(0, { sides: [2n ** 63n] }), /values along side 0/);
  await refused(withTensor(0, { sides: [32, 4] }), /tensor 'norm' starts at data byte 128, expected 160.*overlaps/);
  await refused(withTensor(0, { sides: [32, 1] }), /tensor 'norm' starts at data byte 128, expected 64.*leaves a hole/);
  await refused(withTensor(1, { offset: 129n }), /starts at data byte 129.*is not aligned/);
  await refused(withTensor(1, { offset: 0n }), /overlaps the tensor before it/);
  await refused(withTensor(1, { offset: 2n ** 40n }), /truncated: tensor 'norm'/);
});

test('broken metadata is refused', async () => {
  await refused(
    withMetadata(['a', { type: 'bool', value: true }], ['a', { type: 'bool', value: true }]),
    /has the metadata key 'a' twice/,
  );
  await refused(
    withMetadata(['a', { type: 'array', of: 'u8', value: [], count: 2n ** 40n }]),
    /values in metadata 'a', expected at most/,
  );
  await refused(withMetadata(['a', { type: 'array', of: 'u8', value: [], count: 1000n }]), /truncated/);
  const alignment = (value: number): Uint8Array => withMetadata(['general.alignment', { type: 'u32', value }]);
  for (const value of [0, 3, 2 ** 20]) await refused(alignment(value), /general\.alignment must be a power of two/);
  await refused(
    withMetadata(['general.alignment', { type: 'string', value: '32' }]),
    /general\.alignment must be a power of two/,
  );
  const text = withMetadata(['a', { type: 'string', value: 'xyzw' }]);
  text[text.lastIndexOf(0x78)] = 0xff;
  await refused(text, /metadata 'a' is not valid UTF-8/);
  const flag = withMetadata(['a', { type: 'bool', value: true }]);
  flag[37] = 2;
  await refused(flag, /metadata 'a' is a boolean with the value 2/);
  const type = withMetadata(['a', { type: 'bool', value: true }]);
  type[33] = 77;
  await refused(type, /metadata 'a' has the unknown value type 77/);
});

test('other alignments are followed', async () => {
  const tensors = ['a', 'b'].map(name => ({ name, sides: [3], type: 0, data: bytesOf(Float32Array.of(1, 2, 3)) }));
  const file = await open(
    ggufBytes({ alignment: 8, metadata: [['general.alignment', { type: 'u32', value: 8 }]], tensors }),
  );
  assert.deepEqual(await file.readFloat32('b'), Float32Array.of(1, 2, 3));
  assert.equal((file.tensors.get('b')?.byteOffset ?? 0) - (file.tensors.get('a')?.byteOffset ?? 0), 16);
});

test('llama2.c: each weight is read from its place', async () => {
  const file = await openLlama2c(memorySource(llama2cBytes({ vocabulary: -11 }), 'x.bin'));
  assert.deepEqual(file.metadata, {
    dim: 8,
    hidden_dim: 12,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    vocab_size: 11,
    seq_len: 5,
    tie_word_embeddings: false,
  });
  // First values by hand: embedding 88, norms 16, q 128, k 64, v 64, o 128, norms 16, w1 192, w2 192, w3 192, norm 8,
  // tables 10, head 88.
  const firsts: [string, number, number[]][] = [
    ['model.embed_tokens.weight', 0, [11, 8]],
    ['model.layers.0.input_layernorm.weight', 88, [8]],
    ['model.layers.1.input_layernorm.weight', 96, [8]],
    ['model.layers.1.self_attn.q_proj.weight', 168, [8, 8]],
    ['model.layers.0.self_attn.k_proj.weight', 232, [4, 8]],
    ['model.layers.0.self_attn.v_proj.weight', 296, [4, 8]],
    ['model.layers.0.self_attn.o_proj.weight', 360, [8, 8]],
    ['model.layers.0.post_attention_layernorm.weight', 488, [8]],
    ['model.layers.0.mlp.gate_proj.weight', 504, [12, 8]],
    ['model.layers.1.mlp.down_proj.weight', 792, [8, 12]],
    ['model.layers.0.mlp.up_proj.weight', 888, [12, 8]],
    ['model.norm.weight', 1080, [8]],
    ['lm_head.weight', 1098, [11, 8]],
  ];
  for (const [name, first, shape] of firsts) {
    assert.deepEqual(file.tensors.get(name)?.shape, shape, name);
    assert.equal((await file.readFloat32(name))[0], first / 8, name);
  }
  assert.equal(file.tensors.size, 3 + 2 * 9);
  const tied = await openLlama2c(memorySource(llama2cBytes(), 'x.bin'));
  assert.equal(tied.metadata['tie_word_embeddings'], true);
  assert.equal(tied.tensors.has('lm_head.weight'), false);
});

test('llama2.c: broken files are refused', async () => {
  const change = (field: number, value: number): Uint8Array => {
    const bytes = llama2cBytes();
    new DataView(bytes.buffer).setInt32(field * 4, value, true);
    return bytes;
  };
  const cases: [Uint8Array, RegExp][] = [
    [new Uint8Array(20), /truncated: expected 28 bytes/],
    [llama2cBytes().slice(0, -4), /its header \(dim 8, .*\) asks for \d+/],
    [new Uint8Array([...llama2cBytes(), 0, 0, 0, 0]), /asks for/],
    [change(2, 2 ** 31 - 1), /asks for/],
    [change(1, 0), /hidden_dim must be positive, it is 0/],
    [change(3, 3), /dim 8 must be an even number for each of 3 heads/],
    [change(4, 3), /4 heads must be a multiple of 3/],
    [change(5, -11), /asks for/],
    [change(0, 0x616b3432), /only version 0/],
  ];
  for (const [bytes, message] of cases) {
    await assert.rejects(openLlama2c(memorySource(bytes, 'x.bin')), (error: Error) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});
