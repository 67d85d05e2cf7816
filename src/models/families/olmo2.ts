// OLMo 2: norms stand on what attention and the feed-forward add, not before them; queries and keys are normed over all
// heads. Source: transformers, configuration_olmo2.py and modeling_olmo2.py.

import { allAttentionBiases, readDecoderHF } from '../configHF.js';
import { decoderFamily } from './family.js';
import { llamaNames } from './llama.js';

const { q, k, v, o, gate, up, down } = llamaNames.roles;

export const olmo2 = decoderFamily({
  name: 'olmo2',
  modelTypes: ['olmo2'],
  names: {
    ...llamaNames,
    roles: {
      ...{ q, k, v, o, gate, up, down },
      qNorm: 'self_attn.q_norm',
      kNorm: 'self_attn.k_norm',
      attentionPostNorm: 'post_attention_layernorm',
      mlpPostNorm: 'post_feedforward_layernorm',
    },
  },
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      defaults: { max_position_embeddings: 2048, rms_norm_eps: 1e-5 },
      switches: c => ({ ...allAttentionBiases(c), qkNorm: 'full' }),
    }),
});
