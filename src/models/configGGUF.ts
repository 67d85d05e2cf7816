// A decoder's configuration from the metadata of a GGUF file. Every key of the architecture (`llama.block_count`) is
// read here, listed as one that changes nothing, or refused by name. Source of keys and meanings: llama.cpp,
// gguf-py/gguf/constants.py and src/llama-model.cpp.

import { FormatError } from '../io/errors.js';
import type { TensorFile } from '../io/tensorFile.js';
import {
  checkedConfig,
  plainSwitches,
  specialId,
  type DecoderConfig,
  type RopeScaling,
  type RopeSettings,
} from './config.js';

/** Keys that change nothing: notes of who wrote the file, and what only embedding models use. */
const ignored: ReadonlySet<string> = new Set(['rope.scaling.finetuned', 'tensor_data_layout', 'pooling_type']);

/** Keys that change the computation, with the values that do not. */
const neutral: Readonly<Record<string, readonly unknown[]>> = {
  expert_count: [0],
  expert_used_count: [0],
  use_parallel_residual: [false],
  'attention.causal': [true],
  'attention.scale': [0],
  'attention.clamp_kqv': [0],
  'attention.max_alibi_bias': [0],
  logit_scale: [0, 1],
  embedding_scale: [0, 1],
  residual_scale: [0, 1],
  attn_logit_softcapping: [0],
  final_logit_softcapping: [0],
  'rope.scaling.yarn_log_multiplier': [0],
  'rope.scaling.yarn_ext_factor': [-1, 1],
  'rope.scaling.yarn_attn_factor': [-1, 1],
};

const ropeDivisorsName = 'rope_freqs.weight';

/** What a family's file says of its metadata, beside what all decoders have. */
export interface GgufReader {
  /** Layers that have the window of `attention.sliding_window`; default all. */
  readonly slides?: (layer: number) => boolean;
  /** The key of the norms' epsilon. */
  readonly normKey?: string;
  /** Keys that change the computation, with the values that this family has. */
  readonly fixed?: Readonly<Record<string, readonly unknown[]>>;
  /** What differs from a LLaMA. `optional` reads a number of the architecture that may be missing. */
  readonly switches: (
    common: DecoderConfig,
    read: { optional: <T>(key: string, fallback: T) => number | T },
  ) => Partial<DecoderConfig>;
}

