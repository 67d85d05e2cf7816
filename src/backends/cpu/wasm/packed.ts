// Packed weights on the CPU: rows by number, rows decoded as a whole, and products. Where x may be rounded and has few rows, quantised weights are
// multiplied as integers. Else one or two rows of x are multiplied with weights decoded in registers; for more, pieces of the matrix are decoded into a
// region that the caches hold and go through the ordinary product.

import { halfToFloatTable, packedMatrix, packedWeightBytes, packings, type PackedMatrix, type Packing } from '../../../tensor/packing.js';
import { isContiguous, sizeOf } from '../../../tensor/shape.js';
import type { Primitives, View } from '../../backend.js';
import { isShared, type WasmContext } from './context.js';
import type { Gemm, WasmView } from './gemm.js';
import { dotsScratchBytes, roundedBlock, roundedBytes, rowsTogether } from './packedDots.js';
import { arrangedBytes, buildPackedModule, type PackedKernels } from './packedKernels.js';

/** Rows of x up to which `matvec` for each is faster than decoding for the ordinary product. Measured. */
const fewRows = 2;
/** And up to which integers are faster than that product. Measured. */
const mostRounded = 48;
/** Weights that are decoded at a time: for few rows as many as the second-level cache holds, for many so that x is packed seldom. Measured. */
const pieceElements = (rowsOfX: number): number => (rowsOfX < 64 ? 2 ** 18 : 2 ** 20);
/** Columns that a piece should have at least. */
const narrowPiece = 128;
/** Multiply-adds that take as long as decoding a weight. Measured. */
const weightWork = 4;
/** And as multiplying one as integers. Measured. */
const integerWork = 1.5;

export interface PackedProducts {
  matmul(call: Primitives['matmul']): boolean;
  gather(call: Primitives['gather']): boolean;
  unpack(call: Primitives['unpack']): boolean;
}

