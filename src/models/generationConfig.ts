// What a model's own files say about generation: the tokens that end it, and how its authors sample. From
// generation_config.json or GGUF metadata.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import type { SamplingOptions } from './generation/sampling.js';

export interface GenerationConfig {
  /** Tokens that end a generation, beside those of the model's configuration. */
  readonly eosTokenIds: readonly number[];
  /** How the model's authors sample, as transformers reads it. */
  readonly sampling: SamplingOptions;
  readonly maxNewTokens?: number;
  /** Settings of theirs that `generate` does not have. */
  readonly unsupported: readonly string[];
}

export const noGenerationConfig: GenerationConfig = { eosTokenIds: [], sampling: {}, unsupported: [] };

const ids = z.number().int();
const schema = z.looseObject({
  eos_token_id: z.union([ids, z.array(ids)]).nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).nullish(),
  top_k: z.number().int().min(0).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
  max_new_tokens: z.number().int().positive().nullish(),
});

/** Settings that change which tokens are chosen, and the values at which they do nothing. */
const neutral: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  num_beam_groups: [1],
  penalty_alpha: [0],
  min_p: [0],
  top_h: [],
  typical_p: [1],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  encoder_repetition_penalty: [1],
  no_repeat_ngram_size: [0],
  encoder_no_repeat_ngram_size: [0],
  diversity_penalty: [0],
  bad_words_ids: [],
  force_words_ids: [],
  sequence_bias: [],
  constraints: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  suppress_tokens: [],
  begin_suppress_tokens: [],
  forced_decoder_ids: [],
  exponential_decay_length_penalty: [],
  min_length: [0],
  min_new_tokens: [0],
  guidance_scale: [1],
  dola_layers: [],
  watermarking_config: [],
  stop_strings: [],
  presence_penalty: [0],
  frequency_penalty: [0],
};

/** From the content of a generation_config.json. @throws FormatError for values that make no sense, naming the key */
export function generationConfigFromHF(json: unknown, source: string): GenerationConfig {
  const parsed = schema.safeParse(json);
  if (!parsed.success)
    throw new FormatError(
      source,
      parsed.error.issues.map(i => `${i.path.join('.') || 'top level'}: ${i.message}`).join('; '),
    );
  const c = parsed.data;
  const eos = c.eos_token_id ?? [];
  // Without do_sample transformers takes the most likely token, whatever the other settings say; with it, 50 tokens
  // unless top_k says otherwise.
  const topK = c.top_k ?? 50;
  const drawing =
    c.do_sample !== true || c.temperature === 0
      ? {}
      : { temperature: c.temperature ?? 1, ...(topK > 0 ? { topK } : {}), ...(c.top_p ? { topP: c.top_p } : {}) };
  return {
    eosTokenIds: (Array.isArray(eos) ? eos : [eos]).filter(id => id >= 0),
    sampling: { ...drawing, ...(c.repetition_penalty ? { repetitionPenalty: c.repetition_penalty } : {}) },
    ...(c.max_new_tokens ? { maxNewTokens: c.max_new_tokens } : {}),
    unsupported: Object.keys(neutral).filter(
      key => c[key] !== undefined && c[key] !== null && !neutral[key].includes(c[key]),
    ),
  };
}

/**
 * From GGUF metadata: the ends of a turn and of a message, beside eos. Ids that the vocabulary does not have count as
 * absent.
 */
export function generationConfigFromGGUF(
  metadata: Readonly<Record<string, unknown>>,
  vocabSize: number,
): GenerationConfig {
  const ends = ['eot_token_id', 'eom_token_id'].map(key => Number(metadata[`tokenizer.ggml.${key}`] ?? NaN));
  return { ...noGenerationConfig, eosTokenIds: ends.filter(id => Number.isInteger(id) && id >= 0 && id < vocabSize) };
}
