// LLaMA 1, 2 and 3 and what is built like them (SmolLM2, DeepSeek's distillations), and Mistral, which is a LLaMA with
// a sliding window. Sources: transformers, configuration_llama.py and configuration_mistral.py.

import { configFromGGUF } from '../configGGUF.js';
import { fixedBiases, readDecoderHF, windowsOf, type DecoderReader } from '../configHF.js';
import { decoderFamily, type ModelNames } from './family.js';

/** Names that most decoders took over. */
export const llamaNames: ModelNames = {
  prefix: 'model.',
  embeddings: { word: 'model.embed_tokens' },
  blocks: 'model.layers',
  roles: {
    attentionNorm: 'input_layernorm',
    q: 'self_attn.q_proj',
    k: 'self_attn.k_proj',
    v: 'self_attn.v_proj',
    o: 'self_attn.o_proj',
    mlpNorm: 'post_attention_layernorm',
    gate: 'mlp.gate_proj',
    up: 'mlp.up_proj',
    down: 'mlp.down_proj',
  },
  norm: 'model.norm',
  head: 'lm_head',
  // Old checkpoints hold the frequencies of rotary embeddings, which follow from the configuration.
  ignored: /\.rotary_emb\.inv_freq$/,
};

const readers: Readonly<Record<string, DecoderReader>> = {
  llama: {
    defaults: { max_position_embeddings: 2048 },
    switches(c, common, fail) {
      const { maxPositions } = common;
      const size = c.sliding_window;
      if (!c.layer_types) {
        if (size && size < maxPositions && c.use_sliding_window !== false)
          fail(`sliding_window: ${size}, but a llama has no window; layer_types would say which layers have`);
        if (c.use_sliding_window)
          fail('use_sliding_window: true, but a llama has no window; layer_types would say which layers have');
      }
      const attention = c.attention_bias ?? false;
      return {
        qkvBias: attention,
        outputBias: attention,
        mlpBias: c.mlp_bias ?? false,
        windows: windowsOf(c, common, fail),
      };
    },
  },
  mistral: {
    defaults: { max_position_embeddings: 131072, sliding_window: 4096 },
    switches(c, common, fail) {
      const slides = (): boolean => typeof c.sliding_window === 'number';
      if (slides() && !c.layer_types && c.max_window_layers)
        fail(
          `max_window_layers: ${c.max_window_layers}, but all layers of a mistral slide; layer_types would say which do not`,
        );
      return { ...fixedBiases(c, false, fail), windows: windowsOf(c, common, fail, slides) };
    },
  },
};

export const llama = decoderFamily({
  name: 'llama',
  modelTypes: Object.keys(readers),
  names: llamaNames,
  fromHF: (json, source) => readDecoderHF(json, source, readers[(json as { model_type: string }).model_type]),
  architectures: ['llama', 'mistral'],
  fromGGUF: configFromGGUF,
});
