// The loops of matrix multiplication as WebAssembly: packing, the 4x8 tile on packed panels, and two loops that need no packing
// (`direct` where rows of B are contiguous, `dot` where both operands are contiguous along k). Which one a shape takes, and in what
// blocks, is decided in gemm.ts, not here. All strides and pointers are in bytes.
//
// Inner loops are not unrolled: V8 moves all loads of a block to its front, so unrolled steps spill registers. A step's loads and
// accumulators together must fit the 15 vector registers it has; 4x8 does (42 GFLOP/s plain, 53 fused on a Zen 4 core, 28 when
// unrolled by two); 5x8, 6x8 and 4x12 do not (27 to 39).

import {
  call, f32x4Const, laneOp, load, ModuleBuilder, op, select, shuffle32, type FunctionBuilder, type Local, type Value, type WasmFunction,
} from './assembler.js';

/** Rows and columns of the packed tile. */
export const tileRows = 4;
export const tileColumns = 8;
/** Rows that `direct` and `dot` take at a time, at most. */
export const directRows = 4;
export const dotRows = 2;

/** Rows of packed A that are gone over for each panel of B: together they stay in the second-level cache. */
const mBlock = 128;

/** Scratch of `packed`: a tile, and panels of B. */
export const scratchBytes = (kStep: number, n: number): number => 4 * tileRows * tileColumns + 4 * kStep * tileColumns * Math.ceil(n / tileColumns);

/** The exports of the module, with their parameters; addresses and strides in bytes, strides named after the axis they step along. */
export interface GemmKernels {
  /**
   * (from, panelStride, kStride, to, k, count): panels of 4 along one axis, the last one zero-padded:
   * to[panel][k][i] = from[(4 panel + i) panelStride + k kStride].
   */
  pack4: WasmFunction;
  /**
   * (a, aStep, row, b, bColumn, bK, c, cRow, cColumn, m, n, k, kStep, accumulate, scratch): c (+)= a b with b packed here, `kStep` along k at a time,
   * in `scratch` (`scratchBytes` of it). `a` holds packed panels for the first kStep, aStep further for the next; those of `row`, the first row
   * of c, lie 4 row K further where a block is K long. k > 0.
   */
  packed: WasmFunction;
  /**
   * (a, aRow, aK, b, bK, c, cRow, m, n, k, kStep, far): c = a b where columns of b and c are 4 bytes apart, `kStep` along k at a time; where
   * b is `far`, it is swept over first.
   */
  direct: WasmFunction;
  /** (a, aRow, b, bColumn, c, cRow, cColumn, m, n, k, far): c = a b where steps along k are 4 bytes in a and b. */
  dot: WasmFunction;
  /** (a, b, bColumn, c, cColumn, n, k): c[n] = a[k] b[k, n] likewise, reading b in one sweep: for products that wait for memory. */
  matvec: WasmFunction;
  /** (t, tRow, c, cRow, cColumn, m, n, accumulate): c[i cRow + j cColumn] (+)= t[i tRow + 4 j] */
  scatter: WasmFunction;
}

type Madd = (a: Value, b: Value, sum: Value) => Value;

export function buildGemmModule(options: { relaxed: boolean; shared: boolean }): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder({ memory: { shared: options.shared } });
  const madd: Madd = options.relaxed
    ? (a, b, sum) => op('f32x4.relaxed_madd', a, b, sum)
    : (a, b, sum) => op('f32x4.add', sum, op('f32x4.mul', a, b));
  pack(m, 4);
  const scatter = emitScatter(m);
  packed(m, pack(m, 8), packedBlock(m, tile(m, madd), scatter));
  const sweep = touch(m);
  directBlocks(m, Array.from({ length: directRows }, (_, i) => direct(m, madd, i + 1)), sweep);
  dotBlock(m, Array.from({ length: dotRows }, (_, i) => dot(m, madd, i + 1)), sweep);
  matvec(m, madd);
  return m.bytes();
}

