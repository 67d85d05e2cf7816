// GGML's block formats and how each turns into f32: one table row a format. A row says how many weights share a block,
// how many bytes the block takes, and decodes runs of blocks in a tight loop. New formats are new rows. No files and no
// tensors here. Source: ggml-quants.c (dequantize_row_q4_0 to _q6_K) and ggml-common.h (block layouts) of llama.cpp.

import { halfToFloatTable } from '../tensor/packing.js';

export type BlockDType = 'Q8_0' | 'Q4_0' | 'Q4_1' | 'Q5_0' | 'Q5_1' | 'Q4_K' | 'Q5_K' | 'Q6_K';

export interface BlockFormat {
  /** Weights in one block. */
  readonly blockLength: number;
  /** Bytes of one block. */
  readonly blockBytes: number;
  /** Decodes `blocks` blocks from the start of `bytes` into `out[start ..]`. `bytes.byteOffset` is even. */
  decode(bytes: Uint8Array, blocks: number, out: Float32Array, start: number): void;
}

/** f16 fields of blocks, by index of 2-byte words. */
const words = (bytes: Uint8Array): Uint16Array =>
  new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);

// Products of f16 scales and integers are exact in f64, and those that ggml rounds to f32 on the way are exact there
// too, so each weight is rounded once, as in ggml.

/** f16 d, then 32 int8: w = d q. */
function decodeQ8_0(bytes: Uint8Array, blocks: number, out: Float32Array, start: number): void {
  const half = halfToFloatTable();
  const scales = words(bytes);
  const quants = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0, at = 2, to = start; block < blocks; block++, at += 34, to += 32) {
    const d = half[scales[block * 17]];
    for (let i = 0; i < 32; i++) out[to + i] = d * quants[at + i];
  }
}

/** f16 d, then 16 bytes: low nibbles are weights 0..15, high ones 16..31; w = d (q - 8). */
function decodeQ4_0(bytes: Uint8Array, blocks: number, out: Float32Array, start: number): void {
  const half = halfToFloatTable();
  const scales = words(bytes);
  for (let block = 0, at = 2, to = start; block < blocks; block++, at += 18, to += 32) {
    const d = half[scales[block * 9]];
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + i];
      out[to + i] = d * ((pair & 15) - 8);
      out[to + i + 16] = d * ((pair >> 4) - 8);
    }
  }
}

/** f16 d, f16 m, then 16 bytes as in Q4_0: w = d q + m. */
function decodeQ4_1(bytes: Uint8Array, blocks: number, out: Float32Array, start: number): void {
  const half = halfToFloatTable();
  const scales = words(bytes);
  for (let block = 0, at = 4, to = start; block < blocks; block++, at += 20, to += 32) {
    const d = half[scales[block * 10]];
    const m = half[scales[block * 10 + 1]];
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + i];
      out[to + i] = d * (pair & 15) + m;
      out[to + i + 16] = d * (pair >> 4) + m;
    }
  }
}

/** f16 d, 32 fifth bits, then 16 bytes as in Q4_0: w = d (q - 16). Q5_1 has an f16 m after d: w = d q + m. */
function decodeQ5(bytes: Uint8Array, blocks: number, out: Float32Array, start: number, withMinimum: boolean): void {
  const half = halfToFloatTable();
  const scales = words(bytes);
  const [size, codes] = withMinimum ? [24, 8] : [22, 6];
  for (let block = 0, at = 0, to = start; block < blocks; block++, at += size, to += 32) {
    const d = half[scales[at >> 1]];
    const m = withMinimum ? half[scales[(at >> 1) + 1]] : -16 * d;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[at + codes + i];
      const high = (k: number): number => ((bytes[at + codes - 4 + (k >> 3)] >> (k & 7)) & 1) << 4;
      out[to + i] = d * ((pair & 15) | high(i)) + m;
      out[to + i + 16] = d * ((pair >> 4) | high(i + 16)) + m;
    }
  }
}

