// Which backend new tensors are made on. Ops run where their inputs are; only creation asks here.

import type { Backend, MemoryStats } from '../backends/backend.js';
import { createCpuBackend } from '../backends/cpu/cpu.js';

let chosen: Backend | null = null;

/** The backend new tensors are made on; the CPU unless set otherwise. */
export function defaultBackend(): Backend {
  chosen ??= createCpuBackend();
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

/** `backend` itself where its memory is the host's, else a CPU backend beside it, for values that must be read at once. */
export function hostBackend(backend: Backend): Backend {
  if (backend.readSync) return backend;
  host ??= createCpuBackend();
  return host;
}

let gpu: Promise<Backend> | null = null;

/**
 * Opens a device by name, once a process. 'webgpu' never falls back: without an adapter it throws a DeviceError that says what is missing.
 * 'auto' is the CPU: until the fused kernels are there on WebGPU too, it is the faster one.
 */
export async function openDevice(name: DeviceName = 'auto'): Promise<Backend> {
  if (name === 'cpu' || name === 'auto') return defaultBackend();
  if (name !== 'webgpu') throw new RangeError(`device: expected 'cpu', 'webgpu' or 'auto', got '${String(name)}'`);
  const { createWebGpuBackend, WebGPUError } = await import('../backends/webgpu/index.js');
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
