// Products for a few rows, as WASM functions to be called from others: C = A B, and rows of B dotted with a vector.
// Nothing is packed: that is panelProducts.ts.

import { load, op, type FunctionBuilder, type Local, type ModuleBuilder, type Value } from '../emit/assembler.js';
import { words } from '../products/gemmUnpacked.js';
import { hold, multiplyAdd, splat, sumsOfFour } from '../emit/lanes.js';

/** Runs `body` in blocks of the given sizes, the largest first, up to `limit`. */
function inBlocks(
  f: FunctionBuilder,
  counter: Local,
  limit: Local,
  sizes: readonly number[],
  body: (size: number) => void,
): void {
  const whole = f.local('i32');
  f.set(counter, 0);
  for (const size of sizes) {
    f.set(whole, op('i32.and', limit, -size));
    f.loop(counter, whole, size, () => body(size));
  }
}

/** product(a, aRow, b, bRow, c, cRow, M, N, K): C [M, N] = A [M, K] B [K, N]. Strides in bytes; columns are dense. */
export function addProduct(m: ModuleBuilder, relaxed: boolean): FunctionBuilder {
  const f = m.function('product', { params: words(9), results: [] }, { exported: false });
  const [a, aRow, b, bRow, c, cRow, M, N, K] = f.params;
  const madd = multiplyAdd(relaxed);
  const [i, j, k, bAt] = f.localArray('i32', 4);
  const block = (rows: number, width: number): void => {
    const vectors = Math.max(1, width / 4);
    const aAt = f.localArray('i32', rows);
    const cAt = f.localArray('i32', rows);
    const sums = aAt.map(() => f.localArray('v128', vectors));
    const loadColumns = (at: Local, v: number): Value =>
      load(width === 1 ? 'v128.load32_splat' : 'v128.load', at, 16 * v);
    for (let r = 0; r < rows; r++) {
      f.set(aAt[r], r === 0 ? op('i32.add', a, op('i32.mul', i, aRow)) : op('i32.add', aAt[r - 1], aRow));
      f.set(
        cAt[r],
        r === 0
          ? op('i32.add', op('i32.add', c, op('i32.mul', i, cRow)), op('i32.mul', j, 4))
          : op('i32.add', cAt[r - 1], cRow),
      );
    }
    for (const sum of sums.flat()) f.set(sum, splat(0));
    f.set(bAt, op('i32.add', b, op('i32.mul', j, 4)));
    f.set(k, 0);
    f.loop(k, K, 1, () => {
      const columns = Array.from({ length: vectors }, (_, v) => hold(f, loadColumns(bAt, v)));
      for (let r = 0; r < rows; r++) {
        const factor = hold(f, load('v128.load32_splat', aAt[r]));
        sums[r].forEach((sum, v) => f.set(sum, madd(factor, columns[v], sum)));
        f.add(aAt[r], 4);
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
