// Whether numbers are torch's to rounding.

import type { DType, TypedArray } from '../../src/tensor/dtype.js';

/** A tensor that was read. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: TypedArray;
}

/**
 * Relative to an entry, or to the largest one where entries are sums; `least` is what differences below are nothing.
 */
export interface Bound {
  readonly relative: number;
  readonly least: number;
}

const text = (shape: readonly number[]): string => `[${shape.join(',')}]`;

/** What differs, or null. An entry may equal torch's result or, where there is one, torch's result computed in f64. */
export function difference(
  actual: Numbers,
  expected: Numbers,
  exact: Numbers | null | undefined,
  { relative, least }: Bound,
  sums: boolean,
): string | null {
  if (text(actual.shape) !== text(expected.shape))
    return `shape ${text(actual.shape)}, torch has ${text(expected.shape)}`;
  const isFloat = expected.dtype === 'f32' || expected.dtype === 'f64';
  if (actual.dtype !== expected.dtype) return `dtype ${actual.dtype}, torch has ${expected.dtype}`;
  const finite = (x: number): number => (Number.isFinite(x) ? Math.abs(x) : 0);
  let largest = 0;
  if (sums) for (const x of expected.data) largest = Math.max(largest, finite(x));
  for (let i = 0; i < actual.data.length; i++) {
    const x = actual.data[i];
    const close = (want: number): boolean => {
      if (Object.is(x, want) || x === want) return true;
      return (
        isFloat && Number.isFinite(want) && Math.abs(x - want) <= relative * Math.max(Math.abs(want), largest) + least
      );
    };
    if (!close(expected.data[i]) && !(exact && close(exact.data[i])))
      return `entry ${i} is ${x}, torch has ${expected.data[i]}`;
  }
  return null;
}
