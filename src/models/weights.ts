// Checkpoint tensors onto a device under Hugging Face's names, whatever the file calls them (tensorNames.ts): rows of q
// and k stored for interleaved rotary embeddings are put back into halves, int8 rows are multiplied with their scales.
// Formats are read in ../io; architectures are not known here.

import type { Backend } from '../backends/backend.js';
import { FormatError } from '../io/errors.js';
import { packingOf } from '../io/packedRows.js';
import { isFloatDType } from '../io/storedDType.js';
import type { StoredTensor, TensorFile } from '../io/tensorFile.js';
import { allocate, allocatePacked } from '../tensor/create.js';
import { packedMatrix, packedRowBytes, type Packing } from '../tensor/packing.js';
import { formatShape, sameShape, sizeOf, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { ModelNames } from './families/family.js';
import { tensorNamesOf, type TensorNames } from './tensorNames.js';

export interface LoadProgress {
  readonly file: string;
  /** Bytes of weights on the device so far, and in all. */
  readonly loaded: number;
  readonly total: number;
}

export type WeightDType = 'f32' | 'f64';

/**
 * 'stored': matrices stay packed as their file has them (f16, bf16, Q8_0, Q4_0, Q4_1) and are decoded as they are read;
 * 'f32': all is decoded.
 */
export type WeightForm = 'stored' | 'f32';

export interface WeightOptions {
  readonly dtype?: WeightDType;
  readonly weights?: WeightForm;
  readonly progress?: (p: LoadProgress) => void;
  readonly signal?: AbortSignal;
}

export class WeightLoader {
  readonly file: TensorFile;
  private readonly backend: Backend;
  private readonly dtype: WeightDType;
  private readonly packs: boolean;
  private readonly interleaved: boolean;
  private readonly names: TensorNames;
  /** Matrices of blocks are stored [in, out]. */
  readonly transposed: boolean;
  /** Stored names that were read. */
  private readonly namesRead = new Set<string>();
  private readonly progress: ((p: LoadProgress) => void) | undefined;
  private readonly signal: AbortSignal | undefined;
  private loaded = 0;
  private readonly total: number;

  constructor(file: TensorFile, backend: Backend, names: ModelNames, options: WeightOptions = {}) {
    this.file = file;
    this.backend = backend;
    this.dtype = options.dtype ?? 'f32';
    this.packs = options.weights === 'stored';
    if (this.packs && this.dtype !== 'f32')
      throw new Error(`weights: 'stored' computes in f32, dtype is ${this.dtype}; give weights: 'f32'`);
    this.progress = options.progress;
    this.signal = options.signal;
    this.interleaved =
      file.format === 'llama2c' || (file.format === 'gguf' && file.metadata['general.architecture'] === 'llama');
    this.names = tensorNamesOf(file, names);
    this.transposed = names.transposed === true && file.format !== 'gguf';
    this.total = [...file.tensors.values()].reduce((n, t) => n + this.bytesOf(t), 0);
  }

  private packingOf(tensor: StoredTensor): Packing | undefined {
    return this.packs ? packingOf(tensor) : undefined;
  }

  /** Bytes a stored tensor takes on the device. */
  private bytesOf(tensor: StoredTensor): number {
    const packing = this.packingOf(tensor);
    if (!isFloatDType(tensor.dtype) && tensor.dtype !== 'I8') return 0;
    return packing
      ? tensor.shape[0] * packedRowBytes(packing, tensor.shape[1])
      : sizeOf(tensor.shape) * (this.dtype === 'f64' ? 8 : 4);
  }

  /** Refuses what cannot fit, before anything is read. */
  checkFits(): void {
    const { liveBytes, limitBytes } = this.backend.stats();
    if (this.total + liveBytes > limitBytes) {
      const mib = (n: number): string => `${Math.ceil(n / 2 ** 20)} MiB`;
      throw new Error(
        `${this.file.name}: will not fit: the weights take ${mib(this.total)} as ${this.packs ? 'stored' : this.dtype}, ${mib(liveBytes)} are in use, ` +
          `the ${this.backend.name} backend holds at most ${mib(limitBytes)}`,
      );
    }
  }

  has(name: string): boolean {
    return this.file.tensors.has(this.names.stored(name));
  }

  /** Refuses a file with weights of the decoder that nothing read: its configuration describes another model. */
  checkAllRead(): void {
    for (const { name, dtype } of this.file.tensors.values()) {
      if (this.namesRead.has(name) || !isFloatDType(dtype) || !this.names.isOfDecoder(name)) continue;
      throw new FormatError(
        this.file.name,
        `has weights '${name}' that its configuration has no place for; the configuration is of another model`,
      );
    }
  }

  /** Refuses two tensors, known to be in the file, that are not the same to the bit. `why` says what depends on it. */
  async checkSame(name: string, other: string, why: string): Promise<void> {
    const [stored, storedOther] = [name, other].map(n => this.names.stored(n));
    const [dtype, dtypeOther] = [stored, storedOther].map(n => this.file.tensors.get(n)?.dtype);
    const [bytes, bytesOther] = [await this.file.readBytes(stored), await this.file.readBytes(storedOther)];
    const same =
      dtype === dtypeOther && bytes.length === bytesOther.length && bytes.every((byte, i) => byte === bytesOther[i]);
    if (!same) throw new FormatError(this.file.name, `'${stored}' is not the same as '${storedOther}': ${why}`);
    this.namesRead.add(storedOther);
  }

  /**
   * Matrices of so many rows and the same columns. Those that stay packed alike become neighbours in one allocation, so
   * that one product can take them all (`project` in nn/linear.ts).
   */
  async loadTogether(
    parts: readonly { name: string; rows: number; heads?: number }[],
    columns: number,
  ): Promise<Tensor[]> {
    const [packing, ...others] = parts.map(({ name }) => {
      const info = this.file.tensors.get(this.names.stored(name));
      return info && this.packingOf(info);
    });
    const rows = parts.reduce((n, p) => n + p.rows, 0);
    const whole =
      packing && others.every(p => p === packing)
        ? allocatePacked(parts[0].name, [rows, columns], packing, this.backend)
        : null;
    whole?.storage.moveTo(null);
    const loaded: Tensor[] = [];
    let row = 0;
    for (const part of parts) {
      loaded.push(await this.load(part.name, [part.rows, columns], part.heads, whole?.slice(0, row, row + part.rows)));
      row += part.rows;
    }
    return loaded;
  }

  /** A matrix [out, in] that the file has as [in, out]. */
  async loadTransposed(name: string, [output, input]: Shape): Promise<Tensor> {
    const stored = this.names.stored(name);
    const info = this.file.tensors.get(stored);
    if (!info || !sameShape(info.shape, [input, output])) {
      const shape = info ? formatShape(info.shape) : 'nothing';
      throw new FormatError(
        this.file.name,
        `${stored}: the configuration says ${formatShape([input, output])}, the file has ${shape}`,
      );
    }
    this.signal?.throwIfAborted();
    this.namesRead.add(stored);
    const data = await this.read(stored);
    const turned = data.slice();
    for (let i = 0; i < input; i++) for (let o = 0; o < output; o++) turned[o * input + i] = data[i * output + o];
    const tensor = allocate(name, [output, input], this.dtype, this.backend);
    tensor.name = name;
    tensor.storage.moveTo(null);
    this.write(tensor, turned);
    this.tell(tensor);
    return tensor;
  }

  private tell(tensor: Tensor): void {
    this.loaded += tensor.byteLength;
    this.progress?.({ file: this.file.name, loaded: this.loaded, total: this.total });
  }

  /**
   * The tensor called `name`, of exactly `shape`. `heads` > 0 marks rows of q or k, which interleaved files store
   * permuted. `into`: packed rows to fill.
   */
  async load(name: string, shape: Shape, heads = 0, into?: Tensor): Promise<Tensor> {
    this.signal?.throwIfAborted();
    const stored = this.names.stored(name);
    const info = this.file.tensors.get(stored);
    // Marian has matrices as [in, out]; what it quantised is turned when the file is opened.
    const isTurned = this.file.format === 'marian' && shape.length === 2 && shape[0] > 1 && !stored.endsWith('emb');
    if (isTurned && info?.dtype !== 'INTGEMM8') return this.loadTransposed(name, shape);
    this.namesRead.add(stored);
    // Marian's rows are matrices of one row.
    const isRow = this.file.format === 'marian' && shape.length === 1 && info?.shape[0] === 1;
    if (info && !sameShape(isRow ? info.shape.slice(1) : info.shape, shape)) {
      throw new FormatError(
        this.file.name,
        `${stored} has shape ${formatShape(info.shape)}, the configuration says ${formatShape(shape)}`,
      );
    }
    const scales = info && !isFloatDType(info.dtype) ? this.scalesOf(info) : null;
    const packing = info && this.packingOf(info);
    const permuted = heads > 0 && this.interleaved ? heads : 0;
    const tensor =
      into ??
      (packing ? allocatePacked(name, shape, packing, this.backend) : allocate(name, shape, this.dtype, this.backend));
    tensor.name = name;
    tensor.storage.moveTo(null);
    if (packing) await this.loadPacked(tensor, stored, permuted);
    else if (scales) this.write(tensor, await this.readInt8(stored, scales, shape));
    else if (permuted) this.write(tensor, unpermute(await this.read(stored), shape, permuted));
    else if (this.dtype === 'f32' && this.backend.hostView) {
      const { backend, storage } = { backend: this.backend, storage: tensor.storage };
      await this.file.readFloat32(
        stored,
        () => backend.hostView?.(storage.allocation, 'f32', 0, tensor.size) as Float32Array,
      );
    } else this.write(tensor, await this.read(stored));
    this.tell(tensor);
    return tensor;
  }

  private async loadPacked(tensor: Tensor, stored: string, permuted: number): Promise<void> {
    const { rowBytes, byteOffset } = packedMatrix(tensor);
    const { allocation } = tensor.storage;
    const words = (bytes: Uint8Array): Int32Array =>
      new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    if (!permuted)
      return this.file.readPacked(stored, (row, rows) => {
        this.backend.write(allocation, byteOffset + row * rowBytes, words(rows));
      });
    const whole = new Uint8Array(tensor.byteLength);
    await this.file.readPacked(stored, (row, rows) => {
      whole.set(rows, row * rowBytes);
    });
    this.backend.write(allocation, byteOffset, words(unpermute(whole, [tensor.shape[0], rowBytes], permuted)));
  }

  /**
   * The name of the scales of whole numbers that stand for weights: one for each row, as bitsandbytes' int8 has them.
   * Other whole numbers are refused.
   */
  private scalesOf({ name, dtype, shape }: StoredTensor): string {
    const scales = name.replace(/\.weight$/, '.SCB');
    const info = this.file.tensors.get(scales);
    if (dtype === 'I8' && info?.dtype === 'F32' && shape.length === 2 && sameShape(info.shape, shape.slice(0, 1)))
      return scales;
    throw new FormatError(
      this.file.name,
      `'${name}' is ${dtype}, expected floating-point weights, or I8 [rows, columns] with '${scales}' F32 [rows] beside it`,
    );
  }

  /** Rows of int8 codes that stand for parts of 127 of their scale. */
  private async readInt8(stored: string, scales: string, [rows, columns]: Shape): Promise<Float32Array | Float64Array> {
    const format = stored.replace(/\.weight$/, '.weight_format');
    const [layout] = this.file.tensors.has(format) ? await this.file.readInt32(format) : [0];
    if (layout !== 0)
      throw new FormatError(this.file.name, `'${format}' is ${layout}: only rows one after the other, 0, are read`);
    const [values, factors] = [await this.read(stored), await this.file.readFloat32(scales)];
    for (const name of [scales, format]) this.namesRead.add(name);
    for (let i = 0; i < rows * columns; i++)
      values[i] = Math.fround(values[i] * factors[Math.floor(i / columns)]) / 127;
    return values;
  }

  private read(stored: string): Promise<Float32Array | Float64Array> {
    return this.dtype === 'f32' ? this.file.readFloat32(stored) : this.file.readFloat64(stored);
  }

  private write(tensor: Tensor, data: Float32Array | Float64Array): void {
    this.backend.write(tensor.storage.allocation, 0, data);
  }
}

/**
 * Rows of numbers (or of packed bytes) of each head from (pair, half) order to (half, pair): interleaved rotary
 * embeddings to Hugging Face's rotate-half.
 */
function unpermute<T extends Float32Array | Float64Array | Uint8Array>(data: T, shape: Shape, heads: number): T {
  const columns = shape.length > 1 ? shape[1] : 1;
  const half = shape[0] / heads / 2;
  const result = data.slice() as T;
  for (let head = 0; head < heads; head++) {
    for (let pair = 0; pair < half; pair++) {
      for (let side = 0; side < 2; side++) {
        const from = ((head * half + pair) * 2 + side) * columns;
        result.set(data.subarray(from, from + columns), (head * 2 * half + side * half + pair) * columns);
      }
    }
  }
  return result;
}
