// Views on a WebGPU device for tests of single kernels: dense and packed matrices, their transposes, what was computed.

import type { View } from '../../src/backends/backend.js';
import type { WebGpuBackend } from '../../src/backends/webgpu/index.js';
import type { Packing } from '../../src/tensor/packing.js';
import { contiguousStrides, sizeOf } from '../../src/tensor/shape.js';
import { Random } from '../../src/tensor/threefry.js';
import type { PackedWeights } from './packedWeights.js';

export function onDevice(backend: WebGpuBackend, packing: Packing, w: PackedWeights): View {
  const allocation = backend.allocate(w.bytes.byteLength);
  backend.write(allocation, 0, new Int32Array(w.bytes.buffer, 0, w.bytes.byteLength / 4));
  return { allocation, dtype: 'f32', shape: [w.rows, w.columns], strides: [w.columns, 1], offset: 0, packing };
}

export function dense(backend: WebGpuBackend, shape: readonly number[], data?: Float32Array): View {
  const allocation = backend.allocate(4 * Math.max(1, sizeOf(shape)));
  if (data) backend.write(allocation, 0, data);
  return { allocation, dtype: 'f32', shape, strides: contiguousStrides(shape), offset: 0 };
}

/** The transpose of a matrix. */
export const turned = (view: View): View => ({
  ...view,
  shape: [view.shape[1], view.shape[0]],
  strides: [view.strides[1], view.strides[0]],
});

export const read = (backend: WebGpuBackend, view: View) =>
  backend.read(view.allocation, 'f32', view.offset, sizeOf(view.shape));

export function normals(count: number, seed: number): Float32Array {
  const random = new Random(seed, 3);
  return Float32Array.from({ length: count }, () => random.normal());
}
