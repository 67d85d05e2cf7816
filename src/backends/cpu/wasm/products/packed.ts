// Packed weights on the CPU: rows by number, rows decoded as a whole, and products. Where x may be rounded, quantised
// weights are multiplied as integers. Else one or two rows of x are multiplied with weights decoded in registers; for
// many, quantised weights are decoded into the panels of the ordinary product; and for the rest pieces of the matrix
// are decoded into a region that the caches hold and go through it.

import {
  halfToFloatTable,
  packedMatrix,
  packedWeightBytes,
  packings,
  type PackedMatrix,
  type Packing,
} from '../../../../tensor/packing.js';
import { isContiguous, sizeOf } from '../../../../tensor/shape.js';
import type { Primitives, View } from '../../../backend.js';
import type { Program } from '../../../../tensor/expr.js';
import { isShared, type WasmContext } from '../context.js';
import { epilogueArguments, epilogueFrom, type WasmEpilogue } from './epilogue.js';
import type { Gemm, WasmView } from './gemm.js';
import { dotScratchBytes, roundedBytes } from './packedDots.js';
import { arrangedBytes, buildPackedModule, type PackedKernels } from './packedKernels.js';
import {
  columnPanelBytes,
  panelsBytes,
  panelsTogether,
  tileColumns,
  tileRows,
  tilesScratchBytes,
} from './packedTiles.js';

/** Rows of x up to which `matvec` for each is faster than decoding for the ordinary product. Measured. */
const fewRows = 2;
/** Rows of x from which decoding straight into panels is faster than first into a piece. Measured. */
const manyRows = 20;
/** Bytes of panels of weights for one tile, and columns of one at least: a cache line of the result. */
const panelsOfTile = 2 ** 18;
const fewColumns = 16;
/**
 * Weights that are decoded at a time: for few rows as many as the second-level cache holds, for many so that x is
 * packed seldom. Measured.
 */
const pieceElements = (rowsOfX: number): number => (rowsOfX < 64 ? 2 ** 18 : 2 ** 20);
/** Columns that a piece should have at least. */
const narrowPiece = 128;
/** Multiply-adds that take as long as decoding a weight. Measured. */
const weightWork = 4;
/**
 * As multiplying a weight as integers, for one row and in tiles, there with putting it in a panel, and as rounding an
 * element of x. Measured.
 */
const integerWork = 1.5;
const tileWork = 0.65;
const panelWork = 2;
const roundingWork = 4;

export interface PackedProducts {
  /** With an epilogue: b transposed, the output [m, n] with dense rows. */
  matmul(call: Omit<Primitives['matmul'], 'epilogue'>, epilogue?: WasmEpilogue): boolean;
  gather(call: Primitives['gather']): boolean;
  unpack(call: Primitives['unpack']): boolean;
}

