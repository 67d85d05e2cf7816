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

/** How positions turn into angles of queries and keys. */
export interface RopeSettings {
  readonly theta: number;
  readonly scaling: RopeScaling | null;
  /** Share of each head's dimensions that is rotated. */
  readonly fraction: number;
}

/** What a stack of transformer blocks computes: sizes, and the switches of block.ts. */
export interface StackConfig {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly causal: boolean;
  /**
   * For each layer the keys that a query sees: itself and those before it, or if not causal so many on each side of it.
   * Null sees all.
   */
  readonly windows: readonly (number | null)[];
  readonly activation: string;
  /** Attention and feed-forward read the same states and are added together. */
  readonly parallel: boolean;
  /** What is added to the residual stream is multiplied by this. */
  readonly residualScale: number;
  /** The kind of all norms: RMS, RMS with weights stored as their difference from 1, or LayerNorm. */
  readonly norm: NormKind;
  readonly normEps: number;
  readonly normBias: boolean;
  /** Roles of layers without a bias where their like have one. */
  readonly unbiased?: readonly string[];
  /** Norms of queries and keys, before rotary embeddings: of each head, or over all heads. */
  readonly qkNorm: 'head' | 'full' | null;
  /** Scores are multiplied by this; null: 1 / sqrt(headDim). */
  readonly attentionScale: number | null;
  /** c: scores become c tanh(score / c). */
  readonly attentionSoftcap: number | null;
  /** How a fused qkv product is cut: q, then k, then v; or each head's q, k, v. */
  readonly qkvOrder: 'parts' | 'heads';
  /** Rotary embeddings of each layer; null: none there. */
  readonly ropes: readonly (RopeSettings | null)[];
  /** Divides the frequency of each pair of dimensions: `rope_freqs.weight` of a GGUF. */
  readonly ropeDivisors: readonly number[] | null;
}

export const normKinds = ['rms', 'rmsPlusOne', 'layer'] as const;
export type NormKind = (typeof normKinds)[number];

/** What holds for LLaMA and for most others: a family's reader says where it differs. */
export const plainSwitches = {
  causal: true,
  parallel: false,
  residualScale: 1,
  norm: 'rms',
  normBias: true,
  qkNorm: null,
  attentionScale: null,
  attentionSoftcap: null,
  qkvOrder: 'parts',
  ropeDivisors: null,
  embeddingScale: 1,
  logitsScale: 1,
  logitsSoftcap: null,
  learnedPositions: null,
} as const;

/** What the configuration of every model says. */
export interface ModelConfig {
  readonly modelType: string;
}

/** A decoder with a language-model head: its stack, embeddings and head. */
export interface DecoderConfig extends StackConfig, ModelConfig {
  readonly vocabSize: number;
  /** Embeddings are multiplied by this. */
  readonly embeddingScale: number;
  /** Logits are multiplied by this. */
  readonly logitsScale: number;
  /** c: logits become c tanh(logit / c). */
  readonly logitsSoftcap: number | null;
  /** A table of learned positions, and the row of position 0; null: none. */
  readonly learnedPositions: { readonly rows: number; readonly offset: number } | null;
  /**
   * How long a sequence may be. With `longrope` scaling the original length, up to which alone its short factors hold.
   */
  readonly maxPositions: number;
  readonly tiedHead: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** Special ids are null, or left out of a list, where the file has none or one that is not in the vocabulary. */
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
}

/** How positions turn into angles in layers with these settings. */
export const frequenciesOf = (
  { theta, scaling, fraction }: RopeSettings,
  { headDim, ropeDivisors }: Pick<StackConfig, 'headDim' | 'ropeDivisors'>,
): RopeFrequencies =>
  ropeFrequencies({ headDim: rotatedDims(headDim, fraction), theta, scaling, divisors: ropeDivisors });

/** The first dimensions of a head that are rotated. */
export const rotatedDims = (headDim: number, fraction: number): number => Math.floor(headDim * fraction);

/** The settings that layers have in common; null where no layer is rotated. */
export const mainRope = ({ ropes }: Pick<StackConfig, 'ropes'>): RopeSettings | null =>
  ropes.find(settings => settings !== null) ?? null;

/** Why the context ends where it does, for errors: some scalings have other angles for longer sequences. */
export function contextNote(config: Pick<StackConfig, 'ropes'>): string {
  const type = config.ropes
    .map(settings => settings?.scaling?.rope_type)
    .find(name => name === 'dynamic' || name === 'longrope');
  return type ? ` (what its rope scaling '${type}' does beyond is not computed)` : '';
}

/** What readers of all formats check in the end. */
export function checkedConfig<Config extends StackConfig>(source: string, config: Config): Config {
  const { heads, kvHeads, headDim, hiddenSize, activation, ropes } = config;
  if (heads % kvHeads !== 0)
    throw new FormatError(source, `${heads} attention heads are not a multiple of ${kvHeads} key/value heads`);
  if (!Number.isInteger(headDim))
    throw new FormatError(source, `the hidden size ${hiddenSize} is not a multiple of ${heads} attention heads`);
  for (const settings of ropes) {
    if (settings && rotatedDims(headDim, settings.fraction) % 2 !== 0)
      throw new FormatError(source, `head size ${headDim} is odd; rotary embeddings need an even one`);
  }
  if (!Object.hasOwn(activations, activation)) {
    throw new FormatError(
      source,
      `hidden_act: '${activation}' is not known; known: ${Object.keys(activations).join(', ')}`,
    );
  }
  try {
    for (const settings of new Set(ropes)) if (settings) frequenciesOf(settings, config);
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
    ...plainSwitches,
    modelType: 'llama',
    vocabSize: header.vocab_size,
    hiddenSize: header.dim,
    intermediateSize: header.hidden_dim,
    layers: header.n_layers,
    heads: header.n_heads,
    kvHeads: header.n_kv_heads,
    headDim: header.dim / header.n_heads,
    normEps: 1e-5,
    ropes: new Array<RopeSettings>(header.n_layers).fill({ theta: 10000, scaling: null, fraction: 1 }),
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
