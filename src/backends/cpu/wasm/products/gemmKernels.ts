// The loops of matrix multiplication as WebAssembly: packing and the tile on packed panels; those that need no packing
// are in gemmUnpacked.ts. Which one a shape takes, and in what blocks, is decided in gemm.ts, not here. All strides and
// pointers are in bytes.
//
// V8 (before Turboshaft) moves all loads of a block of code to its front, and a step's loads and accumulators together
// must fit the 15 vector registers it has. A step of 4x8 does, one of 5x8 only if it is several blocks: see `emitTile`.
// On a Zen 5 core whose registers allow 68.7 GFLOP/s, panels in the first-level cache: 5x8 65 to 66, 4x8 62.5, 6x8 63
// to 65, 3x12 63.5; 5x8 as one block 27. Where multiply and add are two instructions: 4x8 60 to 63, 5x8 52 to 56.

import {
  call,
  constant,
  f32x4Const,
  load,
  ModuleBuilder,
  op,
  select,
  shuffle32,
  type FunctionBuilder,
  type Local,
  type WasmFunction,
} from '../emit/assembler.js';
import type { Program } from '../../../../tensor/expr.js';
import { addEpilogue, epilogueWords, rowsOfOperands } from './epilogue.js';
import { weightSource, type PanelSource, type WeightPanels } from './gemmWeights.js';
import { multiplyAdd } from '../emit/lanes.js';
import { addUnpacked, smaller, words, type Madd } from './gemmUnpacked.js';

/** Columns of the packed tile, and its rows: what registers hold. */
export const tileColumns = 8;
export const tileRowsOf = (relaxed: boolean): number => (relaxed ? 5 : 4);

/**
 * Rows of packed A that are gone over for each panel of B: together they stay in the second-level cache. Whole tiles of
 * 4 and of 5.
 */
const mBlock = 140;

const tileBytes = 4 * 5 * tileColumns;

/** Scratch of `packed`: a tile, and panels of B. */
export const scratchBytes = (kStep: number, n: number): number =>
  tileBytes + 4 * kStep * tileColumns * Math.ceil(n / tileColumns);

/**
 * The exports of the module, with their parameters; addresses and strides in bytes, strides named after the axis they
 * step along.
 */
export interface GemmKernels {
  /**
   * (from, panelStride, kStride, to, k, count): panels of as many rows as a tile has along one axis, the last one
   * zero-padded: to[panel][k][i] = from[(rows panel + i) panelStride + k kStride].
   */
  packA: WasmFunction;
  /**
   * (a, aStep, row, b, bColumn, bK, c, cRow, cColumn, m, n, k, kStep, accumulate, scratch): c (+)= a b with b packed
   * here, `kStep` along k at a time, in `scratch` (`scratchBytes` of it). `a` holds packed panels for the first kStep,
   * aStep further for the next; those of `row`, the first row of c, lie 4 row K further where a block is K long. k > 0.
   * Before `scratch` come two words more where B is weights (gemmWeights.ts), then, in a module with an epilogue,
   * `last` (here ends k) and the epilogue's arguments.
   */
  packed: WasmFunction;
  /**
   * (a, aRow, aK, b, bK, c, cRow, m, n, k, kStep, far): c = a b where columns of b and c are 4 bytes apart, `kStep`
   * along k at a time; where b is `far`, it is swept over first.
   */
  direct: WasmFunction;
  /** (a, aRow, b, bColumn, c, cRow, cColumn, m, n, k, far): c = a b where steps along k are 4 bytes in a and b. */
  dot: WasmFunction;
  /**
   * (a, b, bColumn, c, cColumn, n, k): c[n] = a[k] b[k, n] likewise, reading b in one sweep: for products that wait for
   * memory.
   */
  matvec: WasmFunction;
  /** (t, tRow, c, cRow, cColumn, m, n, accumulate): c[i cRow + j cColumn] (+)= t[i tRow + 4 j] */
  scatter: WasmFunction;
}

