// The CPU backend: one WebAssembly memory, the reference kernels over it, and in front of them the SIMD kernels of
// ./wasm, each of which may decline a call (another dtype, an unusual layout). No kernel is written here.

import { bytesPerElement, typedArray } from '../../tensor/dtype.js';
import type { Allocation, Backend, FusedKernel, Kernels, MemoryStats, View } from '../backend.js';
import { Allocator, type Block } from './allocator.js';
import { referenceKernels } from './reference.js';
import { canShareMemory, coreCount, oneThread, openThreads, threadsBytes } from './threads.js';
import { createWasmKernels, type WasmKernels } from './wasm/index.js';

export interface CpuOptions {
  /** False leaves only the reference kernels: slow, f32 and f64, the oracle. */
  simd?: boolean;
  /** Fused multiply-add where the engine has it; off, results are those of plain SIMD. */
  relaxed?: boolean;
  /** Most bytes the memory may grow to; at most 4 GiB. */
  limitBytes?: number;
  /**
   * Threads that compute, this one among them: a number of at least 1 (the default), or 'cores'. Results do not depend
   * on it. More than one need shared memory: a page that is not isolated from other origins, or a limit below 16 MiB,
   * gets one.
   */
  threads?: number | 'cores';
  /** Work, in multiply-adds, from which on a kernel is cut for several threads; for tests. */
  leastWork?: number;
}

export interface CpuBackend extends Backend {
  /** Threads that compute, once all are there. */
  readonly threads: number;
  /** Threads that are there by now: workers start with the first kernel that is worth cutting. */
  presentThreads(): number;
}

const pageBytes = 65536;
const most = 65536 * pageBytes;

function threadsFor({ threads = 1, simd }: CpuOptions, limitBytes: number): number {
  if (threads !== 'cores' && !(Number.isInteger(threads) && threads >= 1)) {
    throw new RangeError(`threads: expected a whole number of at least 1, or 'cores', got ${threads}`);
  }
  if (simd === false || limitBytes < 4 * threadsBytes || !canShareMemory()) return 1;
  return threads === 'cores' ? coreCount() : threads;
}

/** @throws RangeError for a limit below two pages, or threads that are no whole number of at least 1 */
export function createCpuBackend(options: CpuOptions = {}): CpuBackend {
  const limitBytes = Math.min(options.limitBytes ?? most, most);
  if (!(limitBytes >= 2 * pageBytes))
    throw new RangeError(`limitBytes: expected at least ${2 * pageBytes}, got ${options.limitBytes}`);
  const maximum = Math.ceil(limitBytes / pageBytes);
  const seats = threadsFor(options, limitBytes);
  const shared = seats > 1;
  const memory = new WebAssembly.Memory({
    initial: shared ? threadsBytes / pageBytes : Math.min(16, maximum),
    maximum,
    shared,
  });
  const threads = shared ? openThreads(memory, seats, options.leastWork) : oneThread(memory);
  const allocator = new Allocator(memory, shared ? threadsBytes : 64, limitBytes);
  let closed = false;

  const blockOf = (allocation: Allocation): Block => {
    if (closed) throw new Error('cpu: this backend was closed');
    return allocation as Block;
  };
  const byteOffsetOf = (view: View): number =>
    blockOf(view.allocation).byteOffset + view.offset * bytesPerElement[view.dtype];
  const host = (view: View) => {
    const block = blockOf(view.allocation);
    return typedArray(
      view.dtype,
      memory.buffer,
      block.byteOffset,
      Math.floor(block.byteLength / bytesPerElement[view.dtype]),
    );
  };

  /** A region for what a kernel needs while it runs: packed panels, descriptors, decoded weights. */
  const region = (): ((byteLength: number) => number) => {
    let block: Block | undefined;
    return byteLength => {
      if (!block || block.capacity < byteLength) {
        if (block) allocator.release(block);
        block = undefined;
        block = allocator.allocate(byteLength);
      }
      return block.byteOffset;
    };
  };

  const reference = referenceKernels(host);
  const wasm: WasmKernels | undefined =
    options.simd === false
      ? undefined
      : createWasmKernels({
          memory,
          threads,
          scratch: region(),
          decoded: region(),
          halves: region(),
          panels: region(),
          byteOffsetOf,
          relaxed: options.relaxed ?? true,
        });

  const kernels: Kernels = {
    map: call => void (wasm?.map(call) || reference.map(call)),
    reduce: call => void (wasm?.reduce(call) || reference.reduce(call)),
    matmul: call => void (wasm?.matmul(call) || reference.matmul(call)),
    copy: call => void (wasm?.copy(call) || reference.copy(call)),
    gather: call => void (wasm?.gather(call) || reference.gather(call)),
    scatterAdd: call => void (wasm?.scatterAdd(call) || reference.scatterAdd(call)),
    unpack: call => void (wasm?.unpack(call) || reference.unpack(call)),
  };

  const window = (allocation: Allocation, dtype: View['dtype'], offset: number, length: number) => {
    const block = blockOf(allocation);
    const bytes = bytesPerElement[dtype];
    if (offset < 0 || (offset + length) * bytes > block.byteLength)
      throw new RangeError(
        `cpu: elements ${offset}..${offset + length} lie outside a block of ${block.byteLength} bytes`,
      );
    return typedArray(dtype, memory.buffer, block.byteOffset + offset * bytes, length);
  };

  const backend: CpuBackend = {
    name: 'cpu',
    threads: seats,
    presentThreads: threads.present,
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
      if (byteOffset + data.byteLength > block.byteLength)
        throw new RangeError(
          `cpu: ${data.byteLength} bytes do not fit a block of ${block.byteLength} at ${byteOffset}`,
        );
      new Uint8Array(memory.buffer).set(
        new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
        block.byteOffset + byteOffset,
      );
    },
    read: async (allocation, dtype, offset, length) => window(allocation, dtype, offset, length).slice(),
    readSync: (allocation, dtype, offset, length) => window(allocation, dtype, offset, length).slice(),
    hostView: window,
    flush: async () => undefined,
    stats: (): MemoryStats => allocator.stats(),
    close: async () => {
      closed = true;
      await threads.close();
    },
  };
  return backend;
}
