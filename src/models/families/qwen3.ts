// Qwen3: a LLaMA whose queries and keys of each head are normed, with heads of a size of their own and no biases of q,
// k and v. Source: transformers, configuration_qwen3.py and modeling_qwen3.py.

import { readDecoderGGUF } from '../configGGUF.js';
import { allAttentionBiases, readDecoderHF, windowsOf } from '../configHF.js';
import { decoderFamily, type ModelNames } from './family.js';
import { llamaNames } from './llama.js';

/** LLaMA's names, with norms of queries and keys. */
export const qwen3Names: ModelNames = {
  ...llamaNames,
  roles: { ...llamaNames.roles, qNorm: 'self_attn.q_norm', kNorm: 'self_attn.k_norm' },
};

export const qwen3 = decoderFamily({
  name: 'qwen3',
  modelTypes: ['qwen3'],
  names: qwen3Names,
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      defaults: { max_position_embeddings: 32768, sliding_window: 4096, head_dim: 128 },
      switches(c, common, fail) {
        const first = c.max_window_layers ?? 28;
        const slides = (layer: number): boolean =>
          c.use_sliding_window === true && typeof c.sliding_window === 'number' && layer >= first;
        return { ...allAttentionBiases(c), qkNorm: 'head', windows: windowsOf(c, common, fail, slides) };
      },
    }),
  architectures: ['qwen3'],
  fromGGUF: file => readDecoderGGUF(file, { switches: () => ({ qkNorm: 'head' }) }),
});