/**
 * f16 d, f16 dmin, 12 bytes of eight 6-bit scales s and eight 6-bit minima m, in Q5_K 32 bytes of fifth bits, then 128
 * bytes. Weights 64 j + i and 64 j + 32 + i are the nibbles of byte 32 j + i: w = d s q - dmin m with the scale and
 * minimum of each 32 weights.
 */
function decodeK(bytes: Uint8Array, blocks: number, out: Float32Array, start: number, fifthBits: boolean): void {
  const half = halfToFloatTable();
  const scales = words(bytes);
  const size = fifthBits ? 176 : 144;
  for (let block = 0, at = 0, to = start; block < blocks; block++, at += size) {
    const d = half[scales[at >> 1]];
    const least = half[scales[(at >> 1) + 1]];
    const sixBits = at + 4;
    for (let part = 0; part < 8; part++, to += 32) {
      const four = sixBits + part;
      // Entries 4..7 have their low four bits in the last four bytes and the upper two above entries 0..3.
      const s = part < 4 ? bytes[four] & 63 : (bytes[four + 4] & 15) | ((bytes[four - 4] >> 6) << 4);
      const m = part < 4 ? bytes[four + 4] & 63 : (bytes[four + 4] >> 4) | ((bytes[four] >> 6) << 4);
      const [scale, minimum] = [d * s, least * m];
      const codes = at + size - 128 + 32 * (part >> 1);
      const shift = 4 * (part & 1);
      for (let i = 0; i < 32; i++) {
        const high = fifthBits ? ((bytes[at + 16 + i] >> part) & 1) << 4 : 0;
        out[to + i] = scale * (((bytes[codes + i] >> shift) & 15) | high) - minimum;
      }
    }
  }
}

/**
 * 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 int8 scales s, f16 d: w = d s (q - 32), a scale for each 16
 * weights. Of each 128 weights, 32 p + i has its nibble in byte 32 (p & 1) + i (upper for p > 1) and its pair in byte i
 * at bit 2 p.
 */
function decodeQ6_K(bytes: Uint8Array, blocks: number, out: Float32Array, start: number): void {
  const half = halfToFloatTable();
  const scales = words(bytes);
  for (let block = 0, at = 0, to = start; block < blocks; block++, at += 210) {
    const d = half[scales[(at + 208) >> 1]];
    for (let part = 0; part < 8; part++, to += 32) {
      const [group, p] = [part >> 2, part & 3];
      for (let i = 0; i < 32; i++) {
        const low = (bytes[at + 64 * group + 32 * (p & 1) + i] >> (p & 2 ? 4 : 0)) & 15;
        const high = (bytes[at + 128 + 32 * group + i] >> (2 * p)) & 3;
        const s = (bytes[at + 192 + 8 * group + 2 * p + (i >> 4)] << 24) >> 24;
        out[to + i] = d * s * ((low | (high << 4)) - 32);
      }
    }
  }
}

/** Every block format that can be read. */
export const blockFormats: Readonly<Record<BlockDType, BlockFormat>> = {
  Q8_0: { blockLength: 32, blockBytes: 34, decode: decodeQ8_0 },
  Q4_0: { blockLength: 32, blockBytes: 18, decode: decodeQ4_0 },
  Q4_1: { blockLength: 32, blockBytes: 20, decode: decodeQ4_1 },
  Q5_0: {
    blockLength: 32,
    blockBytes: 22,
    decode: (bytes, blocks, out, start) => {
      decodeQ5(bytes, blocks, out, start, false);
    },
  },
  Q5_1: {
    blockLength: 32,
    blockBytes: 24,
    decode: (bytes, blocks, out, start) => {
      decodeQ5(bytes, blocks, out, start, true);
    },
  },
  Q4_K: {
    blockLength: 256,
    blockBytes: 144,
    decode: (bytes, blocks, out, start) => {
      decodeK(bytes, blocks, out, start, false);
    },
  },
  Q5_K: {
    blockLength: 256,
    blockBytes: 176,
    decode: (bytes, blocks, out, start) => {
      decodeK(bytes, blocks, out, start, true);
    },
  },
  Q6_K: { blockLength: 256, blockBytes: 210, decode: decodeQ6_K },
};
