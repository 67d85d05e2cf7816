// ViT: patches of an image and a class token, norms before each part, a classifier on the class token. Sources:
// transformers, configuration_vit.py and modeling_vit.py.

import { z } from 'zod';
import { BaseEncoder } from '../baseEncoder.js';
import { ImageClassifier } from '../classifier.js';
import { count, positive } from '../configEncoder.js';
import { readImageConfig } from '../configImage.js';
import { loadHead, loadPooler } from '../heads.js';
import { loadImageEncoder, type ImageConfig, type ImageNames, type ImageOptions } from '../imageEncoder.js';
import type { Encoder } from '../encoder.js';
import { defineFamily, type Loading, type ModelNames } from './family.js';

const names: ModelNames = {
  prefix: 'vit.',
  embeddings: {},
  blocks: 'vit.encoder.layer',
  // transformers 5 has its modules elsewhere than its tensors.
  moduleBlocks: ['vit.layers'],
  roles: {
    attentionNorm: 'layernorm_before',
    q: 'attention.attention.query',
    k: 'attention.attention.key',
    v: 'attention.attention.value',
    o: 'attention.output.dense',
    mlpNorm: 'layernorm_after',
    up: 'intermediate.dense',
    down: 'output.dense',
  },
  modules: {
    'attention.input': 'attention_input',
    'attention.attention.input': 'attention_input',
    'attention.attention.output': 'attention_value_output',
    'attention.output': 'attention_output',
    'attention.output.output': 'attention_output',
    'intermediate.input': 'mlp_input',
    'intermediate.output': 'mlp_activation',
    'output.output': 'block_output',
  },
  norm: 'vit.layernorm',
};

const image: ImageNames = {
  patches: 'vit.embeddings.patch_embeddings.projection',
  patchBias: true,
  classToken: ['vit.embeddings.cls_token', 3],
  positions: ['vit.embeddings.position_embeddings', 3],
};

function readVit(json: unknown, source: string): ImageConfig {
  const { config, c } = readImageConfig(json, source, {
    hidden_act: z.string().default('gelu'),
    layer_norm_eps: positive.default(1e-12),
    qkv_bias: z.boolean().default(true),
    pooler_act: z.literal('tanh').default('tanh'),
    pooler_output_size: count.optional(),
    // Of the model that fills in masked patches.
    encoder_stride: count.optional(),
  });
  return { ...config, qkvBias: c.qkv_bias };
}

async function encoderOf({ config, weights }: Loading<ImageConfig>): Promise<Encoder<ImageOptions>> {
  const encoder = await loadImageEncoder(config, names, image, weights);
  weights.checkAllRead();
  return encoder;
}

export const vit = defineFamily<ImageConfig>({
  name: 'vit',
  modelTypes: ['vit'],
  names,
  fromHF: readVit,
  tasks: {
    base: async loading => {
      const encoder = await encoderOf(loading);
      const { config, weights, name } = loading;
      return new BaseEncoder(encoder, await loadPooler(weights, 'vit.pooler.dense', config.hiddenSize), config, name);
    },
    imageClassification: async loading => {
      const encoder = await encoderOf(loading);
      const { config, weights, name } = loading;
      const head = await loadHead(weights, { names: { out: 'classifier' } }, config, config.labels);
      return new ImageClassifier(encoder, head, config, name);
    },
  },
});
