// GGML's block formats and how each turns into f32: one table row a format. A row says how many weights share a block, how many
// bytes the block takes, and decodes runs of blocks in a tight loop. New formats (K-quants) are new rows. No files and no tensors here.
// Source: ggml-quants.c (dequantize_row_q4_0, _q4_1, _q8_0) and ggml-common.h (block layouts) of llama.cpp.

export type BlockDType = 'Q8_0' | 'Q4_0' | 'Q4_1';

export interface BlockFormat {
  /** Weights in one block. */
  readonly blockLength: number;
  /** Bytes of one block. */
  readonly blockBytes: number;
  /** Decodes `blocks` blocks from the start of `bytes` into `out[start ..]`. `bytes.byteOffset` is even. */
  decode(bytes: Uint8Array, blocks: number, out: Float32Array, start: number): void;
}

let halfTable: Float32Array | undefined;

/** The f32 value of each of the 65,536 f16 bit patterns (IEEE 754 binary16), 256 kB made at first use. */
export function halfToFloatTable(): Float32Array {
  if (halfTable) return halfTable;
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return (halfTable = table);
}

/** f16 fields of blocks, by index of 2-byte words. */
const words = (bytes: Uint8Array): Uint16Array => new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);

// Products of an f16 scale and an integer of at most 8 bits are exact in f32, so each weight is rounded once, as in ggml.

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

/** Every block format that can be read. */
export const blockFormats: Readonly<Record<BlockDType, BlockFormat>> = {
  Q8_0: { blockLength: 32, blockBytes: 34, decode: decodeQ8_0 },
  Q4_0: { blockLength: 32, blockBytes: 18, decode: decodeQ4_0 },
  Q4_1: { blockLength: 32, blockBytes: 20, decode: decodeQ4_1 },
};
