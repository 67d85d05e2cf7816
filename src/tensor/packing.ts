// Frozen weights that stay as small as their file has them: how one row of a matrix [rows, columns] lies in memory in
// each format, and what it decodes to. The same layout on every backend, so that a row range is a window; kernels
// unpack as they read. No files here, and of kernels only the plain decoder that defines the formats.
// Source of the block formats: ggml-common.h and ggml-quants.c of llama.cpp; there scales and weights are interleaved,
// here a row's weights come first.

/**
 * Formats of packed weights. A row is padded to 4 bytes; it has at least 2 columns. f16 numbers are finite.
 * - f16, bf16: `columns` halves.
 * - q8_0: `columns` int8, then `columns / 32` f16 scales d: w = d q.
 * - q4_0: 16 bytes for each 32 weights (low nibbles are weights 0..15, high ones 16..31), then f16 scales d: w = d (q -
 *   8).
 * - q4_1: the same 16 bytes, then f16 pairs (d, m) for each 32 weights: w = d q + m.
 */
export type Packing = 'f16' | 'bf16' | 'q8_0' | 'q4_0' | 'q4_1';

export interface PackingLayout {
  /** Weights that share a scale: `columns` must be a multiple. */
  readonly blockLength: number;
  /** Bytes of the weights proper of one block, at the front of the row. */
  readonly blockBytes: number;
  /** f16 numbers of each block after all of the row's weights. */
  readonly scales: 0 | 1 | 2;
}

export const packings: Readonly<Record<Packing, PackingLayout>> = {
  f16: { blockLength: 1, blockBytes: 2, scales: 0 },
  bf16: { blockLength: 1, blockBytes: 2, scales: 0 },
  q8_0: { blockLength: 32, blockBytes: 32, scales: 1 },
  q4_0: { blockLength: 32, blockBytes: 16, scales: 1 },
  q4_1: { blockLength: 32, blockBytes: 16, scales: 2 },
};

/** Bytes before the scales of a row. */
export function packedWeightBytes(packing: Packing, columns: number): number {
  const { blockLength, blockBytes } = packings[packing];
  return (columns / blockLength) * blockBytes;
}

/** Bytes of one row, a multiple of 4. */
export function packedRowBytes(packing: Packing, columns: number): number {
  const { blockLength, scales } = packings[packing];
  return Math.ceil((packedWeightBytes(packing, columns) + (columns / blockLength) * scales * 2) / 4) * 4;
}

/** Bytes after the last row of an allocation that kernels may read, whatever they hold. */
export const packedSlack = 16;

export const isPacking = (name: unknown): name is Packing => typeof name === 'string' && Object.hasOwn(packings, name);

/** Where the rows of a packed view lie. */
export interface PackedMatrix {
  readonly packing: Packing;
  readonly rows: number;
  readonly columns: number;
  /** The view's last two axes are [columns, rows]. */
  readonly transposed: boolean;
  /** Byte of the first row in the allocation, and bytes from row to row. */
  readonly byteOffset: number;
  readonly rowBytes: number;
}

/** Reads a packed view's shape and strides; its leading axes, if any, have stride 0. */
export function packedMatrix(view: {
  packing?: Packing | null;
  shape: readonly number[];
  strides: readonly number[];
  offset: number;
}): PackedMatrix {
  const { packing, shape, strides, offset } = view;
  if (!packing) throw new Error('packedMatrix: the view is not packed');
  const last = shape.length - 1;
  // `columns` is at least 2, so only the axis along a row has stride 1.
  const transposed = strides[last] !== 1;
  const [rows, columns] = transposed ? [shape[last], shape[last - 1]] : [shape[last - 1], shape[last]];
  const rowBytes = packedRowBytes(packing, columns);
  return { packing, rows, columns, transposed, byteOffset: (offset / columns) * rowBytes, rowBytes };
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

/**
 * Decodes one row at byte `at` of `bytes` (`bytes.byteOffset + at` is even) into out[start ..]: the definition that
 * kernels are held to. A weight is rounded to f32 once, after the sum: d q is exact.
 */
export function decodePackedRow(
  packing: Packing,
  bytes: Uint8Array,
  at: number,
  columns: number,
  out: Float32Array,
  start: number,
): void {
  const half = halfToFloatTable();
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset + at, packedRowBytes(packing, columns) >> 1);
  const scales = words.subarray(packedWeightBytes(packing, columns) >> 1);
  if (packing === 'f16') {
    for (let i = 0; i < columns; i++) out[start + i] = half[words[i]];
  } else if (packing === 'bf16') {
    const bits = new Uint32Array(out.buffer, out.byteOffset + 4 * start, columns);
    for (let i = 0; i < columns; i++) bits[i] = words[i] << 16;
  } else if (packing === 'q8_0') {
    for (let i = 0; i < columns; i++) out[start + i] = half[scales[i >> 5]] * ((bytes[at + i] << 24) >> 24);
  } else {
    for (let i = 0; i < columns; i++) {
      const block = i >> 5;
      const pair = bytes[at + 16 * block + (i & 15)];
      const q = i & 16 ? pair >> 4 : pair & 15;
      out[start + i] =
        packing === 'q4_0' ? half[scales[block]] * (q - 8) : half[scales[2 * block]] * q + half[scales[2 * block + 1]];
    }
  }
}
