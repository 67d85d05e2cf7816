// The loops over packed weights as WebAssembly, for one packing a module: rows decoded to f32, and one row of x times
// the transposed matrix with weights decoded in registers. Which of them a product takes is decided in packed.ts.
// Pointers and strides are in bytes.
//
// f16 scales are looked up in a table in memory: decoded one by one they took a third of the time. Of 4-bit codes,
// those at the same place of four words become f32 together, 16^t times too large, because the words are masked and not
// shifted; x is arranged to match, once for all rows: its elements in that order, divided by 16^t. That gives 8 to 10
// weights a nanosecond on a Zen 4 core, codes widened from bytes 7.

import { packings, type Packing } from '../../../../tensor/packing.js';
import {
  f32x4Const,
  i8x16Const,
  i32x4Const,
  load,
  ModuleBuilder,
  op,
  shuffle,
  type FunctionBuilder,
  type Local,
  type Value,
  type WasmFunction,
} from '../emit/assembler.js';
import type { Program } from '../../../../tensor/expr.js';
import { addEpilogue, epilogueWords } from './epilogue.js';
import { transpose4 } from './gemmKernels.js';
import { sumOfLanes, words, type Madd } from './gemmUnpacked.js';
import { addRoundedProducts, fromHalf, type Quantised } from './packedDots.js';
import { addPackedTiles } from './packedTiles.js';

/** The exports of the module. `halves` is where the f32 value of each of the 65,536 f16 bit patterns is. */
export interface PackedKernels {
  /**
   * (from, rowBytes, weightBytes, column, columns, rows, to, toRow, halves): to[r][i] = the weight at column `column +
   * i` of row r; packed rows begin at `from`, their scales `weightBytes` later. `column` is a whole block, and so is
   * `columns` or it ends the row.
   */
  decode: WasmFunction;
  /**
   * (x, k, to): a row of x as `matvec` wants it, `arrangedBytes(k)` of it; where the module has none, x is used as it
   * is.
   */
  arrange?: WasmFunction;
  /** (x, w, rowBytes, weightBytes, n, k, c, halves): c[n] = x[k] w[n, k]^T. */
  matvec: WasmFunction;
  /** Of quantised weights: products with x rounded to 16 bits, see packedDots.ts. */
  round?: WasmFunction;
  dot?: WasmFunction;
  /** And of many rows, see packedTiles.ts. */
  roundPanels?: WasmFunction;
  tiles?: WasmFunction;
}

/** Eight vectors of a block of x, and one for what its sum is needed for. */
const arrangedBlock = 9 * 16;
export const arrangedBytes = (k: number): number => (k / 32) * arrangedBlock;

/** All loops; or, for an epilogue, those of quantised weights with many rows alone. */
export function buildPackedModule(
  packing: Packing,
  options: { relaxed: boolean; shared: boolean; epilogue?: Program },
): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder({ memory: { shared: options.shared } });
  const madd: Madd = options.relaxed
    ? (a, b, sum) => op('f32x4.relaxed_madd', a, b, sum)
    : (a, b, sum) => op('f32x4.add', sum, op('f32x4.mul', a, b));
  const { epilogue } = options;
  if (epilogue) {
    const finish = { code: addEpilogue(m, epilogue, options.relaxed), words: epilogueWords(epilogue) };
    addPackedTiles(m, packing as Quantised, madd, finish);
    return m.bytes();
  }
  decode(m, packing, madd);
  if (packing === 'f16' || packing === 'bf16') matvecHalves(m, packing, madd);
  else {
    matvecBlocks(m, packing, madd);
    addRoundedProducts(m, packing, madd);
    addPackedTiles(m, packing, madd);
  }
  if (packing === 'q4_0' || packing === 'q4_1') arrange(m, packing);
  return m.bytes();
}

/** Words 0..3 (4..7) of v in the upper halves of four lanes. */
const spread = (v: Value, high: boolean): Value =>
  shuffle(
    i32x4Const(0),
    v,
    Array.from({ length: 16 }, (_, i) => (i & 2 ? 16 : 0) + 2 * (i >> 2) + (i & 1) + (high ? 8 : 0)),
  );

/** The f16 scale at `address` in all lanes. */
const scaleAt = (halves: Local, address: Local, offset = 0): Value =>
  load('v128.load32_splat', op('i32.add', halves, op('i32.shl', load('i32.load16_u', address, offset), 2)));

/** Weights that `stepOf` decodes at once. */
const stepLength = (packing: Packing): number =>
  packings[packing].blockLength === 1 ? 8 : packings[packing].blockLength;

/**
 * Emits the decoding of one step at address `at` (scales at `scales`) and hands on its vectors of four weights in
 * order.
 */
