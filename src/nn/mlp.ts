// Feed-forward layers: gated (LLaMA) and plain, with activations by the names checkpoints use.

import * as elementwise from '../autograd/elementwise.js';
import type { Tensor } from '../tensor/tensor.js';
import { project, type Linear } from './linear.js';
import { Module } from './module.js';

/** Activation functions by Hugging Face's names. */
export const activations: Readonly<Record<string, (x: Tensor) => Tensor>> = Object.assign(Object.create(null), {
  silu: elementwise.silu, swish: elementwise.silu, gelu: elementwise.gelu, gelu_new: elementwise.geluTanh, gelu_pytorch_tanh: elementwise.geluTanh,
  relu: elementwise.relu, tanh: elementwise.tanh, linear: (x: Tensor) => x,
});

/** By name; an unknown one is refused, saying which are known. */
export function activationNamed(name: string): (x: Tensor) => Tensor {
  const found = activations[name];
  if (!found) throw new RangeError(`activation '${name}' is not known; known: ${Object.keys(activations).join(', ')}`);
  return found;
}

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
    activationNamed(parts.activation);
    this.#activation = parts.activation;
  }

  /** act(gate(x)) * up(x), [.., intermediate]. */
  activate(x: Tensor): Tensor {
    const [gate, up] = project(x, [this.gateProj, this.upProj]);
    return this.#activation === 'silu' ? elementwise.swiglu(gate, up) : activationNamed(this.#activation)(gate).mul(up);
  }

  forward(x: Tensor): Tensor {
    return this.downProj.forward(this.activate(x));
  }
}

/** down(act(up(x))), with GELU or another activation by name. */
export class MLP extends Module {
  readonly upProj: Linear;
  readonly downProj: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor(parts: { upProj: Linear; downProj: Linear; activation: string }) {
    super();
    this.upProj = parts.upProj;
    this.downProj = parts.downProj;
    this.#activation = activationNamed(parts.activation);
  }

  /** act(up(x)), [.., intermediate]. */
  activate(x: Tensor): Tensor {
    return this.#activation(this.upProj.forward(x));
  }

  forward(x: Tensor): Tensor {
    return this.downProj.forward(this.activate(x));
  }
}
