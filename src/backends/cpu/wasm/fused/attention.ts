// Causal grouped-query attention with padding masks and a sliding window, and its VJP: which function a call takes,
// where threads cut it and what room they need. The functions are attentionForward.ts, attentionFew.ts and
// attentionVjp.ts; no scores outlive their tile.

import type { FusedKernel, View } from '../../../backend.js';
import type { ModuleBuilder, WasmFunction } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { backwardAgain, forwardAgain } from './attentionAgain.js';
import { addAttentionFew } from './attentionFew.js';
import { addAttention } from './attentionForward.js';
import { fields, regions, strided, type Field, type Region, type Strided } from './attentionLoops.js';
import { infoBytes } from './attentionVjp.js';
import type { Code } from './index.js';
import { panelRowsOf, width } from './panelProducts.js';
import { denseFloats, denseIntegers } from './rowFunction.js';

/** With fewer queries than this, packing the keys costs more than it saves. */
const fewQueries = 6;
/** Queries of a tile of the VJP, at most. */
const vjpTile = 80;

const up = (value: number, step: number): number => Math.ceil(value / step) * step;

const headBytes = up(4 * fields.length, 64);

export function addForward(m: ModuleBuilder, context: WasmContext): void {
  addAttention(m, context);
  addAttentionFew(m, context);
}

type Views = Readonly<Partial<Record<Strided, View>>> & Readonly<Record<'q' | 'k' | 'v' | 'o', View>>;
type Values = Readonly<Partial<Record<Field, number>>>;
/** Floats of each region. */
type Room = Readonly<Partial<Record<Region, number>>>;

const wordOf = Object.fromEntries(fields.map((name, i) => [name, i])) as Readonly<Record<Field, number>>;