function pack(m: ModuleBuilder, width: 4 | 8): FunctionBuilder {
  const f = m.function(`pack${width}`, { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [from, panelStride, kStride, to, k, count] = f.params;
  const [panel, step, at, into, row, left] = f.localArray('i32', 6);
  const step4 = f.local('i32');
  const rows = f.localArray('i32', 4);
  const vectors = f.localArray('v128', 4);
  f.set(step4, op('i32.mul', kStride, 4));

  const contiguousPanel = (): void => {
    f.set(at, from);
    f.loop(step, k, 1, () => {
      for (let i = 0; i < width; i += 4) f.store('v128.store', to, load('v128.load', at, 4 * i), 4 * i);
      f.add(to, 4 * width);
      f.add(at, kStride);
    });
  };
  /** Four rows of the panel at a time, transposed where they are contiguous along k. */
  const stridedPanel = (): void => {
    for (let group = 0; group < width; group += 4) {
      f.set(rows[0], group === 0 ? from : op('i32.add', rows[3], panelStride));
      for (let i = 1; i < 4; i++) f.set(rows[i], op('i32.add', rows[i - 1], panelStride));
      f.set(into, op('i32.add', to, 4 * group));
      f.set(step, 0);
      const restart = f.local('i32');
      f.set(restart, rows[3]);
      f.if(op('i32.eq', kStride, 4), () => {
        f.loop(step, op('i32.and', k, -4), 4, () => {
          vectors.forEach((v, i) => f.set(v, load('v128.load', rows[i])));
          transpose4(f, vectors);
          vectors.forEach((v, i) => f.store('v128.store', into, v, 4 * width * i));
          f.add(into, 16 * width);
          rows.forEach(r => f.add(r, 16));
        });
      });
      f.loop(step, k, 1, () => {
        rows.forEach((r, i) => f.store('i32.store', into, load('i32.load', r), 4 * i));
        f.add(into, 4 * width);
        rows.forEach(r => f.add(r, kStride));
      });
      f.set(rows[3], restart);
    }
    f.add(to, op('i32.mul', k, 4 * width));
  };
  const lastPanel = (): void => {
    f.fill(to, 0, op('i32.mul', k, 4 * width));
    f.set(row, 0);
    f.loop(row, left, 1, () => {
      f.set(at, from);
      f.set(into, op('i32.add', to, op('i32.mul', row, 4)));
      f.set(step, 0);
      f.loop(step, k, 1, () => {
        f.store('i32.store', into, load('i32.load', at));
        f.add(into, 4 * width);
        f.add(at, kStride);
      });
      f.add(from, panelStride);
    });
  };

  f.loop(panel, count, width, () => {
    f.set(left, op('i32.sub', count, panel));
    f.set(step, 0);
    f.if(op('i32.lt_u', left, width), lastPanel, () => {
      f.if(op('i32.eq', panelStride, 4), contiguousPanel, stridedPanel);
      f.add(from, op('i32.mul', panelStride, width));
    });
  });
  return f;
}

/** Transposes four vectors in place. */
export function transpose4(f: FunctionBuilder, v: readonly Local[]): void {
  const t = f.localArray('v128', 4);
  f.set(t[0], shuffle32(v[0], v[1], [0, 4, 1, 5]));
  f.set(t[1], shuffle32(v[0], v[1], [2, 6, 3, 7]));
  f.set(t[2], shuffle32(v[2], v[3], [0, 4, 1, 5]));
  f.set(t[3], shuffle32(v[2], v[3], [2, 6, 3, 7]));
  f.set(v[0], shuffle32(t[0], t[2], [0, 1, 4, 5]));
  f.set(v[1], shuffle32(t[0], t[2], [2, 3, 6, 7]));
  f.set(v[2], shuffle32(t[1], t[3], [0, 1, 4, 5]));
  f.set(v[3], shuffle32(t[1], t[3], [2, 3, 6, 7]));
}

/** c[4, 8] (+)= one panel of a times one of b; rows of c are cRow apart. */
function tile(m: ModuleBuilder, madd: Madd): FunctionBuilder {
  const f = m.function('tile', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] }, { exported: false });
  const [a, b, k, c, cRow, accumulate] = f.params;
  const end = f.local('i32');
  const sums = Array.from({ length: tileRows }, () => f.localArray('v128', 2));
  const x = f.local('v128');
  const y = f.localArray('v128', 2);
  f.set(end, op('i32.add', a, op('i32.mul', k, 4 * tileRows)));
  f.repeat(again => {
    y.forEach((v, j) => f.set(v, load('v128.load', b, 16 * j)));
    sums.forEach((row, i) => {
      f.set(x, load('v128.load32_splat', a, 4 * i));
      row.forEach((sum, j) => f.set(sum, madd(x, y[j], sum)));
    });
    f.add(b, 4 * tileColumns);
    f.branchIf(again, op('i32.ne', f.tee(a, op('i32.add', a, 4 * tileRows)), end));
  });
  const store = (add: boolean) => (): void => {
    sums.forEach((row, i) => {
      row.forEach((sum, j) => f.store('v128.store', c, add ? op('f32x4.add', load('v128.load', c, 16 * j), sum) : sum, 16 * j));
      if (i < tileRows - 1) f.add(c, cRow);
    });
  };
  f.if(accumulate, store(true), store(false));
  return f;
}

