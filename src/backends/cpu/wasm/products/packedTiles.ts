// Products of many rows of x with quantised weights on 16-bit integers: as packedDots.ts has it, but in tiles of rows
// and columns, whose sums of a block of 32 stay in registers. A multiplication of pairs does twice a fused
// multiply-add's work: 92 to 95 GFLOP/s on a core whose f32 tile reaches 61. Panels: of x, pairs [k / 2][rows] and then
// for each block the rows' scales and sums; of w, pairs [k / 2][columns] and then for each block the columns' scales
// and minima. Pointers and strides are in bytes.

import { packings } from '../../../../tensor/packing.js';
import {
  call,
  f32x4Const,
  i32x4Const,
  laneOp,
  load,
  loadLane,
  op,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
} from '../emit/assembler.js';
import { rowsOfOperands } from './epilogue.js';
import { transpose4 } from './gemmKernels.js';
import { smaller, words, type Madd } from './gemmUnpacked.js';
import { fromHalf, readCodes, roundBlock, type Quantised } from './packedDots.js';

/** Rows and columns of a tile. */
export const tileRows = 4;
export const tileColumns = 8;

/** A panel of rows of x, and one of columns of w. */
const panelBytes = (k: number): number => tileRows * (2 * k + k / 4);
export const columnPanelBytes = (k: number): number => tileColumns * (2 * k + k / 4);

/** Panels of x that are gone over for each panel of w: together they stay in the second-level cache. */
export const panelsTogether = (k: number): number => Math.max(1, Math.floor((3 * 2 ** 17) / panelBytes(k)));

/** Bytes of `rows` rows in panels. */
export const panelsBytes = (rows: number, k: number): number => Math.ceil(rows / tileRows) * panelBytes(k);

/** Scratch of `tiles`: an incomplete tile, and its columns in panels. */
export const tilesScratchBytes = (columns: number, k: number): number =>
  4 * tileRows * tileColumns + Math.ceil(columns / tileColumns) * columnPanelBytes(k);

/**
 * Adds
 * - roundPanels(x, xRow, rows, k, to): panels of rows of x.
 * - tiles(panels, rows, w, rowBytes, weightBytes, n, k, c, cRow, together, scratch): c[rows, n] = x w[n, k]^T, with
 *   columns of w put in panels in scratch;
 *   `together` panels of x at a time; the arguments of an epilogue come before scratch.
 */
export function addPackedTiles(
  m: ModuleBuilder,
  packing: Quantised,
  madd: Madd,
  epilogue?: { code: FunctionBuilder; words: number },
): void {
  roundPanels(m, packing);
  tiles(
    m,
    columnPanel(m, packing),
    Array.from({ length: tileRows }, (_, i) => tile(m, i + 1, packing, madd)),
    copyTile(m),
    epilogue,
  );
}

function roundPanels(m: ModuleBuilder, packing: Quantised): void {
  const f = m.function('roundPanels', { params: words(5), results: [] });
  const [x, xRow, rows, k, to] = f.params;
  const [row, lane, i, from, pairs, scales] = f.localArray('i32', 6);
  const round = roundBlock(f, packing, from);
  f.loop(row, rows, 1, () => {
    f.set(from, x);
    f.set(pairs, op('i32.add', to, op('i32.mul', lane, 4)));
    f.set(scales, op('i32.add', pairs, op('i32.mul', k, 2 * tileRows)));
    f.set(i, 0);
    f.loop(i, k, 32, () => {
      const { ordered, scale, sum } = round();
      ordered.forEach((v, t) => {
        const four = f.local('v128');
        f.set(four, v);
        for (let j = 0; j < 4; j++) f.storeLane('v128.store32_lane', j, pairs, four, 4 * tileRows * (4 * t + j));
      });
      f.storeLane('v128.store32_lane', 0, scales, scale);
      f.store('f32.store', scales, sum(), 4 * tileRows);
      f.add(from, 128);
      f.add(pairs, 64 * tileRows);
      f.add(scales, 8 * tileRows);
    });
    f.add(x, xRow);
    f.add(lane, 1);
    f.if(op('i32.eq', lane, tileRows), () => {
      f.set(lane, 0);
      f.add(to, op('i32.mul', k, tileRows * 2));
      f.add(to, op('i32.mul', op('i32.shr_u', k, 2), tileRows));
    });
  });
}

/**
 * columnPanel(w, rowBytes, weightBytes, columns, k, to): rows of w in a panel; where there are fewer than a panel has,
 * the last one again.
 */
