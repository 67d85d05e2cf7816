// Rotary position embeddings, half-split convention (rotate_half in Hugging Face's modeling_llama.py): one elementwise
// kernel over the pairs (x1, x2) of the two halves of each head, which gives both halves of the result.

import { add, arg, mul, program, sub, uniform } from '../../../tensor/expr.js';
import type { FusedKernel, View } from '../../backend.js';
import type { MapKernels } from '../map.js';

const [x1, x2, cos, sin] = [0, 1, 2, 3].map(n => arg(n));
const sine = mul(sin, uniform(0));
const turn = program([sub(mul(x1, cos), mul(x2, sine)), add(mul(x2, cos), mul(x1, sine))], 4);

/** Inputs x [B, T, H, D], cos and sin [B|1, T, D/2]; with `inverse` the angles are negative. */
export function ropeKernel(maps: MapKernels, bindingBytes: number): FusedKernel {
  return ({ inputs: [x, cosines, sines], outputs: [y], attributes: { inverse } }) => {
    if (!x || !cosines || !sines || [x, cosines, sines, y].some(v => v.dtype !== 'f32')) return false;
    const [B, T, H, D] = x.shape;
    // The two halves of a pair are read through one binding.
    if ([x, y].some(v => 2 * D * Math.abs(v.strides[3]) + 512 > bindingBytes)) return false;
    const shape = [B, T, H, D / 2];
    const half = (view: View, from: number): View => ({
      ...view,
      shape,
      offset: view.offset + from * (D / 2) * view.strides[3],
    });
    const table = (view: View): View => {
      const [sB, sT, sD] = view.strides;
      return { ...view, shape, strides: [view.shape[0] === 1 ? 0 : sB, sT, 0, sD] };
    };
    const inputs = [half(x, 0), half(x, 1), table(cosines), table(sines)];
    maps.map({ program: turn, shape, inputs, outputs: [half(y, 0), half(y, 1)], uniforms: [inverse ? -1 : 1] }, 'rope');
    return true;
  };
}
