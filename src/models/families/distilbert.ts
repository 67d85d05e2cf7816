// DistilBERT: a BERT of half the depth, without token types and without a pooler. Sources: transformers,
// configuration_distilbert.py and modeling_distilbert.py.

import { z } from 'zod';
import { checkedConfig } from '../config.js';
import { count, plainEncoder, readKeys, textKeys, type EncoderConfig } from '../configEncoder.js';
import { encoderFamily } from '../loadEncoder.js';
import type { ModelNames } from './family.js';

const keys = {
  ...textKeys,
  dim: count,
  n_layers: count.max(1000),
  n_heads: count,
  hidden_dim: count,
  activation: z.string().default('gelu'),
  // Positions are in a table, whatever it was made from.
  sinusoidal_pos_embds: z.boolean().default(false),
  // Dropout of heads.
  qa_dropout: z.number().default(0),
  seq_classif_dropout: z.number().default(0),
};

function readDistilbert(json: unknown, source: string): EncoderConfig {
  const { c } = readKeys(json, source, keys);
  return checkedConfig(source, {
    ...plainEncoder(c, c.n_layers),
    hiddenSize: c.dim,
    intermediateSize: c.hidden_dim,
    heads: c.n_heads,
    kvHeads: c.n_heads,
    headDim: c.dim / c.n_heads,
    activation: c.activation,
    normEps: 1e-12,
  });
}

const names: ModelNames = {
  prefix: 'distilbert.',
  embeddings: {
    word: 'distilbert.embeddings.word_embeddings',
    position: 'distilbert.embeddings.position_embeddings',
    norm: 'distilbert.embeddings.LayerNorm',
  },
  blocks: 'distilbert.transformer.layer',
  roles: {
    q: 'attention.q_lin',
    k: 'attention.k_lin',
    v: 'attention.v_lin',
    o: 'attention.out_lin',
    attentionSumNorm: 'sa_layer_norm',
    up: 'ffn.lin1',
    down: 'ffn.lin2',
    mlpSumNorm: 'output_layer_norm',
  },
};

export const distilbert = encoderFamily(
  { name: 'distilbert', modelTypes: ['distilbert'], names, fromHF: readDistilbert },
  {
    maskedLM: ({ activation }) => ({
      names: { dense: 'vocab_transform', norm: 'vocab_layer_norm', out: 'vocab_projector' },
      activation,
    }),
    classification: () => ({ names: { dense: 'pre_classifier', out: 'classifier' }, activation: 'relu' }),
  },
);
