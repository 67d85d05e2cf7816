// The edit op for many rows that share one slot, as matrix products: with X and G the edited rows of h and of the
// gradient and M = A - C, u = X M^T + b - e and h' = X + (c u) P going forward; s = c (G P^T), dX = G + s M, dA = -dC =
// s^T X, db = -de = sum s and dP = (c u)^T G going back. Rows with slots of their own are edit.ts's work.

import * as e from '../../../../tensor/expr.js';
import type { View } from '../../../backend.js';
import { load, ModuleBuilder, op, type WasmFunction } from '../emit/assembler.js';
import { isShared, type WasmContext } from '../context.js';
import type { Gemm } from '../products/gemm.js';
import { LaneMath } from '../emit/lanes.js';
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

export function createEditProducts(context: WasmContext, gemm: Gemm) {
  const { memory, byteOffsetOf: at } = context;
  let compiled: WasmFunction | undefined;

  /** to[indices[i]] += from[i], for rows of `width`. */
  const compile = (): WasmFunction => {
    const m = new ModuleBuilder({ memory: { shared: isShared(memory) } });
    const f = m.function('addRows', { params: ['i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
    const [indices, rows, width, from, to] = f.params;
    const [i, rowBytes, target] = f.localArray('i32', 3);
    f.set(rowBytes, op('i32.mul', width, 4));
    f.loop(i, rows, 1, () => {
      f.set(
        target,
        op('i32.add', to, op('i32.mul', load('i32.load', op('i32.add', indices, op('i32.mul', i, 4))), rowBytes)),
      );
      emitPass(new LaneMath(f, context.relaxed), width, {
        inputs: [target, from],
        write: [[target, e.add(e.arg(0), e.arg(1))]],
      });
      f.add(from, rowBytes);
    });
    return context.threads.link(m.bytes()).addRows;
  };

  const floats = (byteOffset: number, length: number): Float32Array =>
    new Float32Array(memory.buffer, byteOffset, length);
  const dense = (view: View): Float32Array =>
    floats(
      at(view),
      view.shape.reduce((n, side) => n * side, 1),
    );
  const copyDense = (from: View, to: View): void => dense(to).set(dense(from));

  /** Room for a call: addresses of the parts. */
  const reserve = (
    m: number,
    r: number,
    d: number,
    matrices: number,
  ): { list: number; rows: number[]; difference: number; factors: number } => {
    const align = (n: number): number => Math.ceil(n / 64) * 64;
    const [listBytes, rowsBytes, differenceBytes, factorBytes] = [4 * m, 4 * m * d, 4 * r * d, 4 * m * r].map(align);
    const list = context.scratch(listBytes + matrices * rowsBytes + differenceBytes + 2 * factorBytes);
    const rows = Array.from({ length: matrices }, (_, k) => list + listBytes + k * rowsBytes);
    const difference = list + listBytes + matrices * rowsBytes;
    return { list, rows, difference, factors: difference + differenceBytes };
  };

  /** output [m, n] = a [m, k] b [k, n]; `t` reads the stored matrix transposed. */
  const product = (
    a: number,
    b: number,
    output: number,
    [m, k, n]: readonly [number, number, number],
    t: 'none' | 'a' | 'b',
  ): void => {
    gemm.matmul({
      a: { byteOffset: a, shape: [m, k], strides: t === 'a' ? [1, m] : [k, 1] },
      b: { byteOffset: b, shape: [k, n], strides: t === 'b' ? [1, k] : [n, 1] },
      output: { byteOffset: output, shape: [m, n], strides: [n, 1] },
    });
  };

  /** Where the given rows lie one after the other: in the view itself, or copied into `room`. */
  const gathered = (view: View, indices: Int32Array, d: number, room: number): number => {
    const from = at(view);
    if (indices.every((row, i) => row === indices[0] + i)) return from + 4 * indices[0] * d;
    const bytes = new Uint8Array(memory.buffer);
    indices.forEach((row, i) => bytes.copyWithin(room + 4 * i * d, from + 4 * row * d, from + 4 * (row + 1) * d));
    return room;
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
    compiled ??= compile();
    compiled(list, indices.length, d, from, at(to));
  };

  return {
    /** Writes h' and u. */
    forward(call: EditProducts, result: View): void {
      const [m, [, r, d]] = [call.indices.length, call.P.shape];
      const {
        list,
        rows: [x, change],
        difference,
        factors,
      } = reserve(m, r, d, 2);
      copyDense(call.h, result);
      const M = differenceOf(call, difference, r * d);
      if (M) product(gathered(call.h, call.indices, d, x), M, at(call.u), [m, d, r], 'b');
      const u = floats(at(call.u), m * r); // a product may have grown the memory
      if (!M) u.fill(0);
      for (const [bias, sign] of [
        [call.b, 1],
        [call.e, -1],
      ] as const) {
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
      const {
        list,
        rows: [x, room, change],
        difference,
        factors,
      } = reserve(m, r, d, 3);
      const s = factors + 64 * Math.ceil((4 * m * r) / 64);
      copyDense(g, dh);
      const gradient = gathered(g, call.indices, d, room);
      scaled(at(call.u), call.scale, factors, m, r);
      product(factors, gradient, at(dP), [r, m, d], 'a');
      product(gradient, at(call.P), s, [m, d, r], 'b');
      scaled(s, call.scale, s, m, r);
      const M = differenceOf(call, difference, r * d);
      if (M) {
        product(s, M, change, [m, r, d], 'none');
        addRows(call.indices, list, d, change, dh);
        const first = (dA ?? dC) as View;
        product(s, gathered(call.h, call.indices, d, x), at(first), [r, m, d], 'a');
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