export function createPacked(context: WasmContext, gemm: Gemm): PackedProducts {
  const { memory, byteOffsetOf, threads } = context;
  const compiled = new Map<string, PackedKernels>();
  const kernelsFor = (packing: Packing, epilogue?: Program): PackedKernels => {
    const key = epilogue ? `${packing} ${epilogue.key}` : packing;
    let kernels = compiled.get(key);
    if (!kernels) {
      const options = { relaxed: context.relaxed, shared: isShared(memory), ...(epilogue && { epilogue }) };
      kernels = threads.link(buildPackedModule(packing, options)) as unknown as PackedKernels;
      compiled.set(key, kernels);
    }
    return kernels;
  };
  let halves = 0;
  /** Where the table of f16 numbers lies. */
  const halvesAt = (): number => {
    if (halves === 0) {
      halves = context.halves(4 * 65536);
      new Float32Array(memory.buffer, halves, 65536).set(halfToFloatTable());
    }
    return halves;
  };
  const firstRow = (view: View, { byteOffset }: PackedMatrix): number =>
    byteOffsetOf({ ...view, offset: 0 }) + byteOffset;

  /**
   * Ranges of rows for the threads, who have so much work in all; at most `most`, and a multiple of `unit` but for the
   * last.
   */
  const tiles = (rows: number, work: number, unit = 1, most = rows): { row: number; count: number }[] => {
    const step = Math.max(1, Math.ceil(Math.min(most, rows / threads.parts(work)) / unit)) * unit;
    return Array.from({ length: Math.ceil(rows / step) }, (_, i) => ({
      row: i * step,
      count: Math.min(step, rows - i * step),
    }));
  };

  /** Columns `column` .. `column + columns` of the rows at `from`, decoded at `to`. */
  const decode = (w: PackedMatrix, from: number, column: number, columns: number, rows: number, to: number): void => {
    const weightBytes = packedWeightBytes(w.packing, w.columns);
    const table = halvesAt();
    threads.run(
      kernelsFor(w.packing).decode,
      tiles(rows, weightWork * rows * columns).map(({ row, count }) => [
        from + row * w.rowBytes,
        w.rowBytes,
        weightBytes,
        column,
        columns,
        count,
        to + 4 * row * columns,
        4 * columns,
        table,
      ]),
    );
  };

  /** c = x W^T for one row of x. */
  const matvec = (w: PackedMatrix, from: number, x: number, c: number): void => {
    const { packing, rows, columns, rowBytes } = w;
    const { arrange, matvec: run } = kernelsFor(packing);
    const weightBytes = packedWeightBytes(packing, columns);
    const table = halvesAt();
    const at = arrange ? context.decoded(arrangedBytes(columns)) : x;
    arrange?.(x, columns, at);
    threads.run(
      run,
      tiles(rows, weightWork * rows * columns).map(({ row, count }) => [
        at,
        from + row * rowBytes,
        rowBytes,
        weightBytes,
        count,
        columns,
        c + 4 * row,
        table,
      ]),
    );
  };

  /**
   * y = x W^T, rows of x rounded to 16-bit integers: one by one where there are few (no epilogue then), else in tiles.
   */
  const rounded = (w: PackedMatrix, from: number, x: Rows, y: Rows, epilogue?: WasmEpilogue): void => {
    const { packing, rows, columns, rowBytes } = w;
    const { round, dot, roundPanels } = kernelsFor(packing) as Required<PackedKernels>;
    const weightBytes = packedWeightBytes(packing, columns);
    if (x.count <= fewRows) {
      const at = context.decoded(roundedBytes(columns));
      const own = dotScratchBytes(columns);
      const scratch = context.scratch(own * threads.seats);
      for (let i = 0; i < x.count; i++) {
        round(x.at + i * x.step, columns, at);
        threads.run(
          dot,
          tiles(rows, integerWork * rows * columns).map(({ row, count }) => [
            at,
            from + row * rowBytes,
            rowBytes,
            weightBytes,
            count,
            columns,
            y.at + i * y.step + 4 * row,
          ]),
          scratch,
          own,
        );
      }
      return;
    }
    const panels = context.decoded(panelsBytes(x.count, columns));
    threads.run(
      roundPanels,
      tiles(x.count, roundingWork * x.count * columns, tileRows).map(({ row, count }) => [
        x.at + row * x.step,
        x.step,
        count,
        columns,
        panels + panelsBytes(row, columns),
      ]),
    );
    const most = Math.max(fewColumns, Math.floor(panelsOfTile / columnPanelBytes(columns)) * tileColumns);
    const parts = tiles(rows, (tileWork * x.count + panelWork) * rows * columns, fewColumns, most);
    const own = tilesScratchBytes(parts[0].count, columns);
    const scratch = context.scratch(own * threads.seats);
    const { tiles: run } = kernelsFor(packing, epilogue?.program) as Required<PackedKernels>;
    threads.run(
      run,
      parts.map(({ row, count }) => [
        panels,
        x.count,
        from + row * rowBytes,
        rowBytes,
        weightBytes,
        count,
        columns,
        y.at + 4 * row,
        y.step,
        panelsTogether(columns),
        ...(epilogue ? epilogueArguments(epilogue, 0, row) : []),
      ]),
      scratch,
      own,
    );
  };

  return {
    matmul({ a, b, output, rounded: mayRound }, epilogue) {
      const w = packedMatrix(b);
      const { packing, rows, columns, transposed, rowBytes } = w;
      const from = firstRow(b, w);
      const [x, y] = [a, output].map(v => rowsOf(v, byteOffsetOf));
      const at = (view: View): WasmView => ({
        byteOffset: byteOffsetOf(view),
        shape: view.shape,
        strides: view.strides,
      });
      const integers = mayRound && packings[packing].blockLength > 1;
      if (transposed && x && y && (integers || x.count <= fewRows)) {
        const few = x.count <= fewRows;
        if (integers) rounded(w, from, x, y, few ? undefined : epilogue);
        else for (let row = 0; row < x.count; row++) matvec(w, from, x.at + row * x.step, y.at + row * y.step);
        if (few && epilogue) gemm.finish(at(output), epilogue);
        return true;
      }
      if (x && y && x.count >= manyRows && packing !== 'f16' && packing !== 'bf16') {
        const [k, n] = transposed ? [columns, rows] : [rows, columns];
        const rowsAt = ({ at: byteOffset, step, count }: Rows, side: number): WasmView => ({
          byteOffset,
          shape: [count, side],
          strides: [step / 4, 1],
        });
        gemm.weights({
          a: rowsAt(x, k),
          output: rowsAt(y, n),
          ...(epilogue && { epilogue }),
          weights: {
            packing,
            transposed,
            at: from,
            rowBytes,
            weightBytes: packedWeightBytes(packing, columns),
            halves: halvesAt(),
          },
        });
        return true;
      }
      const last = output.shape.length - 1;
      const lead = b.shape.slice(0, -2);
      /** The product with a piece that lies decoded at `piece`: columns j .. j + n of the output. */
      const multiply = (piece: number, strides: readonly [number, number], j: number, n: number): void => {
        const z = at(output);
        gemm.matmul({
          a: at(a),
          b: {
            byteOffset: piece,
            shape: [...lead, transposed ? columns : rows, n],
            strides: [...lead.map(() => 0), ...strides],
          },
          output: {
            ...z,
            byteOffset: z.byteOffset + 4 * j * output.strides[last],
            shape: [...output.shape.slice(0, -1), n],
          },
          ...(epilogue && { epilogue: epilogueFrom(epilogue, j) }),
        });
      };
      const step = transposed ? 8 : Math.max(8, packings[packing].blockLength);
      const [side, length] = transposed ? [rows, columns] : [columns, rows];
      const most = Math.max(
        step,
        Math.floor(pieceElements(sizeOf(a.shape.slice(0, -1))) / Math.max(1, length) / step) * step,
      );
      if (!transposed && most < narrowPiece && rows > most) {
        // Narrow pieces of many rows would read little of each cache line: whole rows then, and a sum over them.
        const count = Math.max(step, Math.floor(pieceElements(sizeOf(a.shape.slice(0, -1))) / columns / step) * step);
        const piece = context.decoded(4 * Math.min(count, rows) * columns);
        const z = at(a);
        for (let j = 0; j < rows; j += count) {
          const n = Math.min(count, rows - j);
          decode(w, from + j * rowBytes, 0, columns, n, piece);
          gemm.matmul({
            a: { ...z, byteOffset: z.byteOffset + 4 * j * a.strides[last], shape: [...a.shape.slice(0, -1), n] },
            b: { byteOffset: piece, shape: [...lead, n, columns], strides: [...lead.map(() => 0), columns, 1] },
            output: at(output),
            accumulate: j > 0,
          });
        }
        return true;
      }
      const piece = context.decoded(4 * Math.min(most, side) * length);
      for (let j = 0; j < side; j += most) {
        const n = Math.min(most, side - j);
        if (transposed) decode(w, from + j * rowBytes, 0, columns, n, piece);
        else decode(w, from, j, n, rows, piece);
        multiply(piece, transposed ? [1, columns] : [n, 1], j, n);
      }
      return true;
    },

    gather({ input, indices, output }) {
      if (!isContiguous(output.shape, output.strides)) return false;
      const w = packedMatrix(input);
      const [from, to] = [firstRow(input, w), byteOffsetOf(output)];
      indices.forEach((row, i) => {
        const at = to + 4 * i * w.columns;
        if (row < 0) new Float32Array(memory.buffer, at, w.columns).fill(0);
        else decode(w, from + row * w.rowBytes, 0, w.columns, 1, at);
      });
      return true;
    },

    unpack({ input, output }) {
      const w = packedMatrix(input);
      decode(w, firstRow(input, w), 0, w.columns, w.rows, byteOffsetOf(output));
      return true;
    },
  };
}

/** Rows of a matrix whose elements lie together: where, how far apart in bytes, how many. */
interface Rows {
  readonly at: number;
  readonly step: number;
  readonly count: number;
}

/** Null for batches and other layouts. */
function rowsOf(view: View, byteOffsetOf: (view: View) => number): Rows | null {
  const [rowAxis, last] = [view.shape.length - 2, view.shape.length - 1];
  if (view.strides[last] !== 1 && view.shape[last] !== 1) return null;
  if (view.shape.slice(0, -2).some(side => side !== 1)) return null;
  return { at: byteOffsetOf(view), step: 4 * view.strides[rowAxis], count: view.shape[rowAxis] };
}
