// What Gemma 2 and 3 share: norms before and after each part with weights stored as their difference from 1, embeddings
// multiplied by sqrt(width), a tanh GELU, windows in some layers, a scale of scores of their own.
// Source: transformers, modeling_gemma2.py and modeling_gemma3.py.

import { z } from 'zod';
import type { DecoderConfig } from '../config.js';
import type { HFConfig } from '../configHF.js';
import type { ModelNames } from './family.js';
import { llamaNames } from './llama.js';

export const gemmaNames: ModelNames = {
  ...llamaNames,
  roles: {
    ...llamaNames.roles,
    attentionPostNorm: 'post_attention_layernorm',
    mlpNorm: 'pre_feedforward_layernorm',
    mlpPostNorm: 'post_feedforward_layernorm',
  },
};

export const gemmaKeys = {
  hidden_activation: z.string().nullish(),
  query_pre_attn_scalar: z.number().positive().default(256),
  attn_logit_softcapping: z.number().positive().nullish(),
  final_logit_softcapping: z.number().positive().nullish(),
};

export function gemmaSwitches(c: HFConfig, { hiddenSize }: DecoderConfig): Partial<DecoderConfig> {
  const number = (key: keyof typeof gemmaKeys): number | null => (c[key] as number | null | undefined) ?? null;
  return {
    norm: 'rmsPlusOne',
    embeddingScale: Math.sqrt(hiddenSize),
    activation: (c['hidden_activation'] as string | null | undefined) ?? 'gelu_pytorch_tanh',
    attentionScale: (c['query_pre_attn_scalar'] as number) ** -0.5,
    attentionSoftcap: number('attn_logit_softcapping'),
    logitsSoftcap: number('final_logit_softcapping'),
  };
}
