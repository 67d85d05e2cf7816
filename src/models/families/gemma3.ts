// Gemma 3, its text model: five layers with a window for each one without, which have rotary embeddings of their own;
// queries and keys of each head are normed. Source: transformers, configuration_gemma3.py.

import { z } from 'zod';
import { readDecoderGGUF } from '../configGGUF.js';
import { allAttentionBiases, readDecoderHF, windowsOf } from '../configHF.js';
import type { DecoderConfig, RopeSettings } from '../config.js';
import { decoderFamily } from './family.js';
import { gemmaKeys, gemmaNames, gemmaSwitches } from './gemma.js';

const defaultPattern = 6;
const slidesBy =
  (pattern: number) =>
  (layer: number): boolean =>
    (layer + 1) % pattern !== 0;

/** Layers with a window turn by a base of their own, without scaling. */
function ropesBy(common: DecoderConfig, slides: (layer: number) => boolean, localBase: number): RopeSettings[] {
  const [whole] = common.ropes as readonly RopeSettings[];
  const local: RopeSettings = { theta: localBase, scaling: null, fraction: whole.fraction };
  return Array.from({ length: common.layers }, (_, layer) => (slides(layer) ? local : whole));
}

export const gemma3 = decoderFamily({
  name: 'gemma3',
  modelTypes: ['gemma3_text'],
  names: { ...gemmaNames, roles: { ...gemmaNames.roles, qNorm: 'self_attn.q_norm', kNorm: 'self_attn.k_norm' } },
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      keys: {
        ...gemmaKeys,
        sliding_window_pattern: z.number().int().positive().nullish(),
        rope_local_base_freq: z.number().positive().nullish(),
      },
      defaults: {
        max_position_embeddings: 131072,
        sliding_window: 4096,
        tie_word_embeddings: true,
        head_dim: 256,
        rope_theta: 1e6,
      },
      switches(c, common, fail) {
        const pattern = (c['sliding_window_pattern'] as number | null | undefined) ?? defaultPattern;
        const { layer_types: types } = c;
        const slides = (layer: number): boolean =>
          types ? types[layer] === 'sliding_attention' : slidesBy(pattern)(layer);
        const byType = c.rope_parameters && 'full_attention' in c.rope_parameters;
        const localBase = (c['rope_local_base_freq'] as number | null | undefined) ?? 10000;
        return {
          ...gemmaSwitches(c, common),
          ...allAttentionBiases(c),
          qkNorm: 'head',
          windows: windowsOf(c, common, fail, slides),
          ...(byType ? {} : { ropes: ropesBy(common, slides, localBase) }),
        };
      },
    }),
  architectures: ['gemma3'],
  fromGGUF: file =>
    readDecoderGGUF(file, {
      slides: slidesBy(defaultPattern),
      switches: (common, { optional }) => ({
        norm: 'rmsPlusOne',
        embeddingScale: Math.sqrt(common.hiddenSize),
        activation: 'gelu_pytorch_tanh',
        qkNorm: 'head',
        // As llama.cpp has it: the 27B model scales by its width over its heads.
        attentionScale: (common.layers === 62 ? common.hiddenSize / common.heads : common.headDim) ** -0.5,
        logitsSoftcap: optional('final_logit_softcapping', null),
        ropes: ropesBy(common, slidesBy(defaultPattern), 10000),
      }),
    }),
});
