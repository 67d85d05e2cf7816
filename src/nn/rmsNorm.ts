// x / rms(x) * weight over the last axis (Zhang and Sennrich 2019, eq. 4).

import { defineFused, runFused } from '../autograd/fused.js';
import { create, type CreateOptions } from '../tensor/create.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { FixedRow } from './fixedRow.js';
import { Module } from './module.js';

const fused = defineFused('rmsNorm', {
  compose({ inputs, attributes: { eps } }) {
    const [x, weight] = inputs as Tensor[];
    return x.mul(x.square().mean(-1, { keepDims: true }).add(eps).rsqrt()).mul(weight);
  },
  outputs({ inputs }) {
    const { shape, dtype } = inputs[0] as Tensor;
    return [
      { shape, dtype },
      { shape: shape.slice(0, -1), dtype },
    ];
  },
  saves: ({ inputs, outputs: [, rstd] }) => [...inputs, rstd],
  vjp({ inputs, outputs: [, rstd], gradient, needs }) {
    const [x, weight] = inputs as Tensor[];
    const g = gradient.contiguous();
    const dx = needs[0]
      ? runFused(x.backend, 'rmsNorm.vjp', [x, weight, rstd, g], [{ shape: x.shape, dtype: x.dtype }])
      : [];
    if (!dx) return null;
    const axes = x.shape.slice(0, -1).map((_, i) => i);
    const dw = needs[1] ? x.mul(rstd.unsqueeze(-1)).mul(g).sum(axes) : null;
    return [dx[0] ?? null, dw];
  },
});

/** x [.., d], weight [d]. */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  if (weight.rank !== 1 || weight.shape[0] !== x.shape[x.rank - 1]) {
    throw new ShapeError(
      `rmsNorm: weight ${formatShape(weight.shape)} does not match the last axis of ${formatShape(x.shape)}`,
    );
  }
  return fused([x.contiguous(), weight.contiguous()], { eps });
}

export interface RMSNormOptions {
  /** The weight is stored as what is added to 1, as Gemma's is. */
  readonly onePlus?: boolean;
}

export class RMSNorm extends Module {
  readonly weight: Tensor;
  readonly #eps: number;
  readonly #onePlus: boolean;

  constructor(weight: Tensor, eps: number, { onePlus = false }: RMSNormOptions = {}) {
    super();
    this.weight = weight;
    this.#eps = eps;
    this.#onePlus = onePlus;
  }

  /** Weight 1; with `onePlus` 0. */
  static create({
    size,
    eps = 1e-6,
    onePlus = false,
    ...options
  }: CreateOptions & RMSNormOptions & { size: number; eps?: number }): RMSNorm {
    return new RMSNorm(create.full([size], onePlus ? 0 : 1, options), eps, { onePlus });
  }

  get eps(): number {
    return this.#eps;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.#onePlus ? this.weight.add(1) : this.weight, this.#eps);
  }
}

/** x / rms(x) alone. */
export class UnweightedRMSNorm extends Module {
  readonly #eps: number;
  readonly #ones = new FixedRow(1);

  constructor(eps: number) {
    super();
    this.#eps = eps;
  }

  get eps(): number {
    return this.#eps;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.#ones.for(x), this.#eps);
  }
}
