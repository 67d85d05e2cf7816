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

/** Live, pooled and peak bytes of a backend. */
export function stats(backend: Backend = defaultBackend()): MemoryStats {
  return backend.stats();
}
