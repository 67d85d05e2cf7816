// GGUF files as models: which metadata is taken and which refused, frequencies divided by rope_freqs.weight, and models
// split over several files.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySource, type ByteSource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { openGguf } from '../src/io/gguf.js';
import { loadCausalLM, openCheckpoint } from '../src/models/auto.js';
import { configFromGGUF } from '../src/models/families/index.js';
import type { DecoderConfig } from '../src/models/config.js';
import { ropeFrequencies } from '../src/nn/rope.js';
import { bytesOf, ggufBytes, type GgufSpec, type GgufTensorSpec, type GgufValue } from './helpers/ggufBytes.js';
import { variantConfig, variantEntries, variantIds, variantLogits } from './helpers/variants.js';
import { ropeOf } from './helpers/ropeOf.js';

type Keys = Record<string, GgufValue>;
const u32 = (value: number): GgufValue => ({ type: 'u32', value });
const f32 = (value: number): GgufValue => ({ type: 'f32', value });
const text = (value: string): GgufValue => ({ type: 'string', value });
const flag = (value: boolean): GgufValue => ({ type: 'bool', value });
const none = { name: 'none', sides: [1], type: 0, data: new Uint8Array(4) };

const base = (architecture: string): Keys => ({
  'general.architecture': text(architecture),
  [`${architecture}.vocab_size`]: u32(32),
  [`${architecture}.context_length`]: u32(64),
  [`${architecture}.embedding_length`]: u32(16),
  [`${architecture}.feed_forward_length`]: u32(24),
  [`${architecture}.block_count`]: u32(4),
  [`${architecture}.attention.head_count`]: u32(4),
  [`${architecture}.attention.head_count_kv`]: u32(2),
  [`${architecture}.attention.key_length`]: u32(6),
  [`${architecture}.attention.value_length`]: u32(6),
  [`${architecture}.attention.layer_norm_rms_epsilon`]: f32(1e-5),
});

async function configOf(keys: Keys, tensors: readonly GgufTensorSpec[] = [none]): Promise<DecoderConfig> {
  const metadata = Object.entries({ ...base('llama'), ...keys });
  return configFromGGUF(await openGguf(memorySource(ggufBytes({ metadata, tensors }), 'made.gguf')));
}

const refused = (keys: Keys, message: string): Promise<void> =>
  assert.rejects(
    configOf(keys),
    (error: Error) => error instanceof FormatError && error.message === `made.gguf: ${message}`,
    message,
  );

test('keys of the architecture that are not understood are refused by name', async () => {
  const why = 'not understood, and may change what the model computes';
  await refused({ 'llama.attention.sinks': u32(4) }, `llama.attention.sinks: 4: ${why}`);
  await refused({ 'llama.expert_count': u32(8) }, `llama.expert_count: 8: ${why}`);
  await refused({ 'llama.attention.causal': flag(false) }, `llama.attention.causal: false: ${why}`);
  await refused({ 'llama.logit_scale': f32(0.5) }, `llama.logit_scale: 0.5: ${why}`);
  await refused({ 'general.type': text('adapter') }, "general.type: expected a model, got 'adapter'");
  const length = 'dimensions, with heads of 6, are not supported';
  assert.equal(
    (await configOf({ 'llama.rope.dimension_count': u32(4) })).ropes[0]?.fraction,
    4 / 6,
    'a part of a head',
  );
  await refused(
    { 'llama.rope.dimension_count': u32(8) },
    'llama.rope.dimension_count: 8 dimensions are rotated, and heads have 6',
  );
  await refused({ 'llama.attention.value_length': u32(8) }, `llama.attention.value_length: values of 8 ${length}`);
  await configOf({
    'llama.expert_count': u32(0),
    'llama.attention.causal': flag(true),
    'llama.logit_scale': f32(1),
    'llama.rope.scaling.finetuned': flag(true),
    'general.type': text('model'),
    'qwen2.anything': u32(3),
    'quantize.imatrix.file': text('x'),
  });
});

