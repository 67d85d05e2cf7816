// Causal grouped-query attention with padding masks and a sliding window, and its VJP (recomputed from the log-sum-exp, as in Dao et al.
// 2022). For each head a tile of 16 queries against the keys that any of them sees; no scores outlive their tile. The matrix products
// are tileProducts.ts.

import * as e from '../../../../tensor/expr.js';
import { sizeOf } from '../../../../tensor/shape.js';
import type { FusedKernel, View } from '../../../backend.js';
import { call, load, op, select, type FunctionBuilder, type Local, type ModuleBuilder, type Value, type WasmFunction } from '../assembler.js';
import type { WasmContext } from '../context.js';
import { add, div, hold, LaneMath, mul, splat } from '../lanes.js';
import { loadFields, writeFields } from './fields.js';
import type { Code } from './index.js';
import { denseFloats, denseIntegers, emitPass } from './rowFunction.js';
import { addDots, addProduct, addTranspose } from './tileProducts.js';

const tileRows = 16;
/** With fewer queries than this, turning the keys costs more than it saves. */
const fewQueries = 5;

const strided = ['q', 'k', 'v', 'g'] as const;
type Strided = (typeof strided)[number];
const fields = [
  'q', 'qB', 'qH', 'qT', 'k', 'kB', 'kH', 'kT', 'v', 'vB', 'vH', 'vT', 'g', 'gB', 'gH', 'gT', // addresses and steps in bytes
  'keyStart', 'keyEnd', 'o', 'lse', 'dq', 'dk', 'dv', 'keyHeads', 'group', 'together', 'queries', 'keys', 'dim',
  'causal', 'causalOffset', 'window', 'scale', 'turnedKeys', 'turnedValues', 'scores', 'gradients', 'inverses', 'scoreRow',
] as const;
/** Places in the scratch of a thread; in the descriptor they are counted from its start. */
const regions = ['turnedKeys', 'turnedValues', 'scores', 'gradients', 'inverses'] as const;
type Field = (typeof fields)[number];
/** Steps of an operand along B, H and T. */
const stepFields: Readonly<Record<Strided, readonly Field[]>> = {
  q: ['qB', 'qH', 'qT'], k: ['kB', 'kH', 'kT'], v: ['vB', 'vH', 'vT'], g: ['gB', 'gH', 'gT'],
};
const floats: readonly Field[] = ['scale'];
type Fields = Readonly<Record<Field, Local>>;

const plus = (...terms: readonly Value[]): Value => terms.reduce((a, b) => op('i32.add', a, b));
const minus = (a: Value, b: Value): Value => op('i32.sub', a, b);
const times = (a: Value, b: Value | number): Value => op('i32.mul', a, b);

function keep(f: FunctionBuilder, value: Value): Local {
  const local = f.local('i32');
  f.set(local, value);
  return local;
}

/** The keys that query `t` sees: from, and one past the last; none if that is not larger. Both grow with t. */
function seenBy(f: FunctionBuilder, field: Fields, start: Local, end: Local, t: Value): { from: Local; to: Local } {
  const past = keep(f, op('i32.add', plus(t, field.causalOffset), 1)); // one past the query's own key
  const from = keep(f, start);
  f.if(field.window, () => {
    const first = keep(f, minus(past, field.window));
    f.set(from, select(first, start, op('i32.gt_s', first, start)));
  });
  const to = keep(f, end);
  f.if(field.causal, () => f.set(to, select(past, end, op('i32.lt_s', past, end))));
  return { from, to };
}

/** A tile of queries and the keys they see. */
interface Tile {
  /** Queries, and keys from the first to the last that any of them sees. */
  readonly rows: Local;
  readonly count: Local;
  /** Bytes from the first valid key's place in turned keys and values to the first one seen. */
  readonly skippedBytes: Local;
  /** Addresses of the first query (q, g) and of the first key seen (k, v). */
  readonly at: Readonly<Record<Strided, Local>>;
  /** Number of the first query in [B, H, T], and of the first key seen in [B, KV, S]. */
  readonly queryNumber: Local;
  readonly keyNumber: Local;
  /** For each query: its number in the tile, the first key it sees (counted in the tile) and how many; 0 and 0 where it sees none. */
  readonly eachRow: (body: (row: Local, first: Local, seen: Local) => void) => void;
}

interface Loops {
  readonly f: FunctionBuilder;
  readonly math: LaneMath;
  readonly field: Fields;
  /** Groups of heads to compute: from, and one past the last. */
  readonly from: Local;
  readonly to: Local;
  /** Bytes of a row of scores or of turned keys, and of a dense row of D. */
  readonly scoreRow: Local;
  readonly dimBytes: Local;
}

