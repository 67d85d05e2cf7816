// The selective state space of Mamba (Gu and Dao 2023): each of d channels has a state of n numbers that decays and
// takes up the channel's input, by as much as the token says. The composition makes all states of all tokens, [N, d,
// n]; a kernel keeps one of each sequence and, going back, those of one channel.

import { map } from '../autograd/elementwise.js';
import { defineFused, runFused } from '../autograd/fused.js';
import { apply } from '../autograd/primitives.js';
import { isFloat } from '../tensor/dtype.js';
import { add, arg, exp, mul } from '../tensor/expr.js';
import { concat } from '../tensor/layout.js';
import { formatShape, sameShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { linearScan } from './linearScan.js';
import { checkStarts, checkState } from './sequences.js';

export interface SelectiveScanInput {
  /** What the channels are given, [N, d]. */
  readonly x: Tensor;
  /** Sizes of the time steps, behind their softplus, [N, d]. */
  readonly dt: Tensor;
  /** How fast states decay, [d, n]: -exp(A_log) of a checkpoint. */
  readonly A: Tensor;
  /** How an input enters the states of its channel, and how they are read, [N, n]. */
  readonly B: Tensor;
  readonly C: Tensor;
  /** How much of an input goes past the states, [d]. */
  readonly D: Tensor;
}

export interface SelectiveScan {
  /** y of every row, [N, d]. */
  readonly output: Tensor;
  /** h after the last row of each sequence, [S, d, n]: what a later call goes on from. */
  readonly state: Tensor;
}

const product = mul(arg(0), arg(1));
const decayOf = exp(product);
const additionOf = mul(product, arg(2));
const outputOf = add(arg(0), mul(arg(1), arg(2)));

/** Channels whose shares in the gradients of B and C a kernel adds up; the sums of such blocks are added then. */
const channelBlock = 64;

/** Its result is [N + S n, d]: the rows of y, and then the states of all sequences as they lie in memory. */
const fused = defineFused('selectiveScan', {
  compose({ inputs, indices }) {
    const [x, dt, A, B, C, D, initial] = inputs as [...Tensor[], Tensor | null] as Tensor[];
    const [wideX, wideDt, wideB, wideC] = [x.unsqueeze(2), dt.unsqueeze(2), B.unsqueeze(1), C.unsqueeze(1)];
    const decay = map('selectiveScan', decayOf, [wideDt, A]);
    const addition = map('selectiveScan', additionOf, [wideDt, wideX, wideB]);
    const { states, final } = linearScan(decay, addition, indices as Int32Array, initial);
    const reading = { output: product, shape: states.shape, axes: [2], uniforms: [], dtype: x.dtype };
    const read = apply('reduceSum', [states, wideC], { ...reading, label: 'selectiveScan' })[0].squeeze(2);
    const [, d] = x.shape;
    return concat([map('selectiveScan', outputOf, [read, D, x]), final.reshape([final.shape[0] * final.shape[2], d])]);
  },
  outputs({ inputs, indices }) {
    const [x, , A] = inputs as Tensor[];
    const [rows, d] = x.shape;
    return [{ shape: [rows + (indices as Int32Array).length * A.shape[1], d], dtype: x.dtype }];
  },
  saves: ({ inputs }) => [...inputs],
  vjp({ inputs, gradient, needs, indices }) {
    const [x, dt, A, B, C, D, initial] = inputs as [...Tensor[], Tensor | null] as Tensor[];
    const [rows, d] = x.shape;
    const { dtype } = x;
    const shares = [Math.ceil(d / channelBlock), ...B.shape];
    const specs = [x.shape, x.shape, A.shape, shares, shares, ...(initial ? [initial.shape] : [])];
    const made = runFused(
      x.backend,
      'selectiveScan.vjp',
      [x, dt, A, B, C, D, initial, gradient.contiguous()],
      specs.map(shape => ({ shape, dtype })),
      { block: channelBlock },
      indices,
    );
    if (!made) return null;
    const [dx, ddt, dA, dB, dC, dInitial] = made;
    const dD = needs[5] ? gradient.slice(0, 0, rows).mul(x).sum(0) : null;
    return [dx, ddt, dA, needs[3] ? dB.sum(0) : null, needs[4] ? dC.sum(0) : null, dD, dInitial ?? null];
  },
});

/**
 * h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t and y_t = C_t h_t + D x_t, for each channel. Sequence s begins at row
 * starts[s] with state[s], [S, d, n], or with zeros.
 */
export function selectiveScan(
  { x, dt, A, B, C, D }: SelectiveScanInput,
  starts: Int32Array,
  state: Tensor | null = null,
): SelectiveScan {
  const [rows, d] = x.shape;
  const n = A.shape[1];
  const fits =
    x.rank === 2 &&
    A.rank === 2 &&
    sameShape(dt.shape, x.shape) &&
    A.shape[0] === d &&
    [B, C].every(t => sameShape(t.shape, [rows, n])) &&
    sameShape(D.shape, [d]);
  if (!fits)
    throw new ShapeError(
      `selectiveScan: x ${formatShape(x.shape)}, dt ${formatShape(dt.shape)}, A ${formatShape(A.shape)}, B ${formatShape(B.shape)}, C ${formatShape(C.shape)} and D ${formatShape(D.shape)} do not fit [N,d], [N,d], [d,n], [N,n], [N,n], [d]`,
    );
  if (!isFloat(x.dtype) || [dt, A, B, C, D].some(t => t.dtype !== x.dtype))
    throw new ShapeError(
      `selectiveScan: expected six f32 or six f64 tensors, got ${[x, dt, A, B, C, D].map(t => t.dtype).join(', ')}`,
    );
  checkStarts('selectiveScan', starts, rows);
  checkState('selectiveScan', state, x, starts, [d, n]);
  const given = [x, dt, A, B, C, D].map(t => t.contiguous());
  const both = fused([...given, state && state.contiguous()], {}, { indices: starts });
  // A window on both would keep all rows of y for as long as a state is carried: more than the state by far, for long
  // sequences.
  const states = both.slice(0, rows);
  const apart = rows > starts.length * n ? apply('copy', [states], {})[0] : states;
  return { output: both.slice(0, 0, rows), state: apart.reshape([starts.length, d, n]) };
}
