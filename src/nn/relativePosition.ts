// T5's relative positions (Raffel et al. 2020): the distance from a query to a key falls into one of a few buckets,
// near ones by themselves and far ones by the logarithm, and each bucket has a bias for every head.

import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

export interface RelativePositionOptions {
  /** True in encoders: keys after the query have half of the buckets. Without it they count as the query's own. */
  readonly bidirectional: boolean;
  /** Default 32. */
  readonly buckets?: number;
  /** From here on all distances are in the last bucket; default 128. */
  readonly maxDistance?: number;
}

const f = Math.fround;

/** The bucket of a key that is `distance` after the query (before it, if negative), in the f32 steps of PyTorch. */
export function relativePositionBucket(
  distance: number,
  { bidirectional, buckets = 32, maxDistance = 128 }: RelativePositionOptions,
): number {
  const count = bidirectional ? Math.floor(buckets / 2) : buckets;
  const exact = Math.floor(count / 2);
  if (!Number.isInteger(buckets) || exact < 1 || !(maxDistance > exact))
    throw new RangeError(
      `relative positions: expected at least ${bidirectional ? 4 : 2} buckets and a largest distance beyond those ` +
        `with a bucket each, got ${buckets} and ${maxDistance}`,
    );
  const first = bidirectional && distance > 0 ? count : 0;
  const far = bidirectional ? Math.abs(distance) : Math.max(0, -distance);
  if (far < exact) return first + far;
  const share = f(f(Math.log(f(far / exact))) / f(Math.log(maxDistance / exact)));
  return first + Math.min(count - 1, exact + Math.trunc(f(share * (count - exact))));
}

/**
 * The bias of attention's scores, [1, H, queries, keys], from a table [buckets, H]; query t stands at position t +
 * offset among the keys.
 */
export function relativePositionBias(
  table: Tensor,
  {
    queries,
    keys,
    offset = 0,
    ...options
  }: RelativePositionOptions & { queries: number; keys: number; offset?: number },
): Tensor {
  const { buckets = 32 } = options;
  if (table.rank !== 2 || table.shape[0] !== buckets)
    throw new ShapeError(`relative positions: a table ${formatShape(table.shape)} is no [${buckets},heads]`);
  const heads = table.shape[1];
  const rows = new Int32Array(queries * keys);
  for (let distance = 1 - queries - offset; distance < keys - offset; distance++) {
    const bucket = relativePositionBucket(distance, options);
    for (let t = Math.max(0, -distance - offset); t < queries && t + offset + distance < keys; t++)
      rows[t * keys + t + offset + distance] = bucket;
  }
  return table.takeRows(rows).reshape([queries, keys, heads]).permute([2, 0, 1]).unsqueeze(0);
}
