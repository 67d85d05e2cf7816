// A small LLaMA that says what it is told: each token has one successor. Embeddings are one-hot, blocks add nothing,
// and the head is the table of successors. It stands in where a test needs a real model's tokenizer but not its
// weights.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memorySource } from '../../src/io/byteSource.js';
import { writeSafetensors, type SafetensorsEntry } from '../../src/io/safetensors.js';
import { loadCausalLM, openCheckpoint } from '../../src/models/auto.js';
import type { CausalLM } from '../../src/models/causalLM.js';

/** Which token follows which; token 0 follows all others. */
export type Successors = Readonly<Record<number, number>>;

interface Sizes {
  readonly vocabulary: number;
  /** At least the vocabulary, a multiple of 8. */
  readonly hidden: number;
  readonly layers: number;
}

function weights({ vocabulary, hidden, layers }: Sizes, successors: Successors, broken?: number): Uint8Array {
  const intermediate = 8;
  const tensor = (
    name: string,
    shape: [number, number] | [number],
    at: (row: number, column: number) => number,
  ): SafetensorsEntry => ({
    name: `${name}.weight`,
    dtype: 'F32',
    shape,
    data: Float32Array.from({ length: shape[0] * (shape[1] ?? 1) }, (_, i) =>
      at(Math.floor(i / (shape[1] ?? 1)), i % (shape[1] ?? 1)),
    ),
  });
  const zeros = (name: string, rows: number, columns: number): SafetensorsEntry =>
    tensor(name, [rows, columns], () => 0);
  const ones = (name: string): SafetensorsEntry => tensor(name, [hidden], () => 1);
  return writeSafetensors([
    tensor('model.embed_tokens', [vocabulary, hidden], (id, column) => (id === broken ? NaN : Number(id === column))),
    ones('model.norm'),
    tensor('lm_head', [vocabulary, hidden], (id, column) => Number((successors[column] ?? 0) === id)),
    ...Array.from({ length: layers }, (_, i) => `model.layers.${i}`).flatMap(block => [
      ones(`${block}.input_layernorm`),
      ones(`${block}.post_attention_layernorm`),
      ...['q_proj', 'k_proj', 'v_proj', 'o_proj'].map(name => zeros(`${block}.self_attn.${name}`, hidden, hidden)),
      zeros(`${block}.mlp.gate_proj`, intermediate, hidden),
      zeros(`${block}.mlp.up_proj`, intermediate, hidden),
      zeros(`${block}.mlp.down_proj`, hidden, intermediate),
    ]),
  ]);
}

function config({ vocabulary, hidden, layers }: Sizes): Record<string, unknown> {
  return {
    model_type: 'llama',
    vocab_size: vocabulary,
    hidden_size: hidden,
    intermediate_size: 8,
    num_hidden_layers: layers,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
  };
}

/**
 * A model in memory. `generation` is the content of its generation_config.json; after the token `broken` all logits are
 * NaN.
 */
export async function sayingModel(
  vocabulary: number,
  successors: Successors,
  extra: { config?: object; generation?: object; broken?: number } = {},
): Promise<CausalLM> {
  const sizes = { vocabulary, hidden: 8 * Math.ceil(vocabulary / 8), layers: 1 };
  const source = memorySource(weights(sizes, successors, extra.broken), 'saying.safetensors');
  return loadCausalLM(await openCheckpoint(source, { ...config(sizes), ...extra.config }, extra.generation), {
    device: 'cpu',
  });
}

/** Gives the folder of a model, which has a config.json, weights that say these successors. */
export async function addSayingWeights(folder: string, successors: Successors): Promise<void> {
  const given = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, number>;
  const sizes = { vocabulary: given['vocab_size'], hidden: given['hidden_size'], layers: given['num_hidden_layers'] };
  await writeFile(join(folder, 'config.json'), JSON.stringify({ ...given, intermediate_size: 8 }));
  await writeFile(join(folder, 'model.safetensors'), weights(sizes, successors));
}
