// Products of attention on the tile of gemmKernels.ts: C [M, 8] = A B, where A lies in panels of a few rows, each
// [K][rows], B is one panel [K][8], and C is dense, so that it can be the panel of the next product. And what turns the
// last such C into rows again.
//
// Panels of 5 rows as in gemmKernels.ts, or of 4 in one piece where multiply-add is not fused. On a Zen 5 core that
// allows 68.7 GFLOP/s, k of 64: 5 rows 64 (58 with a call for each tile), 4 rows plain 62, 5 rows plain 54.

import { call, load, op, type FunctionBuilder, type Local, type ModuleBuilder } from '../emit/assembler.js';
import { addTiles, pack, tileColumns, tileRowsOf, transpose4 } from '../products/gemmKernels.js';
import { words } from '../products/gemmUnpacked.js';
import { hold, mul, splat } from '../emit/lanes.js';

/** Queries or keys side by side in a panel, and its bytes for each step along K. */
export const width = tileColumns;
export const columnBytes = 4 * tileColumns;

/** Rows in a panel of A. */
export const panelRowsOf = tileRowsOf;

export interface PanelProducts {
  /** Rows in a panel of A. */
  readonly panelRows: number;
  /** (from, panelStride, kStride, to, k, count): panels of A (of B) along one axis, as `packA` of gemmKernels.ts. */
  readonly packRows: FunctionBuilder;
  readonly packColumns: FunctionBuilder;
  /**
   * (a, panelStride, b, c, rows, k, accumulate): c [rows, 8] (+)= a [rows, k] b [k, 8], the panels of a `panelStride`
   * apart. k > 0.
   */
  readonly product: FunctionBuilder;
  /**
   * (from, to, toRow, rows, length, factors, spare, hasNaN): to [rows, length] = from [length, 8] turned, times eight
   * factors; `spare` has room for a row. Where any of it is NaN, in rows past the last too, the word at `hasNaN`
   * becomes 1.
   */
  readonly turn: FunctionBuilder;
}

export function addPanelProducts(m: ModuleBuilder, relaxed: boolean): PanelProducts {
  const panelRows = panelRowsOf(relaxed);
  const packRows = pack(m, 'packRows', panelRows);
  const packColumns = pack(m, 'packColumns', tileColumns);
  return { panelRows, packRows, packColumns, product: addProduct(m, relaxed), turn: addTurn(m) };
}

function addProduct(m: ModuleBuilder, relaxed: boolean): FunctionBuilder {
  const panelRows = panelRowsOf(relaxed);
  const tiles = Array.from({ length: panelRows }, (_, i) => addTiles(m, i + 1, relaxed));
  const f = m.function('panelProduct', { params: words(7), results: [] }, { exported: false });
  const [a, panelStride, b, c, rows, k, accumulate] = f.params;
  const whole = f.local('i32');
  f.set(whole, op('i32.sub', rows, op('i32.rem_u', rows, panelRows)));
  f.do(call(tiles[panelRows - 1], a, panelStride, b, c, columnBytes, whole, k, accumulate));
  f.set(rows, op('i32.sub', rows, whole));
  f.if(rows, () => {
    f.add(a, op('i32.mul', op('i32.div_u', whole, panelRows), panelStride));
    f.add(c, op('i32.mul', whole, columnBytes));
    tiles
      .slice(0, -1)
      .forEach((rest, i) =>
        f.if(op('i32.eq', rows, i + 1), () => f.do(call(rest, a, panelStride, b, c, columnBytes, rows, k, accumulate))),
      );
  });
  return f;
}

function addTurn(m: ModuleBuilder): FunctionBuilder {
  const f = m.function('turn', { params: words(8), results: [] }, { exported: false });
  const [from, to, toRow, rows, length, factors, spare, hasNaN] = f.params;
  const [d, whole] = f.localArray('i32', 2);
  const at = f.localArray('i32', width);
  const halves = [0, 1].map(half => hold(f, load('v128.load', factors, 16 * half)));
  // What lies past the last row goes where nobody looks.
  at.forEach((row, i) => {
    f.set(row, i === 0 ? to : op('i32.add', at[i - 1], toRow));
  });
  at.forEach((row, i) => {
    if (i > 0) f.if(op('i32.le_u', rows, i), () => f.set(row, spare));
  });
  const each = (run: (rowsOfHalf: readonly Local[], half: number) => void): void =>
    [0, 1].forEach(half => {
      run(at.slice(4 * half, 4 * half + 4), half);
    });
  const unordered = hold(f, splat(0));
  const scaled = (half: number, step: number): Local => {
    const value = hold(f, mul(load('v128.load', from, columnBytes * step + 16 * half), halves[half]));
    f.set(unordered, op('v128.or', unordered, op('f32x4.ne', value, value)));
    return value;
  };
  f.set(whole, op('i32.and', length, -4));
  f.loop(d, whole, 4, () => {
    each((own, half) => {
      const v = own.map((_, step) => scaled(half, step));
      transpose4(f, v);
      own.forEach((row, i) => {
        f.store('v128.store', row, v[i]);
        f.add(row, 16);
      });
    });
    f.add(from, 4 * columnBytes);
  });
  f.loop(d, length, 1, () => {
    each((own, half) => {
      const v = scaled(half, 0);
      own.forEach((row, lane) => {
        f.storeLane('v128.store32_lane', lane, row, v);
        f.add(row, 4);
      });
    });
    f.add(from, columnBytes);
  });
  f.if(op('v128.any_true', unordered), () => f.store('i32.store', hasNaN, 1));
  return f;
}
