// SmolLM3: a LLaMA that leaves rotary embeddings out of some layers, every fourth as a rule.
// Source: transformers, configuration_smollm3.py.

import { z } from 'zod';
import { allAttentionBiases, readDecoderHF, windowsOf } from '../configHF.js';
import { decoderFamily } from './family.js';
import { llamaNames } from './llama.js';

export const smollm3 = decoderFamily({
  name: 'smollm3',
  modelTypes: ['smollm3'],
  names: llamaNames,
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      keys: {
        no_rope_layers: z.array(z.union([z.literal(0), z.literal(1)])).nullish(),
        no_rope_layer_interval: z.number().int().positive().default(4),
      },
      defaults: { max_position_embeddings: 32768, rope_theta: 2e6, tie_word_embeddings: true },
      switches(c, common, fail) {
        const { layers, ropes } = common;
        const interval = c['no_rope_layer_interval'] as number;
        const listed = c['no_rope_layers'] as readonly number[] | null | undefined;
        if (listed && listed.length !== layers)
          fail(`no_rope_layers: has ${listed.length} entries for ${layers} layers`);
        // In the list 1 means that a layer has them.
        const rotates = (layer: number): boolean => (listed ? listed[layer] === 1 : (layer + 1) % interval !== 0);
        const slides = (layer: number): boolean =>
          c.use_sliding_window === true && typeof c.sliding_window === 'number' && !rotates(layer);
        return {
          ...allAttentionBiases(c),
          mlpBias: c.mlp_bias ?? false,
          ropes: ropes.map((rope, layer) => (rotates(layer) ? rope : null)),
          windows: windowsOf(c, common, fail, slides),
        };
      },
    }),
});
