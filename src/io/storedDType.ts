// What numbers in files can look like: sizes of the stored types, and turning runs of their bytes into f32, f64 or i32
// on the host. Bytes are little-endian, as every format here and every machine that runs WebAssembly is. No file layout
// and no tensor engine here.

import { halfToFloatTable } from '../tensor/packing.js';
import { blockFormats } from './dequantize.js';
import type { BlockDType, BlockFormat } from './dequantize.js';

export type PlainDType = 'F32' | 'F16' | 'BF16' | 'F64' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';
/** Types that a file may have where nothing asks for them: their size is known, their numbers are not read. */
export type OpaqueDType =
  'U16' | 'U32' | 'U64' | 'C64' | 'F8_E4M3' | 'F8_E5M2' | 'F8_E8M0' | 'F6_E2M3' | 'F6_E3M2' | 'F4';
/** int8 with one multiplier for the whole tensor (`StoredTensor.multiplier`), as marian's intgemm has them. */
export type ScaledDType = 'INTGEMM8';
export type ReadableDType = PlainDType | BlockDType | ScaledDType;
export type StoredDType = ReadableDType | OpaqueDType;

/** The arrays that hold stored values; F16 and BF16 are raw bits in a Uint16Array, BOOL is 0 or 1 in a Uint8Array. */
export type StoredArray =
  Float32Array | Float64Array | Uint16Array | BigInt64Array | Int32Array | Int16Array | Int8Array | Uint8Array;

interface ArrayMaker {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): StoredArray;
  readonly BYTES_PER_ELEMENT: number;
  readonly name: string;
}

