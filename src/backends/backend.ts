// The one seam between tensors and machines: storage, and a total table of kernels. A backend implements this and knows
// nothing of gradients; everything above it (tensors, autograd, nn, models) knows nothing of a backend but this file.
// Kernels return at once: the CPU has then computed, a GPU has recorded. Only `read` and `flush` are awaited.

import type { DType, TypedArray } from '../tensor/dtype.js';
import type { Packing } from '../tensor/packing.js';
import type { Program } from '../tensor/expr.js';
import type { Shape } from '../tensor/shape.js';

/** One block of a backend's memory. What is inside is the backend's own business. */
export interface Allocation {
  readonly byteLength: number;
}

/**
 * A strided window on an allocation; offset and strides count elements of `dtype`. Kernels assume sizes were checked.
 */
export interface View {
  readonly allocation: Allocation;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly strides: Shape;
  readonly offset: number;
  /**
   * Frozen weights kept small (tensor/packing.ts): a matrix [rows, columns] or its transpose, or a range of its rows;
   * `dtype` is f32, what it decodes to. `strides` and `offset` count decoded elements, as if it were stored in f32: the
   * stride of the row axis is `columns` and row r begins at byte (offset / columns + r) * packedRowBytes. Only `b` of
   * matmul (with leading axes of stride 0), and `input` of gather and unpack may be packed.
   */
  readonly packing?: Packing;
}

/**
 * What becomes of a product's elements before they are written: the program's first argument is the product, the others
 * are the operands.
 */
export interface Epilogue {
  readonly program: Program;
  readonly operands: readonly View[];
}

/**
 * The epilogue of a product that is there, as a map over it in place: for kernels that do not compute it on the way.
 */
export const epilogueMap = ({
  output,
  epilogue: { program, operands },
}: {
  output: View;
  epilogue: Epilogue;
}): Primitives['map'] => ({
  program,
  shape: output.shape,
  inputs: [output, ...operands],
  outputs: [output],
  uniforms: [],
});

/**
 * What each kernel is called with. Inputs of `map` and `reduce` already have the iteration shape (stride 0 repeats).
 * Outputs never overlap inputs, except in `map`, where an output may be exactly an input (same offset, shape and
 * strides).
 */
export interface Primitives {
  /**
   * outputs[j][i] = program.outputs[j](inputs[..][i], uniforms), over `shape`. Output dtypes match the program's types.
   */
  map: {
    program: Program;
    shape: Shape;
    inputs: readonly View[];
    outputs: readonly View[];
    uniforms: readonly number[];
  };
  /**
   * output = sum or max of program.outputs[0] over `axes` of `shape`; `output` has `shape` with those axes 1. Empty: 0
   * or -Infinity.
   */
  reduce: {
    op: 'sum' | 'max';
    program: Program;
    shape: Shape;
    axes: readonly number[];
    inputs: readonly View[];
    output: View;
    uniforms: readonly number[];
  };
  /**
   * output [..., m, n] = a [..., m, k] b [..., k, n]; leading axes equal (stride 0 repeats); strides express
   * transposition. With `rounded`, a kernel may round `a` where `b` is quantised (tensor/rounding.ts). With an
   * epilogue, output = program.outputs[0](product, ...operands), whose operands have the output's shape (stride 0
   * repeats).
   */
  matmul: { a: View; b: View; output: View; rounded?: boolean; epilogue?: Epilogue };
  /** output = input, same shape and dtype, any strides. */
  copy: { input: View; output: View };
  /**
   * output [m, ...row] = input [n, ...row] at rows indices[0..m-1]; a negative index gives zeros. Output contiguous.
   */
  gather: { input: View; indices: Int32Array; output: View };
  /**
   * output [n, ...row] = sums of input [m, ...row] by row: output[indices[i]] += input[i], in order of i; negative
   * indices are skipped.
   */
  scatterAdd: { input: View; indices: Int32Array; output: View };
  /** output [rows, columns] f32, contiguous = the decoded rows of a packed input, not transposed. */
  unpack: { input: View; output: View };
}

/** Total: a backend that lacks a kernel does not compile. */
export type Kernels = { [K in keyof Primitives]: (call: Primitives[K]) => void };

/** Scalars that shape a fused kernel: an epsilon, a count, a flag. */
export type Attributes = Readonly<Record<string, number>>;

/**
 * A faster kernel for a fused op, registered under the op's name (or `name.vjp`). It may decline a call by returning
 * false, before writing anything: the composition then runs. An absent optional input is null.
 */
export type FusedKernel = (call: {
  inputs: readonly (View | null)[];
  outputs: readonly View[];
  attributes: Attributes;
  /** Row numbers known on the host, where the op has them. */
  indices?: Int32Array;
}) => boolean;

export interface MemoryStats {
  /** Bytes of allocations in use, bytes kept for reuse, and the highest sum of both so far. */
  readonly liveBytes: number;
  readonly pooledBytes: number;
  readonly peakBytes: number;
  readonly liveAllocations: number;
  /** The most that may ever be allocated. */
  readonly limitBytes: number;
}

export interface Backend {
  readonly name: string;
  readonly kernels: Kernels;
  /** Partial: a missing entry means the composition. */
  readonly fused: Map<string, FusedKernel>;
  /** Uninitialised memory; throws OutOfMemoryError. */
  allocate(byteLength: number): Allocation;
  free(allocation: Allocation): void;
  write(allocation: Allocation, byteOffset: number, data: TypedArray): void;
  /** A copy of `length` elements from element `offset` on. */
  read(allocation: Allocation, dtype: DType, offset: number, length: number): Promise<TypedArray>;
  /** The same without waiting, where the backend can (the CPU). */
  readSync?(allocation: Allocation, dtype: DType, offset: number, length: number): TypedArray;
  /**
   * A writable window on the memory itself, valid until the next allocation; only where memory is the host's (the CPU).
   */
  hostView?(allocation: Allocation, dtype: DType, offset: number, length: number): TypedArray;
  /** Resolves when everything recorded so far is done; throws what went wrong meanwhile. */
  flush(): Promise<void>;
  stats(): MemoryStats;
  /** Gives memory and threads back. Tensors of this backend are unusable afterwards. */
  close(): Promise<void>;
}

/** The backend has no room for an allocation. `requestedBytes` is what was asked for. */
export class OutOfMemoryError extends Error {
  override readonly name = 'OutOfMemoryError';
  readonly requestedBytes: number;

  constructor(message: string, requestedBytes: number) {
    super(message);
    this.requestedBytes = requestedBytes;
  }
}
