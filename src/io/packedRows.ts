// Stored blocks into rows of packed weights (tensor/packing.ts) without decoding: a row's weights first, then its
// scales. Which tensors stay packed is the model loader's choice.

import { packedRowBytes, packedWeightBytes, packings, type Packing } from '../tensor/packing.js';
import { storageUnit, type StoredDType } from './storedDType.js';

const packingByDType: Readonly<Partial<Record<StoredDType, Packing>>> = {
  F16: 'f16',
  BF16: 'bf16',
  Q8_0: 'q8_0',
  Q4_0: 'q4_0',
  Q4_1: 'q4_1',
};

/**
 * The packing that holds a stored tensor's numbers as they are; undefined where there is none: another type, or not a
 * matrix.
 */
export function packingOf({
  dtype,
  shape,
}: {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
}): Packing | undefined {
  return shape.length === 2 && shape[1] >= 2 ? packingByDType[dtype] : undefined;
}

/**
 * Rows of `columns` stored weights in `bytes` (on an even byte of its buffer) as packed rows in `out`. Returns
 * undefined, or what is wrong: an f16 number that is not finite, which kernels do not tell from a large one.
 */
export function repackRows(
  dtype: StoredDType,
  packing: Packing,
  bytes: Uint8Array,
  columns: number,
  out: Uint8Array,
): string | undefined {
  const { values, bytes: unitBytes } = storageUnit(dtype);
  const from = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);
  const to = new Uint16Array(out.buffer, out.byteOffset, out.byteLength >> 1);
  const { scales } = packings[packing];
  const unitWords = unitBytes / 2;
  const units = columns / values;
  const rowWords = packedRowBytes(packing, columns) / 2;
  const scalesAt = packedWeightBytes(packing, columns) / 2;
  const rows = from.length / (units * unitWords);
  let largest = 0;
  for (let row = 0, at = 0; row < rows; row++) {
    let weight = row * rowWords;
    let scale = weight + scalesAt;
    for (let unit = 0; unit < units; unit++) {
      for (let i = 0; i < scales; i++) {
        const word = from[at++];
        largest = Math.max(largest, word & 0x7fff);
        to[scale++] = word;
      }
      for (let i = scales; i < unitWords; i++) to[weight++] = from[at++];
    }
  }
  if (packing === 'f16') for (const word of from) largest = Math.max(largest, word & 0x7fff);
  return largest >= 0x7c00 ? 'holds an f16 number that is not finite' : undefined;
}
