// CLIP: two stacks of blocks with norms before each part, 'text' (causal) and 'vision'. Sources: transformers,
// configuration_clip.py and modeling_clip.py.

import { z } from 'zod';
import { Linear } from '../../nn/linear.js';
import { ClipModel, type ClipConfig } from '../clip.js';
import { checkedConfig } from '../config.js';
import { count, plainEncoder, positive, readKeys, textKeys, type EncoderConfig } from '../configEncoder.js';
import { readImageConfig } from '../configImage.js';
import type { RoleNames } from '../block.js';
import { loadImageEncoder, type ImageConfig, type ImageNames } from '../imageEncoder.js';
import { loadNorm } from '../load.js';
import { loadEncoder } from '../loadEncoder.js';
import { blockComponents } from '../sites.js';
import { defineFamily, type ModelNames } from './family.js';

const roles: RoleNames = {
  attentionNorm: 'layer_norm1',
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.out_proj',
  mlpNorm: 'layer_norm2',
  up: 'mlp.fc1',
  down: 'mlp.fc2',
};

const names: ModelNames = {
  prefix: '',
  embeddings: { word: 'text_model.embeddings.token_embedding', position: 'text_model.embeddings.position_embedding' },
  blocks: 'text_model.encoder.layers',
  otherBlocks: ['vision_model.encoder.layers'],
  roles,
  norm: 'text_model.final_layer_norm',
};

/** The vision tower's names behind a prefix, which models that contain it have. */
export const clipVisionNames = (prefix = 'vision_model.'): Pick<ModelNames, 'blocks' | 'roles'> => ({
  blocks: `${prefix}encoder.layers`,
  roles,
});
export const clipImageNames = (prefix = 'vision_model.'): ImageNames => ({
  patches: `${prefix}embeddings.patch_embedding`,
  patchBias: false,
  classToken: [`${prefix}embeddings.class_embedding`, 1],
  positions: [`${prefix}embeddings.position_embedding.weight`, 2],
  norm: `${prefix}pre_layrnorm`,
});

/** `vision_config` of CLIP and of models that contain its vision tower. */
export function readClipVision(json: unknown, source: string): ImageConfig {
  const sides = z.union([count, z.tuple([count, count])]);
  const { config } = readImageConfig(json, source, {
    model_type: z.string().default('clip_vision_model'),
    hidden_size: count.default(768),
    num_hidden_layers: count.max(1000).default(12),
    num_attention_heads: count.default(12),
    intermediate_size: count.default(3072),
    hidden_act: z.string().default('quick_gelu'),
    layer_norm_eps: positive.default(1e-5),
    image_size: sides.default(224),
    patch_size: sides.default(32),
    projection_dim: count.optional(),
    // The whole model's, where its parts were saved with all keys.
    vocab_size: count.optional(),
  });
  return { ...config, components: ['embeddings', ...blockComponents] };
}

function readClipText(json: unknown, source: string): EncoderConfig {
  const { c } = readKeys(json, source, {
    ...textKeys,
    model_type: z.string().default('clip_text_model'),
    vocab_size: count.default(49408),
    max_position_embeddings: count.default(77),
    hidden_size: count.default(512),
    num_hidden_layers: count.max(1000).default(12),
    num_attention_heads: count.default(8),
    intermediate_size: count.default(2048),
    hidden_act: z.string().default('quick_gelu'),
    layer_norm_eps: positive.default(1e-5),
    projection_dim: count.optional(),
  });
  return checkedConfig(source, {
    ...plainEncoder(c, c.num_hidden_layers),
    causal: true,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    heads: c.num_attention_heads,
    kvHeads: c.num_attention_heads,
    headDim: c.hidden_size / c.num_attention_heads,
    activation: c.hidden_act,
    normEps: c.layer_norm_eps,
    components: ['embeddings', ...blockComponents, 'final_norm'] as const,
  });
}

function readClip(json: unknown, source: string): ClipConfig {
  const part = z.looseObject({}).nullish();
  const { c, fail } = readKeys(json, source, {
    model_type: z.string(),
    projection_dim: count.default(512),
    text_config: part,
    vision_config: part,
    // What old files have in place of the two, or beside them with the same values.
    text_config_dict: part,
    vision_config_dict: part,
    // Where the scale began before it was trained.
    logit_scale_init_value: z.number().optional(),
    bos_token_id: z.number().optional(),
    eos_token_id: z.number().optional(),
    pad_token_id: z.number().optional(),
    tie_word_embeddings: z.boolean().optional(),
  });
  const inside = (key: 'text_config' | 'vision_config'): object => {
    const old = c[`${key}_dict`];
    const merged = { ...c[key], ...old };
    if (c[key] === undefined && old === undefined) fail(`${key}: expected an object, got nothing`);
    return merged;
  };
  const textJson = inside('text_config') as { eos_token_id?: unknown };
  const end = textJson.eos_token_id ?? 49407;
  const text = readClipText(textJson, `${source}, text_config`);
  return {
    modelType: c.model_type,
    text,
    vision: readClipVision(inside('vision_config'), `${source}, vision_config`),
    projectionDim: c.projection_dim,
    endTokenId: end === 2 ? null : Number(end),
  };
}

export const clip = defineFamily<ClipConfig>({
  name: 'clip',
  modelTypes: ['clip'],
  names,
  fromHF: readClip,
  tasks: {
    base: async ({ config, weights, name }) => {
      const { text, vision, projectionDim } = config;
      const visionEncoder = await loadImageEncoder(vision, clipVisionNames(), clipImageNames(), weights, 'vision');
      const projection = async (path: string, size: number): Promise<Linear> =>
        new Linear(await weights.load(`${path}.weight`, [projectionDim, size]));
      const parts = {
        vision: visionEncoder,
        visionNorm: await loadNorm(weights, 'vision_model.post_layernorm', vision.hiddenSize, vision),
        textProjection: await projection('text_projection', text.hiddenSize),
        visualProjection: await projection('visual_projection', vision.hiddenSize),
        logitScale: await weights.load('logit_scale', []),
        text: await loadEncoder(text, names, weights, 'text'),
      };
      return new ClipModel(parts, config, name);
    },
  },
});
