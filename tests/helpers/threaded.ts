// CPU backends with several threads, all of them there, cutting every call however small: what tests hold to one
// thread's bits.

import assert from 'node:assert/strict';
import { createCpuBackend, type CpuOptions } from '../../src/backends/cpu/cpu.js';
import { create } from '../../src/tensor/create.js';
import { scope } from '../../src/autograd/index.js';
import type { Machine } from './machines.js';

export type CpuBackend = ReturnType<typeof createCpuBackend>;

/** Computes small products until every thread has come. Workers start by themselves; nothing is awaited. */
export function untilPresent(backend: CpuBackend): void {
  const end = Date.now() + 60_000;
  while (backend.presentThreads() < backend.threads) {
    assert.ok(Date.now() < end, `${backend.presentThreads()} of ${backend.threads} threads have come in a minute`);
    scope(() => void create.ones([64, 64], { backend }).matmul(create.ones([64, 64], { backend })));
  }
}

export function threadedMachine(threads: number, options: CpuOptions = {}): Machine & { readonly backend: CpuBackend } {
  const backend = createCpuBackend({ ...options, threads, leastWork: 0 });
  assert.equal(backend.threads, threads);
  untilPresent(backend);
  return { name: `cpu, ${threads} threads${options.relaxed === false ? ', plain SIMD' : ''}`, backend, dtype: 'f32' };
}

/** The bits of numbers, so that NaNs and zeros of both signs can be compared. */
export const bitsOf = (values: ArrayLike<number>): string =>
  Buffer.from(Float32Array.from(values).buffer).toString('base64');
