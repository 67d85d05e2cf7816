// The tensor: a typed, strided window on a storage, with a place in the autograd graph. Immutable from the outside
// (optimizers write parameters through `assign`). Methods are one line each, in the words of PyTorch and NumPy; what
// they do is in autograd/elementwise.ts, ./layout.ts, ./reduction.ts and ./linalg.ts.

import type { View } from '../backends/backend.js';
import { observer } from '../autograd/observer.js';
import { backward, type BackwardOptions, type Node } from '../autograd/tape.js';
import * as elementwise from '../autograd/elementwise.js';
import { bytesPerElement, type DType, type TypedArray } from './dtype.js';
import * as layout from './layout.js';
import * as linalg from './linalg.js';
import { packedMatrix, type Packing } from './packing.js';
import * as reduction from './reduction.js';
import { contiguousStrides, formatShape, isContiguous, sizeOf, type Shape } from './shape.js';
import type { Storage } from './storage.js';

/** A tensor, or a number that stands for a tensor of rank 0 with the other operand's dtype. */
export type TensorLike = Tensor | number;
export type NestedArray = number | boolean | NestedArray[];

export interface AxisOptions {
  /** Keep reduced axes as sides of 1. */
  keepDims?: boolean;
}

export class Tensor {
  readonly storage: Storage;
  readonly dtype: DType;
  readonly shape: Shape;
  /** In elements; 0 repeats. */
  readonly strides: Shape;
  /** In elements, from the start of the storage. */
  readonly offset: number;
  /**
   * Frozen weights kept small: a matrix or its transpose whose elements only `matmulT`/`matmul` (second operand),
   * `takeRows` and `unpack` read.
   */
  readonly packing: Packing | null;
  /** The recorded operation that made it, if gradients flow through it. */
  node: Node | null = null;
  /** For leaves: `backward()` accumulates into `grad`. */
  requiresGrad = false;
  grad: Tensor | null = null;
  /** The checkpoint's name, for parameters. */
  name: string | undefined;

  constructor(
    storage: Storage,
    dtype: DType,
    shape: Shape,
    strides: Shape = contiguousStrides(shape),
    offset = 0,
    packing: Packing | null = null,
  ) {
    this.storage = storage;
    this.dtype = dtype;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.packing = packing;
  }

  get rank(): number {
    return this.shape.length;
  }
  get size(): number {
    return sizeOf(this.shape);
  }
  /** Bytes of its elements; of a packed tensor, of its rows once. */
  get byteLength(): number {
    if (!this.packing) return this.size * bytesPerElement[this.dtype];
    const { rows, rowBytes } = packedMatrix(this);
    return rows * rowBytes;
  }
  get backend() {
    return this.storage.backend;
  }
  get isContiguous(): boolean {
    return isContiguous(this.shape, this.strides);
  }
  /** True when a gradient flows through it: a trained leaf or computed from one. */
  get needsGrad(): boolean {
    return this.requiresGrad || this.node !== null;
  }

  /** What a kernel is given; throws when the memory is gone, and for packed weights unless the kernel reads them. */
  view(op: string, readsPacked = false): View {
    if (observer) observer.op(op);
    this.storage.check(op);
    const {
      storage: { allocation },
      dtype,
      shape,
      strides,
      offset,
      packing,
    } = this;
    if (!packing) return { allocation, dtype, shape, strides, offset };
    if (!readsPacked) throw packedError(op, this);
    return { allocation, dtype, shape, strides, offset, packing };
  }

  // Reading back

  /** The elements in row-major order. The only place, with `item`, where a computation is waited for. */
  async data(): Promise<TypedArray> {
    const dense = this.isContiguous ? this : this.detach().contiguous();
    const { allocation } = dense.view('data');
    const result = await dense.backend.read(allocation, this.dtype, dense.offset, this.size);
    if (dense !== this) dense.storage.dispose();
    return result;
  }

  /** As `data`, at once, on backends whose memory is the host's. */
  dataSync(): TypedArray {
    const { backend } = this;
    if (!backend.readSync)
      throw new Error(`dataSync: the ${backend.name} backend cannot read without waiting; use await data()`);
    const dense = this.isContiguous ? this : this.detach().contiguous();
    const result = backend.readSync(dense.view('dataSync').allocation, this.dtype, dense.offset, this.size);
    if (dense !== this) dense.storage.dispose();
    return result;
  }