/** From an open GGUF file: its metadata, the names of its tensors, and `rope_freqs.weight` where it has one. */
export async function readDecoderGGUF(
  file: Pick<TensorFile, 'name' | 'metadata' | 'tensors' | 'readFloat32'>,
  { slides = () => true, normKey = 'attention.layer_norm_rms_epsilon', fixed = {}, switches }: GgufReader,
): Promise<DecoderConfig> {
  const { name: source, metadata, tensors } = file;
  const fail = (text: string): never => {
    throw new FormatError(source, text);
  };
  const kind = metadata['general.type'] ?? 'model';
  if (kind !== 'model') fail(`general.type: expected a model, got '${String(kind)}'`);
  const architecture = String(metadata['general.architecture']);
  const known = new Set<string>();
  const value = (key: string): unknown => {
    known.add(key);
    return metadata[`${architecture}.${key}`] ?? undefined;
  };
  const number = (key: string, fallback?: number): number => {
    const given = value(key) ?? fallback;
    const n = typeof given === 'bigint' ? Number(given) : given;
    return typeof n === 'number' && n > 0
      ? n
      : fail(`${architecture}.${key}: expected a positive number, got ${String(given)}`);
  };
  const tokens = metadata['tokenizer.ggml.tokens'];
  const vocabSize = number('vocab_size', Array.isArray(tokens) ? tokens.length : undefined);
  const id = (key: string): number | null => specialId(metadata[`tokenizer.ggml.${key}`], vocabSize);
  const hiddenSize = number('embedding_length');
  const layers = number('block_count');
  const heads = number('attention.head_count');
  const headDim = number('attention.key_length', hiddenSize / heads);
  const values = number('attention.value_length', headDim);
  if (values !== headDim)
    fail(
      `${architecture}.attention.value_length: values of ${values} dimensions, with heads of ${headDim}, are not supported`,
    );
  const rotated = number('rope.dimension_count', headDim);
  if (rotated > headDim)
    fail(`${architecture}.rope.dimension_count: ${rotated} dimensions are rotated, and heads have ${headDim}`);
  const maxPositions = number('context_length', 2048);
  const window = value('attention.sliding_window') ? number('attention.sliding_window') : null;
  const eos = id('eos_token_id');
  const rope: RopeSettings = {
    theta: number('rope.freq_base', 10000),
    scaling: ropeScalingOf({ architecture, value, number, maxPositions, fail }),
    fraction: rotated / headDim,
  };
  const common: DecoderConfig = {
    ...plainSwitches,
    modelType: architecture,
    vocabSize,
    hiddenSize,
    intermediateSize: number('feed_forward_length'),
    layers,
    heads,
    kvHeads: number('attention.head_count_kv', heads),
    headDim,
    normEps: number(normKey, 1e-5),
    ropes: new Array<RopeSettings>(layers).fill(rope),
    ropeDivisors: tensors.has(ropeDivisorsName) ? [...(await file.readFloat32(ropeDivisorsName))] : null,
    maxPositions,
    windows: Array.from({ length: layers }, (_, layer) =>
      window !== null && window < maxPositions && slides(layer) ? window : null,
    ),
    tiedHead: !tensors.has('output.weight'),
    qkvBias: tensors.has('blk.0.attn_q.bias'),
    outputBias: tensors.has('blk.0.attn_output.bias'),
    mlpBias: tensors.has('blk.0.ffn_down.bias'),
    activation: 'silu',
    bosTokenId: id('bos_token_id'),
    eosTokenIds: eos === null ? [] : [eos],
    padTokenId: id('padding_token_id'),
  };
  const optional = <T>(key: string, fallback: T): number | T => (value(key) === undefined ? fallback : number(key));
  const config = { ...common, ...switches(common, { optional }) };
  for (const [name, given] of Object.entries(metadata)) {
    const key = name.slice(architecture.length + 1);
    if (!name.startsWith(`${architecture}.`) || known.has(key) || ignored.has(key)) continue;
    const allowed = fixed[key] ?? (Object.hasOwn(neutral, key) ? neutral[key] : []);
    if (allowed.includes(given)) continue;
    fail(`${name}: ${String(given).slice(0, 60)}: not understood, and may change what the model computes`);
  }
  return checkedConfig(source, config);
}

interface Reader {
  readonly architecture: string;
  readonly value: (key: string) => unknown;
  readonly number: (key: string, fallback?: number) => number;
  readonly maxPositions: number;
  readonly fail: (text: string) => never;
}

/**
 * The scaling of positions. As in llama.cpp the type is linear where none is given, `rope.scale_linear` is the older
 * name of the factor, a factor of 0 is none, and `attn_factor` multiplies what YaRN itself makes of sines and cosines.
 */
function ropeScalingOf({ architecture, value, number, maxPositions, fail }: Reader): RopeScaling | null {
  const type = value('rope.scaling.type') ?? 'linear';
  const [newer, older] = ['rope.scaling.factor', 'rope.scale_linear'].map(key =>
    value(key) ? number(key) : undefined,
  );
  const factor = newer ?? older ?? 1;
  const original = value('rope.scaling.original_context_length')
    ? number('rope.scaling.original_context_length')
    : maxPositions;
  const attention = number('rope.scaling.attn_factor', 1);
  const [fast, slow] = [number('rope.scaling.yarn_beta_fast', 32), number('rope.scaling.yarn_beta_slow', 1)];
  if (type === 'none') return null;
  if (type !== 'yarn' && attention !== 1)
    fail(
      `${architecture}.rope.scaling.attn_factor: ${attention} is not supported with scaling of type '${String(type)}'`,
    );
  if (type === 'linear') return factor === 1 ? null : { rope_type: 'linear', factor };
  if (type === 'yarn') {
    const usual = factor > 1 ? 1 + 0.1 * Math.log(factor) : 1;
    return {
      rope_type: 'yarn',
      factor,
      original_max_position_embeddings: original,
      beta_fast: fast,
      beta_slow: slow,
      attention_factor: attention * usual,
    };
  }
  return fail(
    `${architecture}.rope.scaling.type: '${String(type)}' is not supported; supported are none, linear and yarn`,
  );
}

/** A LLaMA-like decoder without anything of its own. */
export const configFromGGUF = (file: Parameters<typeof readDecoderGGUF>[0]): Promise<DecoderConfig> =>
  readDecoderGGUF(file, { switches: () => ({}) });
