// Softmax over the last axis, shifted by the maximum so that nothing overflows. Rows of -Infinity alone give NaN, as in
// PyTorch.

import type { Tensor } from '../tensor/tensor.js';
import { defineFused, runFused } from './fused.js';
import { apply } from './primitives.js';

/** The largest along axes, which stay as 1: NaN if any is, -Infinity of none. */
export const largest = (x: Tensor, axes: readonly number[]): Tensor => apply('reduceMax', [x], { axes })[0];

const fused = defineFused('softmax', {
  compose({ inputs: [x] }) {
    const input = x as Tensor;
    const e = input.sub(largest(input.detach(), [input.rank - 1])).exp();
    return e.div(e.sum(-1, { keepDims: true }));
  },
  saves: ({ outputs: [y] }) => [y],
  vjp({ outputs: [y], gradient }) {
    return (
      runFused(y.backend, 'softmax.vjp', [y, gradient.contiguous()], [{ shape: y.shape, dtype: y.dtype }]) ?? [
        gradient.sub(gradient.mul(y).sum(-1, { keepDims: true })).mul(y),
      ]
    );
  },
});

export function softmaxLast(x: Tensor): Tensor {
  return fused([x]);
}
