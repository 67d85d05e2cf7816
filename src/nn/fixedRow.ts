// A row of one number where a norm has no weight or no bias: as wide as its input, and no parameter.

import { keep } from '../autograd/scope.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';

export class FixedRow {
  readonly #value: number;
  #row: Tensor | null = null;

  constructor(value: number) {
    this.#value = value;
  }

  /** The row for the last axis of x, made at the first call. */
  for({ shape, dtype, backend }: Tensor): Tensor {
    const width = shape[shape.length - 1];
    const row = this.#row;
    if (row && row.shape[0] === width && row.dtype === dtype && row.backend === backend) return row;
    return (this.#row = keep(create.full([width], this.#value, { dtype, backend })));
  }
}
