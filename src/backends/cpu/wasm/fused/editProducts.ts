// The edit op for many rows that share one slot, as matrix products: with X and G the edited rows of h and of the gradient and M = A - C,
// u = X M^T + b - e and h' = X + (c u) P going forward; s = c (G P^T), dX = G + s M, dA = -dC = s^T X, db = -de = sum s and
// dP = (c u)^T G going back. Rows with slots of their own are edit.ts's work.

import * as e from '../../../../tensor/expr.js';
import type { View } from '../../../backend.js';
import { instantiate, load, ModuleBuilder, op, type WasmFunction } from '../assembler.js';
import { isShared, type WasmContext } from '../context.js';
import { createGemm, type Gemm } from '../gemm.js';
import { LaneMath } from '../lanes.js';
import { emitPass } from './rowFunction.js';

/** Operands of a call, all dense f32 but the indices; banks have one slot. */
export interface EditProducts {
  readonly indices: Int32Array;
  readonly h: View;
  readonly A: View | null;
  readonly b: View | null;
  readonly C: View | null;
  readonly e: View | null;
  readonly P: View;
  readonly scale: View;
  readonly u: View;
}

export interface EditGradients {
  readonly g: View;
  readonly dh: View;
  readonly dA: View | undefined;
  readonly db: View | undefined;
  readonly dC: View | undefined;
  readonly de: View | undefined;
  readonly dP: View;
}

/** At least what the packed panels of a product with sides up to `side` take (gemm.ts: blocks of 320 along k, 1024 along m and n). */
const panelBytes = (side: number): number => 8 * Math.min(320, side) * (Math.min(1024, side) + 8) + 256;

