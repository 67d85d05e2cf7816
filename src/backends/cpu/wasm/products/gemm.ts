// Matrix multiplication on views: which loops a shape takes and in what blocks. The loops themselves are in
// gemmKernels.ts. A result depends on shapes and strides (and on fused multiply-add being used or not), never on what
// ran before.

import { oneThread, type Threads } from '../../threads.js';
import type { Program } from '../../../../tensor/expr.js';
import type { WasmFunction } from '../emit/assembler.js';
import { isShared } from '../context.js';
import { epilogueArguments, type WasmEpilogue } from './epilogue.js';
import { weightBlock, type WeightPanels } from './gemmWeights.js';
import { buildGemmModule, scratchBytes, tileColumns, tileRowsOf, type GemmKernels } from './gemmKernels.js';

/** A strided f32 (or other 4-byte) window on the memory; strides in elements. */
export interface WasmView {
  readonly byteOffset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

export interface MatmulCall {
  readonly a: WasmView;
  readonly b: WasmView;
  readonly output: WasmView;
  /** Add to what `output` holds. */
  readonly accumulate?: boolean;
  /** For an output [m, n] with dense rows. */
  readonly epilogue?: WasmEpilogue;
}

export interface Gemm {
  /**
   * output [..., m, n] = a [..., m, k] b [..., k, n] in f32; leading axes equal, stride 0 repeats; any strides. Always
   * true.
   */
  matmul(call: MatmulCall): boolean;
  /** output [m, n] = a [m, k] times quantised weights, decoded on the way; rows of both are dense. */
  weights(call: Omit<MatmulCall, 'b' | 'accumulate'> & { readonly weights: GemmWeights }): void;
  /** Applies an epilogue to a product [m, n] that is there. */
  finish(output: WasmView, epilogue: WasmEpilogue): void;
}

/** Loops that can compute one product. */
export type GemmPath = 'packed' | 'direct' | 'dot';

export interface GemmOptions {
  /** Use fused multiply-add; the engine must have it. */
  relaxed?: boolean;
  /** Take this path wherever it applies, for tests and benches. */
  prefer?: GemmPath;
  /** Who computes; the caller alone unless given. */
  threads?: Threads;
}

/** One product: addresses and strides in bytes. */
interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: number;
  readonly aRow: number;
  readonly aK: number;
  readonly b: number;
  readonly bK: number;
  readonly bColumn: number;
  readonly c: number;
  readonly cRow: number;
  readonly cColumn: number;
}

// Blocks of the packed path: a block of A (140 x kBlock) stays in the second-level cache, a panel of B (kBlock x 8) in
// the first.
const kBlock = 640;
const nBlock = 256;
/** Rows of A that are packed together, and how many blocks along k. */
const mSlab = 1040;
const kBlocks = 4;
/** Elements of B that the unpacked paths go over again for each few rows of A. */
const reusedElements = 65536;
/**
 * Elements of B that no cache near the core holds; and its rows that are read side by side where it is used once.
 * Measured: 4, 16 are slower.
 */
const farElements = 2 ** 19;
const sweptRows = 8;

/** Multiply-adds that an element of an epilogue takes as long as. */
const epilogueWork = 20;

/** The code of a product with an epilogue, or with quantised weights. */
type FinishingKernels = Pick<GemmKernels, 'packed'> & { readonly epilogue: WasmFunction };

/**
 * Quantised weights as they lie: address of the first row, bytes from row to row, of a row's codes, and of the table of
 * halves.
 */
export interface GemmWeights extends WeightPanels {
  readonly at: number;
  readonly rowBytes: number;
  readonly weightBytes: number;
  readonly halves: number;
}

/**
 * How the code of a packed product is told where B begins for columns from j and rows from k: three words, and later
 * more; and what it is cut by.
 */
interface SourceOfB {
  readonly columnUnit: number;
  readonly kUnit: number;
  at(j: number, k: number): readonly [number, number, number];
  more(j: number, k: number): readonly number[];
}

const stridesOf = ({ b, bColumn, bK }: Product): SourceOfB => ({
  columnUnit: tileColumns,
  kUnit: 4,
  at: (j, k) => [b + j * bColumn + k * bK, bColumn, bK],
  more: () => [],
});

const weightsOf = ({ transposed, at, rowBytes, weightBytes, halves }: GemmWeights): SourceOfB => ({
  columnUnit: transposed ? tileColumns : weightBlock,
  kUnit: weightBlock,
  at: (j, k) => [at + (transposed ? j : k) * rowBytes, rowBytes, weightBytes],
  more: (j, k) => [transposed ? k : j, halves],
});

/** Who computes, with what, and where there is room. */
interface Machine {
  readonly kernels: GemmKernels;
  readonly tileRows: number;
  readonly threads: Threads;
  readonly scratch: (byteLength: number) => number;
}

