// Feed-forward layers: gated (LLaMA) and plain, with activations by the names checkpoints use.

import * as elementwise from '../autograd/elementwise.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Linear } from './linear.js';
import { Module } from './module.js';

/** Activation functions by Hugging Face's names. */
export const activations: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  silu: elementwise.silu, swish: elementwise.silu, gelu: elementwise.gelu, gelu_new: elementwise.geluTanh, gelu_pytorch_tanh: elementwise.geluTanh,
  relu: elementwise.relu, tanh: elementwise.tanh, linear: x => x,
};

export class GatedMLP extends Module {
  readonly gateProj: Linear;
  readonly upProj: Linear;
  readonly downProj: Linear;
  readonly #activation: string;

  constructor(parts: { gateProj: Linear; upProj: Linear; downProj: Linear; activation: string }) {
    super();
    this.gateProj = parts.gateProj;
    this.upProj = parts.upProj;
    this.downProj = parts.downProj;
    this.#activation = parts.activation;
  }

  /** act(gate(x)) * up(x), [.., intermediate]. */
  activate(x: Tensor): Tensor {
    const [gate, up] = [this.gateProj.forward(x), this.upProj.forward(x)];
    return this.#activation === 'silu' ? elementwise.swiglu(gate, up) : activations[this.#activation](gate).mul(up);
  }

  forward(x: Tensor): Tensor {
    return this.downProj.forward(this.activate(x));
  }
}
