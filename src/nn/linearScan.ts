// The linear recurrence h_t = a_t h_{t-1} + b_t along the rows of each sequence, element by element: what gated
// recurrent cells and state space models are made of. One step after the other, so that a sequence gives the same bits
// alone, among others, and in pieces.

import { defineFused, runFused } from '../autograd/fused.js';
import { isFloat } from '../tensor/dtype.js';
import { concat } from '../tensor/layout.js';
import { formatShape, sameShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkStarts, checkState, endOf, lastRows } from './sequences.js';

/** Rows by time: all first ones, then all second ones. Longer sequences come first, so that those left are a range. */
function rowsByTime(starts: Int32Array, rows: number): { order: Int32Array; counts: number[]; sequences: Int32Array } {
  const length = (s: number): number => endOf(starts, s, rows) - starts[s];
  const sequences = Int32Array.from(starts.keys()).sort((s, other) => length(other) - length(s));
  const order: number[] = [];
  const counts: number[] = [];
  for (let t = 0; order.length < rows; t++) {
    const left = sequences.filter(s => length(s) > t);
    order.push(...left.map(s => starts[s] + t));
    counts.push(left.length);
  }
  return { order: Int32Array.from(order), counts, sequences };
}

/** x cut into pieces of so many rows. By halves: the gradient of a piece is then no larger than its half. */
function pieces(x: Tensor, counts: readonly number[]): Tensor[] {
  if (counts.length < 2) return counts.length === 0 ? [] : [x];
  const half = counts.length >> 1;
  const rows = counts.slice(0, half).reduce((sum, count) => sum + count, 0);
  return [...pieces(x.slice(0, 0, rows), counts.slice(0, half)), ...pieces(x.slice(0, rows), counts.slice(half))];
}

const fused = defineFused('linearScan', {
  compose({ inputs, indices }) {
    const [a, b, initial] = inputs as [Tensor, Tensor, Tensor | null];
    const { order, counts, sequences } = rowsByTime(indices as Int32Array, b.shape[0]);
    if (counts.length === 0) return b;
    const [decays, additions] = [a, b].map(x => pieces(x.takeRows(order), counts));
    let h = initial?.takeRows(sequences);
    const states = counts.map((count, t) => {
      h = h ? decays[t].mul(h.slice(0, 0, count)).add(additions[t]) : additions[t];
      return h;
    });
    const places = new Int32Array(order.length);
    order.forEach((row, place) => (places[row] = place));
    return concat(states).takeRows(places);
  },
  saves: ({ inputs: [a, , initial], outputs: [h] }) => [a, initial, h],
  vjp({ inputs, outputs: [h], gradient, indices }) {
    const [a, b, initial] = inputs as [Tensor, Tensor, Tensor | null];
    const specs = (initial ? [a, b, initial] : [a, b]).map(({ shape, dtype }) => ({ shape, dtype }));
    return runFused(a.backend, 'linearScan.vjp', [a, initial, h, gradient.contiguous()], specs, {}, indices);
  },
});

export interface LinearScan {
  /** h of every row, [N, ..]. */
  readonly states: Tensor;
  /** h after the last row of each sequence, [S, ..]: what a later call goes on from. */
  readonly final: Tensor;
}

/**
 * h_t = a_t h_{t-1} + b_t for a and b [N, ..]. Sequence s begins at row starts[s] with initial[s] [S, ..] before it, or
 * with h = b where there is no initial state: what a is there does not matter then.
 */
export function linearScan(a: Tensor, b: Tensor, starts: Int32Array, initial: Tensor | null = null): LinearScan {
  if (b.rank === 0 || !sameShape(a.shape, b.shape) || !isFloat(b.dtype) || a.dtype !== b.dtype)
    throw new ShapeError(
      `linearScan: a ${a.dtype}${formatShape(a.shape)} and b ${b.dtype}${formatShape(b.shape)} should both be floats [N,..] of one shape`,
    );
  checkStarts('linearScan', starts, b.shape[0]);
  checkState('linearScan', initial, b, starts, b.shape.slice(1));
  const states = fused([a.contiguous(), b.contiguous(), initial && initial.contiguous()], {}, { indices: starts });
  return { states, final: lastRows(states, starts, initial) };
}