test('scaling of positions: its type, both names of the factor, what YaRN has beside it', async () => {
  const scaling = async (keys: Keys): Promise<unknown> =>
    ropeOf(await configOf(Object.fromEntries(Object.entries(keys).map(([key, value]) => [`llama.rope.${key}`, value]))))
      .scaling;
  const linear = { rope_type: 'linear', factor: 4 };
  assert.equal(await scaling({}), null);
  assert.deepEqual(await scaling({ scale_linear: f32(4) }), linear);
  assert.deepEqual(await scaling({ 'scaling.factor': f32(4) }), linear);
  assert.deepEqual(await scaling({ 'scaling.factor': f32(4), scale_linear: f32(8) }), linear);
  assert.deepEqual(await scaling({ 'scaling.type': text('linear'), 'scaling.factor': f32(4) }), linear);
  assert.equal(await scaling({ 'scaling.type': text('none'), 'scaling.factor': f32(4) }), null);
  assert.equal(await scaling({ 'scaling.factor': f32(0) }), null);
  assert.equal(await scaling({ 'scaling.factor': f32(1) }), null);
  const yarn = { 'scaling.type': text('yarn'), 'scaling.factor': f32(4) };
  const usual = 1 + 0.1 * Math.log(4);
  assert.deepEqual(await scaling(yarn), {
    rope_type: 'yarn',
    factor: 4,
    original_max_position_embeddings: 64,
    beta_fast: 32,
    beta_slow: 1,
    attention_factor: usual,
  });
  assert.deepEqual(
    await scaling({
      ...yarn,
      'scaling.original_context_length': u32(16),
      'scaling.yarn_beta_fast': f32(8),
      'scaling.yarn_beta_slow': f32(2),
      'scaling.attn_factor': f32(0.5),
    }),
    {
      rope_type: 'yarn',
      factor: 4,
      original_max_position_embeddings: 16,
      beta_fast: 8,
      beta_slow: 2,
      attention_factor: 0.5 * usual,
    },
  );
  await refused(
    { 'llama.rope.scaling.type': text('longrope') },
    "llama.rope.scaling.type: 'longrope' is not supported; supported are none, linear and yarn",
  );
  await refused(
    { 'llama.rope.scaling.attn_factor': f32(2) },
    "llama.rope.scaling.attn_factor: 2 is not supported with scaling of type 'linear'",
  );
  await refused(
    { 'llama.rope.scaling.yarn_ext_factor': f32(0.5) },
    'llama.rope.scaling.yarn_ext_factor: 0.5: not understood, and may change what the model computes',
  );
});

test('special ids, windows and sizes', async () => {
  const config = await configOf({
    'tokenizer.ggml.bos_token_id': u32(3),
    'tokenizer.ggml.eos_token_id': u32(32),
    'tokenizer.ggml.padding_token_id': u32(4294967295),
    'llama.attention.sliding_window': u32(8),
  });
  assert.deepEqual([config.bosTokenId, config.eosTokenIds, config.padTokenId], [3, [], null]);
  assert.deepEqual(config.windows, [8, 8, 8, 8]);
  assert.deepEqual((await configOf({ 'llama.attention.sliding_window': u32(64) })).windows, [null, null, null, null]);
  assert.deepEqual([config.headDim, config.kvHeads, config.layers, config.maxPositions], [6, 2, 4, 64]);
  await refused({ 'llama.attention.head_count': u32(3) }, '3 attention heads are not a multiple of 2 key/value heads');
});

/** A variant's weights under GGUF's names, rows of q and k interleaved as llama.cpp stores them. */
async function ggufTensors(): Promise<GgufTensorSpec[]> {
  const parts: Record<string, string> = {
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
    input_layernorm: 'attn_norm',
    post_attention_layernorm: 'ffn_norm',
  };
  const others: Record<string, string> = {
    'model.embed_tokens.weight': 'token_embd.weight',
    'model.norm.weight': 'output_norm.weight',
    'lm_head.weight': 'output.weight',
  };
  return (await variantEntries(variantConfig('head_dim'))).map(({ name, shape, data }) => {
    const block = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name);
    const values = Float32Array.from(data as Float32Array);
    if (/\.[qk]_proj\./.test(name)) {
      const [rows, columns] = shape;
      for (let row = 0; row < rows; row++) {
        const [head, inside] = [Math.floor(row / 6), row % 6];
        const from = head * 6 + (inside % 2) * 3 + (inside >> 1);
        values.set((data as Float32Array).subarray(from * columns, (from + 1) * columns), row * columns);
      }
    }
    return {
      name: block ? `blk.${block[1]}.${parts[block[2]]}.weight` : others[name],
      sides: [...shape].reverse(),
      type: 0,
      data: bytesOf(values),
    };
  });
}