export function createPacked(context: WasmContext, gemm: Gemm): PackedProducts {
  const { memory, byteOffsetOf, threads } = context;
  const compiled = new Map<Packing, PackedKernels>();
  const kernelsFor = (packing: Packing): PackedKernels => {
    let kernels = compiled.get(packing);
    if (!kernels) {
      kernels = threads.link(buildPackedModule(packing, { relaxed: context.relaxed, shared: isShared(memory) })) as unknown as PackedKernels;
      compiled.set(packing, kernels);
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
  const firstRow = (view: View, { byteOffset }: PackedMatrix): number => byteOffsetOf({ ...view, offset: 0 }) + byteOffset;

  /** Ranges of rows for the threads, who have so much work in all. */
  const tiles = (rows: number, work: number): { row: number; count: number }[] => {
    const step = Math.max(1, Math.ceil(rows / threads.parts(work)));
    return Array.from({ length: Math.ceil(rows / step) }, (_, i) => ({ row: i * step, count: Math.min(step, rows - i * step) }));
  };

  /** Columns `column` .. `column + columns` of the rows at `from`, decoded at `to`. */
  const decode = (w: PackedMatrix, from: number, column: number, columns: number, rows: number, to: number): void => {
    const weightBytes = packedWeightBytes(w.packing, w.columns);
    const table = halvesAt();
    threads.run(kernelsFor(w.packing).decode, tiles(rows, weightWork * rows * columns).map(({ row, count }) =>
      [from + row * w.rowBytes, w.rowBytes, weightBytes, column, columns, count, to + 4 * row * columns, 4 * columns, table]));
  };

  /** c = x W^T for one row of x. */
  const matvec = (w: PackedMatrix, from: number, x: number, c: number): void => {
    const { packing, rows, columns, rowBytes } = w;
    const { arrange, matvec: run } = kernelsFor(packing);
    const weightBytes = packedWeightBytes(packing, columns);
    const table = halvesAt();
    const at = arrange ? context.decoded(arrangedBytes(columns)) : x;
    arrange?.(x, columns, at);
    threads.run(run, tiles(rows, weightWork * rows * columns).map(({ row, count }) =>
      [at, from + row * rowBytes, rowBytes, weightBytes, count, columns, c + 4 * row, table]));
  };

  /** y = x W^T, rows of x rounded to 16-bit integers. Groups of rows read the codes together; tiles are ranges of weights for a group. */
  const rounded = (w: PackedMatrix, from: number, x: Rows, y: Rows): void => {
    const { packing, rows, columns, rowBytes } = w;
    const { round, dot, dots } = kernelsFor(packing) as Required<PackedKernels>;
    const weightBytes = packedWeightBytes(packing, columns);
    const bytes = roundedBytes(columns);
    const at = context.decoded(bytes * x.count);
    const count = Math.ceil(x.count / rowsTogether);
    // Groups of nearly equal size. A group's blocks lie in turn, row by row; then come scales and sums.
    const groups = Array.from({ length: count }, (_, g) => {
      const [first, end] = [g, g + 1].map(i => Math.floor((i * x.count) / count));
      const begin = at + first * bytes;
      return { first, size: end - first, at: begin, scales: begin + (end - first) * (columns / 32) * roundedBlock };
    });
    const half = (bytes - (columns / 32) * roundedBlock) / 2;
    const rounds = groups.flatMap(({ first, size, at: to, scales }) => Array.from({ length: size }, (_, i) =>
      [x.at + (first + i) * x.step, columns, to + i * roundedBlock, size * roundedBlock, scales + 2 * i * half, scales + (2 * i + 1) * half]));
    if (threads.parts(weightWork * x.count * columns) > 1) threads.run(round, rounds);
    else for (const call of rounds) round(...call);
    const parts = tiles(rows, integerWork * x.count * rows * columns);
    const own = dotsScratchBytes(columns);
    const scratch = context.scratch(own * threads.seats);
    if (x.count === 1) {
      const [{ scales }] = groups;
      threads.run(dot, parts.map(p => [at, scales, from + p.row * rowBytes, rowBytes, weightBytes, p.count, columns, y.at + 4 * p.row]), scratch, own);
      return;
    }
    threads.run(dots, groups.flatMap(g => parts.map(p => [
      g.at, g.scales, g.size, from + p.row * rowBytes, rowBytes, weightBytes, p.count, columns, y.at + g.first * y.step + 4 * p.row, y.step,
    ])), scratch, own);
  };

  return {
    matmul({ a, b, output, rounded: mayRound }) {
      const w = packedMatrix(b);
      const { packing, rows, columns, transposed, rowBytes } = w;
      const from = firstRow(b, w);
      const [x, y] = [a, output].map(v => rowsOf(v, byteOffsetOf));
      if (transposed && x && y && mayRound && x.count <= mostRounded && packings[packing].blockLength > 1) {
        rounded(w, from, x, y);
        return true;
      }
      if (transposed && x && y && x.count <= fewRows) {
        for (let row = 0; row < x.count; row++) matvec(w, from, x.at + row * x.step, y.at + row * y.step);
        return true;
      }
      const last = output.shape.length - 1;
      const at = (view: View): WasmView => ({ byteOffset: byteOffsetOf(view), shape: view.shape, strides: view.strides });
      const lead = b.shape.slice(0, -2);
      /** The product with a piece that lies decoded at `piece`: columns j .. j + n of the output. */
      const multiply = (piece: number, strides: readonly [number, number], j: number, n: number): void => {
        const z = at(output);
        gemm.matmul({
          a: at(a),
          b: { byteOffset: piece, shape: [...lead, transposed ? columns : rows, n], strides: [...lead.map(() => 0), ...strides] },
          output: { ...z, byteOffset: z.byteOffset + 4 * j * output.strides[last], shape: [...output.shape.slice(0, -1), n] },
        });
      };
      const step = transposed ? 8 : Math.max(8, packings[packing].blockLength);
      const [side, length] = transposed ? [rows, columns] : [columns, rows];
      const most = Math.max(step, Math.floor(pieceElements(sizeOf(a.shape.slice(0, -1))) / Math.max(1, length) / step) * step);
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
            output: at(output), accumulate: j > 0,
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
