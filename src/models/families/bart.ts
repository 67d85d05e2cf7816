// BART: norms after each sum, learned positions whose table begins with two rows that nothing reads, a norm on the
// embeddings, no norm at a stack's end, a bias on the logits. Source: transformers, configuration_bart.py.

import { z } from 'zod';
import {
  checkedLength,
  count,
  encoderDecoderKeys,
  readKeys,
  seq2seqConfig,
  sideConfig,
  type Seq2SeqConfig,
  type SideConfig,
} from '../configSeq2Seq.js';
import { loadEncoderDecoder, namesOfBoth, type Seq2SeqNames } from '../loadSeq2Seq.js';
import { Seq2SeqLM } from '../seq2seqLM.js';
import { defineFamily, type ModelNames } from './family.js';

const positionOffset = 2;

const keys = {
  ...encoderDecoderKeys,
  max_position_embeddings: count.nullish(),
  // What files of BART's first release say of its kin; a BART has one value of each.
  normalize_before: z.literal(false).nullish(),
  normalize_embedding: z.literal(true).nullish(),
  add_final_layer_norm: z.literal(false).nullish(),
  add_bias_logits: z.literal(false).nullish(),
  static_position_embeddings: z.literal(false).nullish(),
  extra_pos_embeddings: z.literal(positionOffset).nullish(),
};

function fromHF(json: unknown, source: string): Seq2SeqConfig {
  const { c, fail } = readKeys(json, source, keys);
  checkedLength(c, fail);
  const positions = c.max_position_embeddings ?? 1024;
  const side = (stack: 'encoder' | 'decoder'): SideConfig =>
    sideConfig({
      hiddenSize: c.d_model,
      intermediateSize: c[`${stack}_ffn_dim`],
      layers: c[`${stack}_layers`],
      heads: c[`${stack}_attention_heads`],
      norm: 'layer',
      normEps: 1e-5,
      activation: c.activation_function ?? 'gelu',
      causal: stack === 'decoder',
      embeddingScale: c.scale_embedding ? Math.sqrt(c.d_model) : 1,
      learnedPositions: { rows: positions + positionOffset, offset: positionOffset },
      maxPositions: positions,
    });
  return seq2seqConfig(
    source,
    c,
    { encoder: side('encoder'), decoder: side('decoder') },
    { padTokenId: c.pad_token_id ?? 1, decoderStartTokenId: c.decoder_start_token_id ?? 2 },
  );
}

function side(stack: 'encoder' | 'decoder'): ModelNames {
  const path = `model.${stack}`;
  const cross = {
    crossQ: 'encoder_attn.q_proj',
    crossK: 'encoder_attn.k_proj',
    crossV: 'encoder_attn.v_proj',
    crossO: 'encoder_attn.out_proj',
    crossSumNorm: 'encoder_attn_layer_norm',
  };
  return {
    prefix: 'model.',
    embeddings: { word: 'model.shared', position: `${path}.embed_positions`, norm: `${path}.layernorm_embedding` },
    blocks: `${path}.layers`,
    roles: {
      q: 'self_attn.q_proj',
      k: 'self_attn.k_proj',
      v: 'self_attn.v_proj',
      o: 'self_attn.out_proj',
      attentionSumNorm: 'self_attn_layer_norm',
      ...(stack === 'encoder' ? {} : cross),
      up: 'fc1',
      down: 'fc2',
      mlpSumNorm: 'final_layer_norm',
    },
    ...(stack === 'encoder' ? {} : { head: 'lm_head' }),
  };
}

const names: Seq2SeqNames = {
  encoder: side('encoder'),
  decoder: side('decoder'),
  words: ['model.shared', 'model.encoder.embed_tokens', 'model.decoder.embed_tokens'],
};

export const bart = defineFamily<Seq2SeqConfig>({
  name: 'bart',
  modelTypes: ['bart'],
  names: namesOfBoth(names),
  fromHF,
  tasks: {
    seq2seqLM: async ({ config, weights, name, generation }) => {
      const bias = 'final_logits_bias';
      const logitsBias = weights.has(bias) ? await weights.load(bias, [1, config.vocabSize]) : null;
      const parts = { ...(await loadEncoderDecoder(config, names, weights)), logitsBias };
      return new Seq2SeqLM(config, parts, name, generation);
    },
  },
});
