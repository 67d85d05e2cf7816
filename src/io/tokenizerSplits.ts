// Pre-tokenizers: how a tokenizer cuts a text into the pieces that its model takes one by one, as Hugging Face's
// tokenizers do it.

import { z } from 'zod';
import { byType, components, fieldsOf, type Component } from './tokenizerParts.js';
import { compilePattern, matchesOf, patternSchema, type Match } from './tokenizerPattern.js';
import { punctuation, whiteSpace, wordCharacter } from './tokenizerUnicode.js';

/** A piece of a text, and whether the whole text begins with it. */
export interface Piece {
  readonly text: string;
  readonly first: boolean;
}

export type Splitter = (piece: Piece) => Piece[];

/** GPT-2's split into words, numbers, punctuation and white space (openai/gpt-2, encoder.py). */
export const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const where = 'pre_tokenizer';
const behaviors = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
/** What becomes of the parts that a pattern matches. */
type Behavior = (typeof behaviors)[number];

/** @throws Error for a component that is not known or not as its type wants it */
export function splitterOf(component: Component | null): Splitter {
  return component ? byType(kinds, component, where) : piece => [piece];
}

const kinds: Readonly<Record<string, (part: Component) => Splitter>> = {
  Sequence(part) {
    const steps = fieldsOf(part, { pretokenizers: components }, where).pretokenizers.map(splitterOf);
    return piece => steps.reduce((pieces, split) => pieces.flatMap(split), [piece]);
  },
  Split(part) {
    const { pattern, behavior, invert } = fieldsOf(
      part,
      { pattern: patternSchema, behavior: z.enum(behaviors), invert: z.boolean() },
      where,
    );
    return splitting(compilePattern(pattern), behavior, invert);
  },
  ByteLevel(part) {
    const { add_prefix_space: prefix = false, use_regex: byWords = true } = fieldsOf(
      part,
      {
        add_prefix_space: z.boolean().optional(),
        trim_offsets: z.boolean().optional(),
        use_regex: z.boolean().optional(),
      },
      where,
    );
    const split = byWords ? splitting(compilePattern({ Regex: gpt2Pattern }), 'Isolated') : (piece: Piece) => [piece];
    return ({ text, first }) =>
      split({ text: prefix && !text.startsWith(' ') ? ` ${text}` : text, first }).map(piece => ({
        ...piece,
        text: byteAlphabet(piece.text),
      }));
  },
  Metaspace(part) {
    const fields = fieldsOf(part, metaspaceFields, where);
    const { replacement } = fields;
    const scheme = prependScheme(fields);
    const split =
      (fields.split ?? true)
        ? splitting(compilePattern({ String: replacement }), 'MergedWithNext')
        : (piece: Piece) => [piece];
    return ({ text, first }) => {
      const marked = text.replaceAll(' ', () => replacement);
      const prepend = (scheme === 'always' || (scheme === 'first' && first)) && !marked.startsWith(replacement);
      return split({ text: prepend ? replacement + marked : marked, first });
    };
  },
  BertPreTokenizer(part) {
    fieldsOf(part, {}, where);
    const words = splitting(new RegExp(whiteSpace, 'gu'), 'Removed');
    const marks = splitting(new RegExp(punctuation(), 'gu'), 'Isolated');
    return piece => words(piece).flatMap(marks);
  },
  Punctuation(part) {
    const { behavior = 'Isolated' } = fieldsOf(part, { behavior: z.enum(behaviors).optional() }, where);
    return splitting(new RegExp(punctuation(), 'gu'), behavior);
  },
  Digits(part) {
    const { individual_digits: single } = fieldsOf(part, { individual_digits: z.boolean() }, where);
    return splitting(/\p{N}/gu, single ? 'Isolated' : 'Contiguous');
  },
  Whitespace(part) {
    fieldsOf(part, {}, where);
    const words = `${wordCharacter}+|(?:(?!${wordCharacter})[^${whiteSpace}])+`;
    return splitting(new RegExp(words, 'gu'), 'Removed', true);
  },
  WhitespaceSplit(part) {
    fieldsOf(part, {}, where);
    return splitting(new RegExp(whiteSpace, 'gu'), 'Removed');
  },
  CharDelimiterSplit(part) {
    const { delimiter } = fieldsOf(part, { delimiter: z.string().min(1) }, where);
    return splitting(compilePattern({ String: delimiter }), 'Removed');
  },
  FixedLength(part) {
    const { length } = fieldsOf(part, { length: z.int().positive() }, where);
    return splitting(new RegExp(`[^]{1,${length}}`, 'gu'), 'Isolated');
  },
};

