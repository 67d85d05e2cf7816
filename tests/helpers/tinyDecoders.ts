// Tiny decoders of every family with random weights, made without a file: the loader's questions are answered with
// numbers drawn by name, of whatever shape the family asks for.

import { Random } from '../../src/tensor/threefry.js';
import { create } from '../../src/tensor/create.js';
import { keep } from '../../src/autograd/scope.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { configFromHF, familyOf } from '../../src/models/families/index.js';
import type { WeightLoader } from '../../src/models/weights.js';
import type { Shape } from '../../src/tensor/shape.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { oracle } from './machines.js';

const common = {
  vocab_size: 12,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
  tie_word_embeddings: false,
};
const { num_key_value_heads: _, ...withoutGroups } = common;

/** A config.json of each family, with what is special about it switched on. */
export const tinyDecoders: Readonly<Record<string, Record<string, unknown>>> = {
  llama: { ...common, model_type: 'llama', attention_bias: true, mlp_bias: true },
  mistral: { ...common, model_type: 'mistral', sliding_window: 3 },
  qwen2: { ...common, model_type: 'qwen2' },
  qwen3: { ...common, model_type: 'qwen3', head_dim: 6 },
  gemma2: {
    ...common,
    model_type: 'gemma2',
    head_dim: 4,
    sliding_window: 3,
    query_pre_attn_scalar: 6,
    attn_logit_softcapping: 2,
    final_logit_softcapping: 3,
  },
  gemma3: { ...common, model_type: 'gemma3_text', head_dim: 4, sliding_window: 3, sliding_window_pattern: 2 },
  phi3: { ...common, model_type: 'phi3', partial_rotary_factor: 0.5 },
  olmo2: { ...common, model_type: 'olmo2' },
  smollm3: { ...common, model_type: 'smollm3', no_rope_layers: [1, 0, 1] },
  granite: {
    ...common,
    model_type: 'granite',
    embedding_multiplier: 3,
    attention_multiplier: 0.3,
    residual_multiplier: 0.4,
    logits_scaling: 2,
  },
  gpt2: { model_type: 'gpt2', vocab_size: 12, n_embd: 8, n_layer: 3, n_head: 2, n_positions: 32 },
  gptNeoX: { ...withoutGroups, model_type: 'gpt_neox', rotary_pct: 0.5 },
  gptNeoXSerial: { ...withoutGroups, model_type: 'gpt_neox', rotary_pct: 1, use_parallel_residual: false },
  opt: {
    model_type: 'opt',
    vocab_size: 12,
    hidden_size: 8,
    ffn_dim: 12,
    num_hidden_layers: 3,
    num_attention_heads: 2,
    max_position_embeddings: 32,
  },
  mamba: {
    model_type: 'mamba',
    vocab_size: 12,
    hidden_size: 6,
    num_hidden_layers: 3,
    state_size: 2,
    conv_kernel: 3,
    time_step_rank: 2,
  },
};

/** The names a family asked its file for, with their shapes. */
export type Asked = Map<string, Shape>;

/** The model of a configuration in f64. */
export async function tinyDecoder(json: Record<string, unknown>, asked: Asked = new Map()): Promise<CausalLM> {
  const config = configFromHF(json, 'config.json');
  const family = familyOf(config);
  const { backend, dtype } = oracle;
  const draw = (name: string, shape: Shape): Tensor => {
    asked.set(name, shape);
    const seed = [...name].reduce((n, letter) => (31 * n + letter.charCodeAt(0)) % 65521, 7);
    const random = new Random(seed, 0);
    const size = shape.reduce((a, b) => a * b, 1);
    const isNorm = /norm|ln_/.test(name) && name.endsWith('weight');
    const data = Float64Array.from(
      { length: size },
      () => (isNorm ? 1 : 0) + (random.next() - 0.5) * (isNorm ? 0.4 : 1),
    );
    return keep(create.from(data, shape, { backend, dtype }));
  };
  const load = (name: string, shape: Shape): Promise<Tensor> => Promise.resolve(draw(name, shape));
  const weights = {
    transposed: family.names.transposed === true,
    file: { format: 'safetensors', name: 'made' },
    has: (name: string) => !config.tiedHead || !name.startsWith(family.names.head ?? 'lm_head'),
    load,
    loadTransposed: load,
    loadTogether: (parts: readonly { name: string; rows: number }[], columns: number) =>
      Promise.all(parts.map(({ name, rows }) => load(name, [rows, columns]))),
    checkSame: () => Promise.resolve(),
    checkAllRead: () => undefined,
  } as unknown as WeightLoader;
  const make = family.tasks.causalLM;
  if (!make) throw new Error(`${family.name} has no causal language model`);
  return (await make({ config, weights, name: family.name })) as CausalLM;
}
