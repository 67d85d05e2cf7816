// Rows of a table by token id.

import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { Module } from './module.js';

export class Embedding extends Module {
  /** [vocabulary, hidden] */
  readonly weight: Tensor;

  constructor(weight: Tensor) {
    super();
    this.weight = weight;
  }

  /** Ids in row-major order of `shape` to [...shape, hidden]. */
  forward(ids: Int32Array, shape: Shape): Tensor {
    return this.weight.takeRows(ids).reshape([...shape, this.weight.shape[1]]);
  }
}