/** All loops; or, for an epilogue or for quantised weights as B, `packed` and `epilogue` alone. */
export function buildGemmModule(options: {
  relaxed: boolean;
  shared: boolean;
  epilogue?: Program;
  weights?: WeightPanels;
}): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder({ memory: { shared: options.shared } });
  const madd: Madd = options.relaxed
    ? (a, b, sum) => op('f32x4.relaxed_madd', a, b, sum)
    : (a, b, sum) => op('f32x4.add', sum, op('f32x4.mul', a, b));
  const tiles = Array.from({ length: tileRowsOf(options.relaxed) }, (_, i) => addTiles(m, i + 1, options.relaxed));
  const block = packedBlock(m, tiles, emitScatter(m));
  const { relaxed, epilogue, weights } = options;
  const source = weights ? weightSource(m, weights, madd) : rowsAndColumns(pack(m, 'packB', tileColumns));
  packed(m, source, block, epilogue && { code: addEpilogue(m, epilogue, relaxed), words: epilogueWords(epilogue) });
  if (weights || epilogue) return m.bytes();
  pack(m, 'packA', tileRowsOf(relaxed));
  addUnpacked(m, madd);
  return m.bytes();
}

export function pack(m: ModuleBuilder, name: string, width: number): FunctionBuilder {
  const f = m.function(name, { params: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], results: [] });
  const [from, panelStride, kStride, to, k, count] = f.params;
  const [panel, step, at, into, row, left] = f.localArray('i32', 6);
  const rows = f.localArray('i32', 4);
  const vectors = f.localArray('v128', 4);

  /** `together` panels in one pass: those of eight share the cache lines they are read from. */
  const contiguousPanels = (together: number): void => {
    const targets = [to, ...f.localArray('i32', together - 1)];
    targets.slice(1).forEach((t, i) => f.set(t, op('i32.add', targets[i], op('i32.mul', k, 4 * width))));
    f.set(at, from);
    f.loop(step, k, 1, () => {
      targets.forEach((t, q) => {
        for (let i = 0; i + 4 <= width; i += 4)
          f.store('v128.store', t, load('v128.load', at, 4 * (q * width + i)), 4 * i);
        for (let i = width & -4; i < width; i++)
          f.store('i32.store', t, load('i32.load', at, 4 * (q * width + i)), 4 * i);
        f.add(t, 4 * width);
      });
      f.add(at, kStride);
    });
    f.set(to, targets[together - 1]);
    f.add(from, 4 * width * together);
    f.add(panel, width * (together - 1));
  };
  /**
   * Up to four rows of the panel at a time, four of their elements at a time where those are contiguous along k:
   * transposed, or lane by lane.
   */
  const stridedPanel = (): void => {
    const [restart, ahead] = f.localArray('i32', 2);
    for (let group = 0; group < width; group += 4) {
      const own = rows.slice(0, Math.min(4, width - group));
      own.forEach((r, i) =>
        f.set(
          r,
          i > 0 ? op('i32.add', own[i - 1], panelStride) : group === 0 ? from : op('i32.add', restart, panelStride),
        ),
      );
      f.set(into, op('i32.add', to, 4 * group));
      f.set(step, 0);
      f.set(restart, own[own.length - 1]);
      // The rows that are next are read once here, so that they are near by then.
      f.set(ahead, select(op('i32.mul', panelStride, 4), constant('i32', 0), op('i32.ge_u', left, group + 8)));
      f.if(op('i32.eq', kStride, 4), () => {
        f.loop(step, op('i32.and', k, -4), 4, () => {
          own.forEach((r, i) => f.set(vectors[i], load('v128.load', r)));
          own.forEach(r => f.do(load('i32.load', op('i32.add', r, ahead))));
          if (own.length === 4) {
            transpose4(f, vectors);
            vectors.forEach((v, i) => f.store('v128.store', into, v, 4 * width * i));
          } else
            own.forEach((_, i) => {
              for (let q = 0; q < 4; q++) f.storeLane('v128.store32_lane', q, into, vectors[i], 4 * width * q + 4 * i);
            });
          f.add(into, 16 * width);
          own.forEach(r => f.add(r, 16));
        });
      });
      f.loop(step, k, 1, () => {
        own.forEach((r, i) => f.store('i32.store', into, load('i32.load', r), 4 * i));
        f.add(into, 4 * width);
        own.forEach(r => f.add(r, kStride));
      });
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
      f.if(
        op('i32.eq', panelStride, 4),
        () => {
          if (width % 8 > 0) contiguousPanels(1);
          else
            f.if(
              op('i32.ge_u', left, 2 * width),
              () => contiguousPanels(2),
              () => contiguousPanels(1),
            );
        },
        () => {
          stridedPanel();
          f.add(from, op('i32.mul', panelStride, width));
        },
      );
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

/**
 * tilesN(a, aPanel, b, c, cRow, rows, k, accumulate): c[rows, 8] (+)= panels of a, `aPanel` apart, times one of b, by
 * tiles of `height` of a panel's rows, of which `rows` is a multiple. All in one function: a call for each tile costs 9
 * % where k is 64.
 */
export function addTiles(m: ModuleBuilder, height: number, relaxed: boolean): FunctionBuilder {
  const f = m.function(`tiles${height}`, { params: words(8), results: [] }, { exported: false });
  const [a, aPanel, b, c, cRow, rows, k, accumulate] = f.params;
  const [i, atA, atB] = f.localArray('i32', 3);
  const sums = Array.from({ length: height }, () => f.localArray('v128', 2));
  f.loop(i, rows, height, () => {
    for (const sum of sums.flat()) f.set(sum, f32x4Const(0));
    f.set(atA, a);
    f.set(atB, b);
    // Where multiply-add is one instruction a tile of 5 rows, in parts of 2, is the fastest; else one of 4 as it is.
    emitTile(
      f,
      [atA, atB, k, c, cRow, accumulate],
      sums,
      tileRowsOf(relaxed),
      relaxed ? 2 : height,
      multiplyAdd(relaxed),
    );
    f.add(c, cRow);
    f.add(a, aPanel);
  });
  return f;
}

/**
 * One tile, on a, b, k, c, cRow and accumulate, of which a, b and c are moved: as many rows as `sums`, which must be
 * zeros, of a panel of `panelRows`. A step is cut, every `together` rows, by branches that are never taken and would
 * change the sums so far: these must then be there before the loads that follow, which are thus not moved to the front.
 */
function emitTile(
  f: FunctionBuilder,
  [a, b, k, c, cRow, accumulate]: readonly Local[],
  sums: readonly Local[][],
  panelRows: number,
  together: number,
  madd: Madd,
): void {
  const rows = sums.length;
  const [end, never] = f.localArray('i32', 2);
  const x = f.local('v128');
  const y = f.localArray('v128', 2);
  const all = sums.map((_, i) => i);
  const parts = Array.from({ length: Math.ceil(rows / together) }, (_, p) =>
    all.slice(p * together, (p + 1) * together),
  );
  f.set(end, op('i32.add', a, op('i32.mul', k, 4 * panelRows)));
  f.set(never, op('i32.eqz', k));
  f.repeat(again => {
    y.forEach((v, j) => f.set(v, load('v128.load', b, 16 * j)));
    parts.forEach((part, p) => {
      for (const i of part) {
        f.set(x, load('v128.load32_splat', a, 4 * i));
        sums[i].forEach((sum, j) => f.set(sum, madd(x, y[j], sum)));
      }
      if (p < parts.length - 1) f.if(never, () => part.forEach(i => sums[i].forEach(sum => f.set(sum, f32x4Const(0)))));
    });
    f.add(b, 4 * tileColumns);
    f.branchIf(again, op('i32.ne', f.tee(a, op('i32.add', a, 4 * panelRows)), end));
  });
  const store = (add: boolean) => (): void => {
    sums.forEach((row, i) => {
      row.forEach((sum, j) =>
        f.store('v128.store', c, add ? op('f32x4.add', load('v128.load', c, 16 * j), sum) : sum, 16 * j),
      );
      if (i < rows - 1) f.add(c, cRow);
    });
  };
  f.if(accumulate, store(true), store(false));
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

/** B as rows and columns of f32. */
const rowsAndColumns = (packB: FunctionBuilder): PanelSource => ({
  moreWords: 0,
  pack: ([b, bColumn, bK], _, to, length, columns) => call(packB, b, bColumn, bK, to, length, columns),
  advance: (f, [b, , bK], _, kStep) => f.add(b, op('i32.mul', bK, kStep)),
});

/**
 * The packed loop for all of k, with B packed on the way; rows are finished where `last` says that no other part of k
 * comes.
 */
function packed(
  m: ModuleBuilder,
  b: PanelSource,
  block: FunctionBuilder,
  epilogue?: { code: FunctionBuilder; words: number },
): void {
  const f = m.function('packed', {
    params: words(15 + b.moreWords + (epilogue ? 1 + epilogue.words : 0)),
    results: [],
  });
  const [a, aStep, row, b0, b1, b2, c, cRow, cColumn, rows, columns, k, kStep, accumulate, ...more] = f.params;
  const scratch = more[more.length - 1];
  const [source, moreOfB] = [[b0, b1, b2], more.slice(0, b.moreWords)];
  const [k0, length, i, panels] = f.localArray('i32', 4);
  f.set(panels, op('i32.add', scratch, tileBytes));
  f.repeat(again => {
    f.set(length, op('i32.sub', k, k0));
    f.set(length, smaller(length, kStep));
    f.do(b.pack(source, moreOfB, panels, length, columns));
    f.set(i, 0);
    f.loop(i, rows, mBlock, () => {
      const at = op('i32.add', a, op('i32.mul', op('i32.mul', length, op('i32.add', row, i)), 4));
      const to = op('i32.add', c, op('i32.mul', cRow, i));
      f.do(
        call(
          block,
          at,
          panels,
          to,
          cRow,
          cColumn,
          smaller(op('i32.sub', rows, i), mBlock),
          columns,
          length,
          accumulate,
          scratch,
        ),
      );
      if (!epilogue) return;
      const [last, ...operands] = more.slice(b.moreWords, -1);
      f.if(op('i32.and', last, op('i32.ge_u', op('i32.add', k0, length), k)), () => {
        f.do(
          call(
            epilogue.code,
            to,
            cRow,
            smaller(op('i32.sub', rows, i), mBlock),
            columns,
            ...rowsOfOperands(operands, i),
          ),
        );
      });
    });
    f.set(accumulate, 1);
    f.add(a, aStep);
    b.advance(f, source, moreOfB, kStep);
    f.branchIf(again, op('i32.lt_u', f.tee(k0, op('i32.add', k0, kStep)), k));
  });
}

/** c (+)= packed a times packed b; `edge` has room for a tile. k > 0. */
function packedBlock(m: ModuleBuilder, tiles: readonly FunctionBuilder[], scatter: FunctionBuilder): FunctionBuilder {
  const f = m.function('packedBlock', { params: words(10), results: [] }, { exported: false });
  const [a, b, c, cRow, cColumn, rows, columns, k, accumulate, edge] = f.params;
  const [i, j, aPanel, cTile, rest, whole, panelBytes, columnsLeft] = f.localArray('i32', 8);
  const tileRows = tiles.length;
  const full = tiles[tileRows - 1];
  f.set(panelBytes, op('i32.mul', k, 4 * tileRows));
  f.set(rest, op('i32.rem_u', rows, tileRows));
  f.set(whole, op('i32.sub', rows, rest));
  f.loop(j, columns, tileColumns, () => {
    f.set(columnsLeft, op('i32.sub', columns, j));
    f.if(
      op('i32.and', op('i32.ge_u', columnsLeft, tileColumns), op('i32.eq', cColumn, 4)),
      () => {
        f.do(call(full, a, panelBytes, b, c, cRow, whole, k, accumulate));
        f.if(rest, () => {
          f.set(aPanel, op('i32.add', a, op('i32.mul', op('i32.div_u', whole, tileRows), panelBytes)));
          f.set(cTile, op('i32.add', c, op('i32.mul', cRow, whole)));
          tiles
            .slice(0, -1)
            .forEach((run, r) =>
              f.if(op('i32.eq', rest, r + 1), () =>
                f.do(call(run, aPanel, panelBytes, b, cTile, cRow, rest, k, accumulate)),
              ),
            );
        });
      },
      () => {
        f.set(aPanel, a);
        f.set(cTile, c);
        f.set(i, 0);
        f.loop(i, rows, tileRows, () => {
          f.do(call(full, aPanel, panelBytes, b, edge, 4 * tileColumns, tileRows, k, 0));
          const [height, width] = [smaller(op('i32.sub', rows, i), tileRows), smaller(columnsLeft, tileColumns)];
          f.do(call(scatter, edge, 4 * tileColumns, cTile, cRow, cColumn, height, width, accumulate));
          f.add(aPanel, panelBytes);
          f.add(cTile, op('i32.mul', cRow, tileRows));
        });
      },
    );
    f.add(b, op('i32.mul', k, 4 * tileColumns));
    f.add(c, op('i32.mul', cColumn, tileColumns));
  });
  return f;
}
