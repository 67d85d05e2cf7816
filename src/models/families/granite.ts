// Granite 3: a LLaMA with four multipliers, of embeddings, scores, what blocks add, and logits.
// Source: transformers, configuration_granite.py and modeling_granite.py.

import { z } from 'zod';
import { allAttentionBiases, readDecoderHF } from '../configHF.js';
import { decoderFamily } from './family.js';
import { llamaNames } from './llama.js';

const multiplier = z.number().positive().default(1);

export const granite = decoderFamily({
  name: 'granite',
  modelTypes: ['granite'],
  names: llamaNames,
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      keys: {
        embedding_multiplier: multiplier,
        attention_multiplier: multiplier,
        residual_multiplier: multiplier,
        logits_scaling: multiplier,
      },
      defaults: { max_position_embeddings: 2048 },
      switches: c => ({
        ...allAttentionBiases(c),
        mlpBias: c.mlp_bias ?? false,
        embeddingScale: c['embedding_multiplier'] as number,
        attentionScale: c['attention_multiplier'] as number,
        residualScale: c['residual_multiplier'] as number,
        logitsScale: 1 / (c['logits_scaling'] as number),
      }),
    }),
});
