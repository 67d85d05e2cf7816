// Linear recurrences along rows (nn/linearScan.ts) and their VJP: row by row, in blocks of columns narrow enough for
// the row before to be in the cache. Threads take blocks.

import * as e from '../../../../tensor/expr.js';
import { sizeOf } from '../../../../tensor/shape.js';
import type { FusedKernel, View } from '../../../backend.js';
import { load, op, type Local, type ModuleBuilder, type Value } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { LaneMath } from '../emit/lanes.js';
import type { Code } from './index.js';
import { denseFloats, emitPass, plainRows } from './rowFunction.js';

const [x, y, z] = [e.arg(0), e.arg(1), e.arg(2)];

/** Columns that are taken at once at most: 16 KiB a row. */
const mostColumns = 4096;

export function addScans(m: ModuleBuilder, { relaxed }: WasmContext): void {
  addForward(m, relaxed);
  addVjp(m, relaxed);
}

/**
 * linearScan(sequences, starts, columns, bytes of a row, whether there is an initial state, a, b, initial, h); starts
 * are S + 1 words, the last one the number of rows.
 */
function addForward(m: ModuleBuilder, relaxed: boolean): void {
  const f = m.function('linearScan', { params: new Array<'i32'>(9).fill('i32'), results: [] });
  const [sequences, starts, columns, rowBytes, carried, a, b, initial, h] = f.params;
  const math = new LaneMath(f, relaxed);
  const [s, row, end, before] = f.localArray('i32', 4);
  f.loop(s, sequences, 1, () => {
    f.set(row, load('i32.load', starts));
    f.set(end, load('i32.load', starts, 4));
    f.set(before, initial);
    f.if(op('i32.and', op('i32.eqz', carried), op('i32.lt_u', row, end)), () => {
      f.copy(h, b, op('i32.mul', columns, 4));
      f.set(before, h);
      for (const pointer of [a, b, h]) f.add(pointer, rowBytes);
      f.add(row, 1);
    });
    f.loop(row, end, 1, () => {
      emitPass(math, columns, { inputs: [a, before, b], write: [[h, e.add(e.mul(x, y), z)]] });
      f.set(before, h);
      for (const pointer of [a, b, h]) f.add(pointer, rowBytes);
    });
    f.add(initial, rowBytes);
    f.add(starts, 4);
  });
}

/**
 * linearScanVjp(sequences, starts, columns, bytes of a row, whether there is an initial state, a, initial, h, g, da,
 * db, dInitial): db_t = g_t + a_{t+1} db_{t+1}, da_t = db_t h_{t-1}, and for the initial state a_0 db_0.
 */
function addVjp(m: ModuleBuilder, relaxed: boolean): void {
  const f = m.function('linearScanVjp', { params: new Array<'i32'>(12).fill('i32'), results: [] });
  const [sequences, starts, columns, rowBytes, carried, a, initial, h, g, da, db, dInitial] = f.params;
  const math = new LaneMath(f, relaxed);
  const columnBytes = f.local('i32');
  const [s, first, end, row, at, after, here] = f.localArray('i32', 7);
  const [aAfter, dbAfter, hBefore, gHere, daHere] = f.localArray('i32', 5);
  f.set(columnBytes, op('i32.mul', columns, 4));
  const plus = (base: Local, offset: Value): Value => op('i32.add', base, offset);
  f.loop(s, sequences, 1, () => {
    f.set(first, load('i32.load', starts));
    f.set(end, load('i32.load', starts, 4));
    f.set(row, first);
    // Rows from the last to the first; `at` is how many bytes before this one.
    f.loop(row, end, 1, () => {
      f.set(at, op('i32.mul', op('i32.sub', op('i32.add', first, op('i32.sub', end, row)), 1), rowBytes));
      for (const [pointer, base] of [
        [gHere, g],
        [here, db],
        [daHere, da],
      ] as const)
        f.set(pointer, plus(base, at));
      f.if(
        op('i32.eq', row, first),
        () => f.copy(here, gHere, columnBytes),
        () => {
          f.set(after, op('i32.add', at, rowBytes));
          f.set(aAfter, plus(a, after));
          f.set(dbAfter, plus(db, after));
          emitPass(math, columns, { inputs: [aAfter, dbAfter, gHere], write: [[here, e.add(e.mul(x, y), z)]] });
        },
      );
      f.set(hBefore, op('i32.sub', plus(h, at), rowBytes));
      const isFirst = op('i32.eq', op('i32.add', row, 1), end);
      f.if(isFirst, () => f.set(hBefore, initial));
      f.if(
        op('i32.and', isFirst, op('i32.eqz', carried)),
        () => f.fill(daHere, 0, columnBytes),
        () => {
          emitPass(math, columns, { inputs: [here, hBefore], write: [[daHere, e.mul(x, y)]] });
        },
      );
    });
    f.if(carried, () => {
      f.if(
        op('i32.lt_u', first, end),
        () => {
          f.set(at, op('i32.mul', first, rowBytes));
          f.set(aAfter, plus(a, at));
          f.set(here, plus(db, at));
          emitPass(math, columns, { inputs: [aAfter, here], write: [[dInitial, e.mul(x, y)]] });
        },
        () => f.fill(dInitial, 0, columnBytes),
      );
    });
    for (const pointer of [initial, dInitial]) f.add(pointer, rowBytes);
    f.add(starts, 4);
  });
}

export function scanKernels(code: Code, context: WasmContext): [string, FusedKernel][] {
  const { memory, scratch, byteOffsetOf, threads } = context;
  /** Calls `name` for blocks of columns with the addresses of the views there; one that is absent is 0. */
  const run = (
    name: 'linearScan' | 'linearScanVjp',
    starts: Int32Array,
    rows: number,
    columns: number,
    initial: View | null,
    views: readonly (View | null)[],
  ): boolean => {
    const startsAt = scratch(4 * (starts.length + 1));
    new Int32Array(memory.buffer, startsAt, starts.length + 1).set([...starts, rows]);
    const parts = threads.parts(rows * columns * plainRows);
    const width = Math.max(16, Math.min(mostColumns, 16 * Math.ceil(columns / parts / 16)));
    const addresses = views.map(v => v && byteOffsetOf(v));
    const fixed = [4 * columns, initial ? 1 : 0];
    const calls: number[][] = [];
    for (let from = 0; from < columns; from += width) {
      const count = Math.min(width, columns - from);
      calls.push([starts.length, startsAt, count, ...fixed, ...addresses.map(at => (at === null ? 0 : at + 4 * from))]);
    }
    if (calls.length > 0) threads.run(code()[name], calls);
    return true;
  };
  return [
    [
      'linearScan',
      ({ inputs: [a, b, initial], outputs: [h], indices }) => {
        if (!a || !b || !indices || !denseFloats([a, b, initial, h])) return false;
        return run('linearScan', indices, b.shape[0], sizeOf(b.shape.slice(1)), initial, [a, b, initial, h]);
      },
    ],
    [
      'linearScan.vjp',
      ({ inputs: [a, initial, h, g], outputs: [da, db, dInitial], indices }) => {
        if (!a || !h || !g || !indices || !denseFloats([a, initial, h, g, da, db, dInitial ?? null])) return false;
        const views = [a, initial, h, g, da, db, dInitial ?? null];
        return run('linearScanVjp', indices, a.shape[0], sizeOf(a.shape.slice(1)), initial, views);
      },
    ],
  ];
}
