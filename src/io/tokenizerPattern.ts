// Patterns of a tokenizer.json as JavaScript's regular expressions. The format means Oniguruma's, which the library
// translates: its white space, digits, anchors and possessive repetitions are not JavaScript's.

import { z } from 'zod';
import { withinBound } from './regexBound.js';
import { regexFault, regexPower } from './regexCost.js';
import { SplitPreTokenizer } from './tokenizerLibrary.js';

export const patternSchema = z.union([z.strictObject({ Regex: z.string() }), z.strictObject({ String: z.string() })]);
export type Pattern = z.infer<typeof patternSchema>;

/** How the time of an expression from a file grows with a text (see `regexPower`), where it is not in proportion. */
const powers = new WeakMap<RegExp, number>();

/**
 * A pattern as an expression with the flags g and u.
 * @throws SyntaxError for a regular expression that is none, Error for one that could hang
 */
export function compilePattern(pattern: Pattern): RegExp {
  if ('String' in pattern) return new RegExp(pattern.String.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'), 'gu');
  const expression = new SplitPreTokenizer({ pattern, invert: false }).pattern;
  const fault = regexFault(expression);
  if (fault !== null) {
    const { Regex: text } = pattern;
    throw new Error(`the regular expression ${text.length > 60 ? `${text.slice(0, 60)}...` : text} ${fault}`);
  }
  const power = regexPower(expression);
  if (power > 1) powers.set(expression, power);
  return expression;
}

/** `match()`, which finds matches of the expression in the text, within the time that such a text may take. */
export function matchWithin<T>(text: string, expression: RegExp, match: () => T): T {
  return withinBound('tokenizer', powers.get(expression) ?? 1, text.length, match);
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
  matchWithin(text, expression, () => {
    for (const { 0: match, index } of text.matchAll(expression)) {
      if (index > end) parts.push({ text: text.slice(end, index), isMatch: false });
      parts.push({ text: match, isMatch: true });
      end = index + match.length;
    }
  });
  if (end < text.length) parts.push({ text: text.slice(end), isMatch: false });
  return parts;
}
