// y = x W^T + b, with W [out, in] as checkpoints have it.

import { mayRound } from '../tensor/rounding.js';
import { Tensor } from '../tensor/tensor.js';
import { linearInit, type InitOptions } from './init.js';
import { Module } from './module.js';

/** x [.., in] to [.., out]; weight [out, in], bias [out]. */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const y = x.matmulT(weight);
  return bias ? y.add(bias) : y;
}

/**
 * What several layers make of the same x [.., in], [.., out] of each. Where products may be rounded, as when tokens are generated, and the layers'
 * weights are neighbours in memory, one product computes all.
 */
export function project(x: Tensor, layers: readonly Linear[]): Tensor[] {
  const weight = mayRound() && !x.needsGrad ? joinedWeight(layers) : null;
  if (!weight) return layers.map(layer => layer.forward(x));
  const parts = x.matmulT(weight).split(layers.map(layer => layer.weight.shape[0]), -1);
  return parts.map((y, i) => (layers[i].bias ? y.add(layers[i].bias) : y));
}

/** Packed weights that follow each other in one storage, as one matrix; null if they do not. */
function joinedWeight(layers: readonly Linear[]): Tensor | null {
  const { storage, dtype, shape: [, columns], strides, offset, packing } = layers[0].weight;
  let rows = 0;
  for (const { weight } of layers) {
    const follows = weight.storage === storage && weight.offset === offset + rows * columns && weight.shape[1] === columns;
    if (!packing || weight.packing !== packing || !follows) return null;
    rows += weight.shape[0];
  }
  return new Tensor(storage, dtype, [rows, columns], strides, offset, packing);
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
