// What tokenizer_config.json changes of a tokenizer.json, as transformers applies it to its fast tokenizers: switches
// of components, tokens that are found whole. Its other keys are for slow tokenizers, padding, truncation and Python:
// transformers takes any, and a tokenizer.json stands above them.

import { z } from 'zod';
import { FormatError } from './errors.js';
import type { AddedTokenJson } from './tokenizerAdded.js';
import type { Component } from './tokenizerParts.js';
import type { TokenizerJson } from './tokenizerPipeline.js';

const flag = z.boolean().nullish();
const flags = {
  lstrip: z.boolean().optional(),
  rstrip: z.boolean().optional(),
  normalized: z.boolean().optional(),
  single_word: z.boolean().optional(),
};
/** How a token is found. */
type FindingFlags = z.infer<z.ZodObject<typeof flags>>;
const tokenEntry = z.union([z.string(), z.looseObject({ content: z.string(), ...flags })]);
/** A token by its text, or with how it is found. */
export type TokenEntry = z.infer<typeof tokenEntry>;

export const specialTokenNames = [
  'bos_token',
  'eos_token',
  'unk_token',
  'sep_token',
  'pad_token',
  'cls_token',
  'mask_token',
] as const;
const optionalToken = tokenEntry.nullish();
const named = {
  bos_token: optionalToken,
  eos_token: optionalToken,
  unk_token: optionalToken,
  sep_token: optionalToken,
  pad_token: optionalToken,
  cls_token: optionalToken,
  mask_token: optionalToken,
  additional_special_tokens: z.array(tokenEntry).nullish(),
};

export const specialTokensSchema = z.looseObject(named);
export const configSchema = z.looseObject({
  ...named,
  chat_template: z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))]).nullish(),
  clean_up_tokenization_spaces: flag,
  add_bos_token: flag,
  add_eos_token: flag,
  split_special_tokens: flag,
  /** Of a ByteLevel pre-tokenizer. */
  add_prefix_space: flag,
  /** Of a BertNormalizer. */
  do_lower_case: flag,
  strip_accents: flag,
  tokenize_chinese_chars: flag,
  /** Puts another regular expression in the place of the file's. */
  fix_mistral_regex: flag,
  added_tokens_decoder: z
    .record(z.string(), z.looseObject({ content: z.string(), special: z.boolean().optional(), ...flags }))
    .nullish(),
});
export type TokenizerConfig = z.infer<typeof configSchema>;

/**
 * A tokenizer.json with what its config changes.
 * @param special tokens that are named as special ones
 * @throws FormatError for a setting that is not supported
 */
export function withConfig(
  json: TokenizerJson,
  config: TokenizerConfig,
  special: readonly TokenEntry[],
  source: string,
): TokenizerJson {
  if (config.fix_mistral_regex) {
    const instead = 'save the tokenizer with its expression mended';
    throw new FormatError(source, `fix_mistral_regex: true is not supported; ${instead}`);
  }
  const set = (fields: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
  return {
    ...json,
    normalizer: changed(
      json.normalizer,
      'BertNormalizer',
      set({
        lowercase: config.do_lower_case,
        strip_accents: config.strip_accents,
        handle_chinese_chars: config.tokenize_chinese_chars,
      }),
    ),
    pre_tokenizer: changed(json.pre_tokenizer, 'ByteLevel', set({ add_prefix_space: config.add_prefix_space })),
    added_tokens: addedTokens(json, config, special, source),
  };
}

/** A component, with these fields wherever it or a part of it is of a type. */
function changed(component: Component | null, type: string, fields: Record<string, unknown>): Component | null {
  if (component?.type === type) return { ...component, ...fields };
  const key = ['normalizers', 'pretokenizers'].find(name => Array.isArray(component?.[name]));
  if (!component || key === undefined) return component;
  return { ...component, [key]: (component[key] as Component[]).map(part => changed(part, type, fields)) };
}

/** The file's tokens; those that the config says more of, as it says; and those that it names as special. */
function addedTokens(
  { added_tokens: tokens, model }: TokenizerJson,
  config: TokenizerConfig,
  special: readonly TokenEntry[],
  source: string,
): AddedTokenJson[] {
  const all = new Map(tokens.map(token => [token.content, token]));
  const vocabulary = vocabularyOf(model);
  const set = (content: string, id: number, fields: FindingFlags & { special?: boolean | undefined }): void => {
    const { lstrip, rstrip, normalized, single_word, special: isSpecial } = fields;
    const given = Object.entries({ lstrip, rstrip, normalized, single_word, special: isSpecial });
    const said = Object.fromEntries(given.filter(([, value]) => value !== undefined));
    all.set(content, { ...all.get(content), id, content, ...said });
  };
  for (const [key, token] of Object.entries(config.added_tokens_decoder ?? {})) {
    const { content } = token;
    const disagree = (there: string, here: string): never => {
      throw new FormatError(source, `added_tokens_decoder: ${there} there, and ${here} in tokenizer.json`);
    };
    const id = all.get(content)?.id ?? vocabulary.get(content) ?? Number(key);
    if (id !== Number(key)) disagree(`${JSON.stringify(content)} is token ${key}`, String(id));
    const other = [...all.values()].find(known => known.id === id && known.content !== content);
    if (other) disagree(`token ${key} is ${JSON.stringify(content)}`, JSON.stringify(other.content));
    if (content !== '') set(content, id, token);
  }
  for (const entry of special) {
    const fields = typeof entry === 'string' ? { content: entry } : entry;
    const id = vocabulary.get(fields.content);
    if (fields.content === '' || id === undefined || all.has(fields.content)) continue;
    set(fields.content, id, { ...fields, special: true });
  }
  return [...all.values()];
}

function vocabularyOf({ vocab }: Record<string, unknown>): Map<string, number> {
  if (!Array.isArray(vocab)) return new Map(Object.entries(vocab as Record<string, number>));
  return new Map((vocab as [string, number][]).map(([piece], id) => [piece, id]));
}