/** name(descriptor, from, to, scratch) */
function startFunction(m: ModuleBuilder, name: string, relaxed: boolean): Loops {
  const f = m.function(name, { params: ['i32', 'i32', 'i32', 'i32'], results: [] });
  const [descriptor, from, to, scratch] = f.params;
  const field = loadFields(f, descriptor, fields, floats);
  for (const region of regions) f.add(field[region], scratch);
  return { f, math: new LaneMath(f, relaxed), field, from, to, scoreRow: field.scoreRow, dimBytes: keep(f, times(field.dim, 4)) };
}

/**
 * Groups of `together` query heads that share a key head, numbered through the batch; their heads; tiles of queries. `prepare` runs for each
 * group with the addresses of its valid keys and values.
 */
function forEachTile(
  { f, field, from: firstGroup, to: endOfGroups }: Loops, prepare: (at: { k: Value; v: Value }, valid: Local) => void, body: (tile: Tile) => void,
): void {
  const [b, keyHead, firstHead, inGroup, t0] = f.localArray('i32', 5);
  const number = keep(f, firstGroup);
  const heads = keep(f, times(field.keyHeads, field.group));
  const placeOf = (name: Strided, head: Value, row: Value): Value =>
    plus(field[name], times(b, field[`${name}B`]), times(head, field[`${name}H`]), times(row, field[`${name}T`]));
  f.loop(number, endOfGroups, 1, () => {
    f.set(firstHead, times(number, field.together));
    f.set(b, op('i32.div_u', firstHead, heads));
    f.set(firstHead, op('i32.rem_u', firstHead, heads));
    f.set(keyHead, op('i32.div_u', firstHead, field.group));
    const start = keep(f, load('i32.load', plus(field.keyStart, times(b, 4))));
    const end = keep(f, load('i32.load', plus(field.keyEnd, times(b, 4))));
    const valid = keep(f, minus(end, start));
    f.if(op('i32.gt_s', valid, 0), () => prepare({ k: placeOf('k', keyHead, start), v: placeOf('v', keyHead, start) }, valid));
    f.set(inGroup, 0);
    f.loop(inGroup, field.together, 1, () => {
      const head = keep(f, plus(firstHead, inGroup));
      const headNumber = keep(f, plus(times(b, heads), head));
      f.set(t0, 0);
      f.loop(t0, field.queries, tileRows, () => {
        const left = keep(f, minus(field.queries, t0));
        const rows = keep(f, select(left, tileRows, op('i32.lt_u', left, tileRows)));
        const { from } = seenBy(f, field, start, end, t0);
        const { to } = seenBy(f, field, start, end, op('i32.sub', plus(t0, rows), 1));
        const count = keep(f, minus(to, from));
        f.if(op('i32.lt_s', count, 0), () => f.set(count, 0));
        const row = f.local('i32');
        body({
          rows, count,
          skippedBytes: keep(f, times(minus(from, start), 4)),
          at: {
            q: keep(f, placeOf('q', head, t0)), g: keep(f, placeOf('g', head, t0)),
            k: keep(f, placeOf('k', keyHead, from)), v: keep(f, placeOf('v', keyHead, from)),
          },
          queryNumber: keep(f, plus(times(headNumber, field.queries), t0)),
          keyNumber: keep(f, plus(times(plus(times(b, field.keyHeads), keyHead), field.keys), from)),
          eachRow(run) {
            f.set(row, 0);
            f.loop(row, rows, 1, () => {
              const own = seenBy(f, field, start, end, plus(t0, row));
              const first = keep(f, minus(own.from, from));
              const seen = keep(f, minus(own.to, own.from));
              f.if(op('i32.le_s', seen, 0), () => {
                f.set(first, 0);
                f.set(seen, 0);
              });
              run(row, first, seen);
            });
          },
        });
      });
    });
  });
}

/** Zeros in a row of scores before and after the keys that are seen. */
function clearUnseen(f: FunctionBuilder, address: Local, count: Local, first: Local, seen: Local): void {
  f.if(first, () => f.fill(address, 0, times(first, 4)));
  const past = keep(f, plus(first, seen));
  f.if(op('i32.ne', past, count), () => f.fill(plus(address, times(past, 4)), 0, times(minus(count, past), 4)));
}

const splatAt = (f: FunctionBuilder, address: Value): Local => hold(f, load('v128.load32_splat', address));

