// Patterns of a tokenizer.json as JavaScript's regular expressions. The format means Oniguruma's, which the library
// translates: its white space, digits, anchors and possessive repetitions are not JavaScript's.

import { z } from 'zod';
import { SplitPreTokenizer } from './tokenizerLibrary.js';

export const patternSchema = z.union([z.strictObject({ Regex: z.string() }), z.strictObject({ String: z.string() })]);
export type Pattern = z.infer<typeof patternSchema>;

/** A pattern as an expression with the flags g and u. @throws SyntaxError for a regular expression that is none */
export function compilePattern(pattern: Pattern): RegExp {
  if ('String' in pattern) return new RegExp(pattern.String.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&'), 'gu');
  return new SplitPreTokenizer({ pattern, invert: false }).pattern;
}

/** A part of a text, and whether a pattern took it. */
export interface Match {
  readonly text: string;
  readonly isMatch: boolean;
}

/** The whole text, cut at the ends of all matches. `expression` needs the flag g. */
export function matchesOf(text: string, expression: RegExp): Match[] {
  const parts: Match[] = [];
  let end = 0;
  for (const { 0: match, index } of text.matchAll(expression)) {
    if (index > end) parts.push({ text: text.slice(end, index), isMatch: false });
    parts.push({ text: match, isMatch: true });
    end = index + match.length;
  }
  if (end < text.length) parts.push({ text: text.slice(end), isMatch: false });
  return parts;
}
