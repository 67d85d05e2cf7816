// T5 (v1.0 and v1.1, Flan) and mT5: RMS norms before each part, no biases, unscaled attention with a bias by relative
// position that the first layer of a stack holds for all of them. Source: transformers, configuration_t5.py.

import { z } from 'zod';
import { relativePositionBias } from '../../nn/relativePosition.js';
import { Module } from '../../nn/module.js';
import type { Tensor } from '../../tensor/tensor.js';
import {
  count,
  layerCount,
  readKeys,
  seq2seqConfig,
  seq2seqKeys,
  sideConfig,
  type Seq2SeqConfig,
  type SideConfig,
} from '../configSeq2Seq.js';
import { loadEncoderDecoder, namesOfBoth, type Seq2SeqNames } from '../loadSeq2Seq.js';
import { Seq2SeqLM } from '../seq2seqLM.js';
import type { PositionBias } from '../stack.js';
import type { Tokens } from '../tokens.js';
import type { WeightLoader } from '../weights.js';
import { defineFamily, type ModelNames } from './family.js';

interface T5Config extends Seq2SeqConfig {
  readonly gated: boolean;
  readonly relativePositions: { readonly buckets: number; readonly maxDistance: number };
}

const keys = {
  ...seq2seqKeys,
  d_model: count,
  d_kv: count,
  d_ff: count,
  num_layers: layerCount,
  num_decoder_layers: layerCount.nullish(),
  num_heads: count,
  layer_norm_epsilon: z.number().positive().nullish(),
  relative_attention_num_buckets: count.min(4).nullish(),
  relative_attention_max_distance: count.nullish(),
  feed_forward_proj: z.string().nullish(),
  dense_act_fn: z.string().nullish(),
  is_gated_act: z.boolean().nullish(),
  scale_decoder_outputs: z.boolean().nullish(),
  // A length of T5's training; positions are relative and have no end.
  n_positions: count.nullish(),
};

function fromHF(json: unknown, source: string): T5Config {
  const { c, fail } = readKeys(json, source, keys);
  const isV1 = c.model_type === 't5';
  const projection = /^(gated-)?(.+)$/.exec(c.feed_forward_proj ?? (isV1 ? 'relu' : 'gated-gelu'));
  if (!projection) return fail(`feed_forward_proj: '${c.feed_forward_proj}', expected a name like relu or gated-gelu`);
  const [name, isGated, plain] = projection;
  const activation = c.dense_act_fn ?? (name === 'gated-gelu' ? 'gelu_new' : plain);
  const buckets = c.relative_attention_num_buckets ?? 32;
  const maxDistance = c.relative_attention_max_distance ?? 128;
  if (buckets % 4 !== 0 || maxDistance <= buckets / 2)
    fail(
      `relative_attention_num_buckets: ${buckets} for distances up to ${maxDistance}; expected a multiple of 4, less than twice the distance`,
    );
  const side = (layers: number, causal: boolean): SideConfig =>
    sideConfig({
      hiddenSize: c.d_model,
      intermediateSize: c.d_ff,
      layers,
      heads: c.num_heads,
      headDim: c.d_kv,
      normEps: c.layer_norm_epsilon ?? 1e-6,
      activation,
      causal,
      attentionScale: 1,
      maxPositions: Infinity,
      qkvBias: false,
      outputBias: false,
      mlpBias: false,
    });
  const tiedHead = c.tie_word_embeddings ?? isV1;
  const padTokenId = c.pad_token_id ?? 0;
  const sides = { encoder: side(c.num_layers, false), decoder: side(c.num_decoder_layers ?? c.num_layers, true) };
  const scaled = c.scale_decoder_outputs ?? tiedHead;
  return {
    ...seq2seqConfig(source, c, sides, {
      tiedHead,
      logitsScale: scaled ? c.d_model ** -0.5 : 1,
      padTokenId,
      decoderStartTokenId: c.decoder_start_token_id ?? padTokenId,
    }),
    gated: c.is_gated_act ?? isGated !== undefined,
    relativePositions: { buckets, maxDistance },
  };
}

/** The layers of a stack's blocks; in a decoder cross attention stands in between. */
function side(stack: 'encoder' | 'decoder', gated: boolean): ModelNames {
  const mlp = stack === 'encoder' ? 'layer.1' : 'layer.2';
  const cross = {
    crossNorm: 'layer.1.layer_norm',
    crossQ: 'layer.1.EncDecAttention.q',
    crossK: 'layer.1.EncDecAttention.k',
    crossV: 'layer.1.EncDecAttention.v',
    crossO: 'layer.1.EncDecAttention.o',
  };
  const feedForward = gated
    ? { gate: `${mlp}.DenseReluDense.wi_0`, up: `${mlp}.DenseReluDense.wi_1` }
    : { up: `${mlp}.DenseReluDense.wi` };
  return {
    prefix: '',
    embeddings: { word: 'shared' },
    blocks: `${stack}.block`,
    roles: {
      attentionNorm: 'layer.0.layer_norm',
      q: 'layer.0.SelfAttention.q',
      k: 'layer.0.SelfAttention.k',
      v: 'layer.0.SelfAttention.v',
      o: 'layer.0.SelfAttention.o',
      ...(stack === 'encoder' ? {} : cross),
      mlpNorm: `${mlp}.layer_norm`,
      ...feedForward,
      down: `${mlp}.DenseReluDense.wo`,
    },
    norm: `${stack}.final_layer_norm`,
    ...(stack === 'encoder' ? {} : { head: 'lm_head' }),
    // First releases hold a bias for cross attention that nothing reads.
    ignored: /\.EncDecAttention\.relative_attention_bias\.weight$/,
  };
}

const namesFor = (gated: boolean): Seq2SeqNames => ({
  encoder: side('encoder', gated),
  decoder: side('decoder', gated),
  words: ['shared', 'encoder.embed_tokens', 'decoder.embed_tokens'],
});

/** A number for each head and bucket of distances, the first layer's and so all layers'. */
class RelativeBias extends Module implements PositionBias {
  readonly table: Tensor;
  readonly #name: string;
  readonly #settings: { readonly bidirectional: boolean; readonly buckets: number; readonly maxDistance: number };

  constructor(table: Tensor, name: string, settings: T5Config['relativePositions'] & { bidirectional: boolean }) {
    super();
    this.table = table;
    this.#name = name;
    this.#settings = settings;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield [this.#name, this.table];
  }

  forward({ shape: [, queries], past }: Tokens): Tensor {
    return relativePositionBias(this.table, { queries, keys: past + queries, offset: past, ...this.#settings });
  }
}

async function loadBias(weights: WeightLoader, config: T5Config, stack: 'encoder' | 'decoder'): Promise<PositionBias> {
  const { buckets } = config.relativePositions;
  const name = `${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`;
  const table = await weights.load(name, [buckets, config.heads]);
  return new RelativeBias(table, name, { ...config.relativePositions, bidirectional: stack === 'encoder' });
}

export const t5 = defineFamily<T5Config>({
  name: 't5',
  modelTypes: ['t5', 'mt5'],
  names: namesOfBoth(namesFor(false)),
  fromHF,
  tasks: {
    seq2seqLM: async ({ config, weights, name, generation }) => {
      const biases = {
        encoder: await loadBias(weights, config, 'encoder'),
        decoder: await loadBias(weights, config, 'decoder'),
      };
      const parts = await loadEncoderDecoder(config, namesFor(config.gated), weights, biases);
      return new Seq2SeqLM(config, parts, name, generation);
    },
  },
});
