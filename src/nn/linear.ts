// y = x W^T + b, with W [out, in] as checkpoints have it.

import type { Tensor } from '../tensor/tensor.js';
import { Module } from './module.js';

/** x [.., in] to [.., out]; weight [out, in], bias [out]. */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const y = x.matmulT(weight);
  return bias ? y.add(bias) : y;
}

export class Linear extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor | null;

  constructor(weight: Tensor, bias: Tensor | null = null) {
    super();
    this.weight = weight;
    this.bias = bias;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