export function addAttention(m: ModuleBuilder, { relaxed }: WasmContext): void {
  const [product, dots, transpose] = [addProduct(m, relaxed), addDots(m, relaxed), addTranspose(m)];
  const loops = startFunction(m, 'attention', relaxed);
  const { f, math, field, scoreRow, dimBytes } = loops;
  const few = keep(f, op('i32.lt_u', field.queries, fewQueries));
  const scale = hold(f, op('f32x4.splat', field.scale));
  const [a, u, w] = [e.arg(0), e.uniform(0), e.uniform(1)];
  const weight = e.exp(e.mul(e.sub(a, u), w));

  forEachTile(loops, ({ k }, valid) => {
    f.if(op('i32.eqz', few), () => f.do(call(transpose, k, field.kT, field.turnedKeys, scoreRow, valid, field.dim)));
  }, ({ rows, count, skippedBytes, at, queryNumber, eachRow }) => {
    f.if(few, () => {
      const row = f.local('i32');
      f.set(row, 0);
      f.loop(row, rows, 1, () => {
        f.do(call(dots, plus(at.q, times(row, field.qT)), at.k, field.kT, plus(field.scores, times(row, scoreRow)), count, field.dim));
      });
    }, () => f.do(call(product, at.q, field.qT, 4, plus(field.turnedKeys, skippedBytes), scoreRow, field.scores, scoreRow, rows, count, field.dim, 0)));
    eachRow((row, first, seen) => {
      const scores = keep(f, plus(field.scores, times(row, scoreRow)));
      clearUnseen(f, scores, count, first, seen);
      const lseAt = keep(f, plus(field.lse, times(plus(queryNumber, row), 4)));
      const inverseAt = keep(f, plus(field.inverses, times(row, 4)));
      f.if(seen, () => {
        const own = keep(f, plus(scores, times(first, 4)));
        const [top] = emitPass(math, seen, { inputs: [own], max: [a] });
        const [total] = emitPass(math, seen, { inputs: [own], uniforms: [top, scale], write: [[own, weight]], sum: [weight] });
        f.storeLane('v128.store32_lane', 0, lseAt, add(mul(top, scale), math.log(total)));
        f.storeLane('v128.store32_lane', 0, inverseAt, div(splat(1), total));
      }, () => {
        f.store('i32.store', lseAt, 0);
        f.store('i32.store', inverseAt, 0);
      });
    });
    const output = keep(f, plus(field.o, times(queryNumber, dimBytes)));
    f.do(call(product, field.scores, scoreRow, 4, at.v, field.vT, output, dimBytes, rows, field.dim, count, 0));
    eachRow(row => {
      const own = keep(f, plus(output, times(row, dimBytes)));
      emitPass(math, field.dim, { inputs: [own], uniforms: [splatAt(f, plus(field.inverses, times(row, 4)))], write: [[own, e.mul(a, u)]] });
    });
  });
}

/** With p the weights: dV = p^T g, ds = p (g V^T - sum(g o)) scale, dQ = ds K, dK = ds^T Q. The gradients of k and v start as zeros. */
export function addAttentionVjp(m: ModuleBuilder, { relaxed }: WasmContext): void {
  const [product, transpose] = [addProduct(m, relaxed), addTranspose(m)];
  const loops = startFunction(m, 'attentionVjp', relaxed);
  const { f, math, field, scoreRow, dimBytes } = loops;
  const scale = hold(f, op('f32x4.splat', field.scale));
  const [a, b] = [e.arg(0), e.arg(1)];
  const [byScale, lse, delta] = [e.uniform(0), e.uniform(1), e.uniform(2)];
  const weight = e.exp(e.sub(e.mul(a, byScale), lse));
  const change = e.mul(e.mul(weight, e.sub(b, delta)), byScale);

  forEachTile(loops, ({ k, v }, valid) => {
    f.do(call(transpose, k, field.kT, field.turnedKeys, scoreRow, valid, field.dim));
    f.do(call(transpose, v, field.vT, field.turnedValues, scoreRow, valid, field.dim));
  }, ({ rows, count, skippedBytes, at, queryNumber, keyNumber, eachRow }) => {
    f.do(call(product, at.q, field.qT, 4, plus(field.turnedKeys, skippedBytes), scoreRow, field.scores, scoreRow, rows, count, field.dim, 0));
    f.do(call(product, at.g, field.gT, 4, plus(field.turnedValues, skippedBytes), scoreRow, field.gradients, scoreRow, rows, count, field.dim, 0));
    eachRow((row, first, seen) => {
      const scores = keep(f, plus(field.scores, times(row, scoreRow)));
      const gradients = keep(f, plus(field.gradients, times(row, scoreRow)));
      clearUnseen(f, scores, count, first, seen);
      clearUnseen(f, gradients, count, first, seen);
      const number = keep(f, plus(queryNumber, row));
      const gradient = keep(f, plus(at.g, times(row, field.gT)));
      const [inner] = emitPass(math, field.dim, { inputs: [gradient, keep(f, plus(field.o, times(number, dimBytes)))], sum: [e.mul(a, b)] });
      const [from, into] = [scores, gradients].map(address => keep(f, plus(address, times(first, 4))));
      const uniforms = [scale, splatAt(f, plus(field.lse, times(number, 4))), inner];
      emitPass(math, seen, { inputs: [from, into], uniforms, write: [[from, weight], [into, change]] });
    });
    const keyOffset = keep(f, times(keyNumber, dimBytes));
    f.do(call(product, field.scores, 4, scoreRow, at.g, field.gT, plus(field.dv, keyOffset), dimBytes, count, field.dim, rows, 1));
    f.do(call(product, field.gradients, 4, scoreRow, at.q, field.qT, plus(field.dk, keyOffset), dimBytes, count, field.dim, rows, 1));
    const dq = plus(field.dq, times(queryNumber, dimBytes));
    f.do(call(product, field.gradients, scoreRow, 4, at.k, field.kT, dq, dimBytes, rows, field.dim, count, 0));
  });
}

