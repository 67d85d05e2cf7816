// Matrix multiplication on views: which loops a shape takes and in what blocks. The loops themselves are in gemmKernels.ts. A result
// depends on shapes and strides (and on fused multiply-add being used or not), never on what ran before.

import { instantiate } from './assembler.js';
import { isShared } from './context.js';
import { buildGemmModule, directRows, dotRows, gemmKernels, tileColumns, tileRows, type GemmKernels } from './gemmKernels.js';

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
}

export interface Gemm {
  /** output [..., m, n] = a [..., m, k] b [..., k, n] in f32; leading axes equal, stride 0 repeats; any strides. Always true. */
  matmul(call: MatmulCall): boolean;
}

/** Loops that can compute one product. */
export type GemmPath = 'packed' | 'direct' | 'dot';

export interface GemmOptions {
  /** Use fused multiply-add; the engine must have it. */
  relaxed?: boolean;
  /** Take this path wherever it applies, for tests and benches. */
  prefer?: GemmPath;
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

// Blocks of the packed path: a block of A (mBlock x kBlock) stays in the second-level cache, a panel of B (kBlock x 8) in the first.
const kBlock = 320;
const mBlock = 128;
const nBlock = 512;
/** Rows of A that are packed together. */
const mSlab = 1024;
/** Elements of B that the unpacked paths go over again for each few rows of A. */
const reusedElements = 65536;
/** Elements of B that no cache near the core holds. */
const farElements = 2 ** 19;

/**
 * Compiles the loops for this memory. `scratch(bytes)` gives a region of at least that size, 16-aligned, that nothing else uses during a
 * call; it may grow the memory.
 */
export function createGemm(memory: WebAssembly.Memory, scratch: (byteLength: number) => number, options: GemmOptions = {}): Gemm {
  const kernels = gemmKernels(instantiate(buildGemmModule({ relaxed: options.relaxed ?? false, shared: isShared(memory) }), memory));
  return {
    matmul: call => {
      const { batch, product } = foldBatch(call);
      const path = choose(product, options.prefer);
      if (product.m === 0 || product.n === 0) return true;
      forEachBatch(batch, (a, b, c) => {
        const p = { ...product, a: product.a + a, b: product.b + b, c: product.c + c };
        if (path === 'dot') runDot(kernels, p);
        else if (path === 'direct') runDirect(kernels, p);
        else if (path === 'directTransposed') runDirectTransposed(kernels, scratch, p);
        else if (path === 'dotCopied') runDotCopied(kernels, scratch, p);
        else runPacked(kernels, scratch, p);
      });
      return true;
    },
  };
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
    m, n, k,
    a: a.byteOffset, aRow: along(m, aRow), aK: along(k, stride(a, rank - 1)),
    b: b.byteOffset, bK: along(k, stride(b, rank - 2)), bColumn: along(n, stride(b, rank - 1)),
    c: output.byteOffset, cRow: along(m, cRow), cColumn: along(n, stride(output, rank - 1)),
  };
  // Rows of the output should be contiguous: the transposed problem where its columns are.
  if (product.cColumn === 4 || product.cRow !== 4) return { batch, product };
  return { batch: batch.map(axis => ({ ...axis, a: axis.b, b: axis.a })), product: transposed(product) };
}

function forEachBatch(batch: readonly BatchAxis[], run: (a: number, b: number, c: number) => void, axis = 0, a = 0, b = 0, c = 0): void {
  if (axis === batch.length) return run(a, b, c);
  const { side, a: aStep, b: bStep, c: cStep } = batch[axis];
  for (let i = 0; i < side; i++) forEachBatch(batch, run, axis + 1, a + i * aStep, b + i * bStep, c + i * cStep);
}

