// What the kernels of this folder share: the memory they work in, and a table of compiled code.

import type { Program } from '../../../tensor/expr.js';
import type { View } from '../../backend.js';

export interface WasmContext {
  readonly memory: WebAssembly.Memory;
  /** A region for one kernel call; the next request may give the same one. May grow the memory. */
  readonly scratch: (byteLength: number) => number;
  /** Where element 0 of a view lies. */
  readonly byteOffsetOf: (view: View) => number;
  /** Whether to use relaxed SIMD: fused multiply-add. */
  readonly relaxed: boolean;
}

export function isShared(memory: WebAssembly.Memory): boolean {
  return typeof SharedArrayBuffer !== 'undefined' && memory.buffer instanceof SharedArrayBuffer;
}

/** Compiled code that reads everything else from a descriptor in memory. */
export type Kernel = (descriptor: number) => void;

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
