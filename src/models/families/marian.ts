// Marian's small models as Bergamot trains them, from Marian's own files: a post-norm encoder, sinusoidal positions,
// a decoder whose blocks mix tokens by a recurrence (SSRU) in place of attention to themselves, one table of words, a
// bias on the logits. The decoder starts from zeros. Sources: marian-dev, src/models/transformer.h; Kim et al. 2019.

import { FormatError } from '../../io/errors.js';
import { Linear } from '../../nn/linear.js';
import { ssru } from '../../nn/ssru.js';
import type { Tensor } from '../../tensor/tensor.js';
import { TransformerBlock } from '../block.js';
import { checkedConfig, plainSwitches } from '../config.js';
import { sideConfig, type Seq2SeqConfig, type SideConfig } from '../configSeq2Seq.js';
import { noToken } from '../embeddings.js';
import { loadBlock } from '../load.js';
import { loadSide, loadWords, namesOfBoth, type Seq2SeqNames } from '../loadSeq2Seq.js';
import type { BlockRun } from '../run.js';
import { Seq2SeqLM } from '../seq2seqLM.js';
import type { WeightLoader } from '../weights.js';
import { defineFamily, type MarianFile, type ModelNames } from './family.js';

/** What these models have one value of. */
const required: Readonly<Record<string, unknown>> = {
  type: 'transformer',
  'dec-cell': 'ssru',
  'transformer-decoder-autoreg': 'rnn',
  'transformer-preprocess': '',
  'transformer-postprocess': 'dan',
  'transformer-postprocess-emb': 'd',
  'transformer-postprocess-top': '',
  'transformer-ffn-depth': 2,
  'transformer-train-position-embeddings': false,
  'transformer-tied-layers': [],
  'transformer-no-projection': false,
  'transformer-pool': false,
  'tied-embeddings-all': true,
  'layer-normalization': false,
  'output-omit-bias': false,
  'right-left': false,
  'lemma-dim-emb': 0,
  'input-types': [],
  ulr: false,
};

const sizes = ['dim-emb', 'enc-depth', 'dec-depth', 'transformer-heads', 'transformer-dim-ffn'] as const;

/** Of other kinds of models, and of training. */
const unused = new Set(
  `bert-train-type-embeddings bert-type-vocab-size dec-cell-base-depth dec-cell-high-depth dim-rnn enc-cell
  enc-cell-depth enc-type skip tied-embeddings tied-embeddings-src transformer-aan-activation transformer-aan-depth
  transformer-aan-nogate transformer-dim-aan transformer-guided-alignment-layer ulr-dim-emb
  ulr-trainable-transformation version`.split(/\s+/),
);

function fromMarian({ name: source, metadata }: MarianFile): Seq2SeqConfig {
  const fail = (key: string, expected: string): never => {
    throw new FormatError(source, `${key}: expected ${expected}, got ${JSON.stringify(metadata[key])}`);
  };
  for (const [key, value] of Object.entries(required))
    if (JSON.stringify(metadata[key]) !== JSON.stringify(value)) fail(key, JSON.stringify(value));
  const known = new Set<string>([...Object.keys(required), ...sizes, 'dim-vocabs', 'transformer-ffn-activation']);
  for (const key of Object.keys(metadata))
    if (!known.has(key) && !unused.has(key)) fail(key, 'no such setting: it is not understood');
  const size = (key: (typeof sizes)[number]): number => {
    const value = metadata[key];
    return Number.isInteger(value) && (value as number) > 0 ? (value as number) : fail(key, 'a positive whole number');
  };
  const [vocabSize, other] = Array.isArray(metadata['dim-vocabs']) ? (metadata['dim-vocabs'] as unknown[]) : [];
  if (!Number.isInteger(vocabSize) || vocabSize !== other) fail('dim-vocabs', 'the same size twice');
  const hiddenSize = size('dim-emb');
  const side = (layers: number, causal: boolean): SideConfig =>
    sideConfig({
      hiddenSize,
      intermediateSize: size('transformer-dim-ffn'),
      layers,
      heads: size('transformer-heads'),
      norm: 'layer',
      normEps: 1e-6,
      activation: String(metadata['transformer-ffn-activation']),
      causal,
      embeddingScale: Math.sqrt(hiddenSize),
      sinusoids: true,
      maxPositions: Infinity,
    });
  const encoder = side(size('enc-depth'), false);
  return {
    ...checkedConfig(source, {
      ...plainSwitches,
      ...side(size('dec-depth'), true),
      modelType: 'marian',
      vocabSize: vocabSize as number,
      tiedHead: true,
      bosTokenId: null,
      eosTokenIds: [0],
      padTokenId: 0,
    }),
    encoder,
    decoderStartTokenId: noToken,
  };
}

/** Names as transformers has them for models of Marian. */
function side(stack: 'encoder' | 'decoder'): ModelNames {
  const path = `model.${stack}`;
  const mixer = {
    q: 'self_attn.q_proj',
    k: 'self_attn.k_proj',
    v: 'self_attn.v_proj',
    o: 'self_attn.out_proj',
    attentionSumNorm: 'self_attn_layer_norm',
  };
  const cross = {
    attentionSumNorm: 'rnn_layer_norm',
    crossQ: 'encoder_attn.q_proj',
    crossK: 'encoder_attn.k_proj',
    crossV: 'encoder_attn.v_proj',
    crossO: 'encoder_attn.out_proj',
    crossSumNorm: 'encoder_attn_layer_norm',
  };
  return {
    prefix: 'model.',
    embeddings: { word: 'model.shared' },
    blocks: `${path}.layers`,
    roles: { ...(stack === 'encoder' ? mixer : cross), up: 'fc1', down: 'fc2', mlpSumNorm: 'final_layer_norm' },
    storedAs,
  };
}

