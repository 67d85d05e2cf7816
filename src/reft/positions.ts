// Which tokens are edited. `f7+l7`, `l1`, `all` and explicit lists are parsed here and resolved against each row's prompt, whatever the
// padding; pyreft's own coding of location lists is in pyreftLocations.ts. Formulas: pyreft 0.1.0, get_intervention_locations.

/** Positions of a prompt: the first N and last M, every token, or given ones (negative: from the prompt's end). */
export type Positions =
  | { readonly type: 'ends'; readonly first: number; readonly last: number }
  | { readonly type: 'all' }
  | { readonly type: 'list'; readonly list: readonly number[] };

/** Which part of `ends` an untied intervention takes. */
export type Side = 'prefix' | 'suffix' | 'both';

/** `f1`, `l1`, `f7+l7`, `all`, `3,5,-1`, or an array of numbers. */
export function parsePositions(value: string | readonly number[]): Positions {
  if (typeof value !== 'string') return checkedList(value);
  const text = value.trim();
  if (text === 'all') return { type: 'all' };
  const ends = /^(?![+]|$)(?:f(\d+))?(?:(?:^|[+])l(\d+))?$/.exec(text);
  if (ends) {
    const [first, last] = [Number(ends[1] ?? 0), Number(ends[2] ?? 0)];
    if (first + last === 0) throw new RangeError(`positions '${value}': edits nothing`);
    return { type: 'ends', first, last };
  }
  if (/^-?\d+(,-?\d+)*$/.test(text)) return checkedList(text.split(',').map(Number));
  throw new RangeError(`positions '${value}': expected f<N>, l<M>, f<N>+l<M>, all, or numbers like 0,3,-1`);
}

function checkedList(list: readonly number[]): Positions {
  if (list.length === 0 || list.some(p => !Number.isInteger(p))) throw new RangeError(`positions [${list.join(',')}]: expected whole numbers`);
  if (new Set(list).size !== list.length) throw new RangeError(`positions [${list.join(',')}]: a position is named twice`);
  return { type: 'list', list: [...list] };
}

export function formatPositions(positions: Positions): string {
  if (positions.type === 'all') return 'all';
  if (positions.type === 'list') return positions.list.join(',');
  return [positions.first ? `f${positions.first}` : '', positions.last ? `l${positions.last}` : ''].filter(Boolean).join('+');
}

export interface ResolvedPositions {
  /** Distinct, rising, relative to the first token of the sequence. */
  readonly positions: number[];
  /** Slots that a short prompt has no token for. */
  readonly dropped: number;
}

/**
 * The positions in a sequence of `length` tokens that begins with a prompt of `promptLength`. first = min(floor(n/2), N) and
 * last = min(floor(n/2), M), halved even when one side is asked for; 'all' is every token, the answer's too.
 */
export function resolvePositions(positions: Positions, promptLength: number, length: number, side: Side = 'both'): ResolvedPositions {
  const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
  if (positions.type === 'all') return { positions: range(0, length), dropped: 0 };
  if (positions.type === 'list') {
    const resolved = positions.list.map(p => {
      const at = p < 0 ? promptLength + p : p;
      if (at < 0 || at >= promptLength) throw new RangeError(`position ${p} is out of range for a prompt of ${promptLength} tokens`);
      return at;
    }).sort((a, b) => a - b);
    if (new Set(resolved).size !== resolved.length) throw new RangeError(`positions [${positions.list.join(',')}] name one token twice in a prompt of ${promptLength} tokens`);
    return { positions: resolved, dropped: 0 };
  }
  const half = Math.floor(promptLength / 2);
  const wantFirst = side === 'suffix' ? 0 : positions.first;
  const wantLast = side === 'prefix' ? 0 : positions.last;
  const [first, last] = [Math.min(half, wantFirst), Math.min(half, wantLast)];
  return { positions: [...range(0, first), ...range(promptLength - last, promptLength)], dropped: wantFirst - first + wantLast - last };
}
