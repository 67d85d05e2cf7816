// What a decoder needs to know about itself, from a Hugging Face config.json, GGUF metadata or a llama2.c header. Pure data and checks;
// no weights. Architectures that are not listed here are refused by name.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import type { Llama2cConfig } from '../io/llama2c.js';

export interface RopeScaling {
  readonly rope_type: string;
  readonly [key: string]: unknown;
}

/** Sizes and switches of a LLaMA-like decoder. */
export interface DecoderConfig {
  readonly modelType: 'llama' | 'qwen2' | 'mistral';
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly normEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  readonly maxPositions: number;
  /** Keys a query sees, itself included; null sees all. */
  readonly slidingWindow: number | null;
  readonly tiedHead: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  readonly activation: string;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
}

const count = z.number().int().positive().max(2 ** 31);
const token = z.number().int().nonnegative().nullish();

const hfConfig = z.looseObject({
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count.max(1000),
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  hidden_act: z.string().default('silu'),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.looseObject({}).nullish(),
  rope_parameters: z.looseObject({}).nullish(),
  max_position_embeddings: count.default(2048),
  sliding_window: count.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.number().nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  bos_token_id: token,
  pad_token_id: token,
  eos_token_id: z.union([z.number().int(), z.array(z.number().int())]).nullish(),
});

/** Model families this version reads. */
export const knownArchitectures = ['llama', 'qwen2', 'mistral'] as const;

function known(source: string, modelType: string): DecoderConfig['modelType'] {
  const found = knownArchitectures.find(name => name === modelType);
  if (!found) throw new FormatError(source, `architecture '${modelType}' is not known; known: ${knownArchitectures.join(', ')}`);
  return found;
}

function check(source: string, config: DecoderConfig): DecoderConfig {
  if (config.heads % config.kvHeads !== 0) throw new FormatError(source, `${config.heads} attention heads are not a multiple of ${config.kvHeads} key/value heads`);
  if (config.headDim % 2 !== 0) throw new FormatError(source, `head size ${config.headDim} is odd; rotary embeddings need an even one`);
  return config;
}

/** From the text of a Hugging Face config.json. */
export function configFromHF(json: unknown, source: string): DecoderConfig {
  const type = known(source, String((json as { model_type?: unknown } | null)?.model_type));
  const parsed = hfConfig.safeParse(json);
  if (!parsed.success) throw new FormatError(source, parsed.error.issues.map(i => `${i.path.join('.')}: ${i.message}`).join('; '));
  const c = parsed.data;
  const rope = (c.rope_parameters ?? {}) as { rope_theta?: number };
  const scaling = (c.rope_scaling ?? c.rope_parameters) as (Record<string, unknown> & { rope_type?: string; type?: string }) | null | undefined;
  const ropeType = scaling?.rope_type ?? scaling?.type ?? 'default';
  const eos = c.eos_token_id ?? [];
  return check(source, {
    modelType: type,
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_key_value_heads ?? c.num_attention_heads,
    headDim: c.head_dim ?? c.hidden_size / c.num_attention_heads,
    normEps: c.rms_norm_eps,
    ropeTheta: c.rope_theta ?? rope.rope_theta ?? 10000,
    ropeScaling: ropeType === 'default' ? null : { ...scaling, rope_type: ropeType },
    maxPositions: c.max_position_embeddings,
    slidingWindow: type === 'mistral' ? c.sliding_window ?? null : type === 'qwen2' && c.use_sliding_window ? c.sliding_window ?? null : null,
    tiedHead: c.tie_word_embeddings ?? false,
    qkvBias: type === 'qwen2' || (c.attention_bias ?? false),
    outputBias: type === 'llama' && (c.attention_bias ?? false),
    mlpBias: c.mlp_bias ?? false,
    activation: c.hidden_act,
    bosTokenId: c.bos_token_id ?? null,
    eosTokenIds: Array.isArray(eos) ? eos : [eos],
    padTokenId: c.pad_token_id ?? null,
  });
}

/** From GGUF metadata (keys like `llama.block_count`) and the names of its tensors. */
export function configFromGGUF(metadata: Readonly<Record<string, unknown>>, tensorNames: ReadonlySet<string>, source: string): DecoderConfig {
  const architecture = String(metadata['general.architecture']);
  const type = known(source, architecture);
  const number = (key: string, fallback?: number): number => {
    const value = metadata[`${architecture}.${key}`] ?? fallback;
    const n = typeof value === 'bigint' ? Number(value) : value;
    if (typeof n !== 'number' || !(n > 0)) throw new FormatError(source, `${architecture}.${key}: expected a positive number, got ${String(value)}`);
    return n;
  };
  const id = (key: string): number | null => {
    const value = metadata[`tokenizer.ggml.${key}`];
    return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : null;
  };
  const tokens = metadata['tokenizer.ggml.tokens'];
  const hiddenSize = number('embedding_length');
  const heads = number('attention.head_count');
  const headDim = number('attention.key_length', hiddenSize / heads);
  const ropeDims = number('rope.dimension_count', headDim);
  if (ropeDims !== headDim) throw new FormatError(source, `rotary embeddings over ${ropeDims} of ${headDim} dimensions are not supported`);
  if (tensorNames.has('rope_freqs.weight')) throw new FormatError(source, 'rope_freqs.weight: llama3 frequency scaling is read from Hugging Face folders only');
  const scaling = metadata[`${architecture}.rope.scaling.type`];
  const eos = id('eos_token_id');
  return check(source, {
    modelType: type,
    vocabSize: number('vocab_size', Array.isArray(tokens) ? tokens.length : undefined),
    hiddenSize,
    intermediateSize: number('feed_forward_length'),
    layers: number('block_count'),
    heads,
    kvHeads: number('attention.head_count_kv', heads),
    headDim,
    normEps: number('attention.layer_norm_rms_epsilon', 1e-5),
    ropeTheta: number('rope.freq_base', 10000),
    ropeScaling: typeof scaling === 'string' && scaling !== 'none' ? { rope_type: scaling, factor: number('rope.scaling.factor', 1) } : null,
    maxPositions: number('context_length', 2048),
    slidingWindow: metadata[`${architecture}.attention.sliding_window`] ? number('attention.sliding_window') : null,
    tiedHead: !tensorNames.has('output.weight'),
    qkvBias: tensorNames.has('blk.0.attn_q.bias'),
    outputBias: tensorNames.has('blk.0.attn_output.bias'),
    mlpBias: tensorNames.has('blk.0.ffn_down.bias'),
    activation: 'silu',
    bosTokenId: id('bos_token_id'),
    eosTokenIds: eos === null ? [] : [eos],
    padTokenId: id('padding_token_id'),
  });
}

/** From a llama2.c v0 header (karpathy/llama2.c, run.c). */
export function configFromLlama2c(header: Llama2cConfig, source: string): DecoderConfig {
  return check(source, {
    modelType: 'llama',
    vocabSize: header.vocab_size,
    hiddenSize: header.dim,
    intermediateSize: header.hidden_dim,
    layers: header.n_layers,
    heads: header.n_heads,
    kvHeads: header.n_kv_heads,
    headDim: header.dim / header.n_heads,
    normEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: null,
    maxPositions: header.seq_len,
    slidingWindow: null,
    tiedHead: header.tie_word_embeddings,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    activation: 'silu',
    bosTokenId: 1,
    eosTokenIds: [2],
    padTokenId: null,
  });
}
