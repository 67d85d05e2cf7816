// Attention and its VJP on WebGPU: which calls are taken, by which variant, in which tiles, and the parameters. Scores never leave a tile.
// Forward is one dispatch, or two where few queries see many keys, which are then split; the VJP is three: what is known of each query,
// dq by rows, dk and dv by keys. The kernels' text is in attentionAlone.ts and attentionTogether.ts.

import type { Attributes, FusedKernel, View } from '../../backend.js';
import { contiguousStrides, sizeOf } from '../../../tensor/shape.js';
import type { KernelContext } from '../context.js';
import { bind, grid, operandOf } from '../operands.js';
import { Params } from '../params.js';
import type { Block } from '../pool.js';
import type { Binding } from '../queue.js';
import { forwardAlone, keyGradientAlone, lanes, queryGradientAlone } from './attentionAlone.js';
import { aboutRows, fields, joinSplits, type Field } from './attentionWgsl.js';

/** Invocations of a workgroup in the passes that go query by query. */
const invocations = 64;
/** The longest head, in fours: what an invocation keeps grows with it. */
const mostVectors = 64;
const mostPosition = 2 ** 30;

type Values = Partial<Record<Field, number>>;
type Strided = 'q' | 'k' | 'v' | 'g';

/** A buffer as a kernel binds it, and where in it an operand begins. */
interface Place {
  readonly binding: Binding;
  readonly offset: number;
}

/** Heads in fours, and every step along the other axes too. */
function inFours({ dtype, shape, strides, offset }: View): boolean {
  return dtype === 'f32' && shape.length === 4 && shape[3] % 4 === 0 && strides[3] === 1 && offset % 4 === 0
    && strides.slice(0, 3).every((step, d) => step % 4 === 0 || shape[d] === 1);
}

const dense = ({ shape, strides }: View): boolean => contiguousStrides(shape).every((step, d) => step === strides[d] || shape[d] === 1);

