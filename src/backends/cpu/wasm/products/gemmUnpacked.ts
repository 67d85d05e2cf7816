// The loops of matrix multiplication that need no packing: `direct` where rows of B are contiguous, `dot` where both
// operands are contiguous along k, and `matvec`, its case of one row. Their parameters are described in gemmKernels.ts.
// All strides and pointers are in bytes.

import {
  call,
  f32x4Const,
  laneOp,
  load,
  op,
  select,
  shuffle32,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
  type Value,
} from '../emit/assembler.js';

export type Madd = (a: Value, b: Value, sum: Value) => Value;

export const words = (count: number): 'i32'[] => new Array<'i32'>(count).fill('i32');

export const smaller = (a: Value, most: Value | number): Value => select(a, most, op('i32.lt_u', a, most));

/** Rows that `direct` and `dot` take at a time, at most. */
const directRows = 4;
const dotRows = 2;

/** Adds direct, dot and matvec. */
export function addUnpacked(m: ModuleBuilder, madd: Madd): void {
  const sweep = touch(m);
  directBlocks(
    m,
    Array.from({ length: directRows }, (_, i) => direct(m, madd, i + 1)),
    sweep,
  );
  dotBlock(
    m,
    Array.from({ length: dotRows }, (_, i) => dot(m, madd, i + 1)),
    sweep,
  );
  matvec(m, madd);
}

/** Runs `body` for as many rows at a time as there are functions, then for the rest with the function that fits. */
function eachRows(
  f: FunctionBuilder,
  rows: Local,
  functions: readonly FunctionBuilder[],
  body: (run: FunctionBuilder, count: number) => void,
): void {
  const [i, whole] = f.localArray('i32', 2);
  const most = functions.length;
  f.set(whole, op('i32.and', rows, -most));
  f.set(i, 0);
  f.loop(i, whole, most, () => body(functions[most - 1], most));
  for (let rest = 1; rest < most; rest++)
    f.if(op('i32.eq', op('i32.sub', rows, whole), rest), () => body(functions[rest - 1], rest));
}

function directBlocks(m: ModuleBuilder, functions: readonly FunctionBuilder[], sweep: FunctionBuilder): void {
  const f = m.function('direct', { params: words(12), results: [] });
  const [a, aRow, aK, b, bK, c, cRow, rows, n, k, kStep, far] = f.params;
  const [k0, length, atA, atC] = f.localArray('i32', 4);
  f.loop(k0, k, kStep, () => {
    f.set(length, op('i32.sub', k, k0));
    f.set(length, smaller(length, kStep));
    f.if(far, () => f.do(call(sweep, b, bK, op('i32.mul', n, 4), length)));
    f.set(atA, a);
    f.set(atC, c);
    eachRows(f, rows, functions, (run, count) => {
      f.do(call(run, atA, aRow, aK, b, bK, atC, cRow, n, length, op('i32.ne', k0, 0)));
      f.add(atA, op('i32.mul', aRow, count));
      f.add(atC, op('i32.mul', cRow, count));
    });
    f.add(a, op('i32.mul', aK, kStep));
    f.add(b, op('i32.mul', bK, kStep));
  });
}

/**
 * c[R, n] (+)= a[R, k] b[k, n] for a fixed R. Strips of columns from wide to narrow; the last, of one column, works in
 * lane 0.
 */