/** Marian's names of a block's layers: a matrix and a bias, or a norm. */
const layers: Readonly<Record<string, readonly [weight: string, bias: string]>> = {
  ...projections('self_attn', 'self'),
  ...projections('encoder_attn', 'context'),
  'rnn.candidate': ['rnn_W', ''],
  'rnn.forget': ['rnn_Wf', 'rnn_bf'],
  rnn_layer_norm: ['rnn_ffn_ln_scale', 'rnn_ffn_ln_bias'],
  fc1: ['ffn_W1', 'ffn_b1'],
  fc2: ['ffn_W2', 'ffn_b2'],
  final_layer_norm: ['ffn_ffn_ln_scale', 'ffn_ffn_ln_bias'],
};

function projections(name: string, stored: string): Record<string, readonly [string, string]> {
  const parts = ['q', 'k', 'v'].map(part => [`${name}.${part}_proj`, [`${stored}_W${part}`, `${stored}_b${part}`]]);
  return Object.fromEntries([
    ...parts,
    [`${name}.out_proj`, [`${stored}_Wo`, `${stored}_bo`]],
    [`${name}_layer_norm`, [`${stored}_Wo_ln_scale`, `${stored}_Wo_ln_bias`]],
  ]) as Record<string, readonly [string, string]>;
}

function storedAs(name: string): string {
  if (name === 'model.shared.weight') return 'Wemb';
  if (name === 'final_logits_bias') return 'decoder_ff_logit_out_b';
  const [, stack, layer, path, kind] = /^model\.(\w+)\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  const stored = path === undefined ? undefined : layers[path];
  return stored ? `${stack}_l${Number(layer) + 1}_${stored[kind === 'weight' ? 0 : 1]}` : name;
}

const names: Seq2SeqNames = { encoder: side('encoder'), decoder: side('decoder'), words: ['model.shared'] };

/** A decoder's block: a gated sum of the tokens so far, attention to the encoder, a feed-forward. */
class SsruBlock extends TransformerBlock {
  protected override readonly mixerInput = 'mixer_input';
  readonly rnn: { readonly forget: Linear; readonly candidate: Linear };

  constructor(config: SideConfig, { parts, names: roles }: TransformerBlock, rnn: SsruBlock['rnn']) {
    super(config, parts, roles);
    this.rnn = rnn;
  }

  override *namedParameters(prefix = ''): Generator<[string, Tensor]> {
    for (const [name, layer] of Object.entries(this.rnn)) yield* layer.namedParameters(`${prefix}rnn.${name}.`);
    yield* super.namedParameters(prefix);
  }

  protected override mixed(a: Tensor, h: Tensor, run: BlockRun): Tensor {
    const forget = run.linear('rnn.forget', this.rnn.forget, a);
    const candidate = run.linear('rnn.candidate', this.rnn.candidate, a);
    const { output, cell } = ssru(forget, candidate, run.tokens.starts, run.states?.[0] ?? null);
    run.keepStates([cell]);
    const [mixed, residual] = run.keep(run.site('mixer_activation', output), h);
    return residual.add(run.site('mixer_output', mixed));
  }
}

async function ssruBlocks(weights: WeightLoader, config: SideConfig, sideNames: ModelNames): Promise<SsruBlock[]> {
  const { hiddenSize } = config;
  const blocks: SsruBlock[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const path = `${sideNames.blocks}.${layer}.rnn`;
    const matrix = (name: string): Promise<Tensor> => weights.load(`${path}.${name}.weight`, [hiddenSize, hiddenSize]);
    const candidate = new Linear(await matrix('candidate'));
    const forget = new Linear(await matrix('forget'), await weights.load(`${path}.forget.bias`, [hiddenSize]));
    blocks.push(new SsruBlock(config, await loadBlock(weights, layer, config, sideNames), { forget, candidate }));
  }
  return blocks;
}

export const marian = defineFamily<Seq2SeqConfig>({
  name: 'marian',
  modelTypes: ['marian'],
  names: namesOfBoth(names),
  fromHF(_json, source) {
    throw new FormatError(
      source,
      "model_type: 'marian' is read from Marian's own files (.bin), not from a config.json",
    );
  },
  fromMarian,
  tasks: {
    seq2seqLM: async ({ config, weights, name, generation }) => {
      const { word } = await loadWords(weights, config, names);
      const encoder = await loadSide(weights, config.encoder, names.encoder, { stack: 'encoder' }, word);
      const sites = { stack: 'decoder', reads: 'encoder' };
      const options = { blocks: ssruBlocks, mixes: 'recurrence' as const };
      const decoder = await loadSide(weights, config, names.decoder, sites, word, options);
      const logitsBias = await weights.load('final_logits_bias', [1, config.vocabSize]);
      weights.checkAllRead();
      return new Seq2SeqLM(config, { encoder, decoder, lmHead: null, logitsBias }, name, generation);
    },
  },
});
