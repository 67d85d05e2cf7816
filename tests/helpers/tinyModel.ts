// A random LLaMA of a few thousand numbers, made in memory as a checkpoint and loaded as any other: what tests of edits
// run on.

import type { Backend } from '../../src/backends/backend.js';
import { memorySource } from '../../src/io/byteSource.js';
import { writeSafetensors, type SafetensorsEntry } from '../../src/io/safetensors.js';
import { loadCausalLM, openCheckpoint } from '../../src/models/auto.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { Random } from '../../src/tensor/threefry.js';

export interface TinyModelOptions {
  readonly hidden?: number;
  readonly layers?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly vocabulary?: number;
  readonly maxPositions?: number;
  /** Keys a query sees; makes it a Mistral. */
  readonly slidingWindow?: number;
  readonly seed?: number;
  readonly dtype?: 'f32' | 'f64';
  readonly device?: Backend;
}

export async function tinyModel(options: TinyModelOptions = {}): Promise<CausalLM> {
  const {
    hidden = 16,
    layers = 3,
    heads = 4,
    kvHeads = 2,
    vocabulary = 23,
    maxPositions = 64,
    slidingWindow,
    seed = 1,
    dtype = 'f32',
  } = options;
  const random = new Random(seed);
  const intermediate = 2 * hidden;
  const width = hidden / heads;
  const tensor = (name: string, shape: number[], draw: () => number): SafetensorsEntry => ({
    name,
    dtype: 'F32',
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, draw),
  });
  const matrix = (name: string, rows: number, columns: number): SafetensorsEntry =>
    tensor(`${name}.weight`, [rows, columns], () => random.normal() / Math.sqrt(columns));
  const norm = (name: string): SafetensorsEntry => tensor(`${name}.weight`, [hidden], () => 1 + 0.1 * random.normal());
  const entries = [
    tensor('model.embed_tokens.weight', [vocabulary, hidden], () => random.normal()),
    norm('model.norm'),
    ...Array.from({ length: layers }, (_, i) => `model.layers.${i}`).flatMap(at => [
      norm(`${at}.input_layernorm`),
      norm(`${at}.post_attention_layernorm`),
      matrix(`${at}.self_attn.q_proj`, hidden, hidden),
      matrix(`${at}.self_attn.o_proj`, hidden, hidden),
      matrix(`${at}.self_attn.k_proj`, kvHeads * width, hidden),
      matrix(`${at}.self_attn.v_proj`, kvHeads * width, hidden),
      matrix(`${at}.mlp.gate_proj`, intermediate, hidden),
      matrix(`${at}.mlp.up_proj`, intermediate, hidden),
      matrix(`${at}.mlp.down_proj`, hidden, intermediate),
    ]),
  ];
  const config = {
    model_type: slidingWindow ? 'mistral' : 'llama',
    vocab_size: vocabulary,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: maxPositions,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    ...(slidingWindow ? { sliding_window: slidingWindow } : {}),
  };
  const checkpoint = await openCheckpoint(memorySource(writeSafetensors(entries), 'tiny.safetensors'), config);
  return loadCausalLM(checkpoint, { dtype, ...(options.device ? { device: options.device } : {}) });
}

/** Random ids below `vocabulary`. */
export function tinyIds(length: number, seed: number, vocabulary = 23): Int32Array {
  const random = new Random(seed, 1);
  return Int32Array.from({ length }, () => random.integer(vocabulary));
}
