// Which tokens are edited. Positions of the prompt (`f7+l7`, `l1`, `all`, lists, a regular expression or a marker on
// its text, a function of its ids) and a schedule for new tokens, resolved against each row whatever the padding;
// training, cached and uncached generation agree because all ask here. pyreft's own coding of location lists is in
// pyreftLocations.ts. Formulas: pyreft 0.1.0, get_intervention_locations.

import { withinBound } from '../io/regexBound.js';
import { regexFault, regexPower } from '../io/regexCost.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { tokenSpans } from './tokenSpans.js';

/** Positions from a prompt's ids; negative ones count from its end. */
export type PositionFunction = (promptIds: Int32Array) => readonly number[];

/**
 * Positions of a prompt: the first N and last M, every token, given ones (negative: from the prompt's end), or found
 * ones.
 */
export type Positions =
  | { readonly type: 'ends'; readonly first: number; readonly last: number }
  | { readonly type: 'all' }
  | { readonly type: 'none' }
  | { readonly type: 'list'; readonly list: readonly number[] }
  /** Every token that overlaps a match of the regular expression in the prompt's text. */
  | { readonly type: 'match'; readonly pattern: string; readonly flags: string }
  /** The last token of the last occurrence of a text in the prompt. */
  | { readonly type: 'marker'; readonly text: string }
  | { readonly type: 'function'; readonly find: PositionFunction };

/** A new token: `index` from 0, and all ids up to it, the prompt's too. */
export interface NewToken {
  readonly index: number;
  readonly id: number;
  readonly ids: ArrayLike<number>;
}

/**
 * Which new tokens are edited when they are fed back in: none, all, the first k, every k-th (from the first on), or
 * those a function picks.
 */
export type NewTokens =
  'none' | 'all' | { readonly first: number } | { readonly every: number } | ((token: NewToken) => boolean);

/** Which part of `ends` an untied intervention takes. */
export type Side = 'prefix' | 'suffix' | 'both';

/**
 * `f1`, `l1`, `f7+l7`, `all`, `none`, `3,5,-1`, `match:/re/flags`, `marker:text`, an array of numbers, or a function of
 * the prompt's ids.
 */
export function parsePositions(value: string | readonly number[] | PositionFunction): Positions {
  if (typeof value === 'function') return { type: 'function', find: value };
  if (typeof value !== 'string') return checkedList(value);
  const text = value.trim();
  if (text === 'all' || text === 'none') return { type: text };
  if (text.startsWith('marker:')) {
    const marker = value.trimStart().slice('marker:'.length);
    if (marker === '') throw new RangeError(`positions '${value}': expected a text after 'marker:'`);
    return { type: 'marker', text: marker };
  }
  if (text.startsWith('match:')) return checkedPattern(value, text.slice('match:'.length));
  const ends = /^(?![+]|$)(?:f(\d+))?(?:(?:^|[+])l(\d+))?$/.exec(text);
  if (ends) {
    const [first, last] = [Number(ends[1] ?? 0), Number(ends[2] ?? 0)];
    if (first + last === 0) throw new RangeError(`positions '${value}': edits nothing`);
    return { type: 'ends', first, last };
  }
  if (/^-?\d+(,-?\d+)*$/.test(text)) return checkedList(text.split(',').map(Number));
  throw new RangeError(
    `positions '${value}': expected f<N>, l<M>, f<N>+l<M>, all, none, numbers like 0,3,-1, match:/re/ or marker:text`,
  );
}

function checkedPattern(value: string, text: string): Positions {
  const parts = /^\/(.+)\/([a-z]*)$/s.exec(text);
  if (!parts) throw new RangeError(`positions '${value}': expected match:/regular expression/`);
  const [, pattern, given] = parts;
  const flags = [...new Set([...given, 'g'])].filter(flag => flag !== 'y').join('');
  try {
    const fault = regexFault(new RegExp(pattern, flags));
    if (fault !== null) throw new Error(`the regular expression ${fault}`);
  } catch (cause) {
    throw new RangeError(`positions '${value}': ${(cause as Error).message}`, { cause });
  }
  return { type: 'match', pattern, flags };
}

function checkedList(list: readonly number[]): Positions {
  if (list.length === 0 || list.some(p => !Number.isInteger(p)))
    throw new RangeError(`positions [${list.join(',')}]: expected whole numbers`);
  if (new Set(list).size !== list.length)
    throw new RangeError(`positions [${list.join(',')}]: a position is named twice`);
  return { type: 'list', list: [...list] };
}

/** What is wrong with a schedule for new tokens, or null. */
export function checkNewTokens(value: unknown): string | null {
  if (value === 'none' || value === 'all' || typeof value === 'function') return null;
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  const [key, n] = entries[0] ?? [];
  if (entries.length === 1 && (key === 'first' || key === 'every') && Number.isSafeInteger(n) && n > 0) return null;
  return "expected 'none', 'all', { first: k }, { every: k } or a function";
}

/** As `parsePositions` reads it. @throws Error for a function, which cannot be written */
export function formatPositions(positions: Positions): string {
  switch (positions.type) {
    case 'all':
    case 'none':
      return positions.type;
    case 'list':
      return positions.list.join(',');
    case 'match':
      return `match:/${positions.pattern}/${positions.flags}`;
    case 'marker':
      return `marker:${positions.text}`;
    case 'function':
      throw new Error('positions: a function cannot be written to a file; use a text form like match:/re/');
    case 'ends':
      return [positions.first ? `f${positions.first}` : '', positions.last ? `l${positions.last}` : '']
        .filter(Boolean)
        .join('+');
  }
}

