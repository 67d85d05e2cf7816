// y = x W^T + b, with W [out, in] as checkpoints have it.

import type { Tensor } from '../tensor/tensor.js';
import { linearInit, type InitOptions } from './init.js';
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

  /** Weight and bias uniform in +-1/sqrt(input), as torch's; the weight from stream 2s, the bias from 2s + 1. */
  static create({ input, output, bias = true, stream = 0, ...options }: InitOptions & { input: number; output: number; bias?: boolean }): Linear {
    const draw = (shape: number[], n: number): Tensor => linearInit(shape, { ...options, fanIn: input, stream: 2 * stream + n });
    return new Linear(draw([output, input], 0), bias ? draw([output], 1) : null);
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
