// Scaled dot-product attention with grouped queries, causal and sliding-window masks, padding on either side, a bias of
// the scores and a soft cap. Keeps only the log-sum-exp for backward. A query that sees no key, or only scores of
// -Infinity, gives zeros, as in torch. Unlike there, what a query does not see does not reach it, even NaN, nor does
// its gradient go there. The composition here is the definition; where no kernel takes a call, attentionProducts.ts
// computes the same.

import { defineFused, runFused, type FusedCall } from '../autograd/fused.js';
import { apply } from '../autograd/primitives.js';
import { largest } from '../autograd/softmax.js';
import type { Backend } from '../backends/backend.js';
import { create } from '../tensor/create.js';
import { isFloat } from '../tensor/dtype.js';
import { arg, mul, where, type Expr } from '../tensor/expr.js';
import { broadcastShapes, formatShape, sameShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { attentionByProducts, attentionVjpByProducts, noLimit, type AttentionInputs } from './attentionProducts.js';

export interface AttentionOptions {
  /** Default 1 / sqrt(D). */
  readonly scale?: number;
  /** Scores s become softcap * tanh(s / softcap); 0 leaves them. */
  readonly softcap?: number;
  /** [1|B, H, T, S], added to the scaled (and capped) scores. */
  readonly bias?: Tensor | null | undefined;
  readonly causal?: boolean;
  /** Query t is at position t + causalOffset among the keys: the number of cached tokens. */
  readonly causalOffset?: number;
  /**
   * How far a query sees: a number counts the keys up to its own position, that one included (0 sees all); `before` and
   * `after` those on either side of it.
   */
  readonly window?: number | { readonly before: number; readonly after: number };
  /** First valid key and one past the last, for each row of the batch. */
  readonly keyStart?: Int32Array;
  readonly keyEnd?: Int32Array;
  /** The same on the device, for layer after layer: from `attentionBounds`, in place of the two above. */
  readonly bounds?: AttentionBounds;
}

/** The keys that rows of a batch see at most, on the host and on the device. */
export interface AttentionBounds {
  readonly keyStart: Int32Array;
  readonly keyEnd: Int32Array;
  readonly tensors: readonly [Tensor, Tensor];
}

export function attentionBounds(keyStart: Int32Array, keyEnd: Int32Array, backend: Backend): AttentionBounds {
  const tensor = (data: Int32Array): Tensor => create.from(data, [data.length], { dtype: 'i32', backend });
  return { keyStart, keyEnd, tensors: [tensor(keyStart), tensor(keyEnd)] };
}

/** The sum of x y along an axis over what `seen` lets through; what it does not is not looked at, be it NaN. */
function seenSum(seen: Tensor, x: Tensor, y: Tensor, axis: number): Tensor {
  return apply('reduceSum', [seen, x, y], {
    output: seenProduct,
    shape: broadcastShapes('attention', seen.shape, x.shape, y.shape),
    axes: [axis],
    uniforms: [],
    dtype: x.dtype,
    label: 'attention sum',
  })[0];
}
// Each factor by itself: so the product's derivatives do not look at the other one either.
const seenProduct = mul(...([arg(1), arg(2)].map(x => where(arg(0, 'b'), x, 0)) as [Expr, Expr]));

function inputsOf({ inputs }: FusedCall): AttentionInputs {
  const [q, k, v, keyStart, keyEnd] = inputs as Tensor[];
  return { q, k, v, keyStart, keyEnd, bias: inputs[5] };
}

const fused = defineFused('attention', {
  compose({ inputs, attributes, lists }) {
    const [q, k, v] = inputs as Tensor[];
    const bias = inputs[5];
    const [B, H, T, D] = q.shape;
    const [, KV, S] = k.shape;
    const { scale, softcap, causalOffset, behind, ahead } = attributes;
    const { keyStart, keyEnd } = lists as { keyStart: Int32Array; keyEnd: Int32Array };
    const mask = new Int32Array(B * T * S);
    for (let b = 0; b < B; b++) {
      for (let t = 0; t < T; t++) {
        const from = Math.max(keyStart[b], t + causalOffset - behind);
        const to = Math.min(keyEnd[b], t + causalOffset + ahead + 1);
        const row = (b * T + t) * S;
        mask.fill(1, row + from, row + to); // nothing where `to` is not larger
      }
    }
    // [B, KV, heads that share keys, T, S, D]
    const seen = create.from(mask, [B, 1, 1, T, S, 1], { dtype: 'bool', backend: q.backend });
    const [queries, keys, values] = [
      q.reshape([B, KV, H / KV, T, 1, D]),
      k.reshape([B, KV, 1, 1, S, D]),
      v.reshape([B, KV, 1, 1, S, D]),
    ];
    const scaled = seenSum(seen, queries, keys, 5).mul(scale);
    const capped = softcap > 0 ? scaled.div(softcap).tanh().mul(softcap) : scaled;
    const biased = bias ? capped.add(bias.reshape([bias.shape[0], KV, H / KV, T, S, 1])) : capped;
    const scores = seen.where(biased, -Infinity);
    const top = largest(scores.detach(), [4]);
    const weights = scores.sub(top.eq(-Infinity).where(0, top)).exp();
    const total = weights.sum(4, { keepDims: true });
    return seenSum(seen, weights.div(total.eq(0).where(1, total)), values, 4).reshape([B, H, T, D]);
  },
  outputs({ inputs }) {
    const { shape, dtype } = inputs[0] as Tensor;
    return [
      { shape, dtype },
      { shape: shape.slice(0, 3), dtype },
    ];
  },
  compute: call => attentionByProducts(inputsOf(call), call.attributes),
  vjp(call) {
    const { outputs, gradient, needs, attributes } = call;
    const inputs = inputsOf(call);
    const { q, k, v, keyStart, keyEnd, bias } = inputs;
    const specs = [q, k, v, ...(bias && needs[5] ? [bias] : [])].map(({ shape, dtype }) => ({ shape, dtype }));
    // Kernels take heads that lie apart, as those of a joined gradient do.
    const g = gradient.strides[3] === 1 ? gradient : gradient.contiguous();
    const [dq, dk, dv, dBias = null] =
      runFused(q.backend, 'attention.vjp', [q, k, v, keyStart, keyEnd, bias, ...outputs, g], specs, attributes) ??
      attentionVjpByProducts(inputs, outputs, gradient, attributes, {
        q: needs[0],
        k: needs[1],
        v: needs[2],
        bias: needs[5],
      });
    return [dq, dk, dv, null, null, dBias];
  },
});

/** Keys that are seen at most before a position and after it. */
function reach({ causal, window = 0 }: AttentionOptions): { behind: number; ahead: number } {
  const whole = (name: string, value: number): number => {
    if (!Number.isInteger(value) || value < 0)
      throw new RangeError(`attention: ${name} must be a whole number from 0, got ${value}`);
    return Math.min(value, noLimit);
  };
  if (typeof window === 'number') {
    const count = whole('window', window);
    return { behind: count > 0 ? count - 1 : noLimit, ahead: causal ? 0 : noLimit };
  }
  const [behind, after] = [whole('window.before', window.before), whole('window.after', window.after)];
  return { behind, ahead: causal ? 0 : after };
}

/** q [B, H, T, D], k and v [B, KV, S, D] with H a multiple of KV: [B, H, T, D]. */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const [B, H, T, D] = q.shape;
  const [kB, KV, S, kD] = k.shape;
  if (q.rank !== 4 || k.rank !== 4 || !sameShape(k.shape, v.shape) || kB !== B || kD !== D || H % KV !== 0) {
    throw new ShapeError(
      `attention: q ${formatShape(q.shape)}, k ${formatShape(k.shape)} and v ${formatShape(v.shape)} do not fit [B,H,T,D], [B,KV,S,D], [B,KV,S,D]`,
    );
  }
  if (!isFloat(q.dtype) || k.dtype !== q.dtype || v.dtype !== q.dtype) {
    throw new ShapeError(
      `attention: expected three f32 or three f64 tensors, got ${q.dtype}, ${k.dtype} and ${v.dtype}`,
    );
  }
  const bounds =
    options.bounds ??
    attentionBounds(options.keyStart ?? new Int32Array(B), options.keyEnd ?? new Int32Array(B).fill(S), q.backend);
  const { keyStart, keyEnd } = bounds;
  if (keyStart.length !== B || keyEnd.length !== B)
    throw new ShapeError(
      `attention: keyStart and keyEnd need ${B} entries, got ${keyStart.length} and ${keyEnd.length}`,
    );
  for (let b = 0; b < B; b++) {
    if (keyStart[b] < 0 || keyEnd[b] < 0 || keyEnd[b] > S)
      throw new RangeError(`attention: row ${b} sees keys ${keyStart[b]} to ${keyEnd[b]} of ${S}`);
  }
  const { softcap = 0, causalOffset = 0, bias = null } = options;
  if (!Number.isInteger(causalOffset) || causalOffset < 0)
    throw new RangeError(`attention: causalOffset must be a whole number from 0, got ${causalOffset}`);
  if (!Number.isFinite(softcap) || softcap < 0)
    throw new RangeError(`attention: softcap must be a positive number, or 0 for none, got ${softcap}`);
  if (bias && !(bias.dtype === q.dtype && [1, B].some(rows => sameShape(bias.shape, [rows, H, T, S]))))
    throw new ShapeError(
      `attention: bias ${bias.dtype} ${formatShape(bias.shape)} does not fit ${q.dtype} [1|${B},${H},${T},${S}]`,
    );
  const scale = options.scale ?? 1 / Math.sqrt(D);
  if (!Number.isFinite(scale) && D > 0) throw new RangeError(`attention: scale must be a finite number, got ${scale}`);
  return fused(
    [q, k, v, ...bounds.tensors, bias && bias.strides[3] !== 1 ? bias.contiguous() : bias],
    { scale, softcap, causalOffset, ...reach(options) },
    { lists: { keyStart, keyEnd } },
  );
}
