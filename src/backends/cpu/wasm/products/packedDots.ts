// Products of one row of x with quantised weights on 16-bit integers: x is rounded, each block of 32 elements to 16
// bits with a scale of its own (2^-16 of the block's largest number), its products with the codes of a block are summed
// exactly, and their sum is scaled once. Twice as fast as codes widened to f32. Several rows are packedTiles.ts's. Who
// may round is tensor/rounding.ts's business; which call comes here is packed.ts's. Pointers and strides are in bytes.
//
// The scales of a row of weights are decoded first, four at a time, times those of x: looked up in a table one by one,
// or decoded one by one, they take as long as everything else.

import { packings, type Packing } from '../../../../tensor/packing.js';
import {
  f32x4Const,
  i32x4Const,
  load,
  op,
  shuffle,
  shuffle32,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
  type Value,
} from '../emit/assembler.js';
import { sumOfLanes, words, type Madd } from './gemmUnpacked.js';

export type Quantised = Extract<Packing, 'q8_0' | 'q4_0' | 'q4_1'>;

/** A block of x: 32 16-bit integers in the order in which codes are met. */
const roundedBlock = 64;
/** Bytes of a row's scales: f32, blocks of k in whole fours. */
const scaleBytes = (k: number): number => 16 * Math.ceil(k / 128);
/** A row of x: its blocks, then f32 scales, then f32 sums of each block. */
export const roundedBytes = (k: number): number => (k / 32) * roundedBlock + 2 * scaleBytes(k);
/** Scratch of `dot`, with room so that those of two threads share no cache line. */
export const dotScratchBytes = (k: number): number => 64 * Math.ceil(scaleBytes(k) / 64) + 64;

/**
 * f16 bits in the upper halves of four lanes, anything below, to f32: the exponent's bias is put right by a product,
 * which is exact.
 */
export const fromHalf = (bits: Value): Value =>
  op('f32x4.mul', op('v128.and', op('i32x4.shr_s', bits, 3), i32x4Const(0x8fffe000)), f32x4Const(2 ** 112));

/**
 * Adds
 * - round(x, k, to): a row of x, rounded.
 * - dot(x, w, rowBytes, weightBytes, n, k, c, scratch): c[n] = x[k] w[n, k]^T for such a row.
 */
export function addRoundedProducts(m: ModuleBuilder, packing: Quantised, madd: Madd): void {
  round(m, packing);
  dot(m, packing, madd);
}

/** Lanes 2i + odd of the eight 16-bit numbers in a and the eight in b. */
const everyOther = (a: Value, b: Value, odd: number): Value =>
  shuffle(
    a,
    b,
    Array.from({ length: 16 }, (_, i) => 4 * (i >> 1) + 2 * odd + (i & 1)),
  );

/**
 * Rounds the 32 elements at `x`: emits the code and hands on the integers in the order in which codes are met, their
 * scale (in all lanes) and their sum. Four-bit codes are met by their place t in 16-bit words: word l of a block holds
 * weights 2l, 16 + 2l, 2l + 1, 17 + 2l.
 */
export function roundBlock(
  f: FunctionBuilder,
  packing: Quantised,
  x: Local,
): () => { ordered: readonly Value[]; scale: Local; sum: () => Value } {
  const [largest, factor, scale, sum] = f.localArray('v128', 4);
  const half = f.localArray('v128', 4);
  const element = (j: number): Value => load('v128.load', x, 16 * j);
  return () => {
    // As integers, the bits of numbers without sign are in order, NaN the last.
    const size = (j: number): Value => op('v128.and', element(j), i32x4Const(0x7fffffff));
    f.set(largest, size(0));
    for (let j = 1; j < 8; j++) f.set(largest, op('i32x4.max_s', largest, size(j)));
    f.set(largest, op('i32x4.max_s', largest, shuffle32(largest, largest, [2, 3, 0, 1])));
    f.set(largest, op('i32x4.max_s', largest, shuffle32(largest, largest, [1, 0, 3, 2])));
    // A block of zeros has the factor infinity and any integers, which its scale makes 0.
    f.set(factor, op('f32x4.div', f32x4Const(32767), largest));
    f.set(scale, op('f32x4.mul', largest, f32x4Const(1 / 32767)));
    // 2^23 + 2^22 added leaves the nearest integer in the lower bits.
    const integers = (j: number): Value =>
      op(
        'i32x4.sub',
        op('f32x4.add', op('f32x4.mul', element(j), factor), f32x4Const(3 * 2 ** 22)),
        i32x4Const(0x4b400000),
      );
    half.forEach((v, j) => f.set(v, op('i16x8.narrow_i32x4_s', integers(2 * j), integers(2 * j + 1))));
    const ordered =
      packing === 'q8_0'
        ? half
        : [0, 1].flatMap(odd => [everyOther(half[0], half[1], odd), everyOther(half[2], half[3], odd)]);
    return {
      ordered,
      scale,
      sum: () => {
        const lanes = half
          .map((v): Value => op('i32x4.dot_i16x8_s', v, i32x4Const(0x00010001)))
          .reduce((a, b) => op('i32x4.add', a, b));
        f.set(sum, op('f32x4.mul', op('f32x4.convert_i32x4_s', lanes), scale));
        return sumOfLanes(f, sum);
      },
    };
  };
}

