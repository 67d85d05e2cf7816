// What every kernel is given: the queue it records to, memory for intermediate results, and the settings that choose
// between variants.

import type { View } from '../backend.js';
import type { DType } from '../../tensor/dtype.js';
import { contiguousStrides, sizeOf, type Shape } from '../../tensor/shape.js';
import type { Block } from './pool.js';
import type { Queue } from './queue.js';

export interface Settings {
  /**
   * 'register': a tile of the product for each invocation, for software; 'workgroup': tiles in shared memory, for real
   * GPUs.
   */
  readonly matmul: 'register' | 'workgroup';
  /**
   * Rows and columns of the largest tile of one invocation in the register kernel: 8, or 16, which takes longer to
   * compile.
   */
  readonly tile: 8 | 16;
  /** The most invocations that share the k of one register tile (few rows, a long k); 1: none do. */
  readonly slices: number;
  /** Invocations that a matrix product of few tiles should have, by slices. */
  readonly invocations: number;
  /** 'invocation': one invocation sums alone; 'workgroup': a workgroup sums together, in a tree. */
  readonly reduce: 'invocation' | 'workgroup';
  /** The most workgroups of an elementwise kernel, whose invocations then take several elements each. At most 65535. */
  readonly groups: number;
  /** The most bytes of a buffer that a kernel binds; larger operands are worked on in parts. */
  readonly bindingBytes: number;
  /** The most buffers a kernel binds. */
  readonly storageBuffers: number;
}

export interface KernelContext {
  readonly queue: Queue;
  readonly settings: Settings;
  allocate(byteLength: number): Block;
  /** The block may be reused by what is recorded from now on. */
  free(block: Block): void;
}

/** Runs `body` with a contiguous temporary. */
export function withTemporary(context: KernelContext, shape: Shape, dtype: DType, body: (view: View) => void): void {
  const block = context.allocate(4 * sizeOf(shape));
  try {
    body({ allocation: block, dtype, shape, strides: contiguousStrides(shape), offset: 0 });
  } finally {
    context.free(block);
  }
}
