// Starting values. Numbers are drawn on the host in f64, so that a seed means the same on every backend and in every
// dtype.

import { create, type CreateOptions } from '../tensor/create.js';
import { formatShape, ShapeError, sizeOf } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { Random } from '../tensor/threefry.js';
import { orthonormalize } from './hostMatrices.js';

export interface InitOptions extends CreateOptions {
  seed: number;
  /** Independent sequences of one seed. */
  stream?: number;
}

function fill(shape: readonly number[], options: InitOptions, next: (random: Random) => number): Tensor {
  const random = new Random(options.seed, options.stream ?? 0);
  return create.from(
    Float64Array.from({ length: sizeOf(shape) }, () => next(random)),
    shape,
    { dtype: options.dtype ?? 'f32', ...backendOf(options) },
  );
}

const backendOf = ({ backend }: CreateOptions): CreateOptions => (backend ? { backend } : {});

/** Uniform in +-1/sqrt(fan-in), torch's default for a linear layer; `fanIn` defaults to the last side. */
export function linearInit(shape: readonly number[], options: InitOptions & { fanIn?: number }): Tensor {
  const bound = 1 / Math.sqrt(options.fanIn ?? shape[shape.length - 1]);
  return fill(shape, options, r => bound * (2 * r.next() - 1));
}

export function normalInit(shape: readonly number[], options: InitOptions & { std?: number }): Tensor {
  const std = options.std ?? 0.02;
  return fill(shape, options, r => std * r.normal());
}

/** Uniform in +-sqrt(6 / ((1 + a^2) fan-in)) (He et al. 2015), with a = sqrt 5 as in LoRA's A. */
export function kaimingUniform(shape: readonly number[], options: InitOptions & { a?: number }): Tensor {
  const a = options.a ?? Math.sqrt(5);
  const bound = Math.sqrt(6 / ((1 + a * a) * shape[shape.length - 1]));
  return fill(shape, options, r => bound * (2 * r.next() - 1));
}

/**
 * Orthonormal rows [r, d], r at most d: a normal matrix made orthonormal row by row (QR with positive diagonal), in
 * f64, O(d r^2).
 */
export function orthogonalInit(shape: readonly [number, number], options: InitOptions): Tensor {
  const [r, d] = shape;
  if (!(r > 0 && r <= d)) throw new ShapeError(`orthogonalInit: ${formatShape(shape)} cannot have orthonormal rows`);
  const random = new Random(options.seed, options.stream ?? 0);
  const rows = Array.from({ length: r }, () => Float64Array.from({ length: d }, () => random.normal()));
  orthonormalize(rows);
  return create.from(Float64Array.from(rows.flatMap(row => [...row])), shape, {
    dtype: options.dtype ?? 'f32',
    ...backendOf(options),
  });
}
