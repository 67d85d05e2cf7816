// Attention for few queries, as in decoding: turning or packing the keys would cost more than it saves. Row by row,
// each score a dot product.

import * as e from '../../../../tensor/expr.js';
import { call, load, op, type ModuleBuilder } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { add, div, hold, mul, splat } from '../emit/lanes.js';
import {
  boundsOf,
  keep,
  larger,
  lowest,
  minus,
  placeOf,
  plus,
  seenBy,
  startFunction,
  times,
} from './attentionLoops.js';
import { emitPass } from './rowFunction.js';
import { addDots, addProduct } from './rowProducts.js';
import { finishRow } from './attentionScores.js';

/** attentionFew(descriptor, from, to, scratch): heads, numbered through the batch. */
export function addAttentionFew(m: ModuleBuilder, { relaxed }: WasmContext): void {
  const [product, dots] = [addProduct(m, relaxed), addDots(m, relaxed)];
  const { f, math, field, from: firstHead, to: endOfHeads } = startFunction(m, 'attentionFew', relaxed);
  const { scoreRow } = field;
  const scale = hold(f, op('f32x4.splat', field.scale));
  const [a, u, w] = [e.arg(0), e.uniform(0), e.uniform(1)];
  const weight = e.exp(e.mul(e.sub(a, u), w));
  const number = keep(f, firstHead);
  const row = f.local('i32');
  const zero = keep(f, 0);

  f.loop(number, endOfHeads, 1, () => {
    const [b, head] = [keep(f, op('i32.div_u', number, field.heads)), keep(f, op('i32.rem_u', number, field.heads))];
    const keyHead = keep(f, op('i32.div_u', head, field.group));
    const bounds = boundsOf(f, field, b);
    const [{ from }, { to }] = [seenBy(f, field, bounds, zero), seenBy(f, field, bounds, minus(field.queries, 1))];
    const count = larger(f, minus(to, from), 0);
    const [q, k, v] = [
      placeOf(field, 'q', b, head, zero),
      placeOf(field, 'k', b, keyHead, from),
      placeOf(field, 'v', b, keyHead, from),
    ].map(x => keep(f, x));
    const output = keep(f, placeOf(field, 'o', b, head, zero));
    const eachRow = (run: () => void): void => {
      f.set(row, 0);
      f.loop(row, field.queries, 1, run);
    };
    eachRow(() => {
      const scores = keep(f, plus(field.scores, times(row, scoreRow)));
      f.do(call(dots, plus(q, times(row, field.qT)), k, field.kT, scores, count, field.dim));
      finishRow(math, field, scores, { b, head, t: row, first: from, count });
      const own = seenBy(f, field, bounds, row);
      const first = keep(f, minus(own.from, from));
      const seen = keep(f, minus(own.to, own.from));
      f.if(op('i32.le_s', seen, 0), () => {
        f.set(first, 0);
        f.set(seen, 0);
      });
      // Zeros before and after the keys that are seen.
      f.if(first, () => f.fill(scores, 0, times(first, 4)));
      const past = keep(f, plus(first, seen));
      f.if(op('i32.ne', past, count), () => f.fill(plus(scores, times(past, 4)), 0, times(minus(count, past), 4)));
      const lseAt = keep(f, plus(field.lse, times(plus(times(number, field.queries), row), 4)));
      const inverseAt = keep(f, plus(field.factors, times(row, 4)));
      f.if(
        seen,
        () => {
          const ownScores = keep(f, plus(scores, times(first, 4)));
          const [most] = emitPass(math, seen, { inputs: [ownScores], max: [a] });
          const top = hold(f, op('f32x4.max', most, splat(lowest)));
          const [total] = emitPass(math, seen, {
            inputs: [ownScores],
            uniforms: [top, scale],
            write: [[ownScores, weight]],
            sum: [weight],
          });
          const none = hold(f, op('f32x4.eq', total, splat(0)));
          f.storeLane('v128.store32_lane', 0, lseAt, op('v128.andnot', add(mul(top, scale), math.log(total)), none));
          f.storeLane('v128.store32_lane', 0, inverseAt, op('v128.andnot', div(splat(1), total), none));
        },
        () => {
          f.store('i32.store', lseAt, 0);
          f.store('i32.store', inverseAt, 0);
        },
      );
    });
    f.do(call(product, field.scores, scoreRow, v, field.vT, output, field.oT, field.queries, field.dim, count));
    eachRow(() => {
      const own = keep(f, plus(output, times(row, field.oT)));
      const inverse = hold(f, load('v128.load32_splat', plus(field.factors, times(row, 4))));
      emitPass(math, field.dim, { inputs: [own], uniforms: [inverse], write: [[own, e.mul(a, u)]] });
    });
  });
}