function direct(m: ModuleBuilder, madd: Madd, rows: number): FunctionBuilder {
  const f = m.function(`direct${rows}`, { params: words(10), results: [] }, { exported: false });
  const [a, aRow, aK, b, bK, c, cRow, n, k, accumulate] = f.params;
  const [strip, strips, atB, step] = f.localArray('i32', 4);
  const atA = f.localArray('i32', rows);
  const atC = f.localArray('i32', rows);
  const x = f.local('v128');

  const columns = (vectors: number, single: boolean): void => {
    const width = single ? 1 : 4 * vectors;
    const loadName = single ? 'v128.load32_zero' : 'v128.load';
    const sums = Array.from({ length: rows }, () => f.localArray('v128', vectors));
    const y = f.localArray('v128', vectors);
    f.set(strips, op('i32.div_u', n, width));
    f.set(n, op('i32.rem_u', n, width));
    f.set(strip, 0);
    f.loop(strip, strips, 1, () => {
      atC.forEach((p, i) => f.set(p, i === 0 ? c : op('i32.add', atC[i - 1], cRow)));
      atA.forEach((p, i) => f.set(p, i === 0 ? a : op('i32.add', atA[i - 1], aRow)));
      f.set(atB, b);
      const start = (value: (i: number, j: number) => Value) => (): void => {
        sums.forEach((row, i) => row.forEach((sum, j) => f.set(sum, value(i, j))));
      };
      f.if(
        accumulate,
        start((i, j) => load(loadName, atC[i], 16 * j)),
        start(() => f32x4Const(0)),
      );
      f.set(step, 0);
      f.loop(step, k, 1, () => {
        y.forEach((v, j) => f.set(v, load(loadName, atB, 16 * j)));
        sums.forEach((row, i) => {
          f.set(x, load('v128.load32_splat', atA[i]));
          row.forEach((sum, j) => f.set(sum, madd(x, y[j], sum)));
          f.add(atA[i], aK);
        });
        f.add(atB, bK);
      });
      sums.forEach((row, i) =>
        row.forEach((sum, j) => {
          if (single) f.storeLane('v128.store32_lane', 0, atC[i], sum);
          else f.store('v128.store', atC[i], sum, 16 * j);
        }),
      );
      f.add(b, 4 * width);
      f.add(c, 4 * width);
    });
  };
  columns(rows <= 2 ? 4 : 2, false);
  columns(1, false);
  columns(1, true);
  return f;
}

function dotBlock(m: ModuleBuilder, functions: readonly FunctionBuilder[], sweep: FunctionBuilder): void {
  const f = m.function('dot', { params: words(11), results: [] });
  const [a, aRow, b, bColumn, c, cRow, cColumn, rows, n, k, far] = f.params;
  f.if(far, () => f.do(call(sweep, b, bColumn, op('i32.mul', k, 4), n)));
  eachRows(f, rows, functions, (run, count) => {
    f.do(call(run, a, aRow, b, bColumn, c, cRow, cColumn, n, k));
    f.add(a, op('i32.mul', aRow, count));
    f.add(c, op('i32.mul', cRow, count));
  });
}

/** c[R, n] = a[R, k] b[k, n] for a fixed R: four columns at a time, then one. */
function dot(m: ModuleBuilder, madd: Madd, rows: number): FunctionBuilder {
  const f = m.function(`dot${rows}`, { params: words(9), results: [] }, { exported: false });
  const [a, aRow, b, bColumn, c, cRow, cColumn, n, k] = f.params;
  const [group, groups, step, lane, atC] = f.localArray('i32', 5);
  const atA = f.localArray('i32', rows);

  const columns = (count: 4 | 1): void => {
    const atB = f.localArray('i32', count);
    const sums = Array.from({ length: rows }, () => f.localArray('v128', count));
    const x = f.localArray('v128', rows);
    const y = f.local('v128');
    const multiply = (loadName: 'v128.load' | 'v128.load32_zero', bytes: number) => (): void => {
      x.forEach((v, i) => f.set(v, load(loadName, atA[i])));
      atB.forEach((p, j) => {
        f.set(y, load(loadName, p));
        sums.forEach((row, i) => f.set(row[j], madd(x[i], y, row[j])));
      });
      [...atA, ...atB].forEach(p => f.add(p, bytes));
    };
    f.set(groups, op('i32.div_u', n, count));
    f.set(n, op('i32.rem_u', n, count));
    f.set(group, 0);
    f.loop(group, groups, 1, () => {
      atA.forEach((p, i) => f.set(p, i === 0 ? a : op('i32.add', a, op('i32.mul', aRow, i))));
      atB.forEach((p, j) => f.set(p, j === 0 ? b : op('i32.add', b, op('i32.mul', bColumn, j))));
      sums.flat().forEach(sum => f.set(sum, f32x4Const(0)));
      f.set(step, 0);
      f.loop(step, op('i32.and', k, -4), 4, multiply('v128.load', 16));
      f.loop(step, k, 1, multiply('v128.load32_zero', 4));
      f.set(atC, c);
      sums.forEach((row, i) => {
        if (count === 1) {
          f.store('f32.store', atC, sumOfLanes(f, row[0]));
        } else {
          const total = sumsOfLanes(f, row);
          f.if(
            op('i32.eq', cColumn, 4),
            () => f.store('v128.store', atC, total),
            () => {
              f.set(lane, atC);
              for (let j = 0; j < 4; j++) {
                f.storeLane('v128.store32_lane', j, lane, total);
                f.add(lane, cColumn);
              }
            },
          );
        }
        if (i < rows - 1) f.add(atC, cRow);
      });
      f.add(b, op('i32.mul', bColumn, count));
      f.add(c, op('i32.mul', cColumn, count));
    });
  };
  columns(4);
  columns(1);
  return f;
}

