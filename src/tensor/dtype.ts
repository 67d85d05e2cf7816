// The element types a tensor can have, and the typed arrays that hold them. Storage formats of files and quantised
// weights do not belong here: they are converted when a file is read.

/** f32 is the working type; f64 runs on the reference kernels only; bool is stored as 0 or 1 in 32 bits. */
export type DType = 'f32' | 'f64' | 'i32' | 'bool';

export type TypedArray = Float32Array | Float64Array | Int32Array;

export const bytesPerElement: Readonly<Record<DType, number>> = { f32: 4, f64: 8, i32: 4, bool: 4 };

export function isFloat(dtype: DType): boolean {
  return dtype === 'f32' || dtype === 'f64';
}

/** A fresh array of `length` zeros of this type, or a view of `buffer` when one is given. */
export function typedArray(dtype: DType, length: number): TypedArray;
export function typedArray(dtype: DType, buffer: ArrayBufferLike, byteOffset: number, length: number): TypedArray;
export function typedArray(dtype: DType, source: number | ArrayBufferLike, byteOffset = 0, length = 0): TypedArray {
  const make = <T>(Type: { new (n: number): T; new (b: ArrayBufferLike, o: number, n: number): T }): T =>
    typeof source === 'number' ? new Type(source) : new Type(source, byteOffset, length);
  if (dtype === 'f32') return make<Float32Array>(Float32Array);
  if (dtype === 'f64') return make<Float64Array>(Float64Array);
  return make<Int32Array>(Int32Array);
}

/** The type two operands meet in: bool < i32 < f32 < f64. */
export function promote(a: DType, b: DType): DType {
  const order: DType[] = ['bool', 'i32', 'f32', 'f64'];
  return order[Math.max(order.indexOf(a), order.indexOf(b))];
}