export function attentionKernels(forward: Code, backward: Code, context: WasmContext): [string, FusedKernel][] {
  const { memory, threads, byteOffsetOf: at } = context;
  const lastDense = (view: View): boolean => view.dtype === 'f32' && (view.strides[3] === 1 || view.shape[3] === 1);

  /**
   * Runs a function on all heads: the gradients of a key head are sums over its group, which stays together; going forward, heads may be
   * computed one by one where that makes better parts.
   */
  const run = (f: WasmFunction, views: Readonly<Record<'q' | 'k' | 'v', View>> & { g?: View }, more: Partial<Record<Field, number>>): void => {
    const { q, k } = views;
    const [B, H, T, D] = q.shape;
    const [KV, S] = [k.shape[1], k.shape[2]];
    const row = 8 * Math.ceil(S / 8) + 4; // an odd number of vectors: columns spread over the cache
    const sizes = { turnedKeys: D * row, turnedValues: views.g ? D * row : 0, scores: tileRows * row, gradients: tileRows * row, inverses: tileRows };
    const most = threads.parts(B * H * T * S * D);
    const group = H / KV;
    const together = most > 1 && !views.g && B * KV < most ? 1 : group;
    const values: Partial<Record<Field, number>> = { ...more, keyHeads: KV, group, together, queries: T, keys: S, dim: D, scoreRow: 4 * row };
    let stride = 0;
    for (const name of regions) {
      values[name] = stride;
      stride += 4 * sizes[name];
    }
    const headBytes = 16 * Math.ceil(fields.length / 4);
    const descriptor = context.scratch(headBytes + threads.seats * stride);
    for (const name of strided) {
      const view = views[name];
      if (!view) continue;
      values[name] = at(view);
      stepFields[name].forEach((field, axis) => (values[field] = 4 * view.strides[axis]));
    }
    writeFields(memory, descriptor, fields, values, floats);
    const groups = (B * H) / together;
    const size = Math.ceil(groups / most);
    const parts = groups === 0 ? 0 : Math.ceil(groups / size);
    threads.run(f, Array.from({ length: parts }, (_, i) => [descriptor, i * size, Math.min(groups, (i + 1) * size)]), descriptor + headBytes, stride);
  };
  const flags = ({ scale, causal, causalOffset, window }: Readonly<Record<string, number>>) => ({ scale, causal, causalOffset, window });

  return [
    ['attention', ({ inputs: [q, k, v, keyStart, keyEnd], outputs: [o, lse], attributes }) => {
      if (!q || !k || !v || !keyStart || !keyEnd || !(attributes.scale > 0)) return false;
      if (![q, k, v].every(lastDense) || ![keyStart, keyEnd].every(denseIntegers) || !denseFloats([o, lse])) return false;
      const places = { keyStart: at(keyStart), keyEnd: at(keyEnd), o: at(o), lse: at(lse) };
      run(forward().attention, { q, k, v }, { ...flags(attributes), ...places });
      return true;
    }],
    ['attention.vjp', ({ inputs: [q, k, v, keyStart, keyEnd, o, lse, g], outputs: [dq, dk, dv], attributes }) => {
      if (!q || !k || !v || !keyStart || !keyEnd || !o || !lse || !g || !(attributes.scale > 0)) return false;
      if (![q, k, v, g].every(lastDense) || ![keyStart, keyEnd].every(denseIntegers) || !denseFloats([o, lse, dq, dk, dv])) return false;
      const places = { keyStart: at(keyStart), keyEnd: at(keyEnd), o: at(o), lse: at(lse), dq: at(dq), dk: at(dk), dv: at(dv) };
      for (const gradient of [dk, dv]) new Uint8Array(memory.buffer, at(gradient), 4 * sizeOf(gradient.shape)).fill(0);
      run(backward().attentionVjp, { q, k, v, g }, { ...flags(attributes), ...places });
      return true;
    }],
  ];
}
