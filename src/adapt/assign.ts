// Copying values into a tensor that others hold: a trained parameter, a moment, a kept copy.

import { scope } from '../autograd/scope.js';
import { create } from '../tensor/create.js';
import { formatShape, sameShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

/** Copies a value into a tensor, in place. @throws RangeError with `name` where the shapes differ */
export function assign(target: Tensor, value: Tensor, name: string): void {
  if (!sameShape(target.shape, value.shape))
    throw new RangeError(`${name}: expected shape ${formatShape(target.shape)}, got ${formatShape(value.shape)}`);
  target.storage.version++;
  scope(() => {
    const { dtype, backend } = target;
    const near = value.backend === backend ? value : create.from(value.dataSync(), value.shape, { dtype, backend });
    const from = near.dtype === dtype ? near : near.to(dtype);
    backend.kernels.copy({ input: from.view(name), output: target.view(name) });
  });
}
