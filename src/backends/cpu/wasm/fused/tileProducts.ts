// Products of the small matrices attention works on, as WASM functions to be called from others: C = A B for any strides of A, rows of B
// dotted with a vector, and a transposing copy. Nothing is packed; large products are gemm.ts's business.

import { load, op, shuffle32, type FunctionBuilder, type Local, type ModuleBuilder, type Value } from '../assembler.js';
import { hold, multiplyAdd, splat, sumsOfFour } from '../lanes.js';

const words = (count: number): 'i32'[] => new Array<'i32'>(count).fill('i32');

/** Runs `body` in blocks of the given sizes, the largest first, up to `limit`. */
function inBlocks(f: FunctionBuilder, counter: Local, limit: Local, sizes: readonly number[], body: (size: number) => void): void {
  const whole = f.local('i32');
  f.set(counter, 0);
  for (const size of sizes) {
    f.set(whole, op('i32.and', limit, -size));
    f.loop(counter, whole, size, () => body(size));
  }
}

/**
 * product(a, aRow, aColumn, b, bRow, c, cRow, M, N, K, accumulate): C [M, N] = A [M, K] B [K, N], or C += A B. Strides in bytes; the
 * columns of B and C are dense.
 */
export function addProduct(m: ModuleBuilder, relaxed: boolean): FunctionBuilder {
  const f = m.function('product', { params: words(11), results: [] }, { exported: false });
  const [a, aRow, aColumn, b, bRow, c, cRow, M, N, K, accumulate] = f.params;
  const madd = multiplyAdd(relaxed);
  const [i, j, k, bAt] = f.localArray('i32', 4);
  const block = (rows: number, width: number): void => {
    const vectors = Math.max(1, width / 4);
    const aAt = f.localArray('i32', rows);
    const cAt = f.localArray('i32', rows);
    const sums = aAt.map(() => f.localArray('v128', vectors));
    const loadColumns = (at: Local, v: number): Value => load(width === 1 ? 'v128.load32_splat' : 'v128.load', at, 16 * v);
    for (let r = 0; r < rows; r++) {
      f.set(aAt[r], r === 0 ? op('i32.add', a, op('i32.mul', i, aRow)) : op('i32.add', aAt[r - 1], aRow));
      f.set(cAt[r], r === 0 ? op('i32.add', op('i32.add', c, op('i32.mul', i, cRow)), op('i32.mul', j, 4)) : op('i32.add', cAt[r - 1], cRow));
    }
    f.if(accumulate, () => {
      for (let r = 0; r < rows; r++) sums[r].forEach((sum, v) => f.set(sum, loadColumns(cAt[r], v)));
    }, () => {
      for (const sum of sums.flat()) f.set(sum, splat(0));
    });
    f.set(bAt, op('i32.add', b, op('i32.mul', j, 4)));
    f.set(k, 0);
    f.loop(k, K, 1, () => {
      const columns = Array.from({ length: vectors }, (_, v) => hold(f, loadColumns(bAt, v)));
      for (let r = 0; r < rows; r++) {
        const factor = hold(f, load('v128.load32_splat', aAt[r]));
        sums[r].forEach((sum, v) => f.set(sum, madd(factor, columns[v], sum)));
        f.add(aAt[r], aColumn);
      }
      f.add(bAt, bRow);
    });
    for (let r = 0; r < rows; r++) {
      sums[r].forEach((sum, v) => {
        if (width === 1) f.storeLane('v128.store32_lane', 0, cAt[r], sum);
        else f.store('v128.store', cAt[r], sum, 16 * v);
      });
    }
  };
  inBlocks(f, j, N, [8, 4, 1], width => inBlocks(f, i, M, [4, 1], rows => block(rows, width)));
  return f;
}

/** dots(a, b, bRow, c, N, K): c [N] = B [N, K] a [K], rows of B `bRow` bytes apart. */
export function addDots(m: ModuleBuilder, relaxed: boolean): FunctionBuilder {
  const f = m.function('dots', { params: words(6), results: [] }, { exported: false });
  const [a, b, bRow, c, N, K] = f.params;
  const madd = multiplyAdd(relaxed);
  const [j, k, aAt, whole] = f.localArray('i32', 4);
  f.set(whole, op('i32.and', K, -4));
  inBlocks(f, j, N, [4, 1], rows => {
    const sums = f.localArray('v128', 4);
    const bAt = f.localArray('i32', rows);
    for (const sum of sums) f.set(sum, splat(0));
    bAt.forEach((at, r) => f.set(at, r === 0 ? b : op('i32.add', bAt[r - 1], bRow)));
    f.set(aAt, a);
    f.set(k, 0);
    for (const width of [4, 1]) {
      const name = width === 4 ? 'v128.load' : 'v128.load32_zero';
      f.loop(k, width === 4 ? whole : K, width, () => {
        const factor = hold(f, load(name, aAt));
        bAt.forEach((at, r) => {
          f.set(sums[r], madd(factor, load(name, at), sums[r]));
          f.add(at, 4 * width);
        });
        f.add(aAt, 4 * width);
      });
    }
    const totals = hold(f, sumsOfFour(f, sums));
    if (rows === 4) f.store('v128.store', c, totals);
    else f.storeLane('v128.store32_lane', 0, c, totals);
    f.add(c, 4 * rows);
    f.add(b, op('i32.mul', bRow, rows));
  });
  return f;
}

/** transpose(from, fromRow, to, toRow, N, K): to [K, N] = from [N, K] turned, row strides in bytes. */
export function addTranspose(m: ModuleBuilder): FunctionBuilder {
  const f = m.function('transpose', { params: words(6), results: [] }, { exported: false });
  const [from, fromRow, to, toRow, N, K] = f.params;
  const [n, k] = f.localArray('i32', 2);
  inBlocks(f, n, N, [4, 1], rows => {
    const source = f.localArray('i32', rows);
    const target = f.local('i32');
    source.forEach((at, r) => f.set(at, r === 0 ? op('i32.add', from, op('i32.mul', n, fromRow)) : op('i32.add', source[r - 1], fromRow)));
    f.set(target, op('i32.add', to, op('i32.mul', n, 4)));
    inBlocks(f, k, K, rows === 4 ? [4, 1] : [1], width => {
      if (width === 4) {
        const [a, b, c, d] = source.map(at => hold(f, load('v128.load', at)));
        const [ab, cd] = [hold(f, shuffle32(a, b, [0, 4, 1, 5])), hold(f, shuffle32(c, d, [0, 4, 1, 5]))];
        const [abHigh, cdHigh] = [hold(f, shuffle32(a, b, [2, 6, 3, 7])), hold(f, shuffle32(c, d, [2, 6, 3, 7]))];
        const turned = [
          shuffle32(ab, cd, [0, 1, 4, 5]), shuffle32(ab, cd, [2, 3, 6, 7]), shuffle32(abHigh, cdHigh, [0, 1, 4, 5]), shuffle32(abHigh, cdHigh, [2, 3, 6, 7]),
        ];
        for (const row of turned) {
          f.store('v128.store', target, row);
          f.add(target, toRow);
        }
      } else {
        source.forEach((at, r) => f.store('i32.store', target, load('i32.load', at), 4 * r));
        f.add(target, toRow);
      }
      for (const at of source) f.add(at, 4 * width);
    });
  });
  return f;
}