  /** The single element. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new Error(`item: expected one element, the shape is ${formatShape(this.shape)}`);
    return (await this.data())[0];
  }

  /** Nested arrays of numbers (booleans for bool). */
  async toArray(): Promise<NestedArray> {
    const data = await this.data();
    const build = (axis: number, at: number): NestedArray => {
      if (axis === this.rank) return this.dtype === 'bool' ? data[at] !== 0 : data[at];
      const step = sizeOf(this.shape.slice(axis + 1));
      return Array.from({ length: this.shape[axis] }, (_, i) => build(axis + 1, at + i * step));
    };
    return build(0, 0);
  }

  // Gradients

  /** Marks a leaf as trained. */
  requireGrad(required = true): this {
    if (this.node) throw new Error('requireGrad: only leaves can be marked; this tensor was computed');
    if (required && this.packing)
      throw new Error(
        `requireGrad: ${this.packing} weights are frozen; load the model with weights: 'f32', or train unpack(w)`,
      );
    if (required && this.dtype !== 'f32' && this.dtype !== 'f64')
      throw new Error(`requireGrad: a ${this.dtype} tensor has no gradient`);
    this.requiresGrad = required;
    return this;
  }

  /** The same data without its history. */
  detach(): Tensor {
    return new Tensor(this.storage, this.dtype, this.shape, this.strides, this.offset, this.packing);
  }

  /** Adds the gradient of this (one element, or with `gradient` given) to `grad` of every trained leaf. */
  backward(options?: BackwardOptions): void {
    backward(this, options);
  }

  // Arithmetic (broadcasting)

  add(other: TensorLike): Tensor {
    return elementwise.add(this, other);
  }
  sub(other: TensorLike): Tensor {
    return elementwise.sub(this, other);
  }
  mul(other: TensorLike): Tensor {
    return elementwise.mul(this, other);
  }
  div(other: TensorLike): Tensor {
    return elementwise.div(this, other);
  }
  maximum(other: TensorLike): Tensor {
    return elementwise.maximum(this, other);
  }
  minimum(other: TensorLike): Tensor {
    return elementwise.minimum(this, other);
  }
  pow(exponent: number): Tensor {
    return elementwise.pow(this, exponent);
  }
  clamp(low: number, high: number): Tensor {
    return elementwise.clamp(this, low, high);
  }
  neg(): Tensor {
    return elementwise.neg(this);
  }
  abs(): Tensor {
    return elementwise.abs(this);
  }
  square(): Tensor {
    return elementwise.square(this);
  }
  exp(): Tensor {
    return elementwise.exp(this);
  }
  log(): Tensor {
    return elementwise.log(this);
  }
  sqrt(): Tensor {
    return elementwise.sqrt(this);
  }
  rsqrt(): Tensor {
    return elementwise.rsqrt(this);
  }
  sin(): Tensor {
    return elementwise.sin(this);
  }
  cos(): Tensor {
    return elementwise.cos(this);
  }
  tanh(): Tensor {
    return elementwise.tanh(this);
  }
  erf(): Tensor {
    return elementwise.erf(this);
  }
  sigmoid(): Tensor {
    return elementwise.sigmoid(this);
  }
  softplus(): Tensor {
    return elementwise.softplus(this);
  }
  relu(): Tensor {
    return elementwise.relu(this);
  }
  silu(): Tensor {
    return elementwise.silu(this);
  }
  /** With erf, as PyTorch's default. */
  gelu(): Tensor {
    return elementwise.gelu(this);
  }
  /** The tanh approximation (GPT-2, T5). */
  geluTanh(): Tensor {
    return elementwise.geluTanh(this);
  }
  floor(): Tensor {
    return elementwise.floor(this);
  }

  eq(other: TensorLike): Tensor {
    return elementwise.eq(this, other);
  }
  ne(other: TensorLike): Tensor {
    return elementwise.ne(this, other);
  }
  lt(other: TensorLike): Tensor {
    return elementwise.lt(this, other);
  }
  le(other: TensorLike): Tensor {
    return elementwise.le(this, other);
  }
  gt(other: TensorLike): Tensor {
    return elementwise.gt(this, other);
  }
  ge(other: TensorLike): Tensor {
    return elementwise.ge(this, other);
  }
  and(other: Tensor): Tensor {
    return elementwise.and(this, other);
  }
  or(other: Tensor): Tensor {
    return elementwise.or(this, other);
  }
  not(): Tensor {
    return elementwise.not(this);
  }
  /** This bool tensor chooses: where true the element of `a`, else of `b`. */
  where(a: TensorLike, b: TensorLike): Tensor {
    return elementwise.where(this, a, b);
  }
  /**
   * Converts; f32 and f64 to i32 cut toward zero and saturate, NaN gives 0: the same on every device, where torch's
   * depends on the machine.
   */
  to(dtype: DType): Tensor {
    return elementwise.cast(this, dtype);
  }