export function stepOf(
  f: FunctionBuilder,
  packing: Packing,
  madd: Madd,
  halves: Local,
): (at: Local, scales: Local, visit: (i: number, weights: Value) => void) => void {
  const [v, part, half, d, m] = f.localArray('v128', 5);
  const floats = (wide: Value, sign: 's' | 'u', high: boolean): Value =>
    op('f32x4.convert_i32x4_s', op(`i32x4.extend_${high ? 'high' : 'low'}_i16x8_${sign}`, wide));
  if (packing === 'f16' || packing === 'bf16') {
    return (at, _, visit) => {
      f.set(v, load('v128.load', at));
      for (const i of [0, 1]) visit(i, packing === 'f16' ? fromHalf(spread(v, i === 1)) : spread(v, i === 1));
    };
  }
  if (packing === 'q8_0') {
    return (at, scales, visit) => {
      f.set(d, scaleAt(halves, scales));
      for (let i = 0; i < 8; i += 2) {
        f.set(v, load('v128.load8x8_s', at, 4 * i));
        for (const j of [0, 1]) visit(i + j, op('f32x4.mul', floats(v, 's', j === 1), d));
      }
    };
  }
  const bytes = (value: number): Value => i8x16Const(...new Array<number>(16).fill(value));
  const centred = packing === 'q4_0';
  const sign = centred ? 's' : 'u';
  return (at, scales, visit) => {
    f.set(d, scaleAt(halves, scales));
    if (!centred) f.set(m, scaleAt(halves, scales, 2));
    f.set(v, load('v128.load', at));
    for (let i = 0; i < 8; i += 4) {
      const codes = op('v128.and', i === 0 ? v : op('i16x8.shr_u', v, 4), bytes(15));
      f.set(part, centred ? op('i8x16.sub', codes, bytes(8)) : codes);
      for (const j of [0, 2]) {
        f.set(half, op(`i16x8.extend_${j === 0 ? 'low' : 'high'}_i8x16_${sign}`, part));
        for (const k of [0, 1])
          visit(
            i + j + k,
            centred ? op('f32x4.mul', floats(half, sign, k === 1), d) : madd(floats(half, sign, k === 1), d, m),
          );
      }
    }
  };
}

/** The weight at address `at` in lane 0: rows of halves may end amid a step. */
function single(packing: 'f16' | 'bf16', at: Local): Value {
  const bits = load('v128.load16_splat', at);
  return packing === 'f16' ? fromHalf(bits) : op('v128.and', bits, i32x4Const(0xffff0000));
}

function decode(m: ModuleBuilder, packing: Packing, madd: Madd): void {
  const f = m.function('decode', { params: words(9), results: [] });
  const [from, rowBytes, weightBytes, column, columns, rows, to, toRow, halves] = f.params;
  const { blockLength, blockBytes, scales: scaleCount } = packings[packing];
  const length = stepLength(packing);
  const [row, i, at, scales, into, whole] = f.localArray('i32', 6);
  const step = stepOf(f, packing, madd, halves);
  f.set(whole, op('i32.and', columns, -length));
  f.loop(row, rows, 1, () => {
    const block = op('i32.div_u', column, blockLength);
    f.set(at, op('i32.add', from, op('i32.mul', block, blockBytes)));
    f.set(scales, op('i32.add', op('i32.add', from, weightBytes), op('i32.mul', block, 2 * scaleCount)));
    f.set(into, to);
    f.set(i, 0);
    f.loop(i, whole, length, () => {
      step(at, scales, (k, weights) => f.store('v128.store', into, weights, 16 * k));
      f.add(at, (length / blockLength) * blockBytes);
      f.add(scales, 2 * scaleCount);
      f.add(into, 4 * length);
    });
    if (packing === 'f16' || packing === 'bf16') {
      f.loop(i, columns, 1, () => {
        f.storeLane('v128.store32_lane', 0, into, single(packing, at));
        f.add(at, blockBytes);
        f.add(into, 4);
      });
    }
    f.add(from, rowBytes);
    f.add(to, toRow);
  });
}

/** f16 or bf16 weights, sixteen bytes a step; four sums, so that a product need not wait for the one before it. */
function matvecHalves(m: ModuleBuilder, packing: 'f16' | 'bf16', madd: Madd): void {
  const f = m.function('matvec', { params: words(8), results: [] });
  const [x, w, rowBytes, , n, k, c, halves] = f.params;
  const [column, i, at, atX, pairs, whole] = f.localArray('i32', 6);
  const sums = f.localArray('v128', 4);
  const step = stepOf(f, packing, madd, halves);
  const multiply = (from: number): void => {
    step(at, at, (v, weights) => f.set(sums[from + v], madd(load('v128.load', atX, 16 * v), weights, sums[from + v])));
    f.add(at, 16);
    f.add(atX, 32);
  };
  f.set(pairs, op('i32.and', k, -16));
  f.set(whole, op('i32.and', k, -8));
  f.loop(column, n, 1, () => {
    sums.forEach(sum => f.set(sum, f32x4Const(0)));
    f.set(atX, x);
    f.set(at, w);
    f.set(i, 0);
    f.loop(i, pairs, 16, () => {
      multiply(0);
      multiply(2);
    });
    f.loop(i, whole, 8, () => multiply(0));
    f.loop(i, k, 1, () => {
      f.set(sums[0], madd(load('v128.load32_zero', atX), single(packing, at), sums[0]));
      f.add(at, 2);
      f.add(atX, 4);
    });
    f.set(sums[0], op('f32x4.add', op('f32x4.add', sums[0], sums[1]), op('f32x4.add', sums[2], sums[3])));
    f.store('f32.store', c, sumOfLanes(f, sums[0]));
    f.add(c, 4);
    f.add(w, rowBytes);
  });
}