export const metaspaceFields = {
  replacement: z.string().min(1),
  prepend_scheme: z.enum(['first', 'never', 'always']).optional(),
  add_prefix_space: z.boolean().optional(),
  split: z.boolean().optional(),
  str_rep: z.string().optional(),
};

type MetaspaceFields = z.infer<z.ZodObject<typeof metaspaceFields>>;

/** When a text gets a space in front. Older files have `add_prefix_space` alone. */
export function prependScheme({
  prepend_scheme: scheme,
  add_prefix_space: prefix,
}: MetaspaceFields): 'first' | 'never' | 'always' {
  return prefix === false ? 'never' : (scheme ?? 'always');
}

/** Cuts at a pattern; with `invert` what matches is what stands between matches. Empty pieces are left out. */
function splitting(expression: RegExp, behavior: Behavior, invert = false): Splitter {
  return ({ text, first }) => {
    const matches = matchesOf(text, expression).map(part => (invert ? { ...part, isMatch: !part.isMatch } : part));
    // An isolated match and what is not matched are pieces alike, and nearly all tokenizers ask for nothing else.
    const parts = behavior === 'Isolated' ? matches : joined(matches, behavior);
    const pieces: Piece[] = [];
    parts.forEach((part, i) => {
      if (part.text === '' || (behavior === 'Removed' && part.isMatch)) return;
      pieces.push({ text: part.text, first: first && i === 0 });
    });
    return pieces;
  };
}

/** Matches joined with their neighbours as a behavior says. */
function joined(matches: readonly Match[], behavior: Behavior): Match[] {
  if (behavior === 'Contiguous') {
    return merge(matches, (part, before) => part.isMatch === before.isMatch);
  }
  // A match behind another stays alone.
  if (behavior === 'MergedWithPrevious') return merge(matches, (part, before) => part.isMatch && !before.isMatch);
  if (behavior === 'MergedWithNext') {
    const joins = (part: Match, before: Match): boolean => part.isMatch && !before.isMatch;
    return merge(matches.toReversed(), joins, (part, before) => part + before).reverse();
  }
  return [...matches];
}

/** Joins a part to what came before it where `joins` says so of the part and the one directly before. */
function merge(
  parts: readonly Match[],
  joins: (part: Match, before: Match) => boolean,
  join = (part: string, before: string): string => before + part,
): Match[] {
  const merged: Match[] = [];
  parts.forEach((part, i) => {
    const last = merged.at(-1);
    if (last && joins(part, parts[i - 1])) merged[merged.length - 1] = { ...last, text: join(part.text, last.text) };
    else merged.push(part);
  });
  return merged;
}

/** GPT-2's spelling of bytes: printable ones of Latin-1 are themselves, the others follow from U+0100 on. */
const spellings: readonly string[] = (() => {
  let next = 256;
  const printable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

/** The bytes of characters of that spelling. */
export const spelledBytes: ReadonlyMap<string, number> = new Map(spellings.map((character, byte) => [character, byte]));

const encoder = new TextEncoder();

function byteAlphabet(text: string): string {
  let out = '';
  for (const byte of encoder.encode(text)) out += spellings[byte];
  return out;
}