/** b^T a^T = c^T */
function transposed(p: Product): Product {
  return {
    m: p.n, n: p.m, k: p.k, a: p.b, aRow: p.bColumn, aK: p.bK, b: p.a, bK: p.aK, bColumn: p.aRow, c: p.c, cRow: p.cColumn, cColumn: p.cRow,
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

function runDot(kernels: GemmKernels, given: Product): void {
  const p = given.n < given.m ? transposed(given) : given;
  if (p.m === 1 && p.k >= 128) return kernels.matvec(p.a, p.b, p.bColumn, p.c, p.cColumn, p.n, p.k);
  const columns = Math.max(4, Math.floor(reusedElements / Math.max(1, p.k) / 4) * 4);
  const far = isFar(p);
  for (let j = 0; j < p.n; j += columns) {
    const n = Math.min(columns, p.n - j);
    const b = p.b + j * p.bColumn;
    if (far) kernels.touch(b, p.bColumn, 4 * p.k, n);
    for (let i = 0; i < p.m; i += dotRows) {
      const run = kernels.dot[Math.min(dotRows, p.m - i)];
      run(p.a + i * p.aRow, p.aRow, b, p.bColumn, p.c + i * p.cRow + j * p.cColumn, p.cRow, p.cColumn, n, p.k);
    }
  }
}

function runDirect(kernels: GemmKernels, p: Product): void {
  const columns = Math.min(p.n, 2048);
  const kStep = evenBlock(p.k, Math.max(32, Math.min(kBlock, Math.floor(reusedElements / columns))));
  const far = isFar(p);
  for (let j = 0; j < p.n; j += columns) {
    const n = Math.min(columns, p.n - j);
    for (let k0 = 0; k0 < p.k; k0 += kStep) {
      const k = Math.min(kStep, p.k - k0);
      const b = p.b + k0 * p.bK + 4 * j;
      if (far) kernels.touch(b, p.bK, 4 * n, k);
      for (let i = 0; i < p.m; i += directRows) {
        const run = kernels.direct[Math.min(directRows, p.m - i)];
        run(p.a + i * p.aRow + k0 * p.aK, p.aRow, p.aK, b, p.bK, p.c + i * p.cRow + 4 * j, p.cRow, n, k, k0 > 0 ? 1 : 0);
      }
    }
  }
}

/** B does not fit the second-level cache: sweeping over a block in order first is faster than meeting its lines in the order of use. */
function isFar(p: Product): boolean {
  return p.k * p.n > farElements;
}

/** The transposed problem into scratch, written out transposed. */
function runDirectTransposed(kernels: GemmKernels, scratch: (byteLength: number) => number, p: Product): void {
  const t = transposed(p);
  const dense = scratch(4 * t.m * t.n);
  runDirect(kernels, { ...t, c: dense, cRow: 4 * t.n, cColumn: 4 });
  kernels.scatter(dense, 4 * t.n, t.c, t.cRow, t.cColumn, t.m, t.n, 0);
}

/** With the operand that is not contiguous along k copied so that it is: the small one. */
function runDotCopied(kernels: GemmKernels, scratch: (byteLength: number) => number, given: Product): void {
  const p = given.aK === 4 ? given : transposed(given);
  const dense = scratch(4 * p.k * p.n);
  kernels.scatter(p.b, p.bK, dense, 4, 4 * p.k, p.k, p.n, 0);
  runDot(kernels, { ...p, b: dense, bK: 4, bColumn: 4 * p.k });
}

/**
 * For each k block: A of a slab packed once, B packed block by block, each used for all rows of the slab.
 */
function runPacked(kernels: GemmKernels, scratch: (byteLength: number) => number, p: Product): void {
  const kStep = evenBlock(p.k, kBlock);
  const slab = Math.min(mSlab, p.m);
  const aBytes = 4 * kStep * roundUp(slab, tileRows);
  const bBytes = 4 * kStep * roundUp(Math.min(nBlock, p.n), tileColumns);
  const edge = scratch(4 * tileRows * tileColumns + aBytes + bBytes);
  const aPanels = edge + 4 * tileRows * tileColumns;
  const bPanels = aPanels + aBytes;
  for (let i0 = 0; i0 < p.m; i0 += slab) {
    const rows = Math.min(slab, p.m - i0);
    for (let k0 = 0; k0 < p.k; k0 += kStep) {
      const k = Math.min(kStep, p.k - k0);
      kernels.pack4(p.a + i0 * p.aRow + k0 * p.aK, p.aRow, p.aK, aPanels, k, rows);
      for (let j = 0; j < p.n; j += nBlock) {
        const n = Math.min(nBlock, p.n - j);
        kernels.pack8(p.b + k0 * p.bK + j * p.bColumn, p.bColumn, p.bK, bPanels, k, n);
        for (let i = 0; i < rows; i += mBlock) {
          const c = p.c + (i0 + i) * p.cRow + j * p.cColumn;
          kernels.packed(aPanels + 4 * i * k, bPanels, c, p.cRow, p.cColumn, Math.min(mBlock, rows - i), n, k, k0 > 0 ? 1 : 0, edge);
        }
      }
    }
  }
}

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;

/** Blocks of nearly equal size, at most `most`, rather than full ones and a short rest. */
function evenBlock(side: number, most: number): number {
  return roundUp(Math.ceil(side / Math.ceil(side / most)), 4);
}