export function registerAttention(fused: Map<string, FusedKernel>, context: KernelContext): void {
  const { queue, settings } = context;
  const T = (globalThis as any).TUNE ?? {};

  /** Where a view lies, counted in elements of `unit` words; undefined if it is more than may be bound. */
  function placeOf(view: View, unit: 1 | 4, write = false): Place | undefined {
    const axes = view.shape.map((size, d) => ({ size, reduced: false, steps: [view.strides[d]] }));
    const limit = settings.bindingBytes - (settings.bindingBytes % 16);
    const bound = bind({ axes, operands: [operandOf(view, view.dtype === 'f32' ? 'f' : 'i', write)] }, limit);
    return bound && { binding: bound.bindings[0], offset: bound.offsets[0] / unit };
  }

  /** A temporary of `words` words, whole. */
  function temporary(words: number): Block | undefined {
    return 4 * words <= settings.bindingBytes ? context.allocate(4 * words) : undefined;
  }
  const whole = ({ buffer, byteLength }: Block, write: boolean): Place =>
    ({ binding: { buffer, byteOffset: 0, byteLength: Math.max(16, byteLength), write }, offset: 0 });

  function record(label: string, structure: readonly unknown[], source: () => string, places: readonly Place[], values: Values, groups: number): void {
    const params = new Params();
    for (const name of fields) {
      if (name === 'scaleBits') params.addFloat(values[name] ?? 0);
      else params.add(values[name] ?? 0);
    }
    const pipeline = queue.pipeline(label, structure.join('.'), places.map(p => p.binding.write), params.words.length, source);
    queue.dispatch({ pipeline, bindings: places.map(p => p.binding), params: params.words, groups: grid(groups) });
  }

  const steps = (name: Strided, { shape, strides }: View, { offset }: Place): Values => {
    const [B, H, T] = strides.slice(0, 3).map((step, d) => (shape[d] === 1 ? 0 : step / 4));
    return { [`${name}At`]: offset, [`${name}B`]: B, [`${name}H`]: H, [`${name}T`]: T };
  };

  function sizes(q: View, k: View, { scale, causal, causalOffset, window }: Attributes): Values {
    const [batch, heads, queries] = q.shape;
    const [, keyHeads, keys] = k.shape;
    return { batch, keyHeads, group: heads / keyHeads, queries, keys, causal, causalOffset, window: Math.min(window, mostPosition), scaleBits: scale, tiles: 1, splits: 1 };
  }

  function forward(q: View, k: View, v: View, keyStart: View, keyEnd: View, o: View, lse: View, attributes: Attributes): boolean {
    const [batch, heads, queries, D] = q.shape;
    const [, keyHeads, keys] = k.shape;
    const places = [placeOf(q, 4), placeOf(k, 4), placeOf(v, 4), placeOf(keyStart, 1), placeOf(keyEnd, 1)];
    const outputs = [placeOf(o, 4, true), placeOf(lse, 1, true)];
    if (![...places, ...outputs].every(p => p !== undefined)) return false;
    const [qP, kP, vP, sP, eP] = places as Place[];
    const [oP, lP] = outputs as Place[];
    const vectors = D / 4;
    const rows = (heads / keyHeads) * queries;
    const kept = T.kept ?? 8;
    const taken = T.taken ?? 4;
    const tiles = Math.ceil(rows / kept);
    const values: Values = {
      ...sizes(q, k, attributes), ...steps('q', q, qP), ...steps('k', k, kP), ...steps('v', v, vP),
      startAt: sP.offset, endAt: eP.offset, oAt: oP.offset, lseAt: lP.offset, tiles,
    };
    const splits = T.splits ?? 1;
    const structure = { vectors, kept, taken, split: splits > 1 };
    const key = [vectors, kept, taken, splits > 1];
    const groups = Math.ceil((batch * keyHeads * tiles * splits) / lanes);
    if (splits === 1) {
      record('attention', key, () => forwardAlone(structure), [...places as Place[], oP, lP], values, groups);
      return true;
    }
    const all = batch * heads * queries;
    const parts = temporary(splits * all * D);
    const stats = temporary(splits * all * 2);
    if (!parts || !stats) return false;
    record('attention', key, () => forwardAlone(structure), [...places as Place[], whole(parts, true), whole(stats, true)], { ...values, splits }, groups);
    record('attention.join', [vectors], () => joinSplits(vectors, invocations), [whole(parts, false), whole(stats, false), oP, lP], { ...values, splits },
      Math.ceil((all * vectors) / invocations));
    context.free(parts);
    context.free(stats);
    return true;
  }

  function backward(q: View, k: View, v: View, keyStart: View, keyEnd: View, o: View, lse: View, g: View, [dq, dk, dv]: readonly View[], attributes: Attributes): boolean {
    const [batch, heads, queries, D] = q.shape;
    const [, keyHeads, keys] = k.shape;
    const inputs = [placeOf(q, 4), placeOf(k, 4), placeOf(v, 4), placeOf(g, 4), placeOf(keyStart, 1), placeOf(keyEnd, 1), placeOf(o, 4), placeOf(lse, 1)];
    const outputs = [placeOf(dq, 4, true), placeOf(dk, 4, true), placeOf(dv, 4, true)];
    if (![...inputs, ...outputs].every(p => p !== undefined)) return false;
    const [qP, kP, vP, gP, sP, eP, oP, lP] = inputs as Place[];
    const [dqP, dkP, dvP] = outputs as Place[];
    const all = batch * heads * queries;
    const about = temporary(4 * all);
    if (!about) return false;
    const vectors = D / 4;
    const rows = (heads / keyHeads) * queries;
    const values: Values = {
      ...sizes(q, k, attributes), ...steps('q', q, qP), ...steps('k', k, kP), ...steps('v', v, vP), ...steps('g', g, gP),
      startAt: sP.offset, endAt: eP.offset, oAt: oP.offset, lseAt: lP.offset,
    };
    record('attention.about', [vectors], () => aboutRows(vectors, invocations), [gP, oP, lP, sP, eP, whole(about, true)], values, Math.ceil(all / invocations));
    {
      const [kept, taken] = [T.kept1 ?? 8, T.taken1 ?? 4];
      const tiles = Math.ceil(rows / kept);
      if (!T.nodq) record('attention.dq', [vectors, kept, taken], () => queryGradientAlone({ vectors, kept, taken, split: false }), [qP, kP, vP, gP, whole(about, false), dqP],
        { ...values, tiles }, Math.ceil((batch * keyHeads * tiles) / lanes));
    }
    {
      const [kept, taken] = [T.kept2 ?? 8, T.taken2 ?? 4];
      const tiles = Math.ceil(keys / kept);
      if (!T.nodk) record('attention.dk', [vectors, kept, taken], () => keyGradientAlone({ vectors, kept, taken, split: false }), [qP, kP, vP, gP, whole(about, false), dkP, dvP],
        { ...values, tiles }, Math.ceil((batch * keyHeads * tiles) / lanes));
    }
    context.free(about);
    return true;
  }

  const taken = (q: View, k: View, v: View, bounds: readonly View[], attributes: Attributes): boolean =>
    [q, k, v].every(inFours) && q.shape[3] <= 4 * mostVectors && sizeOf(q.shape) > 0 && sizeOf(k.shape) > 0
    && bounds.every(b => b.dtype === 'i32' && dense(b)) && attributes.causalOffset + q.shape[2] < mostPosition;

  fused.set('attention', ({ inputs: [q, k, v, keyStart, keyEnd], outputs: [o, lse], attributes }) => {
    if (!q || !k || !v || !keyStart || !keyEnd || !taken(q, k, v, [keyStart, keyEnd], attributes) || !inFours(o) || ![o, lse].every(dense)) return false;
    return forward(q, k, v, keyStart, keyEnd, o, lse, attributes);
  });
  fused.set('attention.vjp', ({ inputs: [q, k, v, keyStart, keyEnd, o, lse, g], outputs, attributes }) => {
    if (!q || !k || !v || !keyStart || !keyEnd || !o || !lse || !g || !taken(q, k, v, [keyStart, keyEnd], attributes)) return false;
    if (![o, g, ...outputs].every(inFours) || ![o, lse, ...outputs].every(dense)) return false;
    return backward(q, k, v, keyStart, keyEnd, o, lse, g, outputs, attributes);
  });
}
