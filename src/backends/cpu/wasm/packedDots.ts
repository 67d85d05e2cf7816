// Products of rows of x with quantised weights on 16-bit integers: x is rounded, each block of 32 elements to 16 bits with a scale of its own
// (2^-16 of the block's largest number), its products with the codes of a block are summed exactly, and their sum is scaled once. Twice
// as fast as codes widened to f32 where there is one row, and the faster the more rows share the codes. Who may round is tensor/rounding.ts's
// business; which call comes here is packed.ts's. Pointers and strides are in bytes.
//
// The scales of a row of weights are decoded first, four at a time, times those of x: looked up in a table one by one, or decoded one by one,
// they take as long as everything else.

import { packings, type Packing } from '../../../tensor/packing.js';
import { f32x4Const, i32x4Const, load, op, shuffle, shuffle32, type FunctionBuilder, type Local, type ModuleBuilder, type Value } from './assembler.js';
import { sumOfLanes, words, type Madd } from './gemmUnpacked.js';

export type Quantised = Extract<Packing, 'q8_0' | 'q4_0' | 'q4_1'>;

/** A block of x: 32 16-bit integers in the order in which codes are met. */
export const roundedBlock = 64;
/** Blocks of k, in whole fours. */
const blocksOf = (k: number): number => 4 * Math.ceil(k / 128);
/** A row of x: its blocks, then f32 scales, then f32 sums of each block. */
export const roundedBytes = (k: number): number => (k / 32) * roundedBlock + 8 * blocksOf(k);

/** Rows of x that share one reading of the codes: with k of 1,536 they stay in the first-level cache. */
export const rowsTogether = 8;
/** Scratch of `dot` and `dots`: a sum of four lanes and the scales for each row. */
export const dotsScratchBytes = (k: number): number => rowsTogether * (16 + 4 * blocksOf(k));

/** f16 bits in the upper halves of four lanes, anything below, to f32: the exponent's bias is put right by a product, which is exact. */
export const fromHalf = (bits: Value): Value =>
  op('f32x4.mul', op('v128.and', op('i32x4.shr_s', bits, 3), i32x4Const(0x8fffe000)), f32x4Const(2 ** 112));

/**
 * Adds, for rows of x rounded by `round`:
 * - round(x, k, to, step, scales, sums): a row of x, a block at `to`, the next `step` later; their scales and sums.
 * - dot(x, scales, w, rowBytes, weightBytes, n, k, c, scratch): c[n] = x[k] w[n, k]^T for one row, its blocks one after the other.
 * - dots(x, scales, rows, w, rowBytes, weightBytes, n, k, c, cRow, scratch): the same for up to `rowsTogether` rows, their blocks in turn; scales and sums
 *   of a row, `blocksOf(k)` each, are followed by those of the next.
 */
export function addRoundedProducts(m: ModuleBuilder, packing: Quantised, madd: Madd): void {
  round(m, packing);
  dot(m, packing, madd);
  dots(m, packing, madd);
}

/** Lanes 2i + odd of the eight 16-bit numbers in a and the eight in b. */
const everyOther = (a: Value, b: Value, odd: number): Value => shuffle(a, b, Array.from({ length: 16 }, (_, i) => 4 * (i >> 1) + 2 * odd + (i & 1)));