  // Layout

  reshape(shape: Shape): Tensor {
    return layout.reshape(this, shape);
  }
  flatten(): Tensor {
    return layout.reshape(this, [-1]);
  }
  permute(axes: readonly number[]): Tensor {
    return layout.permute(this, axes);
  }
  transpose(a = -1, b = -2): Tensor {
    return layout.transpose(this, a, b);
  }
  expand(shape: Shape): Tensor {
    return layout.expand(this, shape);
  }
  squeeze(axes?: number | readonly number[]): Tensor {
    return layout.squeeze(this, axes);
  }
  unsqueeze(axis: number): Tensor {
    return layout.unsqueeze(this, axis);
  }
  /** Elements start .. end-1 along `axis`; negative numbers count from the end. */
  slice(axis: number, start: number, end?: number): Tensor {
    return layout.slice(this, axis, start, end);
  }
  /** One index along `axis`, which disappears. */
  select(axis: number, index: number): Tensor {
    return layout.select(this, axis, index);
  }
  /** Pieces of the given sizes along `axis`. */
  split(sizes: readonly number[], axis: number): Tensor[] {
    return layout.split(this, sizes, axis);
  }
  /** Rows of axis 0 by number; a negative number gives zeros. */
  takeRows(indices: Int32Array | readonly number[]): Tensor {
    return layout.takeRows(this, indices);
  }
  /** Sums rows of axis 0 into `rows` rows; a negative number drops the row. */
  scatterAddRows(indices: Int32Array | readonly number[], rows: number): Tensor {
    return layout.scatterAddRows(this, indices, rows);
  }
  contiguous(): Tensor {
    return layout.contiguous(this);
  }
  /** Below (and on) diagonal `diagonal` of the last two axes, zero elsewhere. */
  tril(diagonal = 0): Tensor {
    return layout.triangle(this, 'lower', diagonal);
  }
  triu(diagonal = 0): Tensor {
    return layout.triangle(this, 'upper', diagonal);
  }

  // Reductions

  sum(axes?: number | readonly number[], options?: AxisOptions): Tensor {
    return reduction.sum(this, axes, options);
  }
  mean(axes?: number | readonly number[], options?: AxisOptions): Tensor {
    return reduction.mean(this, axes, options);
  }
  max(axes?: number | readonly number[], options?: AxisOptions): Tensor {
    return reduction.max(this, axes, options);
  }
  min(axes?: number | readonly number[], options?: AxisOptions): Tensor {
    return reduction.min(this, axes, options);
  }
  variance(axes?: number | readonly number[], options?: AxisOptions & { correction?: number }): Tensor {
    return reduction.variance(this, axes, options);
  }
  logSumExp(axis: number, options?: AxisOptions): Tensor {
    return reduction.logSumExp(this, axis, options);
  }
  /** The first index of the largest element along `axis`, i32; a NaN is the largest, and the smallest. */
  argmax(axis: number, options?: AxisOptions): Tensor {
    return reduction.argmax(this, axis, options);
  }
  argmin(axis: number, options?: AxisOptions): Tensor {
    return reduction.argmin(this, axis, options);
  }
  /** The k largest along the last axis, in falling order. */
  topk(k: number): { values: Tensor; indices: Tensor } {
    return reduction.topk(this, k);
  }
  cumsum(axis: number): Tensor {
    return reduction.cumsum(this, axis);
  }
  softmax(axis = -1): Tensor {
    return reduction.softmax(this, axis);
  }
  logSoftmax(axis = -1): Tensor {
    return reduction.logSoftmax(this, axis);
  }
  norm(): Tensor {
    return reduction.norm(this);
  }

  // Products

  /** [..., m, k] x [..., k, n]; leading axes broadcast. */
  matmul(other: Tensor): Tensor {
    return linalg.matmul(this, other);
  }
  /** [..., m, k] x [..., n, k] transposed: a linear layer's product with its weight [out, in]. */
  matmulT(other: Tensor): Tensor {
    return linalg.matmul(this, other.transpose(-1, -2));
  }

  toString(): string {
    return `Tensor(${this.packing ?? this.dtype}${formatShape(this.shape)}${this.needsGrad ? ', grad' : ''})`;
  }
}

/** What an op that needs elements says to packed weights. */
export function packedError(op: string, { packing, shape }: Tensor): Error {
  return new Error(`${op}: does not take packed weights (${packing}${formatShape(shape)}); use unpack(w)`);
}
