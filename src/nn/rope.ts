// Rotary position embeddings (Su et al. 2021) in Hugging Face's rotate-half form, with LLaMA-3's frequency scaling. Tables come from the
// host: sine and cosine on a GPU are inaccurate for large angles.

import { defineFused, type FusedDefinition } from '../autograd/fused.js';
import { concat } from '../tensor/layout.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

const definition: FusedDefinition = {
  compose({ inputs, attributes: { inverse } }) {
    const [x, cos, sin] = inputs as Tensor[];
    const half = x.shape[3] / 2;
    const [c, s] = [cos.unsqueeze(2), inverse ? sin.unsqueeze(2).neg() : sin.unsqueeze(2)];
    const [x1, x2] = x.split([half, half], 3);
    return concat([x1.mul(c).sub(x2.mul(s)), x2.mul(c).add(x1.mul(s))], 3);
  },
  saves: ({ inputs: [, cos, sin] }) => [cos, sin],
  vjp: ({ inputs: [, cos, sin], gradient, needs, attributes }) =>
    (needs[1] || needs[2] ? null : [fused([gradient, cos, sin], { inverse: attributes.inverse ? 0 : 1 }), null, null]),
};
const fused = defineFused('rope', definition);

/** x [B, T, H, D], cos and sin [B|1, T, D/2]: rotated, contiguous. */
export function rope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const [batch, length, , dim] = x.shape;
  const fits = (table: Tensor): boolean =>
    table.rank === 3 && (table.shape[0] === 1 || table.shape[0] === batch) && table.shape[1] === length && table.shape[2] === dim / 2;
  if (x.rank !== 4 || dim % 2 !== 0 || !fits(cos) || formatShape(sin.shape) !== formatShape(cos.shape)) {
    throw new ShapeError(`rope: tables ${formatShape(cos.shape)} do not fit ${formatShape(x.shape)}, expected [${batch}|1,${length},${dim / 2}]`);
  }
  return fused([x, cos, sin], { inverse: 0 });
}

export interface RopeOptions {
  readonly headDim: number;
  readonly theta: number;
  /** As in a Hugging Face config; old ones say `type` for `rope_type`. */
  readonly scaling?: { readonly rope_type?: string; readonly [key: string]: unknown } | null;
}

/** Radians a position for each pair of dimensions, in the f32 steps in which transformers' modeling_rope_utils.py has PyTorch compute them. */
export function ropeFrequencies({ headDim, theta, scaling }: RopeOptions): Float32Array {
  if (!(headDim > 0 && headDim % 2 === 0)) throw new RangeError(`rope: the head size must be even and positive, got ${headDim}`);
  if (!(theta > 0)) throw new RangeError(`rope: theta must be positive, got ${theta}`);
  const f = Math.fround;
  const plain = Float32Array.from({ length: headDim / 2 }, (_, i) => 1 / f(theta ** f((2 * i) / headDim)));
  const type = scaling?.rope_type ?? scaling?.['type'] ?? 'default';
  const number = (key: string): number => {
    const value = scaling?.[key];
    if (typeof value !== 'number' || !(value > 0)) throw new RangeError(`rope scaling '${String(type)}': ${key} must be a positive number, got ${String(value)}`);
    return value;
  };
  switch (type) {
    case 'default':
      return plain;
    case 'linear': {
      const factor = number('factor');
      return plain.map(x => x / factor);
    }
    case 'llama3': {
      const [factor, low, high, original] = ['factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'].map(number);
      return plain.map(x => {
        // PyTorch divides a number by a tensor as the reciprocal times the number.
        const wavelength = f(f(1 / x) * f(2 * Math.PI));
        if (wavelength < f(original / high)) return x;
        if (wavelength > f(original / low)) return x / factor;
        const smooth = f(f(f(f(1 / wavelength) * original) - low) / f(high - low));
        return f(f(f(1 - smooth) * x) / factor) + f(smooth * x);
      });
    }
    default:
      throw new RangeError(`rope scaling '${String(type)}' is not known; known: default, linear, llama3`);
  }
}

/** cos and sin of position times frequency, [n, D/2] row-major; the angle is rounded to f32 first, as in PyTorch. */
export function ropeTables(frequencies: Float32Array, positions: Int32Array): { cos: Float32Array; sin: Float32Array } {
  const half = frequencies.length;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  positions.forEach((position, p) => {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]);
      cos[p * half + i] = Math.cos(angle);
      sin[p * half + i] = Math.sin(angle);
    }
  });
  return { cos, sin };
}