/** Four-bit codes are met by their place t in 16-bit words: word l of a block holds weights 2l, 16 + 2l, 2l + 1, 17 + 2l. */
function round(m: ModuleBuilder, packing: Quantised): void {
  const f = m.function('round', { params: words(6), results: [] });
  const [x, k, to, step, scales, sums] = f.params;
  const i = f.local('i32');
  const [largest, factor, scale, sum] = f.localArray('v128', 4);
  const half = f.localArray('v128', 4);
  const element = (j: number): Value => load('v128.load', x, 16 * j);
  // Zeros for blocks past the last one.
  const last = op('i32.and', op('i32.shr_u', op('i32.sub', k, 1), 3), -16);
  for (const list of [scales, sums]) f.store('v128.store', op('i32.add', list, last), f32x4Const(0));
  f.loop(i, k, 32, () => {
    f.set(largest, op('f32x4.abs', element(0)));
    for (let j = 1; j < 8; j++) f.set(largest, op('f32x4.max', largest, op('f32x4.abs', element(j))));
    f.set(largest, op('f32x4.max', largest, shuffle32(largest, largest, [2, 3, 0, 1])));
    f.set(largest, op('f32x4.max', largest, shuffle32(largest, largest, [1, 0, 3, 2])));
    // A block of zeros has the factor infinity, and 0 times that becomes 0 as an integer.
    f.set(factor, op('f32x4.div', f32x4Const(32767), largest));
    f.set(scale, op('f32x4.mul', largest, f32x4Const(1 / 32767)));
    const integers = (j: number): Value => op('i32x4.trunc_sat_f32x4_s', op('f32x4.nearest', op('f32x4.mul', element(j), factor)));
    half.forEach((v, j) => f.set(v, op('i16x8.narrow_i32x4_s', integers(2 * j), integers(2 * j + 1))));
    const ordered = packing === 'q8_0' ? half : [0, 1].flatMap(odd => [everyOther(half[0], half[1], odd), everyOther(half[2], half[3], odd)]);
    ordered.forEach((v, t) => f.store('v128.store', to, v, 16 * t));
    f.storeLane('v128.store32_lane', 0, scales, scale);
    if (packing !== 'q8_0') {
      const lanes = half.map((v): Value => op('i32x4.dot_i16x8_s', v, i32x4Const(0x00010001))).reduce((a, b) => op('i32x4.add', a, b));
      f.set(sum, op('f32x4.mul', op('f32x4.convert_i32x4_s', lanes), scale));
      f.store('f32.store', sums, sumOfLanes(f, sum));
    }
    f.add(x, 128);
    f.add(to, step);
    f.add(scales, 4);
    f.add(sums, 4);
  });
}

/**
 * Decodes the scales that begin at `scales`, four blocks at a time, and hands them on: scales in lanes, and what is added for each 1 in x (minima
 * of q4_1, offsets of q4_0, whose codes are too large by 8). The last four may reach past the end of the row, where x has zeros.
 */
function eachScales(f: FunctionBuilder, packing: Quantised, scales: Local, stride: Local, body: (d: Local, least: Local | null, at: Local) => void): void {
  const [w, d, least] = f.localArray('v128', 3);
  const at = f.local('i32');
  f.set(at, 0);
  f.repeat(again => {
    f.set(w, packing === 'q4_1' ? load('v128.load', scales) : op('i32x4.shl', load('v128.load16x4_u', scales), 16));
    f.set(d, fromHalf(packing === 'q4_1' ? op('i32x4.shl', w, 16) : w));
    if (packing !== 'q8_0') f.set(least, packing === 'q4_1' ? fromHalf(w) : op('f32x4.mul', d, f32x4Const(-8)));
    body(d, packing === 'q8_0' ? null : least, at);
    f.add(scales, 8 * packings[packing].scales);
    f.branchIf(again, op('i32.ne', f.tee(at, op('i32.add', at, 16)), stride));
  });
}

interface Block {
  /** Reads the codes of the next block. */
  read(): void;
  /** Their products with the block of x at `x`, in four lanes. */
  times(x: Local): Value;
}

function blockOf(f: FunctionBuilder, packing: Quantised, at: Local): Block {
  const codes = f.localArray('v128', 4);
  const v = f.local('v128');
  const mask = i32x4Const(0x000f000f);
  return {
    read() {
      if (packing === 'q8_0') codes.forEach((c, t) => f.set(c, load('v128.load8x8_s', at, 8 * t)));
      else {
        f.set(v, load('v128.load', at));
        codes.forEach((c, t) => {
          const shifted = t === 0 ? v : op('i16x8.shr_u', v, 4 * t);
          f.set(c, t === 3 ? shifted : op('v128.and', shifted, mask));
        });
      }
      f.add(at, packings[packing].blockBytes);
    },
    times: x => op('f32x4.convert_i32x4_s', codes
      .map((c, t): Value => op('i32x4.dot_i16x8_s', c, load('v128.load', x, 16 * t))).reduce((a, b) => op('i32x4.add', a, b))),
  };
}

/** Bytes of a row's scales: whole fours of f32. */
function scaleStride(f: FunctionBuilder, blocks: Local): Local {
  const stride = f.local('i32');
  f.set(stride, op('i32.shl', op('i32.and', op('i32.add', blocks, 3), -4), 2));
  return stride;
}

