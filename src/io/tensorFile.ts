// A file of named tensors, whatever its format: the list, the metadata, and reads that convert as they stream. What a
// model loader sees. Formats are parsed elsewhere (safetensors.ts, gguf.ts, llama2c.ts, marian.ts) and handed in as
// checked byte ranges; nothing here parses a header.

import { readIntoBuffer } from './byteSource.js';
import type { ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { nearNames } from './nearNames.js';
import { packedRowBytes, type Packing } from '../tensor/packing.js';
import { packingOf, repackRows } from './packedRows.js';
import { decodeFloat32, decodeFloat64, decodeInt32, isOpaqueDType, measure, storageUnit } from './storedDType.js';
import type { ReadableDType, StoredDType } from './storedDType.js';

/**
 * One tensor of a file. `shape` is row-major, outermost side first; the bytes are [byteOffset, byteOffset + byteLength)
 * of its file.
 */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly byteOffset: number;
  readonly byteLength: number;
  /** Of a scaled type: what its whole numbers are divided by. */
  readonly multiplier?: number;
}

/**
 * Where a read puts its values: an array, or a function asked again before every chunk is written, for memory whose
 * views do not survive an await (a WebAssembly memory that grows in between).
 */
export type Destination<T> = T | (() => T);

export interface TensorFile {
  readonly name: string;
  /**
   * Rows of q and k are stored for interleaved RoPE in 'gguf' (llama architectures) and 'llama2c': the model loader
   * un-permutes them.
   */
  readonly format: 'safetensors' | 'gguf' | 'llama2c' | 'marian';
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The stored bytes as they are, in a fresh array. */
  readBytes(name: string): Promise<Uint8Array>;
  /** Any type as f32, converted or dequantised in chunks straight into `into` (as long as the tensor has values). */
  readFloat32(name: string, into?: Destination<Float32Array>): Promise<Float32Array>;
  /** Any type as f64. */
  readFloat64(name: string, into?: Destination<Float64Array>): Promise<Float64Array>;
  /** Whole-number types and BOOL as i32; FormatError for the others and for I64 values that do not fit. */
  readInt32(name: string, into?: Destination<Int32Array>): Promise<Int32Array>;
  /**
   * A matrix whose stored numbers a packing holds (`packingOf`), in rows of tensor/packing.ts: `write` gets one run of
   * rows after the other, in memory that is used again. FormatError for other tensors and for f16 numbers that are not
   * finite.
   */
  readPacked(name: string, write: (firstRow: number, rows: Uint8Array) => void): Promise<void>;
  close(): Promise<void>;
}

/** Bytes held at once while a tensor streams. */
const chunkBytes = 4 * 2 ** 20;

/** The tensor called `name`; FormatError with near names when the file has none. */
function findTensor(file: TensorFile, name: string): StoredTensor {
  const tensor = file.tensors.get(name);
  if (tensor) return tensor;
  const near = nearNames(name, file.tensors.keys());
  const hint = near.length
    ? `; near it: ${near.map(candidate => `'${candidate}'`).join(', ')}`
    : `; it has ${file.tensors.size} tensors`;
  throw new FormatError(file.name, `has no tensor '${name}'${hint}`);
}

/** The tensor called `name`, whose numbers can be read. */
function findReadable(file: TensorFile, name: string): StoredTensor & { readonly dtype: ReadableDType } {
  const tensor = findTensor(file, name);
  const { dtype } = tensor;
  if (isOpaqueDType(dtype))
    throw new FormatError(file.name, `tensor '${shorten(name)}' is ${dtype}, whose numbers are not read`);
  return { ...tensor, dtype };
}

type Numbers = Float32Array | Float64Array | Int32Array;

/** How many values a checked tensor has. */
function valueCount(tensor: StoredTensor): number {
  const unit = storageUnit(tensor.dtype);
  return (tensor.byteLength / unit.bytes) * unit.values;
}

/** Streams `tensor` in chunks of whole storage units through `decode` into the destination. */
async function stream<T extends Numbers>(
  source: ByteSource,
  tensor: StoredTensor,
  destination: Destination<T>,
  decode: (bytes: Uint8Array, out: T, start: number) => void,
): Promise<T> {
  const unit = storageUnit(tensor.dtype);
  const count = valueCount(tensor);
  const target = (): T => {
    const out = typeof destination === 'function' ? destination() : destination;
    if (out.length === count) return out;
    throw new RangeError(
      `${source.name}: reading '${tensor.name}' [${tensor.shape}] into ${out.length} values, expected ${count}`,
    );
  };
  target();
  const unitsAtOnce = Math.max(1, Math.floor(chunkBytes / unit.bytes));
  const buffer = new Uint8Array(Math.min(tensor.byteLength, unitsAtOnce * unit.bytes));
  for (let done = 0; done < tensor.byteLength;) {
    const chunk = buffer.subarray(0, Math.min(buffer.byteLength, tensor.byteLength - done));
    await readIntoBuffer(source, tensor.byteOffset + done, chunk);
    decode(chunk, target(), (done / unit.bytes) * unit.values);
    done += chunk.byteLength;
  }
  return target();
}

/** Values of a scaled type, a byte each, as what they stand for. */
function divide(
  values: Float32Array | Float64Array,
  start: number,
  count: number,
  multiplier: number | undefined,
): void {
  if (multiplier === undefined) return;
  for (let i = start; i < start + count; i++) values[i] /= multiplier;
}

