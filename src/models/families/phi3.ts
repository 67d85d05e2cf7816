// Phi-3 and Phi-4-mini: q, k and v are one layer, gate and up another; part of a head may be rotated; longrope scaling.
// Source: transformers, configuration_phi3.py and modeling_phi3.py.

import { readDecoderGGUF } from '../configGGUF.js';
import { fixedBiases, readDecoderHF, windowsOf } from '../configHF.js';
import { decoderFamily } from './family.js';
import { llamaNames } from './llama.js';

export const phi3 = decoderFamily({
  name: 'phi3',
  modelTypes: ['phi3'],
  names: {
    ...llamaNames,
    roles: {
      attentionNorm: 'input_layernorm',
      qkv: 'self_attn.qkv_proj',
      o: 'self_attn.o_proj',
      mlpNorm: 'post_attention_layernorm',
      gateUp: 'mlp.gate_up_proj',
      down: 'mlp.down_proj',
    },
  },
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      defaults: { max_position_embeddings: 4096, rms_norm_eps: 1e-5, original_max_position_embeddings: 4096 },
      switches: (c, common, fail) => ({
        ...fixedBiases(c, false, fail),
        windows: windowsOf(c, common, fail, () => typeof c.sliding_window === 'number'),
      }),
    }),
  architectures: ['phi3'],
  fromGGUF: file => readDecoderGGUF(file, { switches: () => ({}), slides: () => true }),
});