function emitScatter(m: ModuleBuilder): FunctionBuilder {
  const f = m.function('scatter', { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [t, tRow, c, cRow, cColumn, rows, columns, accumulate] = f.params;
  const [i, j, from, to] = f.localArray('i32', 4);
  const sum = f.local('f32');
  f.loop(i, rows, 1, () => {
    f.set(from, t);
    f.set(to, c);
    f.set(j, 0);
    f.loop(j, columns, 1, () => {
      f.set(sum, load('f32.load', from));
      f.if(accumulate, () => f.set(sum, op('f32.add', load('f32.load', to), sum)));
      f.store('f32.store', to, sum);
      f.add(from, 4);
      f.add(to, cColumn);
    });
    f.add(t, tRow);
    f.add(c, cRow);
  });
  return f;
}

const words = (count: number): 'i32'[] => new Array<'i32'>(count).fill('i32');

const smaller = (a: Value, most: Value | number): Value => select(a, most, op('i32.lt_u', a, most));

/** The packed loop for all of k, with B packed on the way. */
function packed(m: ModuleBuilder, packB: FunctionBuilder, block: FunctionBuilder): void {
  const f = m.function('packed', { params: words(15), results: [] });
  const [a, aStep, row, b, bColumn, bK, c, cRow, cColumn, rows, columns, k, kStep, accumulate, scratch] = f.params;
  const [k0, length, i, panels] = f.localArray('i32', 4);
  f.set(panels, op('i32.add', scratch, 4 * tileRows * tileColumns));
  f.repeat(again => {
    f.set(length, op('i32.sub', k, k0));
    f.set(length, smaller(length, kStep));
    f.do(call(packB, b, bColumn, bK, panels, length, columns));
    f.set(i, 0);
    f.loop(i, rows, mBlock, () => {
      const at = op('i32.add', a, op('i32.mul', op('i32.mul', length, op('i32.add', row, i)), 4));
      const to = op('i32.add', c, op('i32.mul', cRow, i));
      f.do(call(block, at, panels, to, cRow, cColumn, smaller(op('i32.sub', rows, i), mBlock), columns, length, accumulate, scratch));
    });
    f.set(accumulate, 1);
    f.add(a, aStep);
    f.add(b, op('i32.mul', bK, kStep));
    f.branchIf(again, op('i32.lt_u', f.tee(k0, op('i32.add', k0, kStep)), k));
  });
}

/** c (+)= packed a times packed b; `edge` is 128 bytes of scratch. k > 0. */
function packedBlock(m: ModuleBuilder, tileOf: FunctionBuilder, scatter: FunctionBuilder): FunctionBuilder {
  const f = m.function('packedBlock', { params: words(10), results: [] }, { exported: false });
  const [a, b, c, cRow, cColumn, rows, columns, k, accumulate, edge] = f.params;
  const [i, j, aPanel, cTile, rowsLeft, columnsLeft] = f.localArray('i32', 6);
  f.loop(j, columns, tileColumns, () => {
    f.set(columnsLeft, op('i32.sub', columns, j));
    f.set(aPanel, a);
    f.set(cTile, c);
    f.set(i, 0);
    f.loop(i, rows, tileRows, () => {
      f.set(rowsLeft, op('i32.sub', rows, i));
      const whole = op('i32.and', op('i32.ge_u', rowsLeft, tileRows), op('i32.ge_u', columnsLeft, tileColumns));
      f.if(op('i32.and', whole, op('i32.eq', cColumn, 4)), () => {
        f.do(call(tileOf, aPanel, b, k, cTile, cRow, accumulate));
      }, () => {
        f.do(call(tileOf, aPanel, b, k, edge, 4 * tileColumns, 0));
        const [height, width] = [smaller(rowsLeft, tileRows), smaller(columnsLeft, tileColumns)];
        f.do(call(scatter, edge, 4 * tileColumns, cTile, cRow, cColumn, height, width, accumulate));
      });
      f.add(aPanel, op('i32.mul', k, 4 * tileRows));
      f.add(cTile, op('i32.mul', cRow, tileRows));
    });
    f.add(b, op('i32.mul', k, 4 * tileColumns));
    f.add(c, op('i32.mul', cColumn, tileColumns));
  });
  return f;
}

/** Runs `body` for as many rows at a time as there are functions, then for the rest with the function that fits. */
function eachRows(f: FunctionBuilder, rows: Local, functions: readonly FunctionBuilder[], body: (run: FunctionBuilder, count: number) => void): void {
  const [i, whole] = f.localArray('i32', 2);
  const most = functions.length;
  f.set(whole, op('i32.and', rows, -most));
  f.set(i, 0);
  f.loop(i, whole, most, () => body(functions[most - 1], most));
  for (let rest = 1; rest < most; rest++) f.if(op('i32.eq', op('i32.sub', rows, whole), rest), () => body(functions[rest - 1], rest));
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

/** c[R, n] (+)= a[R, k] b[k, n] for a fixed R. Strips of columns from wide to narrow; the last, of one column, works in lane 0. */
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
      f.if(accumulate, start((i, j) => load(loadName, atC[i], 16 * j)), start(() => f32x4Const(0)));
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
      sums.forEach((row, i) => row.forEach((sum, j) => {
        if (single) f.storeLane('v128.store32_lane', 0, atC[i], sum);
        else f.store('v128.store', atC[i], sum, 16 * j);
      }));
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
          f.if(op('i32.eq', cColumn, 4), () => f.store('v128.store', atC, total), () => {
            f.set(lane, atC);
            for (let j = 0; j < 4; j++) {
              f.storeLane('v128.store32_lane', j, lane, total);
              f.add(lane, cColumn);
            }
          });
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
    for (let i = 0; i < vectors; i++) f.set(sums[i], madd(load(loadName, atA, 16 * i), load(loadName, atB, 16 * i), sums[i]));
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

/** Reads one word of each cache line, so that what follows finds them near: touch(from, rowStride, rowBytes, rows). The result has no meaning. */
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
  const halves = (x: Local, y: Local): Value => op('f32x4.add', shuffle32(x, y, [0, 4, 1, 5]), shuffle32(x, y, [2, 6, 3, 7]));
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
