// Where an interchange reads and writes: which tokens of each row, and which features. Positions count from a row's
// first token, whatever the padding; what they are in the text is ../positions.ts's business.

import { checkIds } from '../io/tokenIds.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { paddingOf } from '../models/tokens.js';
import { parsePositions, resolvePositions, type PositionFunction } from '../reft/positions.js';

/** A padded batch: ids [B, T], and which of them are real. */
export interface TokenBatch {
  readonly inputIds: Int32Array;
  readonly shape: readonly number[];
  /** [B, T], one run of ones a row; default all ones. */
  readonly attentionMask?: Int32Array;
}

/**
 * Tokens of each row: one position, a list that holds for every row, a list for each row, or what `parsePositions`
 * reads ('l1', 'all', a function of the ids). Negative numbers count from a row's end. A list keeps its order: its
 * first entry of the base goes with the first of the source.
 */
export type UnitLocations = number | string | readonly number[] | readonly (readonly number[])[] | PositionFunction;

/** As pyvene's "sources->base". `source` is where the base is, unless given. */
export interface UnitLocationPair {
  readonly base: UnitLocations;
  readonly source?: UnitLocations;
}

/**
 * Parts of a `subspacePartition` by number, or single features where there is none: for every row, or a list for each
 * row.
 */
export type Subspaces = readonly number[] | readonly (readonly number[])[];

/** A batch's rows: the column of the first token of each, how many it has, its ids. */
export interface BatchRows {
  readonly batch: number;
  readonly width: number;
  readonly starts: ArrayLike<number>;
  readonly lengths: ArrayLike<number>;
  readonly ids: readonly ArrayLike<number>[];
}

/** Rows of ids padded on the right to one batch. @throws RangeError for none, or an empty one */
export function tokenBatch(rows: readonly ArrayLike<number>[], padTokenId = 0): Required<TokenBatch> {
  rows.forEach((row, b) => {
    checkIds(`tokenBatch: row ${b}`, row);
    if (row.length === 0) throw new RangeError(`tokenBatch: row ${b} has no tokens`);
  });
  if (rows.length === 0) throw new RangeError('tokenBatch: expected at least one row, got none');
  const width = Math.max(...rows.map(row => row.length));
  const inputIds = new Int32Array(rows.length * width).fill(padTokenId);
  const attentionMask = new Int32Array(rows.length * width);
  rows.forEach((row, b) => {
    inputIds.set(row, b * width);
    attentionMask.fill(1, b * width, b * width + row.length);
  });
  return { inputIds, attentionMask, shape: [rows.length, width] };
}

/** @throws RangeError naming `what` when ids, mask and shape do not fit */
export function rowsOfBatch(what: string, { inputIds, shape, attentionMask }: TokenBatch): BatchRows {
  checkIds(what, inputIds);
  const [batch, width] = shape;
  if (shape.length !== 2 || inputIds.length !== batch * width)
    throw new RangeError(`${what}: ${inputIds.length} ids do not fill shape [${shape.join(', ')}]`);
  const { keyStart, keyEnd } = attentionMask
    ? paddingOf(attentionMask, shape)
    : { keyStart: new Int32Array(batch), keyEnd: new Int32Array(batch).fill(width) };
  const ids = Array.from(keyStart, (start, b) => inputIds.subarray(b * width + start, b * width + keyEnd[b]));
  return { batch, width, starts: keyStart, lengths: keyEnd.map((end, b) => end - keyStart[b]), ids };
}

/** The positions of each row, checked. @throws RangeError naming `what`, the row and the position */
export function locate(what: string, locations: UnitLocations, rows: BatchRows, tokenizer?: Tokenizer): number[][] {
  const perRow =
    Array.isArray(locations) && locations.some(entry => Array.isArray(entry))
      ? (locations as readonly (readonly number[])[])
      : null;
  if (perRow && perRow.length !== rows.batch)
    throw new RangeError(`${what}: lists for ${perRow.length} rows, the batch has ${rows.batch}`);
  return Array.from({ length: rows.batch }, (_, b) => {
    const length = rows.lengths[b];
    if (typeof locations === 'string' || typeof locations === 'function') {
      const context = { tokenizer, ids: rows.ids[b] };
      try {
        return resolvePositions(parsePositions(locations), length, length, 'both', context).positions;
      } catch (error) {
        const Kind = error instanceof RangeError ? RangeError : Error;
        throw new Kind(`${what}, row ${b}: ${(error as Error).message}`, { cause: error });
      }
    }
    const list = typeof locations === 'number' ? [locations] : (perRow?.[b] ?? (locations as readonly number[]));
    if (!Array.isArray(list))
      throw new RangeError(`${what}, row ${b}: expected a list of positions, got ${String(list)}`);
    return (list as readonly number[]).map(p => {
      const at = p < 0 ? length + p : p;
      if (!Number.isInteger(p) || at < 0 || at >= length)
        throw new RangeError(`${what}, row ${b}: position ${p} is out of range for ${length} tokens`);
      return at;
    });
  });
}

/** Rows of the hidden states [B * T, d] that positions are. */
export function flatRows(
  positions: readonly (readonly number[])[],
  { starts, width }: Pick<BatchRows, 'starts' | 'width'>,
): Int32Array {
  return Int32Array.from(positions.flatMap((list, b) => list.map(p => b * width + starts[b] + p)));
}

/** @throws RangeError when a part is no range of features, or two of them meet */
export function checkPartition(what: string, partition: readonly (readonly number[])[], features: number): void {
  const taken = new Set<number>();
  partition.forEach((part, i) => {
    const [from, to] = part;
    if (
      part.length !== 2 ||
      !Number.isInteger(from) ||
      !Number.isInteger(to) ||
      !(from >= 0 && from < to && to <= features)
    ) {
      throw new RangeError(
        `${what}: subspacePartition[${i}] must be [from, to) within the ${features} features, got [${part.join(', ')}]`,
      );
    }
    for (let k = from; k < to; k++) {
      if (taken.has(k))
        throw new RangeError(`${what}: subspacePartition[${i}] has feature ${k}, which an earlier part has too`);
      taken.add(k);
    }
  });
}

/** The features that take part, for each row of the batch. */
export function chosenFeatures(
  what: string,
  subspaces: Subspaces,
  batch: number,
  features: number,
  partition: readonly (readonly [number, number])[] | null,
): boolean[][] {
  const perRow = subspaces.some(entry => Array.isArray(entry)) ? (subspaces as readonly (readonly number[])[]) : null;
  if (perRow && perRow.length !== batch)
    throw new RangeError(`${what}: subspaces for ${perRow.length} rows, the batch has ${batch}`);
  return Array.from({ length: batch }, (_, b) => {
    const chosen = new Array<boolean>(features).fill(false);
    for (const n of perRow?.[b] ?? (subspaces as readonly number[])) {
      const limit = partition?.length ?? features;
      if (!Number.isInteger(n) || n < 0 || n >= limit) {
        throw new RangeError(
          `${what}: subspace ${n} is out of range, there are ${limit} ${partition ? 'parts' : 'features'}`,
        );
      }
      const [from, to] = partition?.[n] ?? [n, n + 1];
      chosen.fill(true, from, to);
    }
    return chosen;
  });
}