export function attentionKernels(forward: Code, backward: Code, context: WasmContext): [string, FusedKernel][] {
  const { memory, threads, byteOffsetOf: at } = context;
  const panelRows = panelRowsOf(context.relaxed);
  const lastDense = (view: View): boolean => view.dtype === 'f32' && (view.strides[3] === 1 || view.shape[3] === 1);

  /**
   * A descriptor of the call with room for each thread, and before that for `shared` floats. Little work on the host:
   * decoding waits for it.
   */
  const describe = (
    views: Views,
    { scale, softcap, causalOffset, behind, ahead }: Readonly<Record<string, number>>,
    room: Room,
    sharedFloats = 0,
  ) => {
    const sharedBytes = 4 * up(sharedFloats, 16);
    const places = new Int32Array(regions.length);
    let stride = 0;
    regions.forEach((name, i) => {
      places[i] = stride;
      stride += 4 * up(room[name] ?? 0, 16);
    });
    const descriptor = context.scratch(headBytes + sharedBytes + threads.seats * stride);
    const words = new Int32Array(memory.buffer, descriptor, fields.length);
    words.fill(0);
    strided.forEach((name, i) => {
      const view = views[name];
      if (!view) return;
      words[4 * i] = at(view);
      for (let axis = 0; axis < 3; axis++) words[4 * i + 1 + axis] = 4 * view.strides[axis];
    });
    if (views.bias?.shape[0] === 1) words[wordOf.biasB] = 0;
    words.set(places, wordOf[regions[0]]);
    const numbers = new Float32Array(memory.buffer, descriptor, fields.length);
    numbers[wordOf.scale] = softcap > 0 || views.bias ? 1 : scale;
    numbers[wordOf.dotScale] = scale;
    numbers[wordOf.softcap] = softcap;
    const write = (values: Values): void => {
      for (const name in values) words[wordOf[name as Field]] = values[name as Field]!;
    };
    const [, heads, queries, dim] = views.q.shape;
    const [, keyHeads, keys] = views.k.shape;
    const noteAt = descriptor + 4 * wordOf.foundNaN;
    write({ causalOffset, behind, ahead, heads, group: heads / keyHeads, queries, keys, dim, hasNaN: noteAt });
    const foundNaN = (): boolean => new Int32Array(memory.buffer)[noteAt / 4] !== 0;
    return {
      descriptor,
      write,
      foundNaN,
      shared: descriptor + headBytes,
      scratch: descriptor + headBytes + sharedBytes,
      stride,
    };
  };

  /** Runs f(descriptor, from, to, scratch) on `items`, whole units of `unit`, in about `parts` parts. */
  const share = (
    f: WasmFunction,
    items: number,
    parts: number,
    { descriptor, scratch, stride }: ReturnType<typeof describe>,
    unit = 1,
  ): void => {
    const size = unit * Math.max(1, Math.ceil(items / unit / parts));
    const calls = Array.from({ length: Math.ceil(items / size) }, (_, i) => [
      descriptor,
      i * size,
      Math.min(items, (i + 1) * size),
    ]);
    threads.run(f, calls, scratch, stride);
  };

  /** Gives whether some number of the output may be NaN. */
  const runForward = (views: Views, attributes: Readonly<Record<string, number>>, places: Values): boolean => {
    const { q, k, v } = views;
    const [B, H, T, D] = q.shape;
    const [KV, S] = [k.shape[1], k.shape[2]];
    const parts = threads.parts(B * H * T * S * D);
    if (T < fewQueries) {
      const row = up(S, 4);
      const made = describe(views, attributes, { scores: T * row, factors: T });
      made.write({ ...places, scoreRow: 4 * row });
      share(forward().attentionFew, B * H, parts, made);
      return true;
    }
    const { attention, packRows } = forward();
    const [headKeys, headValues, panels] = [up(S, panelRows) * D, up(D, panelRows) * S, Math.ceil(T / width)];
    const room: Room = {
      scores: S * width,
      panel: (H / KV) * D * width,
      out: D * width,
      factors: width,
      spare: Math.max(D, width),
    };
    // A thread packs the keys and values of a group for itself, unless groups are cut: then all are packed before.
    if (parts <= B * KV) {
      const made = describe(views, attributes, { ...room, keyPanels: headKeys, valuePanels: headValues });
      made.write({ ...places, panels });
      share(attention, B * KV * panels, 2 * parts, made, panels);
      return made.foundNaN();
    }
    const made = describe(views, attributes, room, B * KV * (headKeys + headValues));
    const [packedKeys, packedValues] = [made.shared, made.shared + 4 * B * KV * headKeys];
    made.write({ ...places, panels, packedKeys, packedValues, headKeys: 4 * headKeys, headValues: 4 * headValues });
    const headAt = (view: View, i: number): number =>
      at(view) + 4 * (Math.floor(i / KV) * view.strides[0] + (i % KV) * view.strides[1]);
    const heads = Array.from({ length: B * KV }, (_, i) => i);
    threads.run(packRows, [
      ...heads.map(i => [headAt(k, i), 4 * k.strides[2], 4, packedKeys + 4 * i * headKeys, D, S]),
      ...heads.map(i => [headAt(v, i), 4, 4 * v.strides[2], packedValues + 4 * i * headValues, S, D]),
    ]);
    share(attention, B * KV * panels, 6 * parts, made);
    return made.foundNaN();
  };

  const runBackward = (views: Views, attributes: Readonly<Record<string, number>>, places: Values): boolean => {
    const [B, H, T, D] = views.q.shape;
    const [KV, S] = [views.k.shape[1], views.k.shape[2]];
    const tile = up(Math.ceil(T / Math.max(1, Math.ceil(T / vjpTile))), width);
    const [inRows, inColumns, keys] = [(tile + panelRows) * D, up(D, panelRows) * tile, up(S, width)];
    const room: Room = {
      scores: tile * width,
      gradients: tile * width,
      slopes: attributes.softcap > 0 ? tile * width : 0,
      out: D * width,
      factors: 2 * width,
      spare: D,
      queriesInfo: (tile * infoBytes) / 4,
      rowsQ: inRows,
      rowsG: inRows,
      columnsQ: inColumns,
      columnsG: inColumns,
      turned: tile * keys,
      keyPanels: keys * D,
      valuePanels: keys * D,
      keyColumns: up(D, panelRows) * S,
      dkTurned: keys * D,
      dvTurned: keys * D,
    };
    const made = describe(views, attributes, room);
    made.write({ ...places, tile });
    share(backward().attentionVjp, B * KV, 2 * threads.parts(B * H * T * S * D), made);
    return made.foundNaN();
  };

  return [
    [
      'attention',
      ({ inputs: [q, k, v, keyStart, keyEnd, bias], outputs: [o, lse], attributes }) => {
        if (!q || !k || !v || !keyStart || !keyEnd || !(attributes.scale > 0) || q.shape[3] === 0) return false;
        if (
          ![q, k, v, o, ...(bias ? [bias] : [])].every(lastDense) ||
          ![keyStart, keyEnd].every(denseIntegers) ||
          !denseFloats([lse])
        )
          return false;
        const mayBeNaN = runForward({ q, k, v, o, ...(bias ? { bias } : {}) }, attributes, {
          keyStart: at(keyStart),
          keyEnd: at(keyEnd),
          lse: at(lse),
        });
        // One query, or queries that all see the same keys, meet no others.
        const { causalOffset, behind, ahead } = attributes;
        const [queries, keys] = [q.shape[2], k.shape[2]];
        const differ = queries > 1 && (queries - 1 + causalOffset > behind || causalOffset + ahead + 1 < keys);
        if (mayBeNaN && differ) forwardAgain(context, { q, k, v, o, lse, keyStart, keyEnd }, bias, attributes);
        return true;
      },
    ],
    [
      'attention.vjp',
      ({ inputs: [q, k, v, keyStart, keyEnd, bias, o, lse, g], outputs: [dq, dk, dv, dBias], attributes }) => {
        // The gradient of a bias is left to products, and a bias of capped scores.
        if (dBias || (bias && attributes.softcap > 0)) return false;
        if (!q || !k || !v || !keyStart || !keyEnd || !o || !lse || !g || !(attributes.scale > 0) || q.shape[3] === 0)
          return false;
        if (
          ![q, k, v, o, g, dq, dk, dv, ...(bias ? [bias] : [])].every(lastDense) ||
          ![keyStart, keyEnd].every(denseIntegers) ||
          !denseFloats([lse])
        )
          return false;
        const views = { q, k, v, o, g, dq, dk, dv };
        const mayBeNaN = runBackward({ ...views, ...(bias ? { bias } : {}) }, attributes, {
          keyStart: at(keyStart),
          keyEnd: at(keyEnd),
          lse: at(lse),
        });
        if (mayBeNaN) backwardAgain(context, { ...views, lse, keyStart, keyEnd }, bias, attributes);
        return true;
      },
    ],
  ];
}
