// Cross-entropy from logits to a loss for each row, keeping of each row only its largest logit and the sum of
// exponentials for backward (their logarithm in f32 would not: it is off by its own rounding in every probability). A
// negative label takes no part.

import { defineFused, runFused } from '../autograd/fused.js';
import { largest } from '../autograd/softmax.js';
import { create } from '../tensor/create.js';
import { isFloat } from '../tensor/dtype.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

const fused = defineFused('crossEntropy', {
  compose({ inputs, lists }) {
    const [logits, labelTensor] = inputs as Tensor[];
    const [n, v] = logits.shape;
    const labels = lists?.labels as Int32Array;
    const at = Int32Array.from(labels, (label, i) => (label < 0 ? -1 : i * v + label));
    const counts = labelTensor.ge(0);
    // Rows that take no part are not looked at, be they NaN: their gradients are 0.
    const rows = counts.unsqueeze(1).where(logits, 0);
    const chosen = rows
      .reshape([n * v, 1])
      .takeRows(at)
      .reshape([n]);
    // Both sides less the row's largest: differences of large logits lose nothing.
    const top = largest(rows.detach(), [1]);
    const rest = rows.sub(top).exp().sum(-1).log();
    return counts.where(rest.sub(chosen.sub(top.reshape([n]))), 0);
  },
  outputs({ inputs }) {
    const { shape, dtype } = inputs[0] as Tensor;
    const row = { shape: [shape[0]], dtype };
    return [row, row, row];
  },
  saves: ({ inputs, outputs: [, top, total] }) => [...inputs, top, total],
  vjp({ inputs, outputs: [, top, total], gradient }) {
    const [logits, labels] = inputs as Tensor[];
    const specs = [{ shape: logits.shape, dtype: logits.dtype }];
    const made = runFused(
      logits.backend,
      'crossEntropy.vjp',
      [logits, labels, top, total, gradient.contiguous()],
      specs,
    );
    return made && [made[0], null];
  },
});

/** logits [n, v], a label from 0 to v - 1 for each row or a negative one for none: losses [n]. */
export function crossEntropy(logits: Tensor, labels: Int32Array): Tensor {
  if (logits.rank !== 2 || logits.shape[0] !== labels.length)
    throw new ShapeError(`crossEntropy: ${labels.length} labels for logits ${formatShape(logits.shape)}`);
  if (!isFloat(logits.dtype)) throw new ShapeError(`crossEntropy: expected f32 or f64 logits, got ${logits.dtype}`);
  labels.forEach((label, i) => {
    if (label >= logits.shape[1])
      throw new RangeError(`crossEntropy: label ${label} of row ${i} is outside the ${logits.shape[1]} classes`);
  });
  const labelTensor = create.from(labels, [labels.length], { dtype: 'i32', backend: logits.backend });
  return fused([logits.contiguous(), labelTensor], {}, { lists: { labels } });
}

/** The mean over rows that have a label. */
export function crossEntropyMean(logits: Tensor, labels: Int32Array): Tensor {
  const count = labels.reduce((n, label) => n + (label >= 0 ? 1 : 0), 0);
  if (count === 0) throw new RangeError('crossEntropy: no row has a label');
  return crossEntropy(logits, labels).sum().div(count);
}
