// GPT-2: LayerNorm before each part, one layer for q, k and v, a plain feed-forward, learned positions, biases
// everywhere. Its matrices are stored [in, out]. Source: transformers, configuration_gpt2.py and modeling_gpt2.py.

import { z } from 'zod';
import { readDecoderGGUF } from '../configGGUF.js';
import { readDecoderHF } from '../configHF.js';
import type { DecoderConfig } from '../config.js';
import { decoderFamily } from './family.js';

const switches = ({ maxPositions, layers }: DecoderConfig): Partial<DecoderConfig> => ({
  norm: 'layer',
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  ropes: new Array<null>(layers).fill(null),
  learnedPositions: { rows: maxPositions, offset: 0 },
});

export const gpt2 = decoderFamily({
  name: 'gpt2',
  modelTypes: ['gpt2'],
  names: {
    prefix: 'transformer.',
    embeddings: { word: 'transformer.wte', position: 'transformer.wpe' },
    blocks: 'transformer.h',
    roles: {
      attentionNorm: 'ln_1',
      qkv: 'attn.c_attn',
      o: 'attn.c_proj',
      mlpNorm: 'ln_2',
      up: 'mlp.c_fc',
      down: 'mlp.c_proj',
    },
    norm: 'transformer.ln_f',
    head: 'lm_head',
    transposed: true,
    // The triangle of the causal mask.
    ignored: /\.attn\.(masked_)?bias$/,
  },
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      renamed: {
        n_embd: 'hidden_size',
        n_layer: 'num_hidden_layers',
        n_head: 'num_attention_heads',
        n_inner: 'intermediate_size',
        n_positions: 'max_position_embeddings',
        activation_function: 'hidden_act',
        layer_norm_epsilon: 'rms_norm_eps',
      },
      keys: {
        scale_attn_weights: z.boolean().default(true),
        scale_attn_by_inverse_layer_idx: z.literal(false).default(false),
      },
      prepare(given) {
        given['intermediate_size'] ??= 4 * Number(given['hidden_size']);
      },
      defaults: {
        max_position_embeddings: 1024,
        hidden_act: 'gelu_new',
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
      },
      switches: (c, common) => ({ ...switches(common), attentionScale: c['scale_attn_weights'] === false ? 1 : null }),
    }),
  architectures: ['gpt2'],
  fromGGUF: file =>
    readDecoderGGUF(file, {
      normKey: 'attention.layer_norm_epsilon',
      switches: common => ({ ...switches(common), activation: 'gelu_new' }),
    }),
});
