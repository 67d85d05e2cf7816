// Where the tokens of a batch lie, and from that which rows of the hidden states each intervention edits. Works for
// padding on either side, for windows that start after a cached prefix, and for single new tokens.

import type { Tokenizer } from '../io/tokenizer.js';
import type { Intervention } from './intervention.js';
import { isScheduled, promptPositions, resolvePositions, type ResolvedPositions } from './positions.js';

/** A window of `width` columns on `batch` sequences. */
export interface SequenceLayout {
  /** In models of several stacks, the one whose tokens these are: edits of the others are left out. */
  readonly stack?: string;
  readonly batch: number;
  readonly width: number;
  /** Column of each sequence's first token; negative where it lies before the window. */
  readonly starts: ArrayLike<number>;
  readonly promptLengths: ArrayLike<number>;
  /** Tokens of each sequence, prompt and answer. */
  readonly lengths: ArrayLike<number>;
  /** The ids of each sequence, for positions that depend on them. */
  readonly ids?: readonly ArrayLike<number>[];
  /** Rows of the batch that are edited; default all. */
  readonly only?: ReadonlySet<number>;
  /** Which of the caller's rows each row of the batch is, and how many those are; default: the same rows. */
  readonly rowOf?: ArrayLike<number>;
  readonly rowCount?: number;
}

/** One sequence, as positions see it. */
export interface Sequence {
  readonly promptLength: number;
  readonly length: number;
  readonly ids?: ArrayLike<number> | undefined;
}

/** The tokens an intervention edits in one sequence. @throws Error or RangeError naming the intervention */
export function positionsOf(
  intervention: Intervention,
  { promptLength, length, ids }: Sequence,
  tokenizer?: Tokenizer,
): ResolvedPositions {
  const { config, side, id } = intervention;
  try {
    return resolvePositions(config.positions, promptLength, length, side, {
      newTokens: config.newTokens,
      tokenizer,
      ...(ids ? { ids } : {}),
    });
  } catch (error) {
    const Kind = error instanceof RangeError ? RangeError : Error;
    throw new Kind(`${id}: ${(error as Error).message}`, { cause: error });
  }
}

/** Rows b * width + column that an intervention edits in this window, and how many slots short prompts left out. */
export function editedRows(
  intervention: Intervention,
  layout: SequenceLayout,
  tokenizer?: Tokenizer,
): { indices: Int32Array; dropped: number } {
  const { batch, width, starts, promptLengths, lengths, only } = layout;
  const { config, side } = intervention;
  const { newTokens } = config;
  const indices: number[] = [];
  let dropped = 0;
  for (let b = 0; b < batch; b++) {
    if (only && !only.has(b)) continue;
    const [start, promptLength, ids] = [starts[b], promptLengths[b], layout.ids?.[b]];
    try {
      // A window behind the prompt asks nothing of it.
      const inPrompt =
        start + promptLength > 0
          ? promptPositions(config.positions, promptLength, side, { tokenizer, ...(ids ? { ids } : {}) })
          : { positions: [], dropped: 0 };
      dropped += inPrompt.dropped;
      for (const p of inPrompt.positions) if (start + p >= 0 && start + p < width) indices.push(b * width + start + p);
      if (newTokens === 'none' || side === 'prefix') continue;
      for (let column = Math.max(0, start + promptLength); column < Math.min(width, start + lengths[b]); column++) {
        if (isScheduled(newTokens, column - start - promptLength, column - start, ids))
          indices.push(b * width + column);
      }
    } catch (error) {
      const Kind = error instanceof RangeError ? RangeError : Error;
      throw new Kind(`row ${b}, ${intervention.id}: ${(error as Error).message}`, { cause: error });
    }
  }
  return { indices: Int32Array.from(indices), dropped };
}

/** The first position any of the interventions edits in a sequence; its length when none does. */
export function firstEdited(interventions: readonly Intervention[], sequence: Sequence, tokenizer?: Tokenizer): number {
  return Math.min(
    sequence.length,
    ...interventions.flatMap(i => positionsOf(i, sequence, tokenizer).positions.slice(0, 1)),
  );
}