function round(m: ModuleBuilder, packing: Quantised): void {
  const f = m.function('round', { params: words(3), results: [] });
  const [x, k, to] = f.params;
  const [i, scales, sums] = f.localArray('i32', 3);
  const rounded = roundBlock(f, packing, x);
  f.set(scales, op('i32.add', to, op('i32.shl', k, 1)));
  f.set(sums, op('i32.add', scales, scaleStride(f, op('i32.shr_u', k, 5))));
  // Zeros for blocks past the last one.
  const last = op('i32.and', op('i32.shr_u', op('i32.sub', k, 1), 3), -16);
  for (const list of [scales, sums]) f.store('v128.store', op('i32.add', list, last), f32x4Const(0));
  f.loop(i, k, 32, () => {
    const { ordered, scale, sum } = rounded();
    ordered.forEach((v, t) => f.store('v128.store', to, v, 16 * t));
    f.storeLane('v128.store32_lane', 0, scales, scale);
    if (packing !== 'q8_0') f.store('f32.store', sums, sum());
    f.add(x, 128);
    f.add(to, roundedBlock);
    f.add(scales, 4);
    f.add(sums, 4);
  });
}

/** The codes of the block at `at` as 16-bit integers; four-bit ones without an offset. */
export function readCodes(f: FunctionBuilder, packing: Quantised, at: Local, codes: readonly Local[]): void {
  if (packing === 'q8_0') {
    codes.forEach((c, t) => f.set(c, load('v128.load8x8_s', at, 8 * t)));
    return;
  }
  const mask = i32x4Const(0x000f000f);
  const v = codes[3];
  f.set(v, load('v128.load', at));
  codes.forEach((c, t) => {
    const shifted = t === 0 ? v : op('i16x8.shr_u', v, 4 * t);
    f.set(c, t === 3 ? shifted : op('v128.and', shifted, mask));
  });
}

/**
 * Decodes the scales that begin at `scales`, four blocks at a time, and hands them on: scales in lanes, and what is
 * added for each 1 in x (minima of q4_1, offsets of q4_0, whose codes are too large by 8). The last four may reach past
 * the end of the row, where x has zeros.
 */
function eachScales(
  f: FunctionBuilder,
  packing: Quantised,
  scales: Local,
  stride: Local,
  body: (d: Local, least: Local | null, at: Local) => void,
): void {
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
  return {
    read() {
      readCodes(f, packing, at, codes);
      f.add(at, packings[packing].blockBytes);
    },
    times: x =>
      op(
        'f32x4.convert_i32x4_s',
        codes
          .map((c, t): Value => op('i32x4.dot_i16x8_s', c, load('v128.load', x, 16 * t)))
          .reduce((a, b) => op('i32x4.add', a, b)),
      ),
  };
}

/** Bytes of a row's scales: whole fours of f32. */
function scaleStride(f: FunctionBuilder, blocks: Value): Local {
  const stride = f.local('i32');
  f.set(stride, op('i32.shl', op('i32.and', op('i32.add', blocks, 3), -4), 2));
  return stride;
}

function dot(m: ModuleBuilder, packing: Quantised, madd: Madd): void {
  const f = m.function('dot', { params: words(8), results: [] });
  const [x, w, rowBytes, weightBytes, n, k, c, scratch] = f.params;
  const [column, at, scalesAt, atX, own, product, end, blocks, scales] = f.localArray('i32', 9);
  const total = f.local('v128');
  f.set(blocks, op('i32.shr_u', k, 5));
  const stride = scaleStride(f, blocks);
  const block = blockOf(f, packing, at);
  f.set(scales, op('i32.add', x, op('i32.shl', k, 1)));
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
