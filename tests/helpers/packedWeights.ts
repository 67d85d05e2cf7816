// Random packed weights in the row layout of tensor/packing.ts and in ggml's blocks, with the values they stand for in
// f64, computed from codes and scales here. Nothing of the engine's decoders is used.

import type { Packing } from '../../src/tensor/packing.js';
import { Random } from '../../src/tensor/threefry.js';

export const allPackings: readonly Packing[] = ['f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'];

export interface PackedWeights {
  readonly rows: number;
  readonly columns: number;
  /** Rows as tensor/packing.ts lays them out. */
  readonly bytes: Uint8Array;
  /** The same as a GGUF has them. */
  readonly stored: Uint8Array;
  /** Row-major, each a number of f32. */
  readonly values: Float64Array;
}

/** The number that f16 bits mean. */
export function halfValue(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

/** Random f16 bits of a number below 2 ** (1 - shift) in size, a few of them below the least normal one. */
export function randomHalf(random: Random, shift = 0): number {
  const exponent = random.integer(16) === 0 ? 0 : 8 - shift + random.integer(8);
  return (random.integer(2) << 15) | (exponent << 10) | random.integer(1024);
}

/** `shift` up to 7 makes scales (or f16 and bf16 numbers) smaller by 2 ** shift. */
export function randomPacked(packing: Packing, rows: number, columns: number, seed: number, shift = 0): PackedWeights {
  const random = new Random(seed, 11);
  const rowBytes =
    packing === 'f16' || packing === 'bf16'
      ? 4 * Math.ceil(columns / 2)
      : 4 * Math.ceil(((columns / 32) * { q8_0: 34, q4_0: 18, q4_1: 20 }[packing]) / 4);
  const bytes = new Uint8Array(rows * rowBytes);
  const stored: number[] = [];
  const values = new Float64Array(rows * columns);
  const put = (at: number, word: number): void => {
    bytes[at] = word & 255;
    bytes[at + 1] = word >> 8;
    stored.push(word & 255, word >> 8);
  };
  for (let row = 0; row < rows; row++) {
    const start = row * rowBytes;
    if (packing === 'f16' || packing === 'bf16') {
      for (let j = 0; j < columns; j++) {
        const word =
          packing === 'f16'
            ? randomHalf(random, shift)
            : (random.integer(2) << 15) | ((118 - shift + random.integer(10)) << 7) | random.integer(128);
        put(start + 2 * j, word);
        const bf16 = (): number => (word >> 15 ? -1 : 1) * (128 + (word & 127)) * 2 ** (((word >> 7) & 255) - 134);
        values[row * columns + j] = packing === 'f16' ? halfValue(word) : bf16();
      }
      continue;
    }
    const scalesAt = start + (packing === 'q8_0' ? columns : columns / 2);
    for (let block = 0; block < columns / 32; block++) {
      const d = randomHalf(random, shift);
      const m = randomHalf(random, shift);
      const scales = packing === 'q4_1' ? [d, m] : [d];
      scales.forEach((s, i) => {
        put(scalesAt + 2 * (block * scales.length + i), s);
      });
      const codes = Array.from({ length: 32 }, () => random.integer(packing === 'q8_0' ? 256 : 16));
      const pairs = packing === 'q8_0' ? codes : codes.slice(0, 16).map((low, i) => low + 16 * codes[16 + i]);
      pairs.forEach((byte, i) => {
        bytes[start + block * pairs.length + i] = byte;
        stored.push(byte);
      });
      codes.forEach((q, i) => {
        const exact =
          packing === 'q8_0'
            ? halfValue(d) * (q < 128 ? q : q - 256)
            : packing === 'q4_0'
              ? halfValue(d) * (q - 8)
              : halfValue(d) * q + halfValue(m);
        values[row * columns + 32 * block + i] = Math.fround(exact);
      });
    }
  }
  return { rows, columns, bytes, stored: Uint8Array.from(stored), values };
}

/** A side along the rows that the packing takes, about `n`. */
export const columnsFor = (packing: Packing, n: number): number =>
  packing === 'f16' || packing === 'bf16' ? Math.max(2, n) : 32 * Math.max(1, Math.round(n / 32));