export function createEditProducts(context: WasmContext) {
  const { memory, byteOffsetOf: at } = context;
  let code: { addRows: WasmFunction; gemm: Gemm } | undefined;
  let panels = 0;
  let room = 0;

  /** to[indices[i]] += from[i], for rows of `width`. */
  const build = (): { addRows: WasmFunction; gemm: Gemm } => {
    const m = new ModuleBuilder({ memory: { shared: isShared(memory) } });
    const f = m.function('addRows', { params: ['i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
    const [indices, rows, width, from, to] = f.params;
    const [i, rowBytes, target] = f.localArray('i32', 3);
    f.set(rowBytes, op('i32.mul', width, 4));
    f.loop(i, rows, 1, () => {
      f.set(target, op('i32.add', to, op('i32.mul', load('i32.load', op('i32.add', indices, op('i32.mul', i, 4))), rowBytes)));
      emitPass(new LaneMath(f, context.relaxed), width, { inputs: [target, from], write: [[target, e.add(e.arg(0), e.arg(1))]] });
      f.add(from, rowBytes);
    });
    const scratch = (byteLength: number): number => {
      if (byteLength > room) throw new Error(`edit: a product needs ${byteLength} bytes of scratch, ${room} were kept`);
      return panels;
    };
    return { addRows: instantiate(m.bytes(), memory).addRows, gemm: createGemm(memory, scratch, { relaxed: context.relaxed }) };
  };

  const floats = (byteOffset: number, length: number): Float32Array => new Float32Array(memory.buffer, byteOffset, length);
  const dense = (view: View): Float32Array => floats(at(view), view.shape.reduce((n, side) => n * side, 1));
  const copyDense = (from: View, to: View): void => dense(to).set(dense(from));

  /** Room for a call: addresses of the parts, after which the products have their panels. */
  const reserve = (m: number, r: number, d: number, matrices: number): { list: number; rows: number[]; difference: number; factors: number } => {
    const align = (n: number): number => Math.ceil(n / 64) * 64;
    const [listBytes, rowsBytes, differenceBytes, factorBytes] = [4 * m, 4 * m * d, 4 * r * d, 4 * m * r].map(align);
    const own = listBytes + matrices * rowsBytes + differenceBytes + 2 * factorBytes;
    room = panelBytes(Math.max(m, r, d)) + 4 * Math.max(m, r) * d;
    const list = context.scratch(own + room);
    code ??= build();
    panels = list + own;
    const rows = Array.from({ length: matrices }, (_, k) => list + listBytes + k * rowsBytes);
    const difference = list + listBytes + matrices * rowsBytes;
    return { list, rows, difference, factors: difference + differenceBytes };
  };

  /** output [m, n] = a [m, k] b [k, n]; `t` reads the stored matrix transposed. */
  const product = (a: number, b: number, output: number, [m, k, n]: readonly [number, number, number], t: 'none' | 'a' | 'b'): void => {
    code?.gemm.matmul({
      a: { byteOffset: a, shape: [m, k], strides: t === 'a' ? [1, m] : [k, 1] },
      b: { byteOffset: b, shape: [k, n], strides: t === 'b' ? [1, k] : [n, 1] },
      output: { byteOffset: output, shape: [m, n], strides: [n, 1] },
    });
  };

  const gather = (view: View, indices: Int32Array, d: number, to: number): void => {
    const bytes = new Uint8Array(memory.buffer);
    const from = at(view);
    indices.forEach((row, i) => bytes.copyWithin(to + 4 * i * d, from + 4 * row * d, from + 4 * (row + 1) * d));
  };

  /** Address of M = A - C, or 0 where neither is. */
  const differenceOf = ({ A, C }: EditProducts, into: number, length: number): number => {
    if (!C) return A ? at(A) : 0;
    const c = dense(C);
    const result = floats(into, length);
    if (A) {
      const a = dense(A);
      for (let i = 0; i < length; i++) result[i] = a[i] - c[i];
    } else for (let i = 0; i < length; i++) result[i] = -c[i];
    return into;
  };

  /** Factor rows times c, into scratch. */
  const scaled = (from: number, scale: View, into: number, m: number, r: number): void => {
    const [x, y, c] = [floats(from, m * r), floats(into, m * r), dense(scale)];
    for (let i = 0; i < m; i++) for (let k = 0; k < r; k++) y[i * r + k] = c[i] * x[i * r + k];
  };

  const addRows = (indices: Int32Array, list: number, d: number, from: number, to: View): void => {
    new Int32Array(memory.buffer, list, indices.length).set(indices);
    code?.addRows(list, indices.length, d, from, at(to));
  };

  return {
    /** Writes h' and u. */
    forward(call: EditProducts, result: View): void {
      const [m, [, r, d]] = [call.indices.length, call.P.shape];
      const { list, rows: [x, change], difference, factors } = reserve(m, r, d, 2);
      copyDense(call.h, result);
      const M = differenceOf(call, difference, r * d);
      const u = floats(at(call.u), m * r);
      if (M) {
        gather(call.h, call.indices, d, x);
        product(x, M, at(call.u), [m, d, r], 'b');
      } else u.fill(0);
      for (const [bias, sign] of [[call.b, 1], [call.e, -1]] as const) {
        if (!bias) continue;
        const values = dense(bias);
        for (let i = 0; i < m * r; i++) u[i] += sign * values[i % r];
      }
      scaled(at(call.u), call.scale, factors, m, r);
      product(factors, at(call.P), change, [m, r, d], 'none');
      addRows(call.indices, list, d, change, result);
    },

    /** Writes the gradients that are there. */
    vjp(call: EditProducts, { g, dh, dA, db, dC, de, dP }: EditGradients): void {
      const [m, [, r, d]] = [call.indices.length, call.P.shape];
      const { list, rows: [x, gradient, change], difference, factors } = reserve(m, r, d, 3);
      const s = factors + 64 * Math.ceil((4 * m * r) / 64);
      copyDense(g, dh);
      gather(g, call.indices, d, gradient);
      scaled(at(call.u), call.scale, factors, m, r);
      product(factors, gradient, at(dP), [r, m, d], 'a');
      product(gradient, at(call.P), s, [m, d, r], 'b');
      scaled(s, call.scale, s, m, r);
      const M = differenceOf(call, difference, r * d);
      if (M) {
        product(s, M, change, [m, r, d], 'none');
        addRows(call.indices, list, d, change, dh);
        gather(call.h, call.indices, d, x);
        const first = (dA ?? dC) as View;
        product(s, x, at(first), [r, m, d], 'a');
        if (dC) {
          const [from, to] = [dense(first), dense(dC)];
          for (let i = 0; i < to.length; i++) to[i] = -from[i];
        }
      }
      const sums = new Float64Array(r);
      const values = floats(s, m * r);
      for (let i = 0; i < m * r; i++) sums[i % r] += values[i];
      if (db) dense(db).set(sums);
      if (de) dense(de).set(sums.map(x => -x));
    },
  };
}