function columnPanel(m: ModuleBuilder, packing: Quantised): FunctionBuilder {
  const f = m.function('columnPanel', { params: words(6), results: [] }, { exported: false });
  const [w, rowBytes, weightBytes, columns, k, to] = f.params;
  const { scales: scaleCount } = packings[packing];
  const [group, i, into, next] = f.localArray('i32', 4);
  const rows = f.localArray('i32', 4);
  const scales = f.localArray('i32', 4);
  const codes = rows.map(() => f.localArray('v128', 4));
  const [bits, d] = f.localArray('v128', 2);
  f.loop(group, tileColumns, 4, () => {
    for (const [r, row] of rows.entries()) {
      f.set(next, op('i32.add', group, r));
      f.set(row, op('i32.add', w, op('i32.mul', rowBytes, smaller(next, op('i32.sub', columns, 1)))));
      f.set(scales[r], op('i32.add', row, weightBytes));
    }
    f.set(into, op('i32.add', to, op('i32.mul', group, 4)));
    f.set(i, 0);
    f.loop(i, k, 32, () => {
      rows.forEach((row, r) => {
        readCodes(f, packing, row, codes[r]);
        f.add(row, packings[packing].blockBytes);
      });
      for (let t = 0; t < 4; t++) {
        const four = codes.map(c => c[t]);
        if (packing === 'q4_0') four.forEach(v => f.set(v, op('i16x8.sub', v, i32x4Const(0x00080008))));
        transpose4(f, four);
        four.forEach((v, j) => f.store('v128.store', into, v, 4 * tileColumns * (4 * t + j)));
      }
      f.add(into, 64 * tileColumns);
    });
    f.set(into, op('i32.add', op('i32.add', to, op('i32.mul', group, 4)), op('i32.mul', k, 2 * tileColumns)));
    f.set(i, 0);
    f.loop(i, k, 32, () => {
      if (packing === 'q4_1') {
        f.set(bits, load('v128.load32_splat', scales[0]));
        for (let r = 1; r < 4; r++) f.set(bits, loadLane('v128.load32_lane', r, scales[r], bits));
        f.store('v128.store', into, fromHalf(bits), 4 * tileColumns);
        f.set(d, fromHalf(op('i32x4.shl', bits, 16)));
      } else {
        f.set(bits, op('i32x4.splat', load('i32.load16_u', scales[0])));
        for (let r = 1; r < 4; r++) f.set(bits, laneOp('i32x4.replace_lane', r, bits, load('i32.load16_u', scales[r])));
        f.set(d, fromHalf(op('i32x4.shl', bits, 16)));
      }
      f.store('v128.store', into, d);
      scales.forEach(s => f.add(s, 2 * scaleCount));
      f.add(into, 8 * tileColumns);
    });
  });
  return f;
}

/**
 * tileN(a, b, k, c, cRow): c[N, columns] = the first N rows of a panel of x times one of w. A step's loads and sums fit
 * the registers.
 */
function tile(m: ModuleBuilder, rows: number, packing: Quantised, madd: Madd): FunctionBuilder {
  const f = m.function(`tile${rows}`, { params: words(5), results: [] }, { exported: false });
  const [a, b, k, c, cRow] = f.params;
  const [aScales, bScales, end, stop] = f.localArray('i32', 4);
  const atC = f.localArray('i32', rows);
  const sums = atC.map(() => f.localArray('v128', 2));
  const [x, v] = f.localArray('v128', 2);
  const y = f.localArray('v128', 2);
  const minima = f.localArray('v128', 2);
  f.set(aScales, op('i32.add', a, op('i32.mul', k, 2 * tileRows)));
  f.set(bScales, op('i32.add', b, op('i32.mul', k, 2 * tileColumns)));
  f.set(stop, aScales);
  atC.forEach((at, i) => {
    f.set(at, i === 0 ? c : op('i32.add', atC[i - 1], cRow));
    for (const j of [0, 1]) f.store('v128.store', at, f32x4Const(0), 16 * j);
  });
  f.repeat(block => {
    sums.flat().forEach(sum => f.set(sum, i32x4Const(0)));
    f.set(end, op('i32.add', a, 64 * tileRows));
    f.repeat(again => {
      y.forEach((column, j) => f.set(column, load('v128.load', b, 16 * j)));
      sums.forEach((row, i) => {
        f.set(x, load('v128.load32_splat', a, 4 * i));
        row.forEach((sum, j) => f.set(sum, op('i32x4.add', sum, op('i32x4.dot_i16x8_s', x, y[j]))));
      });
      f.add(b, 4 * tileColumns);
      f.branchIf(again, op('i32.ne', f.tee(a, op('i32.add', a, 4 * tileRows)), end));
    });
    y.forEach((scale, j) => f.set(scale, load('v128.load', bScales, 16 * j)));
    if (packing === 'q4_1')
      minima.forEach((least, j) => f.set(least, load('v128.load', bScales, 4 * tileColumns + 16 * j)));
    sums.forEach((row, i) => {
      f.set(x, load('v128.load32_splat', aScales, 4 * i));
      row.forEach((sum, j) => {
        f.set(v, madd(op('f32x4.convert_i32x4_s', sum), op('f32x4.mul', x, y[j]), load('v128.load', atC[i], 16 * j)));
        if (packing === 'q4_1') f.set(v, madd(load('v128.load32_splat', aScales, 4 * (tileRows + i)), minima[j], v));
        f.store('v128.store', atC[i], v, 16 * j);
      });
    });
    f.add(aScales, 8 * tileRows);
    f.add(bScales, 8 * tileColumns);
    f.branchIf(block, op('i32.ne', a, stop));
  });
  return f;
}

