// ModernBERT: norms before each part and none before the first attention, one layer for q, k and v and one for gate and
// values, rotary embeddings, and windows in all but every third layer. Sources: transformers,
// configuration_modernbert.py and modeling_modernbert.py.

import { z } from 'zod';
import { isJsonObject } from '../../io/strictJson.js';
import { checkedConfig, type RopeSettings } from '../config.js';
import { count, plainEncoder, positive, readKeys, textKeys, type EncoderConfig } from '../configEncoder.js';
import { ropeOf } from '../configHF.js';
import { encoderFamily } from '../loadEncoder.js';
import { blockComponents } from '../sites.js';
import type { ModelNames } from './family.js';

const layerTypes = ['full_attention', 'sliding_attention'] as const;
type LayerType = (typeof layerTypes)[number];

const keys = {
  ...textKeys,
  hidden_size: count,
  num_hidden_layers: count.max(1000),
  num_attention_heads: count,
  intermediate_size: count,
  hidden_activation: z.string().default('gelu'),
  norm_eps: positive.default(1e-5),
  norm_bias: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  layer_types: z.array(z.enum(layerTypes)).nullish(),
  global_attn_every_n_layers: count.default(3),
  local_attention: count.default(128),
  global_rope_theta: positive.default(160000),
  local_rope_theta: positive.default(10000),
  rope_parameters: z.looseObject({}).nullish(),
  classifier_pooling: z.enum(['cls', 'mean']).default('cls'),
  classifier_bias: z.boolean().default(false),
  classifier_activation: z.string().default('gelu'),
  decoder_bias: z.boolean().default(true),
};

/** What its heads need to know beside what all encoders have. */
interface ModernBertConfig extends EncoderConfig {
  readonly pooling: 'first' | 'mean';
  readonly classifierBias: boolean;
  readonly classifierActivation: string;
  readonly decoderBias: boolean;
}

function readModernBert(json: unknown, source: string): ModernBertConfig {
  const { c, fail } = readKeys(json, source, keys);
  const layers = c.num_hidden_layers;
  const types =
    c.layer_types ??
    Array.from({ length: layers }, (_, i): LayerType =>
      i % c.global_attn_every_n_layers === 0 ? 'full_attention' : 'sliding_attention',
    );
  if (types.length !== layers) fail(`layer_types: has ${types.length} entries for ${layers} layers`);
  const thetas = { full_attention: c.global_rope_theta, sliding_attention: c.local_rope_theta };
  const ropes = Object.fromEntries(
    layerTypes.map(type => {
      const given = c.rope_parameters?.[type];
      const key = `rope_parameters.${type}`;
      if (given !== undefined && given !== null && !isJsonObject(given))
        fail(`${key}: expected an object, got ${JSON.stringify(given)}`);
      const plain = { rope_theta: thetas[type] };
      return [type, ropeOf(plain, { ...(given as object | undefined) }, key, c.max_position_embeddings, fail)];
    }),
  ) as Record<LayerType, RopeSettings>;
  const strange = Object.keys(c.rope_parameters ?? {}).find(key => !(layerTypes as readonly string[]).includes(key));
  if (strange !== undefined) fail(`rope_parameters.${strange}: expected settings of ${layerTypes.join(' and ')} alone`);
  return checkedConfig(source, {
    ...plainEncoder(c, layers),
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    heads: c.num_attention_heads,
    kvHeads: c.num_attention_heads,
    headDim: c.hidden_size / c.num_attention_heads,
    activation: c.hidden_activation,
    normEps: c.norm_eps,
    normBias: c.norm_bias,
    qkvBias: c.attention_bias,
    outputBias: c.attention_bias,
    mlpBias: c.mlp_bias,
    learnedPositions: null,
    windows: types.map(type => (type === 'sliding_attention' ? Math.floor(c.local_attention / 2) : null)),
    ropes: types.map(type => ropes[type]),
    components: ['embeddings', ...blockComponents, 'final_norm'] as const,
    pooling: c.classifier_pooling === 'cls' ? ('first' as const) : ('mean' as const),
    classifierBias: c.classifier_bias,
    classifierActivation: c.classifier_activation,
    decoderBias: c.decoder_bias,
  });
}

const names: ModelNames = {
  prefix: 'model.',
  embeddings: { word: 'model.embeddings.tok_embeddings', norm: 'model.embeddings.norm' },
  blocks: 'model.layers',
  roles: {
    attentionNorm: 'attn_norm',
    qkv: 'attn.Wqkv',
    o: 'attn.Wo',
    mlpNorm: 'mlp_norm',
    gateUp: 'mlp.Wi',
    down: 'mlp.Wo',
  },
  notInFirst: ['attentionNorm'],
  norm: 'model.final_norm',
};

/** Between states and a head's last layer. */
const transform = { dense: 'head.dense', norm: 'head.norm' };

export const modernbert = encoderFamily<ModernBertConfig>(
  { name: 'modernbert', modelTypes: ['modernbert'], names, fromHF: readModernBert },
  {
    maskedLM: config => ({
      names: { ...transform, out: 'decoder' },
      activation: config.classifierActivation,
      denseBias: config.classifierBias,
      outBias: config.decoderBias,
    }),
    classification: config => ({
      names: { ...transform, out: 'classifier' },
      activation: config.classifierActivation,
      denseBias: config.classifierBias,
      pooling: config.pooling,
    }),
  },
);