async function logitsOf(
  source: ByteSource,
  openSibling?: (name: string) => Promise<ByteSource>,
): Promise<Float64Array> {
  const model = await loadCausalLM(await openCheckpoint(source, undefined, undefined, openSibling), { dtype: 'f64' });
  return (await model.forward({ inputIds: variantIds, shape: [1, variantIds.length] }).logits.data()) as Float64Array;
}

function near(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++)
    assert.ok(Math.abs(actual[i] - expected[i]) <= 1e-5, `entry ${i}: ${actual[i]}, expected ${expected[i]}`);
}

const tensors = await ggufTensors();
const file = (extra: readonly GgufTensorSpec[] = [], keys: Keys = {}): Uint8Array =>
  ggufBytes({ metadata: Object.entries({ ...base('llama'), ...keys }), tensors: [...tensors, ...extra] });
const made = (...args: Parameters<typeof file>): ByteSource => memorySource(file(...args), 'made.gguf');

test('rope_freqs.weight divides the frequencies: a GGUF gives what llama3 scaling gives', async () => {
  near(await logitsOf(made()), await variantLogits('head_dim'));
  const [plain, scaled] = [undefined, variantConfig('llama3')['rope_parameters'] as { rope_type: string }].map(
    scaling => ropeFrequencies({ headDim: 6, theta: 10000, ...(scaling ? { scaling } : {}) }).perPosition,
  );
  const divisors = plain.map((x, i) => x / scaled[i]);
  const freqs = (data: Float32Array): GgufTensorSpec => ({
    name: 'rope_freqs.weight',
    sides: [data.length],
    type: 0,
    data: bytesOf(data),
  });
  assert.equal(
    divisors.some(x => x > 1.5),
    true,
    'the scaling changes something',
  );
  near(await logitsOf(made([freqs(divisors)])), await variantLogits('llama3'));
  const linear = { 'llama.rope.scaling.factor': f32(4) };
  near(await logitsOf(made([freqs(Float32Array.of(1, 1, 1))], linear)), await variantLogits('linear'));
  await assert.rejects(logitsOf(made([freqs(Float32Array.of(1, 2))])), {
    name: 'FormatError',
    message: 'made.gguf: rope: expected 3 positive divisors of frequencies, got 2',
  });
  await assert.rejects(logitsOf(made([freqs(Float32Array.of(1, 0, 1))])), /expected 3 positive divisors/);
});

test('weights of a GGUF that nothing reads are refused', async () => {
  for (const name of [
    'blk.0.attn_q_norm.weight',
    'blk.4.attn_q.weight',
    'rope_factors_long.weight',
    'blk.1.attn_k.bias',
  ]) {
    const extra = { name, sides: [6], type: 0, data: new Uint8Array(24) };
    await assert.rejects(logitsOf(made([extra])), {
      name: 'FormatError',
      message: `made.gguf: has weights '${name}' that its configuration has no place for; the configuration is of another model`,
    });
  }
  near(
    await logitsOf(made([{ name: 'blk.0.attn_rot_embd.weight', sides: [3], type: 0, data: new Uint8Array(12) }])),
    await variantLogits('head_dim'),
  );
});

