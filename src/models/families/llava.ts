// LLaVA 1.5: CLIP's vision tower, a projector of two layers, and a LLaMA. Sources: transformers,
// configuration_llava.py and modeling_llava.py.

import { z } from 'zod';
import { isJsonObject } from '../../io/strictJson.js';
import { FormatError } from '../../io/errors.js';
import { Linear } from '../../nn/linear.js';
import { count, readKeys } from '../configEncoder.js';
import { ImageTextLM, type ImageTextConfig } from '../imageTextLM.js';
import { loadImageEncoder } from '../imageEncoder.js';
import { loadDecoder } from '../load.js';
import { clipImageNames, clipVisionNames, readClipVision } from './clip.js';
import { defineFamily, type ModelNames } from './family.js';
import { llama, llamaNames } from './llama.js';

const prefix = 'language_model.';

const names: ModelNames = {
  ...llamaNames,
  prefix: `${prefix}model.`,
  embeddings: { word: `${prefix}model.embed_tokens` },
  blocks: `${prefix}model.layers`,
  otherBlocks: ['vision_tower.encoder.layers', 'vision_tower.vision_model.encoder.layers'],
  // Where transformers has the modules since its fifth version.
  moduleBlocks: ['model.language_model.layers'],
  norm: `${prefix}model.norm`,
  head: `${prefix}lm_head`,
};

function readLlava(json: unknown, source: string): ImageTextConfig {
  const part = z.looseObject({});
  const { c, fail } = readKeys(json, source, {
    model_type: z.string(),
    text_config: part,
    vision_config: part,
    image_token_index: z.number().int().nonnegative().default(32000),
    projector_hidden_act: z.string().default('gelu'),
    multimodal_projector_bias: z.literal(true).default(true),
    vision_feature_layer: z.number().int().default(-2),
    vision_feature_select_strategy: z.enum(['default', 'full']).default('default'),
    // How many states an image has, which follows from its sizes.
    image_seq_length: count.optional(),
    tie_word_embeddings: z.boolean().optional(),
    ignore_index: z.number().optional(),
    vocab_size: count.optional(),
    pad_token_id: z.number().nullish(),
  });
  const { model_type: type = 'llama' } = c.text_config as { model_type?: unknown };
  if (type !== 'llama') fail(`text_config.model_type: expected 'llama', got '${String(type)}': not supported`);
  const text = llama.fromHF({ ...c.text_config, model_type: 'llama' }, `${source}, text_config`) as ImageTextConfig;
  const vision = readClipVision(c.vision_config, `${source}, vision_config`);
  const layer = c.vision_feature_layer;
  const featureLayer = layer < 0 ? vision.layers + 1 + layer : layer;
  if (!(featureLayer >= 0 && featureLayer <= vision.layers))
    fail(`vision_feature_layer: ${layer}: the vision tower has hidden states 0..${vision.layers}`);
  if (c.image_token_index >= text.vocabSize)
    fail(`image_token_index: ${c.image_token_index}: the vocabulary has ${text.vocabSize} tokens`);
  return {
    ...text,
    modelType: c.model_type,
    vision,
    imageTokenId: c.image_token_index,
    featureLayer,
    dropsClassToken: c.vision_feature_select_strategy === 'default',
    projectorActivation: c.projector_hidden_act,
  };
}

export const llava = defineFamily<ImageTextConfig>({
  name: 'llava',
  modelTypes: ['llava'],
  names,
  fromHF(json, source) {
    if (!isJsonObject(json)) throw new FormatError(source, 'expected a JSON object');
    return readLlava(json, source);
  },
  tasks: {
    imageTextToText: async ({ config, weights, name, generation }) => {
      const { vision: visionConfig, hiddenSize } = config;
      const inner = 'vision_tower.vision_model.';
      const tower = weights.has(`${inner}pre_layrnorm.weight`) ? inner : 'vision_tower.';
      const vision = await loadImageEncoder(
        visionConfig,
        clipVisionNames(tower),
        clipImageNames(tower),
        weights,
        'vision',
      );
      // On a class token that is not read.
      for (const kind of ['weight', 'bias'])
        if (weights.has(`${tower}post_layernorm.${kind}`))
          await weights.load(`${tower}post_layernorm.${kind}`, [visionConfig.hiddenSize]);
      const projector = async (number: 1 | 2, input: number): Promise<Linear> => {
        const path = `multi_modal_projector.linear_${number}`;
        return new Linear(
          await weights.load(`${path}.weight`, [hiddenSize, input]),
          await weights.load(`${path}.bias`, [hiddenSize]),
        );
      };
      const projectors = [await projector(1, visionConfig.hiddenSize), await projector(2, hiddenSize)] as const;
      const decoder = await loadDecoder(config, names, weights);
      return new ImageTextLM(config, { ...decoder, vision, projector: projectors }, name, generation);
    },
  },
});
