// The real tokens of a padded batch, one after the other: hidden states as [1, N, width] in place of [B, T, width], so
// that norms, linear layers and edits compute nothing for padding. Attention alone sees rows side by side, through two
// gathers; so does who looks at a site.

import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Padding } from './context.js';

export interface RealTokens {
  /** [B, T] of the batch. */
  readonly shape: Shape;
  /** Row b * T + t of each of the N real tokens, rising. */
  readonly rows: Int32Array;
  /** For each row b * T + t its number among the real tokens, -1 for padding. */
  readonly places: Int32Array;
}

/** Padding below this share of all tokens costs less than the gathers that leave it out. */
const leastPadding = 1 / 16;

/**
 * The real tokens of a batch [B, T] behind `past` cached ones; null where there is too little padding to be left out.
 */
export function realTokensOf({ keyStart, keyEnd }: Padding, past: number, shape: Shape): RealTokens | null {
  const [batch, length] = shape;
  const rows: number[] = [];
  const places = new Int32Array(batch * length).fill(-1);
  for (let b = 0; b < batch; b++) {
    for (let column = Math.max(past, keyStart[b]); column < keyEnd[b]; column++) {
      const row = b * length + column - past;
      places[row] = rows.push(row) - 1;
    }
  }
  const padding = places.length - rows.length;
  return rows.length > 0 && padding > 0 && padding >= leastPadding * places.length
    ? { shape, rows: Int32Array.from(rows), places }
    : null;
}

/** [B, T, ..] to the real tokens, [1, N, ..]. */
export function gatherReal(x: Tensor, { rows }: RealTokens): Tensor {
  const rest = x.shape.slice(2);
  return x
    .reshape([x.shape[0] * x.shape[1], ...rest])
    .takeRows(rows)
    .reshape([1, rows.length, ...rest]);
}

/** The real tokens [1, N, ..] at their places in [B, T, ..], zeros at padding. */
export function spreadReal(x: Tensor, { rows, places, shape }: RealTokens): Tensor {
  const rest = x.shape.slice(2);
  return x
    .reshape([rows.length, ...rest])
    .takeRows(places)
    .reshape([...shape, ...rest]);
}