/** The parts of a split model, by their names; `change` may spoil the metadata of one. */
function split(
  cuts: readonly number[],
  change: (keys: Keys, part: number) => void = () => undefined,
): Map<string, Uint8Array> {
  const bounds = [0, ...cuts, tensors.length];
  const count = bounds.length - 1;
  return new Map(
    Array.from({ length: count }, (_, part): [string, Uint8Array] => {
      const keys: Keys = {
        ...(part === 0 ? base('llama') : {}),
        'split.no': { type: 'u16', value: part },
        'split.count': { type: 'u16', value: count },
        'split.tensors.count': { type: 'i32', value: tensors.length },
      };
      change(keys, part);
      const spec: GgufSpec = { metadata: Object.entries(keys), tensors: tensors.slice(bounds[part], bounds[part + 1]) };
      return [`m-0000${part + 1}-of-0000${count}.gguf`, ggufBytes(spec)];
    }),
  );
}

/** Opens a part of `parts`; all that was opened must be closed in the end. */
async function openSplit(parts: ReadonlyMap<string, Uint8Array>, first: string): Promise<Float64Array> {
  let open = 0;
  const source = async (name: string): Promise<ByteSource> => {
    const bytes = parts.get(name.replace(/^.*[/]/, ''));
    if (!bytes) throw new Error('no such file');
    open++;
    const memory = memorySource(bytes, name);
    return {
      ...memory,
      close: async () => {
        open--;
      },
    };
  };
  try {
    return await logitsOf(await source(first), source);
  } finally {
    assert.equal(open, 0, 'files left open');
  }
}

test('a split model is the whole one, wherever it is cut', async () => {
  const expected = await logitsOf(made());
  for (const cuts of [[1], [tensors.length - 1], [5, 6, 20]]) {
    const parts = split(cuts);
    assert.deepEqual(
      await openSplit(parts, `/some/folder/m-00001-of-0000${cuts.length + 1}.gguf`),
      expected,
      String(cuts),
    );
  }
  assert.deepEqual(
    await openSplit(new Map([['m.gguf', file([], { 'split.no': u32(0), 'split.count': u32(1) })]]), 'm.gguf'),
    expected,
  );
});

test('parts that are missing, wrong or misnamed are refused', async () => {
  const first = 'm-00001-of-00003.gguf';
  const bad = (parts: ReadonlyMap<string, Uint8Array>, message: string, name = first): Promise<void> =>
    assert.rejects(openSplit(parts, name), { name: 'FormatError', message: `${name}: ${message}` }, message);
  const parts = split([5, 20]);
  const [one, two, three] = [...parts.values()];
  const second = 'm-00002-of-00003.gguf';
  await bad(parts, `is part 2 of 3 of a split model; open the first one, ${first}`, second);
  await bad(
    new Map([
      [first, one],
      [second, two],
    ]),
    'is part 1 of 3 of a split model, and m-00003-of-00003.gguf cannot be opened (no such file)',
  );
  await bad(
    new Map([
      [first, one],
      [second, three],
      ['m-00003-of-00003.gguf', two],
    ]),
    `is part 1 of 3 of a split model, but ${second} is not its part 2`,
  );
  await bad(
    new Map([['m.gguf', one]]),
    'is part 1 of 3 of a split model; its name must end in -00001-of-00003.gguf, so that the others are found',
    'm.gguf',
  );
  await bad(
    new Map([['m-00001-of-00002.gguf', one]]),
    'is part 1 of 3 of a split model; its name must end in -00001-of-00003.gguf, so that the others are found',
    'm-00001-of-00002.gguf',
  );
  const count =
    (value: number) =>
    (keys: Keys): void => {
      keys['split.tensors.count'] = { type: 'i32', value };
    };
  await bad(split([5, 20], count(99)), `has ${tensors.length} tensors in its 3 parts, expected 99`);
  const other = split([5, 20], (keys, part) => {
    if (part === 1) keys['split.count'] = { type: 'u16', value: 2 };
  });
  await bad(other, `is part 1 of 3 of a split model, but ${second} is not its part 2`);
  const twice = new Map(parts).set(second, split([0, 20]).get(second) as Uint8Array);
  await bad(twice, `its parts have the tensor '${tensors[0].name}' twice`);
  await assert.rejects(logitsOf(memorySource(one, first)), {
    message: `${first}: is part 1 of 3 of a split model, and ${second} cannot be opened (files beside it are not at hand)`,
  });
});
