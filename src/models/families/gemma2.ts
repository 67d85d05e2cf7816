// Gemma 2: every other layer has a window, beginning with the first; scores and logits are capped.
// Source: transformers, configuration_gemma2.py.

import { readDecoderGGUF } from '../configGGUF.js';
import { allAttentionBiases, readDecoderHF, windowsOf } from '../configHF.js';
import { decoderFamily } from './family.js';
import { gemmaKeys, gemmaNames, gemmaSwitches } from './gemma.js';

const slides = (layer: number): boolean => layer % 2 === 0;

export const gemma2 = decoderFamily({
  name: 'gemma2',
  modelTypes: ['gemma2'],
  names: gemmaNames,
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      keys: gemmaKeys,
      defaults: {
        max_position_embeddings: 8192,
        sliding_window: 4096,
        tie_word_embeddings: true,
        head_dim: 256,
        attn_logit_softcapping: 50,
        final_logit_softcapping: 30,
      },
      switches: (c, common, fail) => ({
        ...gemmaSwitches(c, common),
        ...allAttentionBiases(c),
        windows: windowsOf(c, common, fail, slides),
      }),
    }),
  architectures: ['gemma2'],
  fromGGUF: file =>
    readDecoderGGUF(file, {
      slides,
      switches: ({ hiddenSize, headDim, heads, layers }, { optional }) => ({
        norm: 'rmsPlusOne',
        embeddingScale: Math.sqrt(hiddenSize),
        activation: 'gelu_pytorch_tanh',
        // As llama.cpp has it: the 27B model scales by its width over its heads.
        attentionScale: (layers === 46 ? hiddenSize / heads : headDim) ** -0.5,
        attentionSoftcap: optional('attn_logit_softcapping', 50),
        logitsSoftcap: optional('final_logit_softcapping', 30),
      }),
    }),
});
