// config.json: published ones are read, every key is read or known to change nothing, and what is not understood is
// refused by name.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FormatError } from '../src/io/errors.js';
import { configFromLlama2c, specialId } from '../src/models/config.js';
import { configFromHF } from '../src/models/configHF.js';

type Settings = Record<string, unknown>;
const real = JSON.parse(readFileSync(new URL('fixtures/models/realConfigs.json', import.meta.url), 'utf8')) as Record<
  string,
  Settings
>;
const sizes = {
  vocab_size: 100,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  max_position_embeddings: 64,
};
const read = (settings: Settings, model_type = 'llama'): ReturnType<typeof configFromHF> =>
  configFromHF({ model_type, ...sizes, ...settings }, 'config.json');
const refused = (settings: Settings, message: string | RegExp, type = 'llama'): void =>
  assert.throws(
    () => read(settings, type),
    error =>
      error instanceof FormatError &&
      (typeof message === 'string' ? error.message === `config.json: ${message}` : message.test(error.message)),
    `${JSON.stringify(settings)} should be refused with ${String(message)}`,
  );

for (const [name, json] of Object.entries(real)) {
  test(`${name} is read`, () => {
    const config = configFromHF(json, name);
    assert.equal(config.layers, json['num_hidden_layers']);
    assert.equal(config.windows.length, config.layers);
    assert.equal(
      config.windows.every(w => w === (name === 'Mistral-7B-v0.1' ? 4096 : null)),
      true,
      'only the first Mistral has windows',
    );
  });
}

test('what published files say is what is computed', () => {
  const of = (name: string): ReturnType<typeof configFromHF> => configFromHF(real[name], name);
  assert.deepEqual(of('Qwen2.5-7B-Instruct with the YaRN of its card').ropeScaling, {
    rope_type: 'yarn',
    type: 'yarn',
    factor: 4,
    original_max_position_embeddings: 32768,
  });
  assert.deepEqual(of('vicuna-7b-v1.5-16k').ropeScaling, { rope_type: 'linear', type: 'linear', factor: 4 });
  assert.equal(of('SmolLM2-135M-Instruct as transformers 5 saves it').ropeTheta, 100000);
  assert.equal(of('SmolLM2-135M-Instruct').ropeTheta, 100000);
  assert.equal(of('llama-7b-hf (first conversions)').padTokenId, null);
  assert.equal(of('llama-7b-hf (first conversions)').maxPositions, 2048);
  assert.equal(of('Mistral-Nemo-Instruct-2407').headDim, 128);
  assert.deepEqual(of('Llama-3.1-8B-Instruct').eosTokenIds, [128001, 128008, 128009]);
  assert.equal(of('Qwen2.5-0.5B').qkvBias, true);
  assert.equal(of('Qwen2.5-0.5B').outputBias, false);
});

test('a key that nobody knows is refused by name, and its value shown', () => {
  refused(
    { scale_depth: 1.4 },
    '"scale_depth": 1.4: not understood, and may change what the model computes; delete it if not',
  );
  refused(
    { foo: 1, bar: [2] },
    '"foo": 1, "bar": [2]: not understood, and may change what the model computes; delete them if not',
  );
  refused({ use_rope: false }, /"use_rope": false: not understood/);
  read({ scale_depth: null });
  read({ _anything: 3 });
});

test('keys that change the computation are accepted with the value that does not', () => {
  for (const [key, good, bad] of [
    ['partial_rotary_factor', 1, 0.5],
    ['rope_interleaved', false, true],
    ['use_mrope', false, true],
    ['is_encoder_decoder', false, true],
    ['pruned_heads', {}, { 1: [0] }],
    ['residual_multiplier', 1, 0.2],
    ['use_qk_norm', false, true],
  ] as const) {
    read({ [key]: good });
    refused({ [key]: bad }, new RegExp(`"${key}": .*: not understood`));
  }
});

test('weights that are quantised in ways not read are refused, naming the method', () => {
  for (const quant_method of ['gptq', 'awq', 'fp8', 'compressed-tensors', 'bitsandbytes']) {
    refused(
      { quantization_config: { quant_method, bits: 4, load_in_4bit: true } },
      new RegExp(
        `^config.json: quantization_config: quant_method '${quant_method}'.*: weights in this form are not read`,
      ),
    );
  }
  refused(
    { quantization_config: { quant_method: 'bitsandbytes', load_in_4bit: true, load_in_8bit: false } },
    /quant_method 'bitsandbytes' in 4 bits/,
  );
  refused(
    { quantization: { group_size: 64, bits: 4 } },
    /^config.json: quantization: weights in this form are not read/,
  );
  read({ quantization_config: { quant_method: 'bitsandbytes', load_in_8bit: true, llm_int8_threshold: 6 } });
});

