// What a decoder needs to know about itself. Pure data and checks; no weights. It is read from a Hugging Face
// config.json (configHF.ts), GGUF metadata (configGGUF.ts) or a llama2.c header (here). Architectures that are not
// listed here are refused by name.

import { FormatError } from '../io/errors.js';
import type { Llama2cConfig } from '../io/llama2c.js';
import { activations } from '../nn/activations.js';
import { ropeFrequencies, type RopeFrequencies } from '../nn/rope.js';

export interface RopeScaling {
  readonly rope_type: string;
  readonly [key: string]: unknown;
}

/** Model families this version reads. */
export const knownArchitectures = ['llama', 'qwen2', 'mistral'] as const;
export type ModelType = (typeof knownArchitectures)[number];

/** Sizes and switches of a LLaMA-like decoder. */
export interface DecoderConfig {
  readonly modelType: ModelType;
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
  /** Divides the frequency of each pair of dimensions: `rope_freqs.weight` of a GGUF. */
  readonly ropeDivisors: readonly number[] | null;
  /**
   * How long a sequence may be. With `longrope` scaling the original length, up to which alone its short factors hold.
   */
  readonly maxPositions: number;
  /** For each layer the keys that a query sees, itself included; null sees all. */
  readonly windows: readonly (number | null)[];
  readonly tiedHead: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  readonly activation: string;
  /** Special ids are null, or left out of a list, where the file has none or one that is not in the vocabulary. */
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
}

export function knownModelType(source: string, modelType: string): ModelType {
  const type = knownArchitectures.find(name => name === modelType);
  if (!type)
    throw new FormatError(source, `architecture '${modelType}' is not known; known: ${knownArchitectures.join(', ')}`);
  return type;
}

/** How positions turn into angles. */
export const frequenciesOf = ({ headDim, ropeTheta, ropeScaling, ropeDivisors }: DecoderConfig): RopeFrequencies =>
  ropeFrequencies({ headDim, theta: ropeTheta, scaling: ropeScaling, divisors: ropeDivisors });

/** Why the context ends where it does, for errors: some scalings have other angles for longer sequences. */
export function contextNote({ ropeScaling }: DecoderConfig): string {
  const type = ropeScaling?.rope_type;
  return type === 'dynamic' || type === 'longrope'
    ? ` (what its rope scaling '${type}' does beyond is not computed)`
    : '';
}

/** What readers of all formats check in the end. */
export function checkedConfig(source: string, config: DecoderConfig): DecoderConfig {
  const { heads, kvHeads, headDim, hiddenSize, activation } = config;
  if (heads % kvHeads !== 0)
    throw new FormatError(source, `${heads} attention heads are not a multiple of ${kvHeads} key/value heads`);
  if (!Number.isInteger(headDim))
    throw new FormatError(source, `the hidden size ${hiddenSize} is not a multiple of ${heads} attention heads`);
  if (headDim % 2 !== 0)
    throw new FormatError(source, `head size ${headDim} is odd; rotary embeddings need an even one`);
  if (!Object.hasOwn(activations, activation)) {
    throw new FormatError(
      source,
      `hidden_act: '${activation}' is not known; known: ${Object.keys(activations).join(', ')}`,
    );
  }
  try {
    frequenciesOf(config);
  } catch (cause) {
    throw new FormatError(source, (cause as Error).message, { cause });
  }
  return config;
}

/** A special id as files write it: -1 and 4294967295 stand for none, and one beyond the vocabulary is none either. */
export function specialId(value: unknown, vocabSize: number): number | null {
  const id = typeof value === 'bigint' ? Number(value) : value;
  return typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabSize ? id : null;
}

/** From a llama2.c v0 header (karpathy/llama2.c, run.c). */
export function configFromLlama2c(header: Llama2cConfig, source: string): DecoderConfig {
  return checkedConfig(source, {
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
    ropeDivisors: null,
    maxPositions: header.seq_len,
    windows: new Array<null>(header.n_layers).fill(null),
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
