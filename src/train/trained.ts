// What a run trains: an adapter, and weights of its base (a head, a norm) that require gradients.

import type { Adapter } from '../adapt/adapter.js';
import { assign } from '../adapt/assign.js';
import type { NamedTensor } from '../adapt/parameterSet.js';
import { AdamW } from '../nn/optim.js';
import type { Tensor } from '../tensor/tensor.js';

export class Trained {
  /** In the optimizer's order. */
  readonly tensors: readonly NamedTensor[];
  readonly optimizer: AdamW;
  private readonly adapter: Adapter;
  private readonly ofBase: readonly NamedTensor[];

  constructor(adapter: Adapter, weightDecay: number) {
    this.adapter = adapter;
    this.ofBase = [...adapter.base.namedParameters()].flatMap(([name, tensor]) =>
      tensor.requiresGrad ? [{ name: `base.${name}`, tensor }] : [],
    );
    const ofAdapter = adapter.trained();
    const orthogonal = ofAdapter.filter(t => t.orthogonal);
    const free = [...ofAdapter.filter(t => !t.orthogonal), ...this.ofBase];
    this.tensors = [...orthogonal, ...free];
    this.optimizer = new AdamW([
      { parameters: orthogonal.map(t => t.tensor), orthogonal: true },
      { parameters: free.map(t => t.tensor), weightDecay },
    ]);
  }

  /** Everything that decides what the adapted model computes, by name. */
  state(): Map<string, Tensor> {
    return new Map([...this.adapter.state(), ...this.ofBase].map(({ name, tensor }) => [name, tensor]));
  }

  /** Puts back a tensor of `state`. */
  setState(name: string, value: Tensor): void {
    const weight = this.ofBase.find(t => t.name === name);
    if (weight) assign(weight.tensor, value, name);
    else this.adapter.setState(name, value);
  }
}