/**
 * Compiles the loops for this memory. `scratch(bytes)` gives a region of at least that size, 16-aligned, that nothing
 * else uses during a call; it may grow the memory.
 */
export function createGemm(
  memory: WebAssembly.Memory,
  scratch: (byteLength: number) => number,
  options: GemmOptions = {},
): Gemm {
  const threads = options.threads ?? oneThread(memory);
  const kernels = threads.link(
    buildGemmModule({ relaxed: options.relaxed ?? false, shared: isShared(memory) }),
  ) as unknown as GemmKernels;
  const machine: Machine = { kernels, threads, scratch, tileRows: tileRowsOf(options.relaxed ?? false) };
  const compiled = new Map<string, FinishingKernels>();
  const kernelsFor = (program: Program | undefined, weights?: WeightPanels): FinishingKernels => {
    const key = `${weights?.packing} ${weights?.transposed} ${program?.key}`;
    let found = compiled.get(key);
    if (!found) {
      const module = buildGemmModule({
        relaxed: options.relaxed ?? false,
        shared: isShared(memory),
        ...(program && { epilogue: program }),
        ...(weights && { weights }),
      });
      found = threads.link(module) as unknown as FinishingKernels;
      compiled.set(key, found);
    }
    return found;
  };
  const finish = (output: WasmView, epilogue: WasmEpilogue): void => {
    const {
      byteOffset,
      shape: [m, n],
      strides: [row],
    } = output;
    const height = Math.ceil(m / threads.parts(epilogueWork * m * n));
    threads.run(
      kernelsFor(epilogue.program).epilogue,
      steps(m, height).map(({ at, length }) => [
        byteOffset + 4 * at * row,
        4 * row,
        length,
        n,
        ...epilogueArguments(epilogue, at, 0),
      ]),
    );
  };
  return {
    finish,
    matmul: call => {
      const { batch, product } = foldBatch(call);
      const { accumulate = false, epilogue } = call;
      if (product.m === 0 || product.n === 0 || (accumulate && product.k === 0)) return true;
      const path = accumulate ? 'packed' : choose(product, options.prefer);
      if (epilogue && path === 'packed') {
        runPacked(machine, product, kernelsFor(epilogue.program).packed, accumulate, epilogue);
        return true;
      }
      forEachBatch(batch, (a, b, c) => {
        const p = { ...product, a: product.a + a, b: product.b + b, c: product.c + c };
        if (path === 'dot') runDot(machine, p);
        else if (path === 'direct') runDirect(machine, p);
        else if (path === 'directTransposed') runDirectTransposed(machine, p);
        else if (path === 'dotCopied') runDotCopied(machine, p);
        else runPacked(machine, p, kernels.packed, accumulate);
      });
      if (epilogue) finish(call.output, epilogue);
      return true;
    },
    weights: ({ a, weights, output, epilogue }) => {
      const { product } = foldBatch({
        a,
        b: { byteOffset: 0, shape: [a.shape[1], output.shape[1]], strides: [output.shape[1], 1] },
        output,
      });
      if (product.m === 0) return;
      runPacked(machine, product, kernelsFor(epilogue?.program, weights).packed, false, epilogue, weightsOf(weights));
    },
  };
}

/**
 * Tiles that threads should share a product in. Where it is cut changes no result: an element is always one thread's
 * sum.
 */
const partsOf = ({ threads }: Machine, { m, n, k }: Product): number => threads.parts(m * n * k);

/** Steps of at most `step` through a side. */
function steps(side: number, step: number): { at: number; length: number }[] {
  return Array.from({ length: Math.ceil(side / step) }, (_, i) => ({
    at: i * step,
    length: Math.min(step, side - i * step),
  }));
}

