// Rows of a table by token id.

import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { normalInit, type InitOptions } from './init.js';
import { Module } from './module.js';

export class Embedding extends Module {
  /** [vocabulary, hidden] */
  readonly weight: Tensor;

  constructor(weight: Tensor) {
    super();
    this.weight = weight;
  }

  /** Weight normal with standard deviation `std`, default 0.02. */
  static create({ count, size, ...options }: InitOptions & { count: number; size: number; std?: number }): Embedding {
    return new Embedding(normalInit([count, size], options));
  }

  /** Ids in row-major order of `shape` to [...shape, hidden]. */
  forward(ids: Int32Array, shape: Shape): Tensor {
    const bad = ids.findIndex(id => id < 0 || id >= this.weight.shape[0]);
    if (bad >= 0)
      throw new RangeError(`embedding: id ${ids[bad]} at ${bad} is outside the table of ${this.weight.shape[0]}`);
    return this.weight.takeRows(ids).reshape([...shape, this.weight.shape[1]]);
  }
}