/** One column of b at a time, sixteen elements a step. */
function matvec(m: ModuleBuilder, madd: Madd): void {
  const f = m.function('matvec', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [a, b, bColumn, c, cColumn, n, k] = f.params;
  const [column, step, atA, atB] = f.localArray('i32', 4);
  const sums = f.localArray('v128', 4);
  const multiply = (loadName: 'v128.load' | 'v128.load32_zero', vectors: number, bytes: number) => (): void => {
    for (let i = 0; i < vectors; i++)
      f.set(sums[i], madd(load(loadName, atA, 16 * i), load(loadName, atB, 16 * i), sums[i]));
    f.add(atA, bytes);
    f.add(atB, bytes);
  };
  f.loop(column, n, 1, () => {
    f.set(atA, a);
    f.set(atB, b);
    sums.forEach(sum => f.set(sum, f32x4Const(0)));
    f.set(step, 0);
    f.loop(step, op('i32.and', k, -16), 16, multiply('v128.load', 4, 64));
    f.loop(step, op('i32.and', k, -4), 4, multiply('v128.load', 1, 16));
    f.loop(step, k, 1, multiply('v128.load32_zero', 1, 4));
    f.set(sums[0], op('f32x4.add', op('f32x4.add', sums[0], sums[1]), op('f32x4.add', sums[2], sums[3])));
    f.store('f32.store', c, sumOfLanes(f, sums[0]));
    f.add(b, bColumn);
    f.add(c, cColumn);
  });
}

/**
 * Reads one word of each cache line, so that what follows finds them near: touch(from, rowStride, rowBytes, rows). The
 * result has no meaning.
 */
function touch(m: ModuleBuilder): FunctionBuilder {
  const f = m.function('touch', { params: words(4), results: ['i32'] }, { exported: false });
  const [from, rowStride, rowBytes, rows] = f.params;
  const [row, byte, at, seen] = f.localArray('i32', 4);
  f.loop(row, rows, 1, () => {
    f.set(at, from);
    f.set(byte, 0);
    f.loop(byte, rowBytes, 64, () => {
      f.set(seen, op('i32.xor', seen, load('i32.load', at)));
      f.add(at, 64);
    });
    f.add(from, rowStride);
  });
  f.return(seen);
  return f;
}

/** Lane j of the result is the sum of the lanes of v[j]: (0 + 2) + (1 + 3). */
function sumsOfLanes(f: FunctionBuilder, v: readonly Local[]): Local {
  const t = f.localArray('v128', 2);
  const total = f.local('v128');
  const halves = (x: Local, y: Local): Value =>
    op('f32x4.add', shuffle32(x, y, [0, 4, 1, 5]), shuffle32(x, y, [2, 6, 3, 7]));
  f.set(t[0], halves(v[0], v[1]));
  f.set(t[1], halves(v[2], v[3]));
  f.set(total, op('f32x4.add', shuffle32(t[0], t[1], [0, 1, 4, 5]), shuffle32(t[0], t[1], [2, 3, 6, 7])));
  return total;
}

/** (0 + 2) + (1 + 3). */
export function sumOfLanes(f: FunctionBuilder, v: Local): Value {
  const pair = f.local('v128');
  f.set(pair, op('f32x4.add', v, shuffle32(v, v, [2, 3, 0, 1])));
  return op('f32.add', laneOp('f32x4.extract_lane', 0, pair), laneOp('f32x4.extract_lane', 1, pair));
}