interface BatchAxis {
  readonly side: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

/** Leading axes over which B repeats become rows of A where strides allow; the rest stay a batch. */
function foldBatch({ a, b, output }: MatmulCall): { batch: BatchAxis[]; product: Product } {
  const rank = output.shape.length;
  const stride = (view: WasmView, axis: number): number => 4 * view.strides[axis];
  let m = a.shape[rank - 2];
  let aRow = stride(a, rank - 2);
  let cRow = stride(output, rank - 2);
  const batch: BatchAxis[] = [];
  for (let axis = rank - 3; axis >= 0; axis--) {
    const side = output.shape[axis];
    if (side === 1) continue;
    const step = { side, a: stride(a, axis), b: stride(b, axis), c: stride(output, axis) };
    if (m === 1 && batch.length === 0) {
      aRow = step.a;
      cRow = step.c;
    }
    if (batch.length === 0 && step.b === 0 && step.a === m * aRow && step.c === m * cRow) m *= side;
    else batch.unshift(step);
  }
  const n = output.shape[rank - 1];
  const k = a.shape[rank - 1];
  // An axis of one element counts as contiguous.
  const along = (side: number, bytes: number): number => (side === 1 ? 4 : bytes);
  const product: Product = {
    m,
    n,
    k,
    a: a.byteOffset,
    aRow: along(m, aRow),
    aK: along(k, stride(a, rank - 1)),
    b: b.byteOffset,
    bK: along(k, stride(b, rank - 2)),
    bColumn: along(n, stride(b, rank - 1)),
    c: output.byteOffset,
    cRow: along(m, cRow),
    cColumn: along(n, stride(output, rank - 1)),
  };
  // Rows of the output should be contiguous: the transposed problem where its columns are.
  if (product.cColumn === 4 || product.cRow !== 4) return { batch, product };
  return { batch: batch.map(axis => ({ ...axis, a: axis.b, b: axis.a })), product: transposed(product) };
}

function forEachBatch(
  batch: readonly BatchAxis[],
  run: (a: number, b: number, c: number) => void,
  axis = 0,
  a = 0,
  b = 0,
  c = 0,
): void {
  if (axis === batch.length) return run(a, b, c);
  const { side, a: aStep, b: bStep, c: cStep } = batch[axis];
  for (let i = 0; i < side; i++) forEachBatch(batch, run, axis + 1, a + i * aStep, b + i * bStep, c + i * cStep);
}

/** b^T a^T = c^T */
function transposed(p: Product): Product {
  return {
    m: p.n,
    n: p.m,
    k: p.k,
    a: p.b,
    aRow: p.bColumn,
    aK: p.bK,
    b: p.a,
    bK: p.aK,
    bColumn: p.aRow,
    c: p.c,
    cRow: p.cColumn,
    cColumn: p.cRow,
  };
}

function choose(p: Product, prefer: GemmPath | undefined): GemmPath | 'directTransposed' | 'dotCopied' {
  const { m, n, k } = p;
  const dotFits = p.aK === 4 && p.bK === 4;
  const directFits = p.bColumn === 4 && p.cColumn === 4;
  if (k === 0) return 'dot';
  if (prefer === 'dot' && dotFits) return 'dot';
  if (prefer === 'direct' && directFits) return 'direct';
  if (prefer === 'direct' && p.aRow === 4) return 'directTransposed';
  if (prefer === 'dot' && (p.aK === 4 ? p.bColumn : p.bK === 4 ? p.aRow : 0) === 4) return 'dotCopied';
  if (prefer === 'packed') return 'packed';
  // Measured: packing pays from about these sizes on.
  const least = Math.min(m, n);
  if (dotFits && (least <= 8 || (least <= 24 && k >= 192))) return 'dot';
  if (directFits && (m <= 16 || k <= 16) && n >= least) return 'direct';
  if (p.aRow === 4 && n <= 8) return 'directTransposed';
  if (p.aK === 4 && p.bColumn === 4 && n <= 8) return 'dotCopied';
  if (p.bK === 4 && p.aRow === 4 && m <= 8) return 'dotCopied';
  return 'packed';
}

function runDot(machine: Machine, given: Product): void {
  const { kernels, threads } = machine;
  const p = given.n < given.m ? transposed(given) : given;
  const parts = partsOf(machine, p);
  const cached = Math.max(4, Math.floor(reusedElements / Math.max(1, p.k) / 4) * 4);
  const columns = parts > 1 ? Math.min(cached, roundUp(p.n / parts, 4)) : cached;
  if (p.m === 1 && p.k >= 128) {
    threads.run(
      kernels.matvec,
      steps(p.n, parts > 1 ? columns : p.n).map(({ at, length }) => [
        p.a,
        p.b + at * p.bColumn,
        p.bColumn,
        p.c + at * p.cColumn,
        p.cColumn,
        length,
        p.k,
      ]),
    );
    return;
  }
  const far = Number(isFar(p));
  threads.run(
    kernels.dot,
    steps(p.n, columns).map(({ at, length }) => [
      p.a,
      p.aRow,
      p.b + at * p.bColumn,
      p.bColumn,
      p.c + at * p.cColumn,
      p.cRow,
      p.cColumn,
      p.m,
      length,
      p.k,
      far,
    ]),
  );
}

function runDirect(machine: Machine, p: Product): void {
  const { kernels, threads } = machine;
  const parts = partsOf(machine, p);
  // One or two rows over a far B: a few of its rows at a time, in one sweep.
  const sweeps = p.m <= 2 && isFar(p);
  const columns = sweeps
    ? roundUp(p.n / parts, 16)
    : Math.min(2048, parts > 1 ? Math.max(isFar(p) ? 256 : 64, roundUp(p.n / parts, 16)) : p.n);
  const kStep = sweeps
    ? sweptRows
    : evenBlock(p.k, Math.max(32, Math.min(kBlock, Math.floor(reusedElements / Math.min(columns, p.n)))), 4);
  const far = Number(!sweeps && isFar(p));
  threads.run(
    kernels.direct,
    steps(p.n, columns).map(({ at, length }) => [
      p.a,
      p.aRow,
      p.aK,
      p.b + 4 * at,
      p.bK,
      p.c + 4 * at,
      p.cRow,
      p.m,
      length,
      p.k,
      kStep,
      far,
    ]),
  );
}

/**
 * B does not fit the second-level cache: sweeping over a block in order first is faster than meeting its lines in the
 * order of use.
 */
function isFar(p: Product): boolean {
  return p.k * p.n > farElements;
}

/** The transposed problem into scratch, written out transposed. */
function runDirectTransposed(machine: Machine, p: Product): void {
  const t = transposed(p);
  const dense = machine.scratch(4 * t.m * t.n);
  runDirect(machine, { ...t, c: dense, cRow: 4 * t.n, cColumn: 4 });
  machine.kernels.scatter(dense, 4 * t.n, t.c, t.cRow, t.cColumn, t.m, t.n, 0);
}

/** With the operand that is not contiguous along k copied so that it is: the small one. */
function runDotCopied(machine: Machine, given: Product): void {
  const p = given.aK === 4 ? given : transposed(given);
  const dense = machine.scratch(4 * p.k * p.n);
  machine.kernels.scatter(p.b, p.bK, dense, 4, 4 * p.k, p.k, p.n, 0);
  runDot(machine, { ...p, b: dense, bK: 4, bColumn: 4 * p.k });
}

/**
 * A of a slab is packed for a few blocks along k; then each tile of the result packs its part of B, block by block, and
 * uses it for all its rows.
 */
function runPacked(
  machine: Machine,
  p: Product,
  code: WasmFunction,
  add: boolean,
  epilogue?: WasmEpilogue,
  b: SourceOfB = stridesOf(p),
): void {
  const { kernels, threads, scratch, tileRows } = machine;
  const parts = partsOf(machine, p);
  const cut = parts > 1;
  const kStep = evenBlock(p.k, kBlock, b.kUnit);
  const depth = kBlocks * kStep;
  const slab = Math.min(mSlab, p.m);
  const columns = Math.min(nBlock, cut ? Math.max(2 * tileColumns, roundUp(p.n / parts, b.columnUnit)) : p.n);
  // A narrow result is cut across its rows too.
  const rowTiles = Math.max(1, Math.floor(parts / Math.ceil(p.n / columns)));
  const tileHeight = Math.max(16 * tileRows, roundUp(slab / rowTiles, tileRows));
  const packedRows = cut ? Math.max(16 * tileRows, roundUp(reusedElements / kStep, tileRows)) : slab;

  const stride = roundUp(scratchBytes(kStep, columns), 64);
  const panels = scratch(4 * roundUp(slab, tileRows) * Math.min(depth, p.k) + threads.seats * stride + 64);
  const ownScratch = roundUp(panels + 4 * roundUp(slab, tileRows) * Math.min(depth, p.k), 64);
  for (const { at: i0, length: rows } of steps(p.m, slab)) {
    const padded = roundUp(rows, tileRows);
    for (const { at: k0, length: k } of steps(p.k, depth)) {
      const a = p.a + i0 * p.aRow + k0 * p.aK;
      threads.run(
        kernels.packA,
        steps(k, kStep).flatMap(block =>
          steps(rows, packedRows).map(({ at, length }) => [
            a + at * p.aRow + block.at * p.aK,
            p.aRow,
            p.aK,
            panels + 4 * (padded * block.at + at * block.length),
            block.length,
            length,
          ]),
        ),
      );
      const accumulate = Number(add || k0 > 0);
      const last = Number(k0 + k === p.k);
      threads.run(
        code,
        steps(p.n, columns).flatMap(j =>
          steps(rows, tileHeight).map(i => [
            panels,
            4 * padded * kStep,
            i.at,
            ...b.at(j.at, k0),
            p.c + (i0 + i.at) * p.cRow + j.at * p.cColumn,
            p.cRow,
            p.cColumn,
            i.length,
            j.length,
            k,
            kStep,
            accumulate,
            ...b.more(j.at, k0),
            ...(epilogue ? [last, ...epilogueArguments(epilogue, i0 + i.at, j.at)] : []),
          ]),
        ),
        ownScratch,
        stride,
      );
    }
  }
}

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;

/** Blocks of nearly equal size, multiples of `unit` and at most `most`, rather than full ones and a short rest. */
function evenBlock(side: number, most: number, unit: number): number {
  return roundUp(Math.ceil(side / Math.ceil(side / most)), unit);
}
