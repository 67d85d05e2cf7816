// Making tensors from nothing or from host data. Every function takes { dtype, backend }; random ones also { seed,
// stream }.

import type { Backend } from '../backends/backend.js';
import { constant, program } from './expr.js';
import { defaultBackend } from '../devices.js';
import { bytesPerElement, isFloat, typedArray, type DType, type TypedArray } from './dtype.js';
import { packedRowBytes, packedSlack, packings, type Packing } from './packing.js';
import { checkShape, contiguousStrides, formatShape, ShapeError, sizeOf, type Shape } from './shape.js';
import { Storage } from './storage.js';
import { Tensor, type NestedArray } from './tensor.js';
import { Random } from './threefry.js';

export interface CreateOptions {
  dtype?: DType;
  backend?: Backend;
}

export interface RandomOptions extends CreateOptions {
  seed: number;
  /** Independent sequences of one seed. */
  stream?: number;
}

/** Uninitialised memory as a contiguous tensor; `label` names the op that will fill it. */
export function allocate(label: string, shape: Shape, dtype: DType, backend: Backend): Tensor {
  checkShape(label, shape);
  return new Tensor(new Storage(backend, sizeOf(shape) * bytesPerElement[dtype], label), dtype, shape);
}

/** Uninitialised packed weights [rows, columns]; `columns` is at least 2 and whole blocks. */
export function allocatePacked(label: string, shape: Shape, packing: Packing, backend: Backend): Tensor {
  checkShape(label, shape);
  const { blockLength } = packings[packing];
  if (shape.length !== 2 || shape[1] < 2 || shape[1] % blockLength !== 0) {
    const blocks = blockLength > 1 ? `a multiple of ${blockLength}` : '2 or more';
    throw new ShapeError(
      `${label}: ${packing} needs a matrix [rows, columns] with columns ${blocks}, got ${formatShape(shape)}`,
    );
  }
  const storage = new Storage(backend, shape[0] * packedRowBytes(packing, shape[1]) + packedSlack, label);
  return new Tensor(storage, 'f32', shape, contiguousStrides(shape), 0, packing);
}

function fill(
  label: string,
  shape: Shape,
  value: number,
  { dtype = 'f32', backend = defaultBackend() }: CreateOptions,
): Tensor {
  const result = allocate(label, shape, dtype, backend);
  const type = isFloat(dtype) ? 'f' : dtype === 'i32' ? 'i' : 'b';
  backend.kernels.map({
    program: program([constant(value, type)], 0),
    shape,
    inputs: [],
    outputs: [result.view(label)],
    uniforms: [],
  });
  return result;
}

function fromData(
  label: string,
  data: TypedArray | readonly number[],
  shape: Shape,
  { dtype, backend = defaultBackend() }: CreateOptions,
): Tensor {
  const kind: DType = dtype ?? (data instanceof Float64Array ? 'f64' : data instanceof Int32Array ? 'i32' : 'f32');
  if (data.length !== sizeOf(shape))
    throw new ShapeError(`${label}: ${data.length} numbers do not fill shape ${formatShape(shape)}`);
  const result = allocate(label, shape, kind, backend);
  let typed: TypedArray;
  if (kind === 'f32' && data instanceof Float32Array) typed = data;
  else if (kind === 'f64' && data instanceof Float64Array) typed = data;
  else if (kind === 'i32' && data instanceof Int32Array) typed = data;
  else {
    typed = typedArray(kind, data.length);
    for (let i = 0; i < data.length; i++) typed[i] = kind === 'bool' ? Number(data[i] !== 0) : data[i];
  }
  backend.write(result.storage.allocation, 0, typed);
  return result;
}

function shapeOf(value: NestedArray): number[] {
  return Array.isArray(value) ? [value.length, ...(value.length > 0 ? shapeOf(value[0]) : [])] : [];
}

/**
 * From nested arrays (rectangular), or a typed array with its shape. Booleans give bool, else f32 unless a dtype is
 * given.
 */
