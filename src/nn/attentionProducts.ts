// Attention by matrix products, for calls that no kernel takes: scores and weights are whole [B, H, T, S] tensors, and
// nothing is larger. What it computes is defined by the composition in attention.ts, NaN and infinities included. A
// product meets every row, with a weight of 0 where a query does not see the key, and 0 times NaN is NaN: so the rows
// are multiplied with 0 in place of what is not finite, and that is put in where it is seen.

import { map } from '../autograd/elementwise.js';
import { scope } from '../autograd/scope.js';
import { largest } from '../autograd/softmax.js';
import type { Attributes } from '../backends/backend.js';
import { create } from '../tensor/create.js';
import * as e from '../tensor/expr.js';
import type { Expr } from '../tensor/expr.js';
import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';

/** A limit of this many keys before or after a query's own position is none. */
export const noLimit = 2 ** 30;

/** q [B, H, T, D], k and v [B, KV, S, D], keyStart and keyEnd [B], bias [1|B, H, T, S]. */
export interface AttentionInputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly keyStart: Tensor;
  readonly keyEnd: Tensor;
  readonly bias: Tensor | null;
}

/** More than any number of keys or queries that a sum of ones counts, and a sum with it is not that small. */
const many = 2 ** 22;

const isFinite = (x: Expr): Expr => e.lt(e.abs(x), Infinity);
const finiteOf = e.where(isFinite(e.arg(0)), e.arg(0), 0);
const isPlus = e.where(e.lt(e.arg(0), Infinity), 0, 1);
const isMinus = e.where(e.gt(e.arg(0), -Infinity), 0, 1);
/** Argument 2 is the number of a key. */
const seenByAll = e.and(e.ge(e.arg(2), e.arg(0)), e.lt(e.arg(2), e.arg(1)));
const [sum, plus, minus] = [e.arg(0), e.arg(1), e.arg(2)];
const withInfinities = e.add(
  sum,
  e.where(
    e.or(e.ge(plus, many), e.or(e.ge(minus, many), e.and(e.gt(plus, 0), e.gt(minus, 0)))),
    NaN,
    e.where(e.gt(plus, 0), Infinity, e.where(e.gt(minus, 0), -Infinity, 0)),
  ),
);

/** What forward and VJP share. */
function setUp({ q, k, keyStart, keyEnd, bias }: AttentionInputs, attributes: Attributes) {
  const [B, H, T] = q.shape;
  const [, KV, S] = k.shape;
  const { scale, softcap, causalOffset, behind, ahead } = attributes;
  // Numbers of keys as floats: of those there are kernels for maps of any inputs.
  const like = { dtype: q.dtype, backend: q.backend };
  const positions = create.arange(causalOffset, causalOffset + T, like).reshape([T, 1]);
  const keyNumbers = create.arange(0, S, like);
  const bounds = [keyStart, keyEnd].map(x => x.to(q.dtype).reshape([B, 1, 1, 1]));

  /** Rows of the queries of all heads that share keys: [B, KV, H / KV * T, ..], which is a view where x is dense. */
  const grouped = (x: Tensor): Tensor => x.reshape([B, KV, (H / KV) * T, x.shape[3]]);
  const ungrouped = (x: Tensor): Tensor => x.reshape([B, H, T, x.shape[3]]);

  // Arguments from 0 on are the caller's, then these four; uniforms likewise.
  const whoSees = [...bounds, positions, keyNumbers];
  const limits = [behind, ahead];
  const seenAt = (argument: number, uniform: number): Expr => {
    const [start, end, position, key] = [0, 1, 2, 3].map(i => e.arg(argument + i));
    const [before, after] = [0, 1].map(i => e.uniform(uniform + i));
    const distance = e.sub(key, position);
    return e.and(e.and(e.ge(key, start), e.lt(key, end)), e.and(e.ge(distance, e.neg(before)), e.le(distance, after)));
  };
  const mapSeen = (label: string, inputs: readonly Tensor[], uniforms: readonly number[], f: (seen: Expr) => Expr) =>
    map(label, f(seenAt(inputs.length, uniforms.length)), [...inputs, ...whoSees], [...uniforms, ...limits], q.dtype);

  const [raw, ofScale, ofCap] = [e.arg(0), e.uniform(0), e.uniform(1)];
  const scaled = e.mul(raw, ofScale);
  const bent = e.tanh(e.div(scaled, ofCap));
  const capped = softcap > 0 ? e.mul(ofCap, bent) : scaled;
  const uniforms = [scale, ...(softcap > 0 ? [softcap] : [])];

  /**
   * The sum of the rows of x [.., n, D] with weights [.., m, n], that are 0 where row n is not seen. So is `places`; it
   * is 1 where the row is seen and has a weight, `many` where it is seen without one.
   */
  const product = (weights: Tensor, x: Tensor, places: Tensor): Tensor => {
    const clean = weights.matmul(map('attention', finiteOf, [x]));
    const counts = places.matmul(concat([map('attention', isPlus, [x]), map('attention', isMinus, [x])], 3));
    const [plus, minus] = counts.split([x.shape[3], x.shape[3]], 3);
    return map('attention', withInfinities, [clean, plus, minus]);
  };
  const differ = T > 1 && (T - 1 + causalOffset > behind || causalOffset + ahead + 1 < S);
  /** Which keys are seen, where all queries see the same ones. */
  const isKey = differ ? null : map('attention', seenByAll, [...bounds, keyNumbers.reshape([S, 1])], [], 'bool');
  const placesOf = (weights: Tensor): Tensor =>
    mapSeen('attention', [weights], [], seen => e.where(seen, e.where(e.gt(e.arg(0), 0), 1, many), 0));

  return {
    scale,
    softcap,
    grouped,
    mapSeen,
    uniforms,
    capped,
    bent,
    /** q k^T, [B, H, T, S]. */
    dots: (x: Tensor, y: Tensor): Tensor => ungrouped(grouped(x).matmulT(y)),
    biased: (score: Expr, argument: number): Expr => (bias ? e.add(score, e.arg(argument)) : score),
    /** Sums of rows of keys x [B, KV, S, D] for each query, [B, H, T, D]. */
    overKeys(weights: Tensor, x: Tensor): Tensor {
      const rows = grouped(weights);
      // Queries that all see the same keys: rows that they do not see are left out before.
      if (isKey) return ungrouped(rows.matmul(isKey.where(x, 0)));
      return ungrouped(product(rows, x, grouped(placesOf(weights))));
    },
    /** Sums of rows of queries x [B, H, T, D] for each key, [B, KV, S, D]. */
    overQueries(weights: Tensor, x: Tensor): Tensor {
      const rows = grouped(weights).transpose();
      if (isKey) return isKey.where(rows.matmul(grouped(x)), 0);
      return product(rows, grouped(x), grouped(placesOf(weights)).transpose());
    },
  };
}

