// What becomes of a product q k before the softmax where scores have a soft cap or a bias: softcap tanh(scale q k /
// softcap) + bias. Without either, the scale is taken into the exponential and nothing happens here.

import * as e from '../../../../tensor/expr.js';
import {
  load,
  loadLane,
  op,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
  type Value,
} from '../emit/assembler.js';
import { add, hold, LaneMath } from '../emit/lanes.js';
import { fields, floats, keep, minus, placeOf, plus, smaller, times, type Fields } from './attentionLoops.js';
import { loadFields } from './fields.js';
import { columnBytes, width } from './panelProducts.js';
import { emitPass } from './rowFunction.js';

const [a, u, w] = [e.arg(0), e.uniform(0), e.uniform(1)];
const scaled = e.mul(a, u);
const bent = e.tanh(scaled);
const capped = e.mul(w, bent);
const slope = e.sub(1, e.mul(bent, bent));

/** Scales and caps `count` dense products in place, if there is a cap or a bias. Derivatives of caps go to `slopes`. */
function scaleAndCap(math: LaneMath, field: Fields, scores: Local, count: Value, slopes?: Local): void {
  const { f } = math;
  const all = keep(f, count);
  const pass = (write: readonly (readonly [Local, e.Expr])[], ...uniforms: readonly Value[]): void => {
    emitPass(math, all, { inputs: [scores], uniforms, write });
  };
  f.if(
    op('f32.gt', field.softcap, 0),
    () =>
      pass(
        [[scores, capped], ...(slopes ? [[slopes, slope] as const] : [])],
        op('f32x4.splat', op('f32.div', field.dotScale, field.softcap)),
        op('f32x4.splat', field.softcap),
      ),
    () => f.if(field.bias, () => pass([[scores, scaled]], op('f32x4.splat', field.dotScale))),
  );
}

/** Scores of one query for the `count` keys from `first`. */
export function finishRow(
  math: LaneMath,
  field: Fields,
  scores: Local,
  { b, head, t, first, count }: Readonly<Record<'b' | 'head' | 't' | 'first' | 'count', Local>>,
): void {
  const { f } = math;
  scaleAndCap(math, field, scores, count);
  f.if(field.bias, () => {
    const bias = keep(f, plus(placeOf(field, 'bias', b, head, t), times(first, 4)));
    emitPass(math, count, { inputs: [scores, bias], write: [[scores, e.add(a, e.arg(1))]] });
  });
}

/** Scores [count, 8], going forward, of the keys from `first` and the eight queries from `t0`. */
export function finishPanel(
  math: LaneMath,
  field: Fields,
  scores: Local,
  { b, head, t0, first, count }: Readonly<Record<'b' | 'head' | 't0' | 'first' | 'count', Local>>,
): void {
  const { f } = math;
  scaleAndCap(math, field, scores, times(count, width));
  f.if(field.bias, () => {
    // A row of the bias for each lane; past the last query once more that one, whose scores nobody reads.
    const rows = Array.from({ length: width }, (_, lane) => {
      const t = smaller(f, plus(t0, lane), minus(field.queries, 1));
      return keep(f, plus(placeOf(field, 'bias', b, head, t), times(first, 4)));
    });
    const [at, key] = [keep(f, scores), keep(f, 0)];
    f.loop(key, count, 1, () => {
      for (const half of [0, 1]) {
        const [one, ...others] = rows.slice(4 * half, 4 * half + 4);
        const lanes = hold(f, load('v128.load32_splat', one));
        others.forEach((row, i) => f.set(lanes, loadLane('v128.load32_lane', i + 1, row, lanes)));
        f.store('v128.store', at, add(load('v128.load', at, 16 * half), lanes), 16 * half);
      }
      for (const row of rows) f.add(row, 4);
      f.add(at, columnBytes);
    });
  });
}

/**
 * finishKeys(descriptor, scores, slopes, b, head, t0, key, count): scores [count, 8], in the VJP, of the queries from
 * `t0` and the eight keys from `key`; the cap's derivatives go to `slopes`, laid out as they are. A function of its
 * own, so that the VJP of plain scores stays as small as it is.
 */
export function addFinishKeys(m: ModuleBuilder, relaxed: boolean): FunctionBuilder {
  const f = m.function('finishKeys', { params: new Array<'i32'>(8).fill('i32'), results: [] }, { exported: false });
  const [descriptor, scores, slopes, b, head, t0, key, count] = f.params;
  const field = loadFields(f, descriptor, fields, floats);
  const math = new LaneMath(f, relaxed);
  scaleAndCap(math, field, scores, times(count, width), slopes);
  f.if(field.bias, () => {
    const bias = keep(f, plus(placeOf(field, 'bias', b, head, t0), times(key, 4)));
    const eachQuery = (biasOf: (half: number) => Value): void => {
      const [at, row] = [keep(f, scores), keep(f, 0)];
      f.loop(row, count, 1, () => {
        for (const half of [0, 1])
          f.store('v128.store', at, add(load('v128.load', at, 16 * half), biasOf(half)), 16 * half);
        f.add(at, columnBytes);
        f.add(bias, field.biasT);
      });
    };
    f.if(
      op('i32.le_s', plus(key, width), field.keys),
      () => eachQuery(half => load('v128.load', bias, 16 * half)),
      () => {
        // Past the last key once more that one, whose scores nobody reads.
        const last = keep(f, minus(minus(field.keys, 1), key));
        const offsets = Array.from({ length: width }, (_, lane) => keep(f, times(smaller(f, lane, last), 4)));
        eachQuery(half => {
          const [one, ...others] = offsets.slice(4 * half, 4 * half + 4);
          const lanes = hold(f, load('v128.load32_splat', plus(bias, one)));
          others.forEach((offset, i) => f.set(lanes, loadLane('v128.load32_lane', i + 1, plus(bias, offset), lanes)));
          return lanes;
        });
      },
    );
  });
  return f;
}
