// Tokenizers from the files of a Hugging Face folder: tokenizer.json and the small ones beside it.
// The vocabulary is checked here, components where they are made, what tokenizer_config.json changes of them is in
// tokenizerConfig.ts. No file access: texts come in (tokenizerNode.ts reads folders).

import { z } from 'zod';
import { FormatError } from './errors.js';
import { Tokenizer } from './tokenizer.js';
import {
  configSchema,
  specialTokenNames,
  specialTokensSchema,
  withConfig,
  type TokenEntry,
} from './tokenizerConfig.js';
import type { TokenizerJson } from './tokenizerPipeline.js';

/** The texts of a folder's tokenizer files. Only the first is required. */
export interface TokenizerFiles {
  tokenizerJson: string;
  tokenizerConfig?: string | undefined;
  specialTokensMap?: string | undefined;
  /** generation_config.json, or config.json where there is none: its eos_token_id lists the stop tokens. */
  generationConfig?: string | undefined;
  /** chat_template.jinja; stands above the template in tokenizer_config.json. */
  chatTemplate?: string | undefined;
}

/** Ids above this are refused: no vocabulary is near it, and tables are as long as the largest id. */
const maxVocabulary = 8_000_000;

const component = z.looseObject({ type: z.string() }).nullish();
const tokenizerSchema = z.looseObject({
  normalizer: component,
  pre_tokenizer: component,
  model: z.looseObject({ type: z.string().optional() }),
  post_processor: component,
  decoder: component,
  added_tokens: z
    .array(
      z.looseObject({
        id: z.int().min(0).max(maxVocabulary),
        content: z.string().min(1),
        special: z.boolean().optional(),
        normalized: z.boolean().optional(),
        single_word: z.boolean().optional(),
        lstrip: z.boolean().optional(),
        rstrip: z.boolean().optional(),
      }),
    )
    .nullish(),
});
const tokenId = z.int();
const generationSchema = z.looseObject({ eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish() });

/**
 * The tokenizer of a Hugging Face folder.
 * @param files the texts of its files
 * @param source the folder or the tokenizer.json, for errors
 * @throws FormatError for text that is not JSON or not the tokenizer format, naming the file and the field
 */
export function tokenizerFromFiles(files: TokenizerFiles, source = 'tokenizer.json'): Tokenizer {
  const json = checkTokenizerJson(parseJson(files.tokenizerJson, source), source);
  const read = <T>(text: string | undefined, name: string, schema: z.ZodType<T>): T =>
    check(text === undefined ? {} : parseJson(text, `${source} (${name})`), schema, `${source} (${name})`);
  const config = read(files.tokenizerConfig, 'tokenizer_config.json', configSchema);
  const map = read(files.specialTokensMap, 'special_tokens_map.json', specialTokensSchema);
  const generation = read(files.generationConfig, 'generation_config.json', generationSchema);

  // An empty text names no token.
  const special = (name: (typeof specialTokenNames)[number]): TokenEntry | undefined =>
    config[name] || map[name] || undefined;
  const text = (name: (typeof specialTokenNames)[number]): string | undefined => {
    const token = special(name);
    return (typeof token === 'object' ? token.content : token) || undefined;
  };
  const templates = config.chat_template ?? undefined;
  const fromConfig = Array.isArray(templates)
    ? (templates.find(entry => entry.name === 'default') ?? templates[0])?.template
    : templates;
  const eos = generation.eos_token_id ?? undefined;
  const further = config.additional_special_tokens ?? map.additional_special_tokens ?? [];
  const named = [...specialTokenNames.map(special), ...further];
  return new Tokenizer({
    source,
    json: withConfig(
      json,
      config,
      named.filter(token => token !== undefined),
      `${source} (tokenizer_config.json)`,
    ),
    bosToken: text('bos_token'),
    eosToken: text('eos_token'),
    padToken: text('pad_token'),
    unkToken: text('unk_token'),
    addBosToken: config.add_bos_token ?? undefined,
    addEosToken: config.add_eos_token ?? undefined,
    splitSpecialTokens: config.split_special_tokens ?? undefined,
    stopTokenIds: eos === undefined ? undefined : (Array.isArray(eos) ? eos : [eos]).filter(id => id >= 0),
    chatTemplate: files.chatTemplate ?? fromConfig,
    cleanUpTokenizationSpaces: config.clean_up_tokenization_spaces ?? undefined,
  });
}

/** A tokenizer.json whose every field the library reads is known to be what it expects. */
function checkTokenizerJson(value: unknown, source: string): TokenizerJson {
  const json = check(value, tokenizerSchema, source);
  const added_tokens = (json.added_tokens ?? []) as TokenizerJson['added_tokens'];
  const model = json.model as Record<string, unknown>;
  checkModel(model, source, new Set(added_tokens.map(token => token.content)));
  return {
    normalizer: json.normalizer ?? null,
    pre_tokenizer: json.pre_tokenizer ?? null,
    model,
    post_processor: json.post_processor ?? null,
    decoder: json.decoder ?? null,
    added_tokens,
  };
}

function checkModel(model: Record<string, unknown>, source: string, added: ReadonlySet<string>): void {
  const fail = (field: string, expected: string, came: unknown): never => {
    throw new FormatError(source, `model.${field}: expected ${expected}, got ${short(came)}`);
  };
  const { vocab, merges } = model;
  if (model['type'] === 'Unigram') {
    if (!Array.isArray(vocab)) return fail('vocab', 'a list of [piece, score]', vocab);
    for (const entry of vocab as unknown[]) {
      if (!Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number')
        fail('vocab', '[piece, score]', entry);
    }
    return;
  }
  if (vocab === null || typeof vocab !== 'object' || Array.isArray(vocab))
    return fail('vocab', 'an object of token: id', vocab);
  const vocabulary = vocab as Record<string, unknown>;
  for (const token in vocabulary) {
    const id = vocabulary[token];
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id > maxVocabulary) {
      fail(`vocab[${short(token)}]`, `an id from 0 to ${maxVocabulary}`, id);
    }
  }
  if (model['type'] !== 'BPE') return;
  if (!Array.isArray(merges)) return fail('merges', 'a list', merges);
  model['merges'] = (merges as unknown[]).map((merge, i) => {
    const pair: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== 'string' || typeof pair[1] !== 'string') {
      return fail(`merges[${i}]`, 'two tokens', merge);
    }
    const merged = pair[0] + pair[1].slice(prefixLength(model));
    if (!Object.hasOwn(vocabulary, merged) && !added.has(merged))
      fail(`merges[${i}]`, 'a pair whose union is in the vocabulary', merge);
    return pair;
  });
}

function prefixLength(model: Record<string, unknown>): number {
  const prefix = model['continuing_subword_prefix'];
  return typeof prefix === 'string' ? prefix.length : 0;
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FormatError(source, `is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

function check<T>(value: unknown, schema: z.ZodType<T>, source: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new FormatError(source, `${issue!.path.join('.') || 'top level'}: ${issue!.message}`);
}

function short(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