function dot(m: ModuleBuilder, packing: Quantised, madd: Madd): void {
  const f = m.function('dot', { params: words(9), results: [] });
  const [x, scales, w, rowBytes, weightBytes, n, k, c, scratch] = f.params;
  const [column, at, scalesAt, atX, own, product, end, blocks] = f.localArray('i32', 8);
  const total = f.local('v128');
  f.set(blocks, op('i32.shr_u', k, 5));
  const stride = scaleStride(f, blocks);
  const block = blockOf(f, packing, at);
  f.set(end, op('i32.add', scratch, op('i32.shl', blocks, 2)));
  f.loop(column, n, 1, () => {
    f.set(at, w);
    f.set(scalesAt, op('i32.add', w, weightBytes));
    f.set(total, f32x4Const(0));
    eachScales(f, packing, scalesAt, stride, (d, least, from) => {
      f.set(own, op('i32.add', scales, from));
      f.store('v128.store', op('i32.add', scratch, from), op('f32x4.mul', d, load('v128.load', own)));
      if (least) f.set(total, madd(load('v128.load', op('i32.add', own, stride)), least, total));
    });
    f.set(atX, x);
    f.set(product, scratch);
    f.repeat(again => {
      block.read();
      f.set(total, madd(block.times(atX), load('v128.load32_splat', product), total));
      f.add(atX, roundedBlock);
      f.branchIf(again, op('i32.ne', f.tee(product, op('i32.add', product, 4)), end));
    });
    f.store('f32.store', c, sumOfLanes(f, total));
    f.add(c, 4);
    f.add(w, rowBytes);
  });
}

/** Sums stay in memory: a loop over rows needs few registers, whatever their number. */
function dots(m: ModuleBuilder, packing: Quantised, madd: Madd): void {
  const f = m.function('dots', { params: words(11), results: [] });
  const [x, scales, rows, w, rowBytes, weightBytes, n, k, c, cRow, scratch] = f.params;
  const [column, b, at, scalesAt, atX, sum, end, own, into, products, blocks] = f.localArray('i32', 11);
  const total = f.local('v128');
  f.set(blocks, op('i32.shr_u', k, 5));
  const stride = scaleStride(f, blocks);
  const block = blockOf(f, packing, at);
  f.set(products, op('i32.add', scratch, 16 * rowsTogether));
  f.set(end, op('i32.add', scratch, op('i32.shl', rows, 4)));
  /** Runs `body` for each row of x, `sum` being where its sum is. */
  const eachRow = (body: () => void): void => {
    f.set(sum, scratch);
    f.repeat(again => {
      body();
      f.branchIf(again, op('i32.ne', f.tee(sum, op('i32.add', sum, 16)), end));
    });
  };
  f.loop(column, n, 1, () => {
    f.set(at, w);
    f.set(scalesAt, op('i32.add', w, weightBytes));
    eachRow(() => f.store('v128.store', sum, f32x4Const(0)));
    eachScales(f, packing, scalesAt, stride, (d, least, from) => {
      f.set(own, op('i32.add', scales, from));
      f.set(into, op('i32.add', products, from));
      eachRow(() => {
        f.store('v128.store', into, op('f32x4.mul', d, load('v128.load', own)));
        if (least) f.store('v128.store', sum, madd(load('v128.load', op('i32.add', own, stride)), least, load('v128.load', sum)));
        f.add(own, op('i32.shl', stride, 1));
        f.add(into, stride);
      });
    });
    f.set(atX, x);
    f.set(b, 0);
    f.loop(b, blocks, 1, () => {
      block.read();
      f.set(into, op('i32.add', products, op('i32.shl', b, 2)));
      eachRow(() => {
        f.store('v128.store', sum, madd(block.times(atX), load('v128.load32_splat', into), load('v128.load', sum)));
        f.add(atX, roundedBlock);
        f.add(into, stride);
      });
    });
    f.set(into, c);
    eachRow(() => {
      f.set(total, load('v128.load', sum));
      f.store('f32.store', into, sumOfLanes(f, total));
      f.add(into, cRow);
    });
    f.add(c, 4);
    f.add(w, rowBytes);
  });
}
