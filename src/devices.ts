// Which backend new tensors are made on. Ops run where their inputs are; only creation asks here.

import type { Backend, MemoryStats } from './backends/backend.js';
import { createCpuBackend, type CpuBackend } from './backends/cpu/cpu.js';

let chosen: Backend | null = null;

/** The backend new tensors are made on; the CPU with all its cores unless set otherwise. */
export function defaultBackend(): Backend {
  chosen ??= createCpuBackend({ threads: 'cores' });
  return chosen;
}

export function setDefaultBackend(backend: Backend): void {
  chosen = backend;
}

/** Makes `backend` the default while `body` runs (synchronously). */
export function withBackend<T>(backend: Backend, body: () => T): T {
  const before = chosen;
  chosen = backend;
  try {
    return body();
  } finally {
    chosen = before;
  }
}

export type DeviceName = 'cpu' | 'webgpu' | 'auto';

/** The device asked for is not there. */
export class DeviceError extends Error {
  override readonly name = 'DeviceError';
}

let host: Backend | null = null;

/**
 * `backend` itself where its memory is the host's, else a CPU backend beside it, for values that must be read at once.
 */
export function hostBackend(backend: Backend): Backend {
  if (backend.readSync) return backend;
  host ??= createCpuBackend();
  return host;
}

let gpu: Promise<Backend> | null = null;

export interface DeviceOptions {
  /** Threads of the CPU; all cores unless given. */
  readonly threads?: number;
}

/** The default backend, if it is a CPU with so many threads or none was made yet; else a backend of its own. */
function cpuWith(threads: number): Backend {
  chosen ??= createCpuBackend({ threads });
  return (chosen as Partial<CpuBackend>).threads === threads ? chosen : createCpuBackend({ threads });
}

/**
 * Opens a device by name, once a process (a CPU with another number of threads: each time). 'webgpu' never falls back:
 * without an adapter it throws a DeviceError that says what is missing. 'auto' is the CPU: until the fused kernels are
 * there on WebGPU too, it is the faster one.
 * @throws DeviceError for a device that is not there, or threads of one that is no CPU
 */
export async function openDevice(name: DeviceName = 'auto', { threads }: DeviceOptions = {}): Promise<Backend> {
  if (name === 'cpu' || name === 'auto') return threads === undefined ? defaultBackend() : cpuWith(threads);
  if (name !== 'webgpu') throw new RangeError(`device: expected 'cpu', 'webgpu' or 'auto', got '${String(name)}'`);
  if (threads !== undefined) throw new DeviceError(`device 'webgpu': threads are the CPU's, got ${threads}`);
  const { createWebGpuBackend, WebGPUError } = await import('./backends/webgpu/index.js');
  try {
    gpu ??= createWebGpuBackend();
    return await gpu;
  } catch (error) {
    gpu = null;
    if (error instanceof WebGPUError) throw new DeviceError(`device 'webgpu': ${error.message}`, { cause: error });
    throw error;
  }
}

/** Live, pooled and peak bytes of a backend. */
export function stats(backend: Backend = defaultBackend()): MemoryStats {
  return backend.stats();
}
