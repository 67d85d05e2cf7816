// The loops of matrix multiplication as WebAssembly: packing and the 4x8 tile on packed panels; those that need no packing are in
// gemmUnpacked.ts. Which one a shape takes, and in what blocks, is decided in gemm.ts, not here. All strides and pointers are in bytes.
//
// Inner loops are not unrolled: V8 moves all loads of a block to its front, so unrolled steps spill registers. A step's loads and
// accumulators together must fit the 15 vector registers it has; 4x8 does (42 GFLOP/s plain, 53 fused on a Zen 4 core, 28 when
// unrolled by two); 5x8, 6x8 and 4x12 do not (27 to 39).

import { call, load, ModuleBuilder, op, shuffle32, type FunctionBuilder, type Local, type WasmFunction } from './assembler.js';
import { addUnpacked, smaller, words, type Madd } from './gemmUnpacked.js';

/** Rows and columns of the packed tile. */
export const tileRows = 4;
export const tileColumns = 8;

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

export function buildGemmModule(options: { relaxed: boolean; shared: boolean }): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder({ memory: { shared: options.shared } });
  const madd: Madd = options.relaxed
    ? (a, b, sum) => op('f32x4.relaxed_madd', a, b, sum)
    : (a, b, sum) => op('f32x4.add', sum, op('f32x4.mul', a, b));
  pack(m, 4);
  const scatter = emitScatter(m);
  packed(m, pack(m, 8), packedBlock(m, tile(m, madd), scatter));
  addUnpacked(m, madd);
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
