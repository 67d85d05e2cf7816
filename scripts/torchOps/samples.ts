// Reads what export.py wrote: samples of an op with their tensors as host arrays.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { typedArray, type TypedArray } from '../../src/tensor/dtype.js';
import { sizeOf } from '../../src/tensor/shape.js';

export type StoredType = 'f64' | 'f32' | 'i32' | 'bool';

/** A tensor of a sample. */
export class Stored {
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  readonly data: TypedArray;
  /** Tensors of one sample that are the same object have one number. */
  readonly number: number | undefined;

  constructor(dtype: StoredType, shape: readonly number[], data: TypedArray, number?: number) {
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
    this.number = number;
  }
}

/** An argument of a torch call. */
export type Value = Stored | number | boolean | string | null | { readonly dtype: string } | readonly Value[];

export interface Gradients {
  /** Which outputs (of second-order gradients: which gradients) have a cotangent. */
  readonly of: readonly number[];
  readonly cotangents: readonly Stored[];
  /** null where torch has none. */
  readonly values: readonly (Stored | null)[];
}

export interface Sample {
  readonly op: string;
  readonly dtype: StoredType;
  readonly kind: 'sample' | 'reference';
  readonly n: number;
  readonly args: readonly Value[];
  readonly kwargs: Readonly<Record<string, Value>>;
  readonly outputs: readonly Stored[];
  /** The outputs computed in f64 from the f32 inputs. */
  readonly exact?: readonly (Stored | null)[];
  /** With the numbers of the tensors that the gradients are of. */
  readonly gradients?: Gradients & { readonly wrt: readonly number[] };
  /** Gradients of the gradients, by the same tensors and then by the cotangents. */
  readonly second?: Gradients;
}

export async function readSamples(folder: string, op: string): Promise<Sample[]> {
  const [lines, bytes] = await Promise.all([
    readFile(join(folder, `${op}.jsonl`), 'utf8'),
    readFile(join(folder, `${op}.bin`)),
  ]);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
  /** What export.py wrote in place of tensors and of numbers that are not finite. */
  const revive = (_: string, value: unknown): unknown => {
    if (value === null || typeof value !== 'object') return value;
    if ('tensor' in value) {
      const [dtype, shape, offset] = value.tensor as [StoredType, number[], number];
      return new Stored(
        dtype,
        shape,
        typedArray(dtype, buffer, offset, sizeOf(shape)),
        'number' in value ? Number(value.number) : undefined,
      );
    }
    if ('number' in value) return { nan: NaN, inf: Infinity, '-inf': -Infinity }[String(value.number)];
    return value;
  };
  return lines
    .split('\n')
    .filter(Boolean)
    .map(line => ({ op, ...(JSON.parse(line, revive) as Omit<Sample, 'op'>) }));
}
