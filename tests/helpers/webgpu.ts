// A WebGPU device for tests. Without an adapter the tests of a file are not registered and the reason is printed; with
// REQUIRE_WEBGPU=1 that is an error.

import { after } from 'node:test';
import {
  createWebGpuBackend,
  WebGPUError,
  type WebGpuBackend,
  type WebGpuOptions,
} from '../../src/backends/webgpu/index.js';
import { referenceKernels } from '../../src/backends/cpu/reference.js';
import type { Allocation, Primitives, View } from '../../src/backends/backend.js';
import { typedArray, type DType, type TypedArray } from '../../src/tensor/dtype.js';
import { contiguousStrides, sizeOf, type Shape } from '../../src/tensor/shape.js';

/** A device that is closed after the file's tests, or undefined where there is none. */
export async function openForTests(options: WebGpuOptions = {}): Promise<WebGpuBackend | undefined> {
  try {
    const backend = await createWebGpuBackend(options);
    after(() => backend.close());
    return backend;
  } catch (error) {
    if (process.env['REQUIRE_WEBGPU'] === '1' || !(error instanceof WebGPUError)) throw error;
    console.log(`WebGPU is not tested: ${error.message}`);
    return undefined;
  }
}

/** What every untouched element holds; exact in f32 and i32. */
const untouched = -12345;

/** Views on the device with a copy on the host, on which the reference kernels do the same. */
export class Mirror {
  readonly backend: WebGpuBackend;
  private readonly copies = new Map<Allocation, TypedArray>();
  private readonly reference = referenceKernels(view => this.host(view.allocation));

  constructor(backend: WebGpuBackend) {
    this.backend = backend;
  }

  private host(allocation: Allocation): TypedArray {
    const copy = this.copies.get(allocation);
    if (!copy) throw new Error('not placed by this mirror');
    return copy;
  }

  /** Room for views: `length` elements of one dtype, all marked as untouched. */
  allocation(length: number, dtype: DType = 'f32'): Allocation {
    const allocation = this.backend.allocate(4 * length);
    const copy = typedArray(dtype, length).fill(untouched);
    this.copies.set(allocation, copy);
    this.backend.write(allocation, 0, copy);
    return allocation;
  }

  /** A view in an allocation of its own (or a given one) with room before and after it, filled in row-major order. */
  view(
    shape: Shape,
    options: { dtype?: DType; strides?: Shape; value?: (i: number) => number; on?: Allocation; at?: number } = {},
  ): View {
    const { dtype = 'f32', strides = contiguousStrides(shape), value, on, at = 5 } = options;
    let [low, high] = [0, 0];
    shape.forEach((side, d) => {
      const reach = Math.max(0, side - 1) * strides[d];
      if (reach < 0) low += reach;
      else high += reach;
    });
    const view: View = {
      allocation: on ?? this.allocation(high - low + 1 + 2 * at, dtype),
      dtype,
      shape,
      strides,
      offset: at - low,
    };
    if (value) {
      const host = this.host(view.allocation);
      this.offsets(view).forEach((to, i) => (host[to] = value(i)));
      this.backend.write(view.allocation, 0, host);
    }
    return view;
  }

  offsets({ shape, strides, offset }: View): number[] {
    const dense = contiguousStrides(shape);
    return Array.from({ length: sizeOf(shape) }, (_, i) =>
      shape.reduce((at, side, d) => at + (Math.floor(i / dense[d]) % side) * strides[d], offset),
    );
  }

  /** The elements the reference has computed. */
  expected(view: View): number[] {
    const host = this.host(view.allocation);
    return this.offsets(view).map(at => host[at]);
  }

  async read(view: View): Promise<number[]> {
    const data = await this.backend.read(view.allocation, view.dtype, 0, Math.floor(view.allocation.byteLength / 4));
    return this.offsets(view).map(at => data[at]);
  }

  run<K extends keyof Primitives>(name: K, call: Primitives[K]): void {
    (this.backend.kernels[name] as (call: Primitives[K]) => void)(call);
    (this.reference[name] as (call: Primitives[K]) => void)(call);
  }

  /**
   * Every allocation, gaps between elements included, equals the reference's (floats within `bound` of each element).
   * Frees all.
   */
  async compare(what: string, bound: (expected: number) => number = () => 0): Promise<void> {
    for (const [allocation, copy] of this.copies) {
      const dtype: DType = copy instanceof Float32Array ? 'f32' : 'i32';
      const data = await this.backend.read(allocation, dtype, 0, copy.length);
      for (let i = 0; i < copy.length; i++) {
        const close =
          data[i] === copy[i] ||
          Math.abs(data[i] - copy[i]) <= bound(copy[i]) ||
          (Number.isNaN(data[i]) && Number.isNaN(copy[i]));
        if (!close)
          throw new Error(
            `${what}: element ${i} of an allocation of ${copy.length} is ${data[i]}, expected ${copy[i]}`,
          );
      }
    }
    this.clear();
  }

  clear(): void {
    for (const allocation of this.copies.keys()) this.backend.free(allocation);
    this.copies.clear();
  }
}

/** Small multiples of 1/4: sums and products of some thousand of them are exact in f32. */
export const quarters =
  (seed: number) =>
  (i: number): number =>
    (((i * 7919 + seed * 104729) % 33) - 16) / 4;