function from(
  value: NestedArray | TypedArray,
  shapeOrOptions?: Shape | CreateOptions,
  options: CreateOptions = {},
): Tensor {
  if (ArrayBuffer.isView(value)) {
    const shape = Array.isArray(shapeOrOptions) ? (shapeOrOptions as Shape) : [value.length];
    return fromData(
      'tensor',
      value,
      shape,
      Array.isArray(shapeOrOptions) ? options : ((shapeOrOptions as CreateOptions) ?? {}),
    );
  }
  const shape = shapeOf(value);
  const flat: number[] = [];
  let booleans = true;
  const walk = (v: NestedArray, axis: number): void => {
    if (Array.isArray(v)) {
      if (v.length !== shape[axis])
        throw new ShapeError(
          `tensor: expected ${shape[axis] ?? 'a number instead of'} entries on axis ${axis}, got ${v.length}`,
        );
      v.forEach(x => walk(x, axis + 1));
    } else {
      if (axis !== shape.length) throw new ShapeError(`tensor: expected an array on axis ${axis}, got ${v}`);
      booleans &&= typeof v === 'boolean';
      flat.push(Number(v));
    }
  };
  walk(value, 0);
  const given = Array.isArray(shapeOrOptions) ? options : ((shapeOrOptions as CreateOptions) ?? {});
  const shaped = Array.isArray(shapeOrOptions) ? (shapeOrOptions as Shape) : shape;
  return fromData('tensor', flat, shaped, {
    ...given,
    dtype: given.dtype ?? (booleans && flat.length > 0 ? 'bool' : 'f32'),
  });
}

function randomFill(
  label: string,
  shape: Shape,
  { dtype = 'f32', backend = defaultBackend(), seed, stream = 0 }: RandomOptions,
  next: (r: Random) => number,
): Tensor {
  const random = new Random(seed, stream);
  const data = typedArray(dtype, sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = next(random);
  return fromData(label, data, shape, { dtype, backend });
}

/**
 * Frozen weights kept small, from bytes in the row layout of tensor/packing.ts. Products, `takeRows` and `unpack` read
 * them; no gradient.
 */
function packed(
  bytes: Uint8Array,
  shape: Shape,
  packing: Packing,
  { backend = defaultBackend() }: { backend?: Backend } = {},
): Tensor {
  const result = allocatePacked('packed', shape, packing, backend);
  const { byteLength } = result;
  if (bytes.byteLength !== byteLength)
    throw new ShapeError(
      `packed: ${bytes.byteLength} bytes do not fill ${packing}${formatShape(shape)}, which takes ${byteLength}`,
    );
  // Rows are whole 4-byte words, which is what every backend writes.
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  backend.write(result.storage.allocation, 0, new Int32Array(aligned.buffer, aligned.byteOffset, byteLength / 4));
  return result;
}

export const create = {
  from,
  packed,
  zeros: (shape: Shape, options: CreateOptions = {}): Tensor => fill('zeros', shape, 0, options),
  ones: (shape: Shape, options: CreateOptions = {}): Tensor => fill('ones', shape, 1, options),
  full: (shape: Shape, value: number, options: CreateOptions = {}): Tensor => fill('full', shape, value, options),
  scalar: (value: number, options: CreateOptions = {}): Tensor => fromData('scalar', [value], [], options),
  /** start, start + step, ... below (above, for a negative step) end. */
  arange: (start: number, end: number, options: CreateOptions & { step?: number } = {}): Tensor => {
    const { step = 1 } = options;
    const length = Math.max(0, Math.ceil((end - start) / step));
    return fromData(
      'arange',
      Array.from({ length }, (_, i) => start + i * step),
      [length],
      options,
    );
  },
  /** Ones on the diagonal. */
  eye: (n: number, options: CreateOptions = {}): Tensor => {
    const data = new Array<number>(n * n).fill(0);
    for (let i = 0; i < n; i++) data[i * (n + 1)] = 1;
    return fromData('eye', data, [n, n], options);
  },
  /** Standard normals, made on the host in f64 (Box-Muller over Threefry): the same numbers on every backend. */
  normal: (shape: Shape, options: RandomOptions & { mean?: number; std?: number }): Tensor => {
    const { mean = 0, std = 1 } = options;
    return randomFill('normal', shape, options, r => mean + std * r.normal());
  },
  /** Uniform in [low, high), made on the host in f64. */
  uniform: (shape: Shape, options: RandomOptions & { low?: number; high?: number }): Tensor => {
    const { low = 0, high = 1 } = options;
    return randomFill('uniform', shape, options, r => low + (high - low) * r.next());
  },
};

/**
 * `tensor([[1, 2], [3, 4]])`, `tensor(Float32Array, shape)`, and `tensor.zeros`, `.ones`, `.full`, `.arange`, `.eye`,
 * `.normal`, `.uniform`.
 */
export const tensor = Object.assign(from, create);