test('settings of rotary embeddings are typed errors that name file and field', () => {
  refused(
    { rope_scaling: { type: 'ntk', factor: 2 } },
    "rope scaling 'ntk' is not known; known: default, linear, dynamic, llama3, yarn, longrope",
  );
  refused(
    { rope_scaling: { type: 'linear' } },
    "rope scaling 'linear': factor must be a positive number, got undefined",
  );
  refused(
    { rope_scaling: { type: 'linear', factor: -1 } },
    "rope scaling 'linear': factor must be a positive number, got -1",
  );
  refused(
    { rope_scaling: { type: 'linear', factor: 2, alpha: 3 } },
    /alpha is not understood; it has rope_theta, factor/,
  );
  refused({ rope_scaling: { type: 'default', mrope_section: [1, 2] } }, /mrope_section is not understood/);
  refused(
    { rope_scaling: { rope_type: 'yarn', type: 'linear', factor: 2 } },
    "rope scaling 'yarn': type says 'linear'",
  );
  refused({ rope_parameters: { rope_theta: 0 } }, 'rope_parameters.rope_theta: expected a positive number, got 0');
  refused(
    { rope_parameters: { full_attention: { rope_theta: 1 } } },
    'rope_parameters.full_attention: rotary embeddings that differ by layer are not supported',
  );
  refused(
    { rope_scaling: { type: 'longrope', short_factor: [1], long_factor: [1] } },
    "rope scaling 'longrope': short_factor must be a list of 4 positive numbers, got a list of 1",
  );
});

test('rope_parameters and the older keys mean the same; what stands inside comes first', () => {
  assert.equal(read({ rope_theta: 7 }).ropeTheta, 7);
  assert.equal(read({ rope_theta: 7, rope_parameters: { rope_type: 'default' } }).ropeTheta, 7);
  assert.equal(read({ rope_theta: 7, rope_parameters: { rope_type: 'default', rope_theta: 8 } }).ropeTheta, 8);
  assert.equal(read({}).ropeTheta, 10000);
  assert.deepEqual(read({ rope_parameters: { rope_type: 'linear', factor: 3, rope_theta: 8 } }).ropeScaling, {
    rope_type: 'linear',
    factor: 3,
    rope_theta: 8,
  });
  assert.deepEqual(read({ rope_scaling: { rope_type: 'yarn' }, original_max_position_embeddings: 16 }).ropeScaling, {
    rope_type: 'yarn',
    original_max_position_embeddings: 16,
    factor: 4,
  });
  assert.deepEqual(read({ rope_scaling: { rope_type: 'yarn', factor: 2 } }).ropeScaling, {
    rope_type: 'yarn',
    factor: 2,
    original_max_position_embeddings: 64,
  });
});

test('windows that contradict each other are refused', () => {
  const types = ['full_attention', 'sliding_attention', 'full_attention', 'sliding_attention'];
  refused({ layer_types: types.slice(1), sliding_window: 3 }, 'layer_types: has 3 entries for 4 layers');
  refused({ layer_types: types }, 'layer_types: has sliding_attention, and there is no sliding_window');
  refused(
    { layer_types: types, sliding_window: 3, use_sliding_window: false },
    'use_sliding_window: false, but layers slide',
    'qwen2',
  );
  refused(
    { layer_types: ['full_attention', 'linear_attention', 'full_attention', 'full_attention'] },
    /layer_types.1: Invalid option: expected one of "full_attention"\|"sliding_attention"/,
  );
  refused(
    { sliding_window: 3 },
    'sliding_window: 3, but a llama has no window; layer_types would say which layers have',
  );
  refused(
    { use_sliding_window: true },
    'use_sliding_window: true, but a llama has no window; layer_types would say which layers have',
  );
  refused({ sliding_window: 3, use_sliding_window: false }, 'use_sliding_window: false, but layers slide', 'mistral');
  refused(
    { sliding_window: 3, max_window_layers: 2 },
    'max_window_layers: 2, but all layers of a mistral slide; layer_types would say which do not',
    'mistral',
  );
  refused({ sliding_window: 63 }, /^config.json: sliding_window: 63, but a llama has no window/);
  assert.deepEqual(read({ sliding_window: 64 }).windows, [null, null, null, null]);
  assert.deepEqual(read({ sliding_window: 3, use_sliding_window: false }).windows, [null, null, null, null]);
  assert.deepEqual(read({ layer_types: types, sliding_window: 3 }).windows, [null, 3, null, 3]);
});