/** The same for people: a function is called one. */
export const describePositions = (positions: Positions): string =>
  positions.type === 'function' ? 'a function' : formatPositions(positions);

export function describeNewTokens(newTokens: NewTokens): string {
  if (typeof newTokens === 'string') return newTokens;
  if (typeof newTokens === 'function') return 'chosen by a function';
  return 'first' in newTokens ? `the first ${newTokens.first}` : `every ${newTokens.every}`;
}

export interface ResolvedPositions {
  /** Distinct, rising, relative to the first token of the sequence. */
  readonly positions: number[];
  /** Slots that a short prompt has no token for. */
  readonly dropped: number;
}

/** What positions may depend on besides lengths. */
export interface PositionContext {
  readonly newTokens?: NewTokens;
  /** All ids of the sequence, for what depends on them. */
  readonly ids?: ArrayLike<number>;
  /** For `match` and `marker`. */
  readonly tokenizer?: Tokenizer | undefined;
}

/**
 * The positions in a sequence of `length` tokens that begins with a prompt of `promptLength`. first = min(floor(n/2),
 * N) and last = min(floor(n/2), M), halved even when one side is asked for; 'all' is every token of the prompt. New
 * tokens follow `newTokens`, by default all for 'all' and none otherwise; of an untied pair the one of the last tokens
 * edits them.
 */
export function resolvePositions(
  positions: Positions,
  promptLength: number,
  length: number,
  side: Side = 'both',
  context: PositionContext = {},
): ResolvedPositions {
  const prompt = promptPositions(positions, promptLength, side, context);
  const { newTokens = positions.type === 'all' ? 'all' : 'none' } = context;
  const added =
    newTokens === 'none' || side === 'prefix'
      ? []
      : range(promptLength, length).filter(p => isScheduled(newTokens, p - promptLength, p, context.ids));
  return { positions: [...prompt.positions, ...added], dropped: prompt.dropped };
}

/** Whether the new token `index` (from 0), at `position` of the sequence, is edited. */
export function isScheduled(
  newTokens: NewTokens,
  index: number,
  position: number,
  ids: ArrayLike<number> | undefined,
): boolean {
  if (typeof newTokens === 'string') return newTokens === 'all';
  if (typeof newTokens !== 'function')
    return 'first' in newTokens ? index < newTokens.first : index % newTokens.every === 0;
  if (!ids) throw new Error('newTokens: a function needs the ids of the sequence, which this call was not given');
  return newTokens({ index, id: ids[position], ids: Array.prototype.slice.call(ids, 0, position + 1) as number[] });
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

/** The part of the positions that lies in the prompt. */
export function promptPositions(
  positions: Positions,
  promptLength: number,
  side: Side,
  { ids, tokenizer }: PositionContext,
): ResolvedPositions {
  const promptIds = (): Int32Array => {
    if (!ids)
      throw new Error(
        `positions ${describePositions(positions)}: need the ids of the sequence, which this call was not given`,
      );
    return Int32Array.from({ length: promptLength }, (_, i) => ids[i]);
  };
  const spans = (): ReturnType<typeof tokenSpans> => {
    if (!tokenizer)
      throw new Error(`positions ${describePositions(positions)}: need the tokenizer: set reft.tokenizer`);
    return tokenSpans(promptIds(), tokenizer);
  };
  switch (positions.type) {
    case 'none':
      return { positions: [], dropped: 0 };
    case 'all':
      return { positions: range(0, promptLength), dropped: 0 };
    case 'list':
      return { positions: located(positions.list, promptLength, 'positions'), dropped: 0 };
    case 'function':
      return {
        positions: located(positions.find(promptIds()), promptLength, 'the positions of a function'),
        dropped: 0,
      };
    case 'match': {
      const { text, starts, ends } = spans();
      const expression = new RegExp(positions.pattern, positions.flags);
      const match = (): RegExpExecArray[] => [...text.matchAll(expression)].filter(m => m[0].length > 0);
      const found = withinBound(
        `positions ${describePositions(positions)}`,
        regexPower(expression),
        text.length,
        match,
      );
      const hit = (t: number): boolean => found.some(m => starts[t] < m.index + m[0].length && ends[t] > m.index);
      return { positions: range(0, promptLength).filter(hit), dropped: 0 };
    }
    case 'marker': {
      const { text, starts, ends } = spans();
      const at = text.lastIndexOf(positions.text);
      const end = at + positions.text.length;
      const last = at < 0 ? -1 : (range(0, promptLength).findLast(t => starts[t] < end && ends[t] > at) ?? -1);
      return { positions: last < 0 ? [] : [last], dropped: last < 0 ? 1 : 0 };
    }
    case 'ends': {
      const half = Math.floor(promptLength / 2);
      const wantFirst = side === 'suffix' ? 0 : positions.first;
      const wantLast = side === 'prefix' ? 0 : positions.last;
      const [first, last] = [Math.min(half, wantFirst), Math.min(half, wantLast)];
      return {
        positions: [...range(0, first), ...range(promptLength - last, promptLength)],
        dropped: wantFirst - first + wantLast - last,
      };
    }
  }
}

function located(list: readonly number[], promptLength: number, what: string): number[] {
  const resolved = list
    .map(p => {
      const at = p < 0 ? promptLength + p : p;
      if (!Number.isInteger(at) || at < 0 || at >= promptLength)
        throw new RangeError(`position ${p} is out of range for a prompt of ${promptLength} tokens`);
      return at;
    })
    .sort((a, b) => a - b);
  if (new Set(resolved).size !== resolved.length)
    throw new RangeError(`${what} [${list.join(',')}] name one token twice in a prompt of ${promptLength} tokens`);
  return resolved;
}
