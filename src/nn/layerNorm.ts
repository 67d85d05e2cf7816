// (x - mean) / sqrt(variance + eps) * weight + bias over the last axis (Ba et al. 2016, eq. 4); the variance divides by
// d.

import { defineFused, runFused } from '../autograd/fused.js';
import { create, type CreateOptions } from '../tensor/create.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { FixedRow } from './fixedRow.js';
import { Module } from './module.js';

const fused = defineFused('layerNorm', {
  compose({ inputs, attributes: { eps } }) {
    const [x, weight, bias] = inputs as Tensor[];
    const centred = x.sub(x.mean(-1, { keepDims: true }));
    return centred
      .mul(centred.square().mean(-1, { keepDims: true }).add(eps).rsqrt())
      .mul(weight)
      .add(bias);
  },
  outputs({ inputs }) {
    const { shape, dtype } = inputs[0] as Tensor;
    const row = { shape: shape.slice(0, -1), dtype };
    return [{ shape, dtype }, row, row];
  },
  saves: ({ inputs: [x, weight], outputs: [, mean, rstd] }) => [x, weight, mean, rstd],
  vjp({ inputs, outputs: [, mean, rstd], gradient, needs }) {
    const [x, weight] = inputs as Tensor[];
    const g = gradient.contiguous();
    const dx = needs[0]
      ? runFused(x.backend, 'layerNorm.vjp', [x, weight, mean, rstd, g], [{ shape: x.shape, dtype: x.dtype }])
      : [];
    if (!dx) return null;
    const axes = x.shape.slice(0, -1).map((_, i) => i);
    const dw = needs[1] ? x.sub(mean.unsqueeze(-1)).mul(rstd.unsqueeze(-1)).mul(g).sum(axes) : null;
    return [dx[0] ?? null, dw, needs[2] ? g.sum(axes) : null];
  },
});

/** x [.., d], weight and bias [d]. */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  for (const [name, t] of [
    ['weight', weight],
    ['bias', bias],
  ] as const) {
    if (t.rank !== 1 || t.shape[0] !== x.shape[x.rank - 1])
      throw new ShapeError(
        `layerNorm: ${name} ${formatShape(t.shape)} does not match the last axis of ${formatShape(x.shape)}`,
      );
  }
  return fused([x.contiguous(), weight.contiguous(), bias.contiguous()], { eps });
}

export class LayerNorm extends Module {
  /** Null where the norm has none. */
  readonly weight: Tensor | null;
  readonly bias: Tensor | null;
  readonly #eps: number;
  readonly #ones = new FixedRow(1);
  readonly #zeros = new FixedRow(0);

  constructor(weight: Tensor | null, bias: Tensor | null, eps: number) {
    super();
    this.weight = weight;
    this.bias = bias;
    this.#eps = eps;
  }

  /** Weight 1; bias 0, or none. */
  static create({
    size,
    eps = 1e-5,
    bias = true,
    ...options
  }: CreateOptions & { size: number; eps?: number; bias?: boolean }): LayerNorm {
    return new LayerNorm(create.ones([size], options), bias ? create.zeros([size], options) : null, eps);
  }

  get eps(): number {
    return this.#eps;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight ?? this.#ones.for(x), this.bias ?? this.#zeros.for(x), this.#eps);
  }
}
