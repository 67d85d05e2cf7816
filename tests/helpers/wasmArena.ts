// A WebAssembly memory for kernel tests: places tensors with gaps of canary values between them, reads them back, and
// tells which bytes outside the expected outputs a kernel has touched.

import assert from 'node:assert/strict';
import { bytesPerElement, typedArray, type DType } from '../../src/tensor/dtype.js';
import { contiguousStrides, sizeOf, type Shape } from '../../src/tensor/shape.js';
import type { View } from '../../src/backends/backend.js';
import { oneThread } from '../../src/backends/cpu/threads.js';
import type { WasmContext } from '../../src/backends/cpu/wasm/context.js';

const canary = 0x7fc12345; // as an f32 a NaN: a read outside a view shows in the result
const scratchBytes = 1 << 20;

const scratchFrom =
  (start: number) =>
  (bytes: number): number => {
    assert.ok(bytes <= scratchBytes / 2 - 64, `${bytes} bytes of scratch`);
    return start;
  };

interface Placed {
  readonly byteOffset: number;
  readonly byteLength: number;
}

export class Arena {
  readonly memory = new WebAssembly.Memory({ initial: 64, maximum: 64 });
  private top = scratchBytes;

  constructor() {
    this.clear();
  }

  context(relaxed = false): WasmContext {
    return {
      memory: this.memory,
      scratch: scratchFrom(64),
      panels: scratchFrom(scratchBytes / 2),
      threads: oneThread(this.memory),
      decoded: () => assert.fail('an arena holds no packed weights'),
      halves: () => assert.fail('an arena holds no packed weights'),
      byteOffsetOf: view => (view.allocation as Placed).byteOffset + view.offset * bytesPerElement[view.dtype],
      relaxed,
    };
  }

  clear(): void {
    new Int32Array(this.memory.buffer).fill(canary);
    this.top = scratchBytes;
  }

  /** A view with these strides over a fresh block; negative strides are allowed. Values by row-major number. */
  view(
    shape: Shape,
    options: { dtype?: DType; strides?: Shape; value?: (i: number) => number; atEnd?: boolean } = {},
  ): View {
    const { dtype = 'f32', strides = contiguousStrides(shape), value } = options;
    let [low, high] = [0, 0];
    shape.forEach((side, d) => {
      const reach = Math.max(0, side - 1) * strides[d];
      if (reach < 0) low += reach;
      else high += reach;
    });
    const byteLength = (high - low + 1) * bytesPerElement[dtype];
    const byteOffset = options.atEnd ? this.memory.buffer.byteLength - byteLength : this.top + 64;
    if (!options.atEnd) this.top = Math.ceil((byteOffset + byteLength) / 16) * 16;
    assert.ok(byteOffset + byteLength <= this.memory.buffer.byteLength, 'the arena is full');
    const view: View = { allocation: { byteOffset, byteLength } as Placed, dtype, shape, strides, offset: -low };
    if (value) this.write(view, value);
    return view;
  }

  /** Element offsets (from the start of the allocation) in row-major order. */
  offsets(view: View): number[] {
    const { shape, strides, offset } = view;
    const dense = contiguousStrides(shape);
    return Array.from({ length: sizeOf(shape) }, (_, i) =>
      shape.reduce((at, side, d) => at + (Math.floor(i / dense[d]) % side) * strides[d], offset),
    );
  }

  private host(view: View): Float32Array | Float64Array | Int32Array {
    const { byteOffset, byteLength } = view.allocation as Placed;
    return typedArray(view.dtype, this.memory.buffer, byteOffset, byteLength / bytesPerElement[view.dtype]);
  }

  write(view: View, value: (i: number) => number): void {
    const host = this.host(view);
    this.offsets(view).forEach((at, i) => (host[at] = value(i)));
  }

  read(view: View): number[] {
    const host = this.host(view);
    return this.offsets(view).map(at => host[at]);
  }

  /** Runs a kernel and asserts that it wrote to nothing but scratch and the elements of `outputs`. */
  run(outputs: readonly View[], kernel: () => boolean): boolean {
    const words = Math.min(this.memory.buffer.byteLength, this.top + 65536) / 4;
    const before = new Int32Array(this.memory.buffer, 0, words).slice();
    const done = kernel();
    const after = new Int32Array(this.memory.buffer, 0, words);
    const mine = new Set<number>();
    for (const view of outputs)
      for (const at of this.offsets(view)) mine.add((view.allocation as Placed).byteOffset / 4 + at);
    for (let i = scratchBytes / 4; i < after.length; i++) {
      if (after[i] !== before[i] && !mine.has(i)) assert.fail(`wrote outside its outputs, at byte ${4 * i}`);
    }
    if (!done) for (const i of mine) assert.equal(after[i], before[i], 'wrote before declining');
    return done;
  }
}

/** Distance of an f32 result from the exact value, in units of the last place of the exact value's f32. */
export function ulps(got: number, exact: number): number {
  if (Number.isNaN(exact)) return Number.isNaN(got) ? 0 : Infinity;
  const nearest = Math.fround(exact);
  if (!Number.isFinite(nearest) || !Number.isFinite(got)) return Object.is(got, nearest) ? 0 : Infinity;
  const unit = 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(nearest) || 2 ** -126))) - 23);
  return Math.abs(got - exact) / unit;
}

/** A small generator of repeatable numbers in [-1, 1). */
export function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 8388608 - 1;
  };
}
