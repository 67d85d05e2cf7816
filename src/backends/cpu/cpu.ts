// The CPU backend: one WebAssembly memory, the reference kernels over it, and in front of them the SIMD kernels of ./wasm, each
// of which may decline a call (another dtype, an unusual layout). No kernel is written here.

import { bytesPerElement, typedArray } from '../../tensor/dtype.js';
import type { Allocation, Backend, FusedKernel, Kernels, MemoryStats, View } from '../backend.js';
import { Allocator, type Block } from './allocator.js';
import { referenceKernels } from './reference.js';
import { createWasmKernels, type WasmKernels } from './wasm/index.js';

export interface CpuOptions {
  /** False leaves only the reference kernels: slow, f32 and f64, the oracle. */
  simd?: boolean;
  /** Fused multiply-add where the engine has it; off, results are those of plain SIMD. */
  relaxed?: boolean;
  /** Most bytes the memory may grow to; at most 4 GiB. */
  limitBytes?: number;
}

const pageBytes = 65536;
const most = 65536 * pageBytes;

export function createCpuBackend(options: CpuOptions = {}): Backend {
  const limitBytes = Math.min(options.limitBytes ?? most, most);
  if (!(limitBytes >= 2 * pageBytes)) throw new RangeError(`limitBytes: expected at least ${2 * pageBytes}, got ${options.limitBytes}`);
  const maximum = Math.ceil(limitBytes / pageBytes);
  const memory = new WebAssembly.Memory({ initial: Math.min(16, maximum), maximum });
  const allocator = new Allocator(memory, 64, limitBytes);
  let closed = false;

  const blockOf = (allocation: Allocation): Block => {
    if (closed) throw new Error('cpu: this backend was closed');
    return allocation as Block;
  };
  const byteOffsetOf = (view: View): number => blockOf(view.allocation).byteOffset + view.offset * bytesPerElement[view.dtype];
  const host = (view: View) => {
    const block = blockOf(view.allocation);
    return typedArray(view.dtype, memory.buffer, block.byteOffset, Math.floor(block.byteLength / bytesPerElement[view.dtype]));
  };

  // One region for what a kernel needs while it runs: packed panels, descriptors.
  let scratchBlock: Block | undefined;
  const scratch = (byteLength: number): number => {
    if (!scratchBlock || scratchBlock.capacity < byteLength) {
      if (scratchBlock) allocator.release(scratchBlock);
      scratchBlock = undefined;
      scratchBlock = allocator.allocate(byteLength);
    }
    return scratchBlock.byteOffset;
  };

  const reference = referenceKernels(host);
  const wasm: WasmKernels | undefined =
    options.simd === false ? undefined : createWasmKernels({ memory, scratch, byteOffsetOf, relaxed: options.relaxed ?? true });

  const kernels: Kernels = {
    map: call => void (wasm?.map(call) || reference.map(call)),
    reduce: call => void (wasm?.reduce(call) || reference.reduce(call)),
    matmul: call => void (wasm?.matmul(call) || reference.matmul(call)),
    copy: call => void (wasm?.copy(call) || reference.copy(call)),
    gather: call => void (wasm?.gather(call) || reference.gather(call)),
    scatterAdd: call => void (wasm?.scatterAdd(call) || reference.scatterAdd(call)),
  };

  const window = (allocation: Allocation, dtype: View['dtype'], offset: number, length: number) => {
    const block = blockOf(allocation);
    const bytes = bytesPerElement[dtype];
    if (offset < 0 || (offset + length) * bytes > block.byteLength) throw new RangeError(`cpu: elements ${offset}..${offset + length} lie outside a block of ${block.byteLength} bytes`);
    return typedArray(dtype, memory.buffer, block.byteOffset + offset * bytes, length);
  };

  const backend: Backend = {
    name: 'cpu',
    kernels,
    fused: wasm?.fused ?? new Map<string, FusedKernel>(),
    allocate: byteLength => {
      if (closed) throw new Error('cpu: this backend was closed');
      return allocator.allocate(byteLength);
    },
    free: allocation => {
      if (!closed) allocator.release(allocation as Block);
    },
    write: (allocation, byteOffset, data) => {
      const block = blockOf(allocation);
      if (byteOffset + data.byteLength > block.byteLength) throw new RangeError(`cpu: ${data.byteLength} bytes do not fit a block of ${block.byteLength} at ${byteOffset}`);
      new Uint8Array(memory.buffer).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), block.byteOffset + byteOffset);
    },
    read: async (allocation, dtype, offset, length) => window(allocation, dtype, offset, length).slice(),
    readSync: (allocation, dtype, offset, length) => window(allocation, dtype, offset, length).slice(),
    hostView: window,
    flush: async () => undefined,
    stats: (): MemoryStats => allocator.stats(),
    close: async () => {
      closed = true;
    },
  };
  return backend;
}
