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

/** Opens a device by name. 'auto' takes the best there is; 'webgpu' never falls back. */
export async function openDevice(name: DeviceName = 'auto'): Promise<Backend> {
  if (name === 'cpu' || name === 'auto') return defaultBackend();
  if (name === 'webgpu') throw new DeviceError("device 'webgpu': this version has no WebGPU backend; use 'cpu'");
  throw new RangeError(`device: expected 'cpu', 'webgpu' or 'auto', got '${String(name)}'`);
}

/** Live, pooled and peak bytes of a backend. */
export function stats(backend: Backend = defaultBackend()): MemoryStats {
  return backend.stats();
}
