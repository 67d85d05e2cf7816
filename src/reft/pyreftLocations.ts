// pyreft's own coding of positions as location lists, padding slots included: for reading and checking its data,
// nothing else. What edits are resolved with here is positions.ts and layout.ts. Source: pyreft 0.1.0, dataset.py,
// get_intervention_locations.

import { parsePositions } from './positions.js';

export interface PyreftLocationsOptions {
  /** `fN`, `lM` or `fN+lM`. */
  readonly positions: string;
  /** Tokens of the prompt (pyreft's `last_position`). */
  readonly promptLength: number;
  /** Both sides counted: layers when tied or one-sided, twice the layers when untied. */
  readonly interventions: number;
  readonly tied: boolean;
  /** Padding slots are -1 with 'first', the prompt's length with 'last'. */
  readonly padMode: 'first' | 'last';
}

/**
 * One list of locations for each intervention, all of one width. Tied, or where one side is empty: prefix, suffix, then
 * all padding, the same list for everyone. Else the first half of the interventions has the prefix and the second half
 * the suffix, each filled up at its end.
 */
export function pyreftLocations({
  positions,
  promptLength,
  interventions,
  tied,
  padMode,
}: PyreftLocationsOptions): number[][] {
  const parsed = parsePositions(positions);
  if (parsed.type !== 'ends') throw new RangeError(`positions '${positions}': pyreft knows f<N>, l<M> and f<N>+l<M>`);
  const half = Math.floor(promptLength / 2);
  const [first, last] = [Math.min(half, parsed.first), Math.min(half, parsed.last)];
  const prefix = Array.from({ length: first }, (_, i) => i);
  const suffix = Array.from({ length: last }, (_, i) => promptLength - last + i);
  const filler = padMode === 'first' ? -1 : promptLength;
  const filled = (list: readonly number[], width: number): number[] => [
    ...list,
    ...Array.from({ length: width - list.length }, () => filler),
  ];
  if (tied || first === 0 || last === 0) {
    const all = filled([...prefix, ...suffix], parsed.first + parsed.last);
    return Array.from({ length: interventions }, () => [...all]);
  }
  const width = Math.max(parsed.first, parsed.last);
  return Array.from({ length: interventions }, (_, i) => filled(i < interventions / 2 ? prefix : suffix, width));
}