/** copyTile(from, c, cRow, rows, columns): the part of a tile that c has room for. */
function copyTile(m: ModuleBuilder): FunctionBuilder {
  const f = m.function('copyTile', { params: words(5), results: [] }, { exported: false });
  const [from, c, cRow, rows, columns] = f.params;
  const row = f.local('i32');
  f.loop(row, rows, 1, () => {
    f.copy(c, from, op('i32.mul', columns, 4));
    f.add(c, cRow);
    f.add(from, 4 * tileColumns);
  });
  return f;
}

function tiles(
  m: ModuleBuilder,
  panel: FunctionBuilder,
  tilesOf: readonly FunctionBuilder[],
  copy: FunctionBuilder,
  epilogue?: { code: FunctionBuilder; words: number },
): void {
  const f = m.function('tiles', { params: words(11 + (epilogue?.words ?? 0)), results: [] });
  const [panels, rows, w, rowBytes, weightBytes, n, k, c, cRow, together, ...more] = f.params;
  const scratch = more[more.length - 1];
  const [i, j, row, end, a, b, to, height, width] = f.localArray('i32', 9);
  const bytesOf = (lines: number): Local => {
    const bytes = f.local('i32');
    f.set(bytes, op('i32.add', op('i32.mul', k, 2 * lines), op('i32.mul', op('i32.shr_u', k, 2), lines)));
    return bytes;
  };
  const [aBytes, bBytes] = [bytesOf(tileRows), bytesOf(tileColumns)];
  const own = f.local('i32');
  f.set(own, op('i32.add', scratch, 4 * tileRows * tileColumns));
  f.set(b, own);
  f.loop(j, n, tileColumns, () => {
    f.do(call(panel, w, rowBytes, weightBytes, smaller(op('i32.sub', n, j), tileColumns), k, b));
    f.add(w, op('i32.mul', rowBytes, tileColumns));
    f.add(b, bBytes);
  });
  const eachHeight = (body: (run: FunctionBuilder) => void): void =>
    f.if(
      op('i32.ge_u', height, tileRows),
      () => body(tilesOf[tileRows - 1]),
      () => {
        tilesOf.slice(0, -1).forEach((run, r) => f.if(op('i32.eq', height, r + 1), () => body(run)));
      },
    );
  f.loop(i, rows, op('i32.mul', together, tileRows), () => {
    f.set(end, smaller(op('i32.add', i, op('i32.mul', together, tileRows)), rows));
    f.set(b, own);
    f.set(j, 0);
    f.loop(j, n, tileColumns, () => {
      f.set(a, panels);
      f.set(to, op('i32.add', c, op('i32.mul', j, 4)));
      f.set(width, op('i32.sub', n, j));
      f.set(row, i);
      f.loop(row, end, tileRows, () => {
        f.set(height, op('i32.sub', end, row));
        f.if(
          op('i32.ge_u', width, tileColumns),
          () => eachHeight(run => f.do(call(run, a, b, k, to, cRow))),
          () => {
            f.do(call(tilesOf[tileRows - 1], a, b, k, scratch, 4 * tileColumns));
            f.do(call(copy, scratch, to, cRow, smaller(height, tileRows), smaller(width, tileColumns)));
          },
        );
        f.add(a, aBytes);
        f.add(to, op('i32.mul', cRow, tileRows));
      });
      f.add(b, bBytes);
    });
    if (epilogue) f.do(call(epilogue.code, c, cRow, op('i32.sub', end, i), n, ...rowsOfOperands(more.slice(0, -1), i)));
    f.add(panels, op('i32.mul', aBytes, together));
    f.add(c, op('i32.mul', cRow, op('i32.mul', together, tileRows)));
  });
}
