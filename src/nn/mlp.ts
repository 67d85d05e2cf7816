// Feed-forward layers: gated (LLaMA) and plain, with activations by the names checkpoints use.

import type { Tensor } from '../tensor/tensor.js';
import { activationNamed } from './activations.js';
import { finish, project, type Linear, type LinearEpilogue } from './linear.js';
import { Module } from './module.js';

/**
 * Tokens up to which one product for gate and up together is faster than the activation within the second. Measured.
 */
const fewTokens = 32;

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
    const activation = this.#activation;
    if (x.size / x.shape[x.rank - 1] > fewTokens)
      return this.upProj.forward(x, { activation, gate: this.gateProj.forward(x) });
    const [gate, up] = project(x, [this.gateProj, this.upProj]);
    return finish(up, null, { activation, gate });
  }

  forward(x: Tensor, epilogue?: LinearEpilogue): Tensor {
    return this.downProj.forward(this.activate(x), epilogue);
  }
}

/** down(act(up(x))), with GELU or another activation by name. */
export class MLP extends Module {
  readonly upProj: Linear;
  readonly downProj: Linear;
  readonly #activation: string;

  constructor(parts: { upProj: Linear; downProj: Linear; activation: string }) {
    super();
    this.upProj = parts.upProj;
    this.downProj = parts.downProj;
    activationNamed(parts.activation);
    this.#activation = parts.activation;
  }

  /** act(up(x)), [.., intermediate]. */
  activate(x: Tensor): Tensor {
    return this.upProj.forward(x, { activation: this.#activation });
  }

  forward(x: Tensor, epilogue?: LinearEpilogue): Tensor {
    return this.downProj.forward(this.activate(x), epilogue);
  }
}