/** Quantised weights: the sum of a block times its scale. For 4-bit codes x is as `arrange` gives it. */
function matvecBlocks(m: ModuleBuilder, packing: 'q8_0' | 'q4_0' | 'q4_1', madd: Madd): void {
  const f = m.function('matvec', { params: words(8), results: [] });
  const [x, w, rowBytes, weightBytes, n, k, c, halves] = f.params;
  const { scales: scaleCount } = packings[packing];
  const [column, i, at, scales, atX, half] = f.localArray('i32', 6);
  const [v, total, minima] = f.localArray('v128', 3);
  const sums = f.localArray('v128', 2);
  const multiply = (codes: Value, offset: number, sum: Local): void => {
    f.set(sum, madd(load('v128.load', atX, offset), op('f32x4.convert_i32x4_s', codes), sum));
  };
  const blockOf8 = (): void => {
    for (let j = 0; j < 8; j += 2) {
      f.set(v, load('v128.load8x8_s', at, 4 * j));
      multiply(op('i32x4.extend_low_i16x8_s', v), 16 * j, sums[0]);
      multiply(op('i32x4.extend_high_i16x8_s', v), 16 * (j + 1), sums[1]);
    }
    f.add(at, 32);
    f.add(atX, 128);
  };
  const blockOf4 = (): void => {
    if (packing === 'q4_0') f.set(sums[0], load('v128.load', atX));
    else f.set(minima, madd(load('v128.load', atX), scaleAt(halves, scales, 2), minima));
    f.set(v, load('v128.load', at));
    f.set(half, 0);
    f.add(atX, 16);
    f.loop(half, 2, 1, () => {
      for (let t = 0; t < 4; t++) multiply(op('v128.and', v, i32x4Const(15 << (4 * t))), 16 * t, sums[t & 1]);
      f.set(v, op('i32x4.shr_u', v, 16));
      f.add(atX, 64);
    });
    f.add(at, 16);
  };
  f.loop(column, n, 1, () => {
    f.set(scales, op('i32.add', w, weightBytes));
    f.set(total, f32x4Const(0));
    f.set(minima, f32x4Const(0));
    f.set(at, w);
    f.set(atX, x);
    f.set(i, 0);
    f.loop(i, k, 32, () => {
      sums.forEach(sum => f.set(sum, f32x4Const(0)));
      if (packing === 'q8_0') blockOf8();
      else blockOf4();
      f.set(total, madd(op('f32x4.add', sums[0], sums[1]), scaleAt(halves, scales), total));
      f.add(scales, 2 * scaleCount);
    });
    f.set(total, op('f32x4.add', total, minima));
    f.store('f32.store', c, sumOfLanes(f, total));
    f.add(c, 4);
    f.add(w, rowBytes);
  });
}

/**
 * For each block: the sum of its eight vectors (q4_0: times -8, what its codes are too large by), then the vectors that
 * its words meet. Code t of word l is weight 4 l + t / 2 for even t, 16 + 4 l + (t - 1) / 2 for odd t; codes 4..7 are
 * met after a shift by 16 bits.
 */
function arrange(m: ModuleBuilder, packing: 'q4_0' | 'q4_1'): void {
  const f = m.function('arrange', { params: ['i32', 'i32', 'i32'], results: [] });
  const [x, k, to] = f.params;
  const i = f.local('i32');
  const v = f.localArray('v128', 4);
  const sum = f.local('v128');
  f.loop(i, k, 32, () => {
    f.set(sum, f32x4Const(0));
    for (const odd of [0, 1]) {
      v.forEach((vector, j) => f.set(vector, load('v128.load', x, 16 * (4 * odd + j))));
      v.forEach(vector => f.set(sum, op('f32x4.add', sum, vector)));
      transpose4(f, v);
      v.forEach((vector, j) => {
        const t = 2 * j + odd;
        f.store('v128.store', to, op('f32x4.mul', vector, f32x4Const(16 ** -(t & 3))), 16 * (1 + t));
      });
    }
    f.store('v128.store', to, packing === 'q4_0' ? op('f32x4.mul', sum, f32x4Const(-8)) : sum);
    f.add(x, 128);
    f.add(to, arrangedBlock);
  });
}