/** The array class of each plain type; its element size is the type's size. */
export const plainArrays: Readonly<Record<PlainDType, ArrayMaker>> = {
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  F64: Float64Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

const opaqueUnits: Readonly<Record<OpaqueDType, { readonly values: number; readonly bytes: number }>> = {
  U16: { values: 1, bytes: 2 },
  U32: { values: 1, bytes: 4 },
  U64: { values: 1, bytes: 8 },
  C64: { values: 1, bytes: 8 },
  F8_E4M3: { values: 1, bytes: 1 },
  F8_E5M2: { values: 1, bytes: 1 },
  F8_E8M0: { values: 1, bytes: 1 },
  F6_E2M3: { values: 4, bytes: 3 },
  F6_E3M2: { values: 4, bytes: 3 },
  F4: { values: 2, bytes: 1 },
};

export const isOpaqueDType = (dtype: unknown): dtype is OpaqueDType =>
  typeof dtype === 'string' && Object.hasOwn(opaqueUnits, dtype);

/** True for the types whose numbers can be read as what they stand for: floating-point and quantised ones. */
export const isFloatDType = (dtype: StoredDType): boolean =>
  isBlockDType(dtype) || isScaledDType(dtype) || ['F32', 'F16', 'BF16', 'F64'].includes(dtype);

export const isPlainDType = (dtype: unknown): dtype is PlainDType =>
  typeof dtype === 'string' && Object.hasOwn(plainArrays, dtype);
const isScaledDType = (dtype: StoredDType): dtype is ScaledDType => dtype === 'INTGEMM8';
const isBlockDType = (dtype: StoredDType): dtype is BlockDType => Object.hasOwn(blockFormats, dtype);

/**
 * Values that are stored together, and the bytes they take: one value of a plain type, one block of a quantised one.
 */
export function storageUnit(dtype: StoredDType): { readonly values: number; readonly bytes: number } {
  if (isOpaqueDType(dtype)) return opaqueUnits[dtype];
  if (isBlockDType(dtype)) return { values: blockFormats[dtype].blockLength, bytes: blockFormats[dtype].blockBytes };
  return { values: 1, bytes: isScaledDType(dtype) ? 1 : plainArrays[dtype].BYTES_PER_ELEMENT };
}

/**
 * Number of values and bytes of a tensor, or a string that says what is wrong with its shape: sides must be whole and
 * not negative, their product and its bytes below 2^53, the last side a multiple of the block of a quantised type.
 */
export function measure(dtype: StoredDType, shape: readonly number[]): { count: number; byteLength: number } | string {
  let count = 1;
  for (const side of shape) {
    if (!Number.isSafeInteger(side) || side < 0) return `a side is ${side}, expected a whole number from 0`;
    count *= side;
    if (!Number.isSafeInteger(count)) return 'holds more than 2^53 values';
  }
  const unit = storageUnit(dtype);
  if (unit.values > 1 && (shape.length === 0 || shape[shape.length - 1] % unit.values !== 0)) {
    return `the last side must be a multiple of the ${unit.values} weights of a ${dtype} block`;
  }
  const byteLength = (count / unit.values) * unit.bytes;
  return Number.isSafeInteger(byteLength) ? { count, byteLength } : 'takes more than 2^53 bytes';
}

/** A typed array over `bytes` (copied when they are not aligned for it). `bytes` must be whole values of `dtype`. */
export function viewStored(dtype: PlainDType, bytes: Uint8Array): StoredArray {
  const Maker = plainArrays[dtype];
  const aligned = bytes.byteOffset % Maker.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new Maker(aligned.buffer, aligned.byteOffset, aligned.byteLength / Maker.BYTES_PER_ELEMENT);
}

/**
 * Decodes whole storage units of `bytes` into `out[start ..]` as f32. `bytes` starts on an 8-byte boundary of its
 * buffer. Values of a scaled type are still to be divided by their tensor's multiplier.
 */
export function decodeFloat32(dtype: ReadableDType, bytes: Uint8Array, out: Float32Array, start: number): void {
  if (isBlockDType(dtype)) {
    const format: BlockFormat = blockFormats[dtype];
    format.decode(bytes, bytes.byteLength / format.blockBytes, out, start);
  } else if (dtype === 'F32') {
    // Bytes, not numbers: a NaN keeps its bits.
    new Uint8Array(out.buffer, out.byteOffset + start * 4, bytes.byteLength).set(bytes);
  } else if (dtype === 'BF16') {
    const from = viewStored(dtype, bytes) as Uint16Array;
    const bits = new Uint32Array(out.buffer, out.byteOffset + start * 4, from.length);
    for (let i = 0; i < from.length; i++) bits[i] = from[i] << 16;
  } else {
    decodePlain(isScaledDType(dtype) ? 'I8' : dtype, bytes, out, start);
  }
}

/**
 * Decodes whole values of `bytes` into `out[start ..]` as f64 (exact for all types but I64 beyond 2^53). Values of a
 * scaled type as by `decodeFloat32`.
 */
export function decodeFloat64(dtype: ReadableDType, bytes: Uint8Array, out: Float64Array, start: number): void {
  if (isScaledDType(dtype)) return decodePlain('I8', bytes, out, start);
  if (!isBlockDType(dtype) && dtype !== 'BF16') return decodePlain(dtype, bytes, out, start);
  const unit = storageUnit(dtype);
  const wide = new Float32Array((bytes.byteLength / unit.bytes) * unit.values);
  decodeFloat32(dtype, bytes, wide, 0);
  out.set(wide, start);
}

function decodePlain(
  dtype: Exclude<PlainDType, 'BF16'>,
  bytes: Uint8Array,
  out: Float32Array | Float64Array,
  start: number,
): void {
  const from = viewStored(dtype, bytes);
  if (dtype === 'F16') {
    const half = halfToFloatTable();
    const bits = from as Uint16Array;
    for (let i = 0; i < bits.length; i++) out[start + i] = half[bits[i]];
  } else if (from instanceof BigInt64Array) {
    for (let i = 0; i < from.length; i++) out[start + i] = Number(from[i]);
  } else {
    out.set(from, start);
  }
}

/**
 * Decodes whole values of an integer or BOOL type into `out[start ..]` as i32. Returns undefined, or what is wrong:
 * a type that is not whole numbers, or an I64 value outside of i32.
 */
export function decodeInt32(
  dtype: ReadableDType,
  bytes: Uint8Array,
  out: Int32Array,
  start: number,
): string | undefined {
  if (isBlockDType(dtype) || isScaledDType(dtype) || isFloatDType(dtype))
    return `is ${dtype}, expected whole numbers (I64, I32, I16, I8, U8, BOOL)`;
  const from = viewStored(dtype, bytes);
  if (from instanceof BigInt64Array) {
    for (let i = 0; i < from.length; i++) {
      if (BigInt.asIntN(32, from[i]) !== from[i])
        return `holds ${from[i]} at ${start + i}, outside of the 32-bit range`;
      out[start + i] = Number(from[i]);
    }
  } else {
    out.set(from as Int32Array, start);
  }
  return undefined;
}

/** Stored values in memory as f32: what `data` of an F16 or BF16 tensor means. */
export function storedToFloat32(dtype: PlainDType, data: StoredArray): Float32Array {
  const out = new Float32Array(data.length);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  decodeFloat32(dtype, bytes, out, 0);
  return out;
}
