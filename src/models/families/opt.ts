// OPT: a GPT-2 with a ReLU, separate q, k and v, and learned positions whose table begins with two rows that nothing
// uses. Source: transformers, configuration_opt.py and modeling_opt.py.

import { z } from 'zod';
import { readDecoderHF } from '../configHF.js';
import { decoderFamily } from './family.js';

/** Row of position 0. */
const offset = 2;

export const opt = decoderFamily({
  name: 'opt',
  modelTypes: ['opt'],
  names: {
    prefix: 'model.decoder.',
    embeddings: { word: 'model.decoder.embed_tokens', position: 'model.decoder.embed_positions' },
    blocks: 'model.decoder.layers',
    roles: {
      attentionNorm: 'self_attn_layer_norm',
      q: 'self_attn.q_proj',
      k: 'self_attn.k_proj',
      v: 'self_attn.v_proj',
      o: 'self_attn.out_proj',
      mlpNorm: 'final_layer_norm',
      up: 'fc1',
      down: 'fc2',
    },
    norm: 'model.decoder.final_layer_norm',
    head: 'lm_head',
  },
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      renamed: { ffn_dim: 'intermediate_size', activation_function: 'hidden_act' },
      keys: {
        enable_bias: z.boolean().default(true),
        do_layer_norm_before: z.literal(true, 'expected true: norms after each part are not supported').default(true),
        _remove_final_layer_norm: z.literal(false, 'expected false: a final norm').default(false),
        layer_norm_elementwise_affine: z.literal(true, 'expected true: norms with weights').default(true),
        word_embed_proj_dim: z.number().int().positive().nullish(),
      },
      defaults: { max_position_embeddings: 2048, hidden_act: 'relu', rms_norm_eps: 1e-5, tie_word_embeddings: true },
      switches(c, { hiddenSize, layers, maxPositions }, fail) {
        const width = c['word_embed_proj_dim'] ?? hiddenSize;
        if (width !== hiddenSize)
          fail(`word_embed_proj_dim: expected hidden_size, ${hiddenSize}, got ${String(width)}: not supported`);
        const bias = c['enable_bias'] as boolean;
        return {
          norm: 'layer',
          qkvBias: bias,
          outputBias: bias,
          mlpBias: bias,
          ropes: new Array<null>(layers).fill(null),
          learnedPositions: { rows: maxPositions + offset, offset },
        };
      },
    }),
});
