// Where the tokens of a batch lie, and from that which rows of the hidden states each intervention edits. Works for padding on
// either side, for windows that start after a cached prefix, and for single new tokens.

import type { Intervention } from './intervention.js';
import { resolvePositions } from './positions.js';

/** A window of `width` columns on `batch` sequences. */
export interface SequenceLayout {
  readonly batch: number;
  readonly width: number;
  /** Column of each sequence's first token; negative where it lies before the window. */
  readonly starts: ArrayLike<number>;
  readonly promptLengths: ArrayLike<number>;
  /** Tokens of each sequence, prompt and answer. */
  readonly lengths: ArrayLike<number>;
}

/** Rows b * width + column that an intervention edits in this window, and how many slots short prompts left out. */
export function editedRows(intervention: Intervention, layout: SequenceLayout): { indices: Int32Array; dropped: number } {
  const indices: number[] = [];
  let dropped = 0;
  for (let b = 0; b < layout.batch; b++) {
    let resolved;
    try {
      resolved = resolvePositions(intervention.config.positions, layout.promptLengths[b], layout.lengths[b], intervention.side);
    } catch (error) {
      throw new RangeError(`row ${b}, ${intervention.id}: ${(error as Error).message}`, { cause: error });
    }
    dropped += resolved.dropped;
    for (const p of resolved.positions) {
      const column = layout.starts[b] + p;
      if (column >= 0 && column < layout.width) indices.push(b * layout.width + column);
    }
  }
  return { indices: Int32Array.from(indices), dropped };
}

/** The first position any of the interventions edits in a sequence; its length when none does. */
export function firstEdited(interventions: readonly Intervention[], promptLength: number, length: number): number {
  return Math.min(length, ...interventions.flatMap(i => resolvePositions(i.config.positions, promptLength, length, i.side).positions.slice(0, 1)));
}
