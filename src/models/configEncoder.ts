// The configuration of an encoder from a config.json. A family's file says which keys there are and what they mean; any
// other key is one that changes nothing (configKeys.ts) or is refused by name.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import { isJsonObject } from '../io/strictJson.js';
import { plainSwitches, specialId, type DecoderConfig } from './config.js';
import { checkQuantization, type Fail } from './configHF.js';
import { checkKeys } from './configKeys.js';
import { blockComponents, type Component } from './sites.js';

/** What a classification head minimises: numbers, one class of several, or several classes at once. */
export const problemTypes = ['regression', 'single_label_classification', 'multi_label_classification'] as const;
export type ProblemType = (typeof problemTypes)[number];

/** What a head that classifies needs to know. */
export interface LabelConfig {
  /** How many numbers it gives. */
  readonly labels: number;
  /** Null: a regression where there is one label, else decided by the labels' type as in transformers. */
  readonly problemType: ProblemType | null;
}

/** An encoder of text and its heads. */
export interface EncoderConfig extends DecoderConfig, LabelConfig {
  /** Rows of the table of token types; 0: none. */
  readonly tokenTypes: number;
  /** Positions are counted over ids that are not the padding's, as RoBERTa does, not over all that are attended to. */
  readonly positionsSkipPadding: boolean;
  /** The sites its blocks pass, in order. */
  readonly components: readonly Component[];
}

export const count = z
  .number()
  .int()
  .positive()
  .max(2 ** 31);
export const positive = z.number().positive();
export const token = z.number().int().nullish();

/** Keys of heads that classify. */
export const labelKeys = {
  num_labels: count.nullish(),
  id2label: z.record(z.string(), z.string()).nullish(),
  problem_type: z.enum(problemTypes).nullish(),
};

/** Keys of all encoders of text. */
export const textKeys = {
  model_type: z.string(),
  vocab_size: count,
  max_position_embeddings: count,
  tie_word_embeddings: z.boolean().default(true),
  bos_token_id: token,
  eos_token_id: z.union([z.number().int(), z.array(z.number().int())]).nullish(),
  pad_token_id: token,
  is_decoder: z.literal(false).default(false),
  ...labelKeys,
};

/** What a family's reader is given: the checked values, and how to refuse one. */
export interface ReadKeys<Shape extends z.ZodRawShape> {
  readonly c: z.infer<z.ZodObject<Shape>>;
  readonly fail: Fail;
}

/**
 * The values of a config.json at the keys of `shape`; null stands for a key's default.
 * @throws FormatError naming the key, what was expected and what came
 */
export function readKeys<Shape extends z.ZodRawShape>(json: unknown, source: string, shape: Shape): ReadKeys<Shape> {
  const fail: Fail = text => {
    throw new FormatError(source, text);
  };
  if (!isJsonObject(json)) return fail('expected a JSON object');
  const given = Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null && value !== undefined));
  const parsed = z.looseObject(shape).safeParse(given);
  if (!parsed.success) {
    const shown = (path: readonly PropertyKey[]): string => {
      const value = path.reduce<unknown>((inside, key) => (inside as Record<PropertyKey, unknown>)?.[key], given);
      return value === undefined ? 'nothing' : JSON.stringify(value).slice(0, 60);
    };
    return fail(parsed.error.issues.map(i => `${i.path.join('.')}: ${i.message}; it is ${shown(i.path)}`).join('; '));
  }
  checkQuantization(json, fail);
  checkKeys(given, new Set(Object.keys(shape)), source);
  return { c: parsed.data as unknown as z.infer<z.ZodObject<Shape>>, fail };
}

/** As transformers reads them: the number is that of the names, and two where nothing is said. */
export function labelsOf(c: {
  readonly num_labels?: number | null | undefined;
  readonly id2label?: Readonly<Record<string, string>> | null | undefined;
  readonly problem_type?: ProblemType | null | undefined;
}): LabelConfig {
  const named = c.id2label ? Object.keys(c.id2label).length : 2;
  return { labels: c.num_labels ?? named, problemType: c.problem_type ?? null };
}

/** What encoders of text have in common; a family's reader says where it differs. */
export function plainEncoder(c: z.infer<z.ZodObject<typeof textKeys>>, layers: number) {
  const eos = c.eos_token_id ?? [];
  const idOf = (id: unknown): number | null => specialId(id, c.vocab_size);
  return {
    ...plainSwitches,
    causal: false,
    norm: 'layer',
    modelType: c.model_type,
    vocabSize: c.vocab_size,
    layers,
    windows: new Array<null>(layers).fill(null),
    ropes: new Array<null>(layers).fill(null),
    maxPositions: c.max_position_embeddings,
    learnedPositions: { rows: c.max_position_embeddings, offset: 0 },
    tiedHead: c.tie_word_embeddings,
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
    tokenTypes: 0,
    positionsSkipPadding: false,
    components: ['embeddings', ...blockComponents] as readonly Component[],
    bosTokenId: idOf(c.bos_token_id),
    eosTokenIds: (Array.isArray(eos) ? eos : [eos]).filter(id => idOf(id) !== null),
    padTokenId: idOf(c.pad_token_id),
    ...labelsOf(c),
  } as const;
}
