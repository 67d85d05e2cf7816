// What the kernels of this folder share: the memory they work in, and a table of compiled code.

import type { Program } from '../../../tensor/expr.js';
import type { View } from '../../backend.js';
import type { Threads } from '../threads.js';
import type { WasmFunction } from './emit/assembler.js';

export interface WasmContext {
  readonly memory: WebAssembly.Memory;
  /** A region for one kernel call; the next request may give the same one. May grow the memory. */
  readonly scratch: (byteLength: number) => number;
  /** Another region like it: pieces of packed weights, decoded for one product. */
  readonly decoded: (byteLength: number) => number;
  /** And one for a table of f16 numbers. */
  readonly halves: (byteLength: number) => number;
  /** And one for packed panels of a product. */
  readonly panels: (byteLength: number) => number;
  /** Who computes: links compiled code, and runs calls that are cut in tiles. */
  readonly threads: Threads;
  /** Where element 0 of a view lies. */
  readonly byteOffsetOf: (view: View) => number;
  /** Whether to use relaxed SIMD: fused multiply-add. */
  readonly relaxed: boolean;
}

export function isShared(memory: WebAssembly.Memory): boolean {
  return typeof SharedArrayBuffer !== 'undefined' && memory.buffer instanceof SharedArrayBuffer;
}

/** Compiled code that reads everything else from a descriptor in memory. */
export type Kernel = WasmFunction;

/** Compiled code by program and pattern. */
export class KernelCache {
  private readonly table = new Map<Program, Map<string, Kernel>>();

  get(program: Program, pattern: string, compile: () => Kernel): Kernel {
    let patterns = this.table.get(program);
    if (!patterns) this.table.set(program, (patterns = new Map<string, Kernel>()));
    let kernel = patterns.get(pattern);
    if (!kernel) patterns.set(pattern, (kernel = compile()));
    return kernel;
  }
}