test('defaults are those of the family', () => {
  assert.deepEqual(read({ max_position_embeddings: 8192 }, 'mistral').windows, [4096, 4096, 4096, 4096]);
  assert.deepEqual(
    read({ max_position_embeddings: 8192, use_sliding_window: true, num_hidden_layers: 30 }, 'qwen2').windows,
    [...new Array<null>(28).fill(null), 4096, 4096],
  );
  for (const [type, positions] of [
    ['llama', 2048],
    ['qwen2', 32768],
    ['mistral', 131072],
  ] as const)
    assert.equal(read({ max_position_embeddings: undefined }, type).maxPositions, positions);
  assert.equal(read({}).kvHeads, 4);
  assert.equal(read({}).headDim, 8);
  assert.equal(read({ head_dim: 6 }).headDim, 6);
  assert.equal(read({}).tiedHead, false);
  assert.equal(read({}).activation, 'silu');
  assert.equal(read({}).normEps, 1e-6);
});

test('biases are settings of llama, and fixed in qwen2 and mistral', () => {
  const biases = (settings: Settings, type?: string): boolean[] =>
    (({ qkvBias, outputBias, mlpBias }) => [qkvBias, outputBias, mlpBias])(read(settings, type));
  assert.deepEqual(biases({}), [false, false, false]);
  assert.deepEqual(biases({ attention_bias: true }), [true, true, false]);
  assert.deepEqual(biases({ mlp_bias: true }), [false, false, true]);
  assert.deepEqual(biases({}, 'qwen2'), [true, false, false]);
  assert.deepEqual(biases({ attention_bias: true, mlp_bias: false }, 'qwen2'), [true, false, false]);
  assert.deepEqual(biases({ attention_bias: false }, 'mistral'), [false, false, false]);
  refused({ attention_bias: false }, 'attention_bias: false, but a qwen2 always has biases of q, k and v', 'qwen2');
  refused({ attention_bias: true }, 'attention_bias: true, but a mistral never has biases of q, k and v', 'mistral');
  refused({ mlp_bias: true }, 'mlp_bias: true, but a qwen2 never has biases in its feed-forward', 'qwen2');
});

test('special ids that are not in the vocabulary count as absent', () => {
  for (const none of [null, undefined, -1, 100, 4294967295, 4294967295n, 1.5, '1'])
    assert.equal(specialId(none, 100), null, String(none));
  assert.equal(specialId(0, 100), 0);
  assert.equal(specialId(99n, 100), 99);
  const config = read({ pad_token_id: -1, bos_token_id: 100, eos_token_id: [-1, 5, 4294967295] });
  assert.deepEqual([config.padTokenId, config.bosTokenId, config.eosTokenIds], [null, null, [5]]);
  refused({ pad_token_id: 1.5 }, /pad_token_id/);
  refused({ eos_token_id: 'x' }, /eos_token_id/);
});

test('other wrong settings name the field', () => {
  refused({ hidden_act: 'swiglu' }, /^config.json: hidden_act: 'swiglu' is not known; known: silu, swish, gelu/);
  refused({ hidden_act: 'constructor' }, /^config.json: hidden_act: 'constructor' is not known/);
  refused({ num_attention_heads: 5 }, 'the hidden size 32 is not a multiple of 5 attention heads');
  refused({ num_key_value_heads: 3 }, '4 attention heads are not a multiple of 3 key/value heads');
  refused({ head_dim: 7 }, 'head size 7 is odd; rotary embeddings need an even one');
  refused({}, "architecture 'gpt2' is not known; known: llama, qwen2, mistral", 'gpt2');
  assert.throws(() => configFromHF([], 'config.json'), {
    name: 'FormatError',
    message: 'config.json: expected a JSON object',
  });
});

test('a llama2.c header says the sizes, run.c the rest', () => {
  const header = {
    dim: 32,
    hidden_dim: 48,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    vocab_size: 100,
    seq_len: 64,
    tie_word_embeddings: true,
  };
  assert.deepEqual(configFromLlama2c(header, 'x.bin'), {
    modelType: 'llama',
    vocabSize: 100,
    hiddenSize: 32,
    intermediateSize: 48,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headDim: 8,
    normEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: null,
    ropeDivisors: null,
    maxPositions: 64,
    windows: [null, null],
    tiedHead: true,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    activation: 'silu',
    bosTokenId: 1,
    eosTokenIds: [2],
    padTokenId: null,
  });
  assert.throws(() => configFromLlama2c({ ...header, n_heads: 5, n_kv_heads: 5 }, 'x.bin'), {
    message: 'x.bin: the hidden size 32 is not a multiple of 5 attention heads',
  });
});
