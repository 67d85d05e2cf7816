// GPT-NeoX (Pythia): attention and feed-forward read the same residual stream, each behind a LayerNorm of its own, and
// are added together; a quarter of each head is rotated; each head's q, k and v lie side by side in one layer.
// Source: transformers, configuration_gpt_neox.py and modeling_gpt_neox.py.

import { z } from 'zod';
import { readDecoderHF } from '../configHF.js';
import { decoderFamily } from './family.js';

export const gptNeoX = decoderFamily({
  name: 'gptNeoX',
  modelTypes: ['gpt_neox'],
  names: {
    prefix: 'gpt_neox.',
    embeddings: { word: 'gpt_neox.embed_in' },
    blocks: 'gpt_neox.layers',
    roles: {
      attentionNorm: 'input_layernorm',
      qkv: 'attention.query_key_value',
      o: 'attention.dense',
      mlpNorm: 'post_attention_layernorm',
      up: 'mlp.dense_h_to_4h',
      down: 'mlp.dense_4h_to_h',
    },
    norm: 'gpt_neox.final_layer_norm',
    head: 'embed_out',
    // Masks and frequencies that old checkpoints hold.
    ignored: /\.attention\.((masked_)?bias|rotary_emb\.inv_freq)$/,
  },
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      renamed: { rotary_pct: 'partial_rotary_factor', rotary_emb_base: 'rope_theta', layer_norm_eps: 'rms_norm_eps' },
      keys: { use_parallel_residual: z.boolean().default(true) },
      defaults: {
        max_position_embeddings: 2048,
        hidden_act: 'gelu',
        rms_norm_eps: 1e-5,
        partial_rotary_factor: 0.25,
        attention_bias: true,
      },
      switches: c => ({
        norm: 'layer',
        parallel: c['use_parallel_residual'] as boolean,
        qkvOrder: 'heads',
        qkvBias: c.attention_bias ?? true,
        outputBias: c.attention_bias ?? true,
        mlpBias: true,
      }),
    }),
});
