// BERT and what is built like it (MiniLM): norms after each sum, learned positions, token types, a pooler. Sources:
// transformers, configuration_bert.py and modeling_bert.py.

import { z } from 'zod';
import { checkedConfig } from '../config.js';
import { count, labelsOf, plainEncoder, positive, readKeys, textKeys, type EncoderConfig } from '../configEncoder.js';
import { readDecoderGGUF } from '../configGGUF.js';
import { encoderFamily } from '../loadEncoder.js';
import { blockComponents } from '../sites.js';
import type { GgufFile, ModelNames } from './family.js';

/** Keys of BERT and RoBERTa. */
export const bertKeys = {
  ...textKeys,
  hidden_size: count,
  num_hidden_layers: count.max(1000),
  num_attention_heads: count,
  intermediate_size: count,
  hidden_act: z.string().default('gelu'),
  layer_norm_eps: positive.default(1e-12),
  type_vocab_size: count.default(2),
  position_embedding_type: z.literal('absolute').default('absolute'),
};

export function readBert(json: unknown, source: string): EncoderConfig {
  const { c } = readKeys(json, source, bertKeys);
  return checkedConfig(source, {
    ...plainEncoder(c, c.num_hidden_layers),
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    heads: c.num_attention_heads,
    kvHeads: c.num_attention_heads,
    headDim: c.hidden_size / c.num_attention_heads,
    activation: c.hidden_act,
    normEps: c.layer_norm_eps,
    tokenTypes: c.type_vocab_size,
  });
}

/** The names of BERT and RoBERTa behind `prefix`, which base models' checkpoints do without. */
export const bertNames = (prefix: string): ModelNames => ({
  prefix,
  embeddings: {
    word: `${prefix}embeddings.word_embeddings`,
    position: `${prefix}embeddings.position_embeddings`,
    type: `${prefix}embeddings.token_type_embeddings`,
    norm: `${prefix}embeddings.LayerNorm`,
  },
  blocks: `${prefix}encoder.layer`,
  roles: {
    q: 'attention.self.query',
    k: 'attention.self.key',
    v: 'attention.self.value',
    o: 'attention.output.dense',
    attentionSumNorm: 'attention.output.LayerNorm',
    up: 'intermediate.dense',
    down: 'output.dense',
    mlpSumNorm: 'output.LayerNorm',
  },
  modules: {
    'attention.input': 'attention_input',
    'attention.self.input': 'attention_input',
    'attention.self.output': 'attention_value_output',
    'attention.output': 'block_middle',
    'attention.output.output': 'block_middle',
    'intermediate.input': 'mlp_input',
    'intermediate.output': 'mlp_activation',
    'output.output': 'block_output',
  },
  oldEndings: { 'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta' },
});

/** Of a GGUF, which has no heads. */
async function readBertGGUF(file: GgufFile): Promise<EncoderConfig> {
  const config = await readDecoderGGUF(file, {
    normKey: 'attention.layer_norm_epsilon',
    fixed: { 'attention.causal': [false] },
    switches: ({ layers, maxPositions }) => ({
      causal: false,
      norm: 'layer',
      activation: 'gelu',
      ropes: new Array<null>(layers).fill(null),
      learnedPositions: { rows: maxPositions, offset: 0 },
      tiedHead: true,
    }),
  });
  return {
    ...config,
    tokenTypes: file.tensors.get('token_types.weight')?.shape[0] ?? 0,
    positionsSkipPadding: false,
    components: ['embeddings', ...blockComponents],
    ...labelsOf({}),
  };
}

export const bert = encoderFamily(
  {
    name: 'bert',
    modelTypes: ['bert'],
    names: bertNames('bert.'),
    fromHF: readBert,
    architectures: ['bert'],
    fromGGUF: readBertGGUF,
  },
  {
    pooler: 'bert.pooler.dense',
    maskedLM: ({ activation }) => ({
      names: {
        dense: 'cls.predictions.transform.dense',
        norm: 'cls.predictions.transform.LayerNorm',
        out: 'cls.predictions.decoder',
        outBias: 'cls.predictions.bias',
      },
      activation,
    }),
    classification: () => ({ names: { dense: 'bert.pooler.dense', out: 'classifier' }, activation: 'tanh' }),
  },
);
