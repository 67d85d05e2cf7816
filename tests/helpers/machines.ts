// The machines an op is tested on. The oracle computes in f64 on the reference kernels; its f32 rounds when storing.
// Fused multiply-add is behind a flag on Node 20, set here before the first kernel is compiled.

import { setFlagsFromString } from 'node:v8';
import { createCpuBackend, type Backend } from '../../src/backends/index.js';
import { create } from '../../src/tensor/create.js';
import type { DType, TypedArray } from '../../src/tensor/dtype.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import type { Host } from './host.js';

if (process.versions.node.startsWith('20.')) setFlagsFromString('--experimental-wasm-relaxed-simd');

export interface Machine {
  readonly name: string;
  readonly backend: Backend;
  readonly dtype: 'f32' | 'f64';
}

/** How often each fused kernel took a call, on all CPU machines: one that always declines would never be tested. */
export const accepted = new Map<string, number>();

/** Counts into `counts` the calls that the backend's fused kernels take. */
export function counted<B extends Backend>(backend: B, counts: Map<string, number>): B {
  for (const [name, kernel] of backend.fused) {
    counts.set(name, counts.get(name) ?? 0);
    backend.fused.set(name, call => {
      const done = kernel(call);
      if (done) counts.set(name, (counts.get(name) ?? 0) + 1);
      return done;
    });
  }
  return backend;
}

/** Runs `body` with no fused kernel registered: compositions run. */
export function withoutKernels<T>({ backend }: Machine, body: () => T): T {
  const kernels = [...backend.fused];
  backend.fused.clear();
  try {
    return body();
  } finally {
    for (const [name, kernel] of kernels) backend.fused.set(name, kernel);
  }
}

const reference = createCpuBackend({ simd: false });
export const oracle: Machine = { name: 'reference f64', backend: reference, dtype: 'f64' };
export const referenceF32: Machine = { name: 'reference f32', backend: reference, dtype: 'f32' };
export const cpu: Machine = { name: 'cpu', backend: counted(createCpuBackend(), accepted), dtype: 'f32' };
/** Without fused multiply-add: other machine code, other rounding. */
export const cpuPlain: Machine = {
  name: 'cpu, plain SIMD',
  backend: counted(createCpuBackend({ relaxed: false }), accepted),
  dtype: 'f32',
};
export const machines: readonly Machine[] = [oracle, referenceF32, cpu, cpuPlain];

export function dtypeOn(h: Host, machine: Machine): DType {
  return h.dtype === 'float' ? machine.dtype : h.dtype;
}

/** The values on the machine and in the dtype of another tensor: for what is not an input. */
export function beside(x: Tensor, h: Host): Tensor {
  return place(h, { name: '', backend: x.backend, dtype: x.dtype === 'f64' ? 'f64' : 'f32' });
}

/** The values as a contiguous tensor of the machine. */
export function place(h: Host, machine: Machine): Tensor {
  const dtype = dtypeOn(h, machine);
  const data: TypedArray =
    dtype === 'f64' ? h.data : dtype === 'f32' ? Float32Array.from(h.data) : Int32Array.from(h.data);
  return create.from(data, h.shape, { dtype, backend: machine.backend });
}