/** The output, and the log-sum-exp of the scores of each query, as kernels write them. */
export function attentionByProducts(inputs: AttentionInputs, attributes: Attributes): Tensor[] {
  return scope(() => {
    const { q, k, v, bias } = inputs;
    const { dots, mapSeen, uniforms, capped, biased, overKeys } = setUp(inputs, attributes);
    const scores = mapSeen('attention scores', [dots(q, k), ...(bias ? [bias] : [])], uniforms, seen =>
      e.where(seen, biased(capped, 1), -Infinity),
    );
    const top = largest(scores, [3]);
    const shift = top.eq(-Infinity).where(0, top);
    const weights = scores.sub(shift).exp();
    const total = weights.sum(3, { keepDims: true });
    const none = total.eq(0);
    const output = overKeys(weights, v).div(none.where(1, total));
    return [output, none.where(0, shift.add(total.log())).reshape(q.shape.slice(0, 3))];
  });
}

/** Gradients of q, k, v and the bias; null where not needed. */
export function attentionVjpByProducts(
  inputs: AttentionInputs,
  [output, lse]: readonly Tensor[],
  gradient: Tensor,
  attributes: Attributes,
  needs: Readonly<Record<'q' | 'k' | 'v' | 'bias', boolean>>,
): (Tensor | null)[] {
  return scope(() => {
    const { q, k, v, bias } = inputs;
    const { dots, mapSeen, uniforms, capped, bent, biased, overKeys, overQueries, scale, softcap } = setUp(
      inputs,
      attributes,
    );
    const raw = dots(q, k);
    const ofLse = lse.unsqueeze(3);
    const weights = mapSeen('attention weights', [raw, ofLse, ...(bias ? [bias] : [])], uniforms, seen =>
      e.where(seen, e.exp(e.sub(biased(capped, 2), e.arg(1))), 0),
    );
    const inner = gradient.mul(output).sum(3, { keepDims: true });
    const changes = mapSeen('attention changes', [weights, dots(gradient, v), inner], [], seen =>
      e.where(seen, e.mul(e.arg(0), e.sub(e.arg(1), e.arg(2))), 0),
    );
    const ofRaw =
      softcap > 0
        ? mapSeen('attention softcap', [raw, changes], uniforms, seen =>
            e.where(seen, e.mul(e.arg(1), e.sub(1, e.mul(bent, bent))), 0),
          )
        : changes;
    return [
      needs.q ? overKeys(ofRaw, k).mul(scale) : null,
      needs.k ? overQueries(ofRaw, q).mul(scale) : null,
      needs.v ? overQueries(weights, gradient) : null,
      needs.bias && bias ? (bias.shape[0] === q.shape[0] ? changes : changes.sum(0, { keepDims: true })) : null,
    ];
  });
}