async function streamPacked(
  source: ByteSource,
  tensor: StoredTensor,
  packing: Packing,
  write: (firstRow: number, rows: Uint8Array) => void,
): Promise<void> {
  const [rows, columns] = tensor.shape;
  const storedBytes = tensor.byteLength / rows;
  const rowBytes = packedRowBytes(packing, columns);
  const most = Math.min(rows, Math.max(1, Math.floor(chunkBytes / storedBytes)));
  const [stored, packed] = [new Uint8Array(most * storedBytes), new Uint8Array(most * rowBytes)];
  for (let row = 0; row < rows; row += most) {
    const count = Math.min(most, rows - row);
    const chunk = stored.subarray(0, count * storedBytes);
    await readIntoBuffer(source, tensor.byteOffset + row * storedBytes, chunk);
    const fault = repackRows(tensor.dtype, packing, chunk, columns, packed);
    if (fault)
      throw new FormatError(source.name, `tensor '${shorten(tensor.name)}' ${fault}; load it with weights: 'f32'`);
    write(row, packed.subarray(0, count * rowBytes));
  }
}

/**
 * A TensorFile over one source. The caller has checked that every range lies inside it and fits shape and dtype.
 * `close()` closes the source.
 */
export function tensorFileOver(
  source: ByteSource,
  format: TensorFile['format'],
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: Readonly<Record<string, unknown>>,
): TensorFile {
  const file: TensorFile = {
    name: source.name,
    format,
    tensors,
    metadata,
    async readBytes(name) {
      const tensor = findTensor(file, name);
      const bytes = new Uint8Array(tensor.byteLength);
      await readIntoBuffer(source, tensor.byteOffset, bytes);
      return bytes;
    },
    async readFloat32(name, into) {
      const tensor = findReadable(file, name);
      const destination = into ?? new Float32Array(valueCount(tensor));
      return stream(source, tensor, destination, (bytes, out, start) => {
        decodeFloat32(tensor.dtype, bytes, out, start);
        divide(out, start, bytes.byteLength, tensor.multiplier);
      });
    },
    async readFloat64(name, into) {
      const tensor = findReadable(file, name);
      const destination = into ?? new Float64Array(valueCount(tensor));
      return stream(source, tensor, destination, (bytes, out, start) => {
        decodeFloat64(tensor.dtype, bytes, out, start);
        divide(out, start, bytes.byteLength, tensor.multiplier);
      });
    },
    async readInt32(name, into) {
      const tensor = findReadable(file, name);
      const destination = into ?? new Int32Array(valueCount(tensor));
      return stream(source, tensor, destination, (bytes, out, start) => {
        const fault = decodeInt32(tensor.dtype, bytes, out, start);
        if (fault) throw new FormatError(source.name, `tensor '${name}' ${fault}`);
      });
    },
    async readPacked(name, write) {
      const tensor = findTensor(file, name);
      const packing = packingOf(tensor);
      if (!packing)
        throw new FormatError(source.name, `tensor '${name}' ${tensor.dtype} [${tensor.shape}] has no packed form`);
      return streamPacked(source, tensor, packing, write);
    },
    close: () => source.close(),
  };
  return file;
}

/** Several files as one: each tensor is read from the file that `owner` names for it. Closes all of them. */
export function joinTensorFiles(
  name: string,
  owner: ReadonlyMap<string, TensorFile>,
  files: readonly TensorFile[],
  metadata: Readonly<Record<string, unknown>>,
): TensorFile {
  const tensors = new Map<string, StoredTensor>();
  for (const [tensorName, file] of owner) tensors.set(tensorName, findTensor(file, tensorName));
  const joined: TensorFile = {
    name,
    format: files[0]?.format ?? 'safetensors',
    tensors,
    metadata,
    readBytes: async tensorName => ownerOf(tensorName).readBytes(tensorName),
    readFloat32: async (tensorName, into) => ownerOf(tensorName).readFloat32(tensorName, into),
    readFloat64: async (tensorName, into) => ownerOf(tensorName).readFloat64(tensorName, into),
    readInt32: async (tensorName, into) => ownerOf(tensorName).readInt32(tensorName, into),
    readPacked: async (tensorName, write) => ownerOf(tensorName).readPacked(tensorName, write),
    close: async () => {
      await Promise.all(files.map(file => file.close()));
    },
  };
  function ownerOf(tensorName: string): TensorFile {
    findTensor(joined, tensorName);
    return owner.get(tensorName) as TensorFile;
  }
  return joined;
}

/** Checks one declared tensor: a sound shape whose size is `byteLength` bytes. FormatError otherwise. */
export function checkStoredTensor(sourceName: string, tensor: StoredTensor): StoredTensor {
  const size = measure(tensor.dtype, tensor.shape);
  const what = `tensor '${shorten(tensor.name)}' ${tensor.dtype} [${tensor.shape}]`;
  if (typeof size === 'string') throw new FormatError(sourceName, `${what}: ${size}`);
  if (size.byteLength !== tensor.byteLength) {
    throw new FormatError(
      sourceName,
      `${what} takes ${size.byteLength} bytes, its place in the file has ${tensor.byteLength}`,
    );
  }
  return tensor;
}

/** Untrusted text, cut to a length that an error message can carry. */
export function shorten(text: string, most = 80): string {
  return text.length <= most ? text : `${text.slice(0, most)}...`;
}
