// The simpler simple recurrent unit of Marian's fast decoders (Kim et al. 2019): a gated sum of what came before and of
// the token, and nothing else to remember.

import { map, sigmoidOf } from '../autograd/elementwise.js';
import { arg, mul, neg } from '../tensor/expr.js';
import type { Tensor } from '../tensor/tensor.js';
import { linearScan } from './linearScan.js';

export interface Ssru {
  /** relu(c) of every row, [N, width]. */
  readonly output: Tensor;
  /** c after the last row of each sequence, [S, width]: what a later call goes on from. */
  readonly cell: Tensor;
}

/** (1 - sigmoid(forget)) candidate, without the difference's rounding. */
const additionOf = mul(sigmoidOf(neg(arg(0))), arg(1));

/**
 * c_t = f c_{t-1} + (1 - f) candidate with f = sigmoid(forget), for what a model's two projections make of the tokens,
 * [N, width] each: forget = Wf x + bf, candidate = W x. Sequence s begins at row starts[s] with cell[s], [S, width], or
 * with zeros.
 */
export function ssru(forget: Tensor, candidate: Tensor, starts: Int32Array, cell: Tensor | null = null): Ssru {
  const addition = map('ssru', additionOf, [forget, candidate]);
  const { states, final } = linearScan(forget.sigmoid(), addition, starts, cell);
  return { output: states.relu(), cell: final };
}
