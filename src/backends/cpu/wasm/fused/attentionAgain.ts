// Rows of attention and of its VJP that came out NaN, computed again one at a time from what they see. Tiles multiply
// rows that a query does not see by weights of 0, and 0 times NaN or infinity is NaN. Plain loops: this is for what
// seldom happens, and NaN that a row does see stays.

import type { Attributes, View } from '../../../backend.js';
import type { WasmContext } from '../context.js';

type Named<K extends string> = Readonly<Record<K, View>>;
/** Where the row of a batch row, a head and a position begins. */
type Place = (b: number, head: number, at: number) => number;

/** What both need: the memory, sizes, which keys a query sees, products of rows, and weights. */
function setUp(
  { memory, byteOffsetOf }: WasmContext,
  views: Named<'q' | 'k' | 'lse' | 'keyStart' | 'keyEnd'>,
  bias: View | null,
  attributes: Attributes,
) {
  const [data, integers] = [new Float32Array(memory.buffer), new Int32Array(memory.buffer)];
  const start = (view: View): number => byteOffsetOf(view) / 4;
  const [batch, heads, queries, dim] = views.q.shape;
  const [, keyHeads, keys] = views.k.shape;
  const { scale, softcap, causalOffset, behind, ahead } = attributes;
  const placeOf = (view: View): Place => {
    const [from, [ofBatch, ofHead, ofRow]] = [start(view), view.strides];
    return (b, head, at) => from + b * ofBatch + head * ofHead + at * ofRow;
  };
  const [q, k, lse] = [placeOf(views.q), placeOf(views.k), start(views.lse)];
  const dot = (x: number, y: number): number => {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += data[x + d] * data[y + d];
    return sum;
  };
  const biasAt = bias && placeOf(bias);
  const scaledOf = (b: number, head: number, t: number, s: number): number =>
    scale * dot(q(b, head, t), k(b, Math.floor(head / (heads / keyHeads)), s));
  const scoreOf = (b: number, head: number, t: number, s: number): number => {
    const scaled = scaledOf(b, head, t, s);
    const capped = softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled;
    return biasAt ? capped + data[biasAt(bias.shape[0] === 1 ? 0 : b, head, t) + s * bias.strides[3]] : capped;
  };
  return {
    data,
    batch,
    heads,
    queries,
    keys,
    keyHeads,
    dim,
    /** The derivative of a score by q k. */
    slopeOf: (b: number, head: number, t: number, s: number): number =>
      softcap > 0 ? scale * (1 - Math.tanh(scaledOf(b, head, t, s) / softcap) ** 2) : scale,
    placeOf,
    dot,
    group: heads / keyHeads,
    lseOf: (b: number, head: number, t: number): number => data[lse + (b * heads + head) * queries + t],
    seenBy: (b: number, t: number): readonly [from: number, to: number] => {
      const [first, end] = [integers[start(views.keyStart) + b], integers[start(views.keyEnd) + b]];
      const position = t + causalOffset;
      return [Math.max(first, position - behind), Math.min(end, position + ahead + 1)];
    },
    weight: (b: number, head: number, t: number, s: number): number =>
      Math.exp(scoreOf(b, head, t, s) - data[lse + (b * heads + head) * queries + t]),
    hasNaN: (row: number): boolean => data.subarray(row, row + dim).some(Number.isNaN),
    /** Writes the sum of the rows that `each` adds. */
    write(row: number, each: (add: (factor: number, other: number) => void) => void): void {
      const sums = new Float64Array(dim);
      each((factor, other) => {
        for (let d = 0; d < dim; d++) sums[d] += factor * data[other + d];
      });
      data.set(sums, row);
    },
  };
}

export function forwardAgain(
  context: WasmContext,
  views: Named<'q' | 'k' | 'v' | 'o' | 'lse' | 'keyStart' | 'keyEnd'>,
  bias: View | null,
  attributes: Attributes,
): void {
  const { batch, heads, queries, group, placeOf, lseOf, seenBy, weight, hasNaN, write } = setUp(
    context,
    views,
    bias,
    attributes,
  );
  const [v, o] = [placeOf(views.v), placeOf(views.o)];
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      for (let t = 0; t < queries; t++) {
        // A NaN among its own scores is one in every number of the row.
        if (Number.isNaN(lseOf(b, head, t)) || !hasNaN(o(b, head, t))) continue;
        const [from, to] = seenBy(b, t);
        write(o(b, head, t), add => {
          for (let s = from; s < to; s++) add(weight(b, head, t, s), v(b, Math.floor(head / group), s));
        });
      }
    }
  }
}

export function backwardAgain(
  context: WasmContext,
  views: Named<'q' | 'k' | 'v' | 'o' | 'g' | 'dq' | 'dk' | 'dv' | 'lse' | 'keyStart' | 'keyEnd'>,
  bias: View | null,
  attributes: Attributes,
): void {
  const {
    data,
    batch,
    heads,
    queries,
    keys,
    keyHeads,
    dim,
    group,
    slopeOf,
    placeOf,
    dot,
    lseOf,
    seenBy,
    weight,
    hasNaN,
    write,
  } = setUp(context, views, bias, attributes);
  const [q, k, v, o, g, dq, dk, dv] = (['q', 'k', 'v', 'o', 'g', 'dq', 'dk', 'dv'] as const).map(name =>
    placeOf(views[name]),
  );
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      const keyHead = Math.floor(head / group);
      for (let t = 0; t < queries; t++) {
        const inner = dot(g(b, head, t), o(b, head, t));
        if (Number.isNaN(lseOf(b, head, t)) || Number.isNaN(inner) || !hasNaN(dq(b, head, t))) continue;
        const [from, to] = seenBy(b, t);
        write(dq(b, head, t), add => {
          for (let s = from; s < to; s++) {
            const change = dot(g(b, head, t), v(b, keyHead, s)) - inner;
            add(weight(b, head, t, s) * change * slopeOf(b, head, t, s), k(b, keyHead, s));
          }
        });
      }
    }
    for (let keyHead = 0; keyHead < keyHeads; keyHead++) {
      for (let s = 0; s < keys; s++) {
        if (!hasNaN(dk(b, keyHead, s)) && !hasNaN(dv(b, keyHead, s))) continue;
        const seeing: [head: number, t: number][] = [];
        for (let head = keyHead * group; head < (keyHead + 1) * group; head++) {
          for (let t = 0; t < queries; t++) {
            const [from, to] = seenBy(b, t);
            if (s >= from && s < to) seeing.push([head, t]);
          }
        }
        // So it is where a query that does see the key has nothing but NaN.
        if (
          seeing.some(
            ([head, t]) =>
              Number.isNaN(lseOf(b, head, t)) || data.subarray(g(b, head, t), g(b, head, t) + dim).every(Number.isNaN),
          )
        )
          continue;
        write(dv(b, keyHead, s), add => {
          for (const [head, t] of seeing) add(weight(b, head, t, s), g(b, head, t));
        });
        write(dk(b, keyHead, s), add => {
          for (const [head, t] of seeing) {
            const change = dot(g(b, head, t), v(b, keyHead, s)) - dot(g(b, head, t), o(b, head, t));
            add(weight(b, head, t, s) * change * slopeOf(b, head, t, s), q(b, head, t));
          }
        });
      }
    }
  }
}
