// Checkpoint tensors onto a device under Hugging Face's names, whatever the file calls them: GGUF names are translated, rows of q and k
// stored for interleaved rotary embeddings are put back into halves. Formats are read in ../io; architectures are not known here.

import type { Backend } from '../backends/backend.js';
import { FormatError } from '../io/errors.js';
import { packingOf } from '../io/packedRows.js';
import type { StoredTensor, TensorFile } from '../io/tensorFile.js';
import { allocate, allocatePacked } from '../tensor/create.js';
import { packedMatrix, packedRowBytes, type Packing } from '../tensor/packing.js';
import { formatShape, sameShape, sizeOf, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

export interface LoadProgress {
  readonly file: string;
  /** Bytes of weights on the device so far, and in all. */
  readonly loaded: number;
  readonly total: number;
}

export type WeightDType = 'f32' | 'f64';

/** 'stored': matrices stay packed as their file has them (f16, bf16, Q8_0, Q4_0, Q4_1) and are decoded as they are read; 'f32': all is decoded. */
export type WeightForm = 'stored' | 'f32';

export interface WeightOptions {
  readonly dtype?: WeightDType;
  readonly weights?: WeightForm;
  readonly progress?: (p: LoadProgress) => void;
  readonly signal?: AbortSignal;
}

/** GGUF's name of a LLaMA-like tensor. Source: llama.cpp, gguf-py/gguf/tensor_mapping.py. */
function ggufName(name: string): string {
  const block = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  const parts: Record<string, string> = {
    'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v', 'self_attn.o_proj': 'attn_output',
    'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up', 'mlp.down_proj': 'ffn_down',
    input_layernorm: 'attn_norm', post_attention_layernorm: 'ffn_norm',
  };
  if (block && parts[block[2]]) return `blk.${block[1]}.${parts[block[2]]}.${block[3]}`;
  const others: Record<string, string> = { 'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight', 'lm_head.weight': 'output.weight' };
  return others[name] ?? name;
}

export class WeightLoader {
  readonly file: TensorFile;
  private readonly backend: Backend;
  private readonly dtype: WeightDType;
  private readonly packs: boolean;
  private readonly interleaved: boolean;
  private readonly progress: ((p: LoadProgress) => void) | undefined;
  private readonly signal: AbortSignal | undefined;
  private loaded = 0;
  private readonly total: number;

  constructor(file: TensorFile, backend: Backend, options: WeightOptions = {}) {
    this.file = file;
    this.backend = backend;
    this.dtype = options.dtype ?? 'f32';
    this.packs = options.weights === 'stored';
    if (this.packs && this.dtype !== 'f32') throw new Error(`weights: 'stored' computes in f32, dtype is ${this.dtype}; give weights: 'f32'`);
    this.progress = options.progress;
    this.signal = options.signal;
    this.interleaved = file.format === 'llama2c' || (file.format === 'gguf' && file.metadata['general.architecture'] === 'llama');
    this.total = [...file.tensors.values()].reduce((n, t) => n + this.bytesOf(t), 0);
  }

  private packingOf(tensor: StoredTensor): Packing | undefined {
    return this.packs ? packingOf(tensor) : undefined;
  }

  /** Bytes a stored tensor takes on the device. */
  private bytesOf(tensor: StoredTensor): number {
    const packing = this.packingOf(tensor);
    return packing ? tensor.shape[0] * packedRowBytes(packing, tensor.shape[1]) : sizeOf(tensor.shape) * (this.dtype === 'f64' ? 8 : 4);
  }

  /** Refuses what cannot fit, before anything is read. */
  checkFits(): void {
    const { liveBytes, limitBytes } = this.backend.stats();
    if (this.total + liveBytes > limitBytes) {
      const mib = (n: number): string => `${Math.ceil(n / 2 ** 20)} MiB`;
      throw new Error(`${this.file.name}: will not fit: the weights take ${mib(this.total)} as ${this.packs ? 'stored' : this.dtype}, ${mib(liveBytes)} are in use, `
        + `the ${this.backend.name} backend holds at most ${mib(limitBytes)}`);
    }
  }

  has(name: string): boolean {
    return this.file.tensors.has(this.stored(name));
  }

  private stored(name: string): string {
    return this.file.format === 'gguf' ? ggufName(name) : name;
  }

  /**
   * Matrices of so many rows and the same columns. Those that stay packed alike become neighbours in one allocation, so that one product can
   * take them all (`project` in nn/linear.ts).
   */
  async loadTogether(parts: readonly { name: string; rows: number; heads?: number }[], columns: number): Promise<Tensor[]> {
    const [packing, ...others] = parts.map(({ name }) => {
      const info = this.file.tensors.get(this.stored(name));
      return info && this.packingOf(info);
    });
    const rows = parts.reduce((n, p) => n + p.rows, 0);
    const whole = packing && others.every(p => p === packing) ? allocatePacked(parts[0].name, [rows, columns], packing, this.backend) : null;
    whole?.storage.moveTo(null);
    const loaded: Tensor[] = [];
    let row = 0;
    for (const part of parts) {
      loaded.push(await this.load(part.name, [part.rows, columns], part.heads, whole?.slice(0, row, row + part.rows)));
      row += part.rows;
    }
    return loaded;
  }

  /** The tensor called `name`, of exactly `shape`. `heads` > 0 marks rows of q or k, which interleaved files store permuted. `into`: packed rows to fill. */
  async load(name: string, shape: Shape, heads = 0, into?: Tensor): Promise<Tensor> {
    this.signal?.throwIfAborted();
    const stored = this.stored(name);
    const info = this.file.tensors.get(stored);
    if (info && !sameShape(info.shape, shape)) {
      throw new FormatError(this.file.name, `${stored} has shape ${formatShape(info.shape)}, the configuration says ${formatShape(shape)}`);
    }
    const packing = info && this.packingOf(info);
    const permuted = heads > 0 && this.interleaved ? heads : 0;
    const tensor = into ?? (packing ? allocatePacked(name, shape, packing, this.backend) : allocate(name, shape, this.dtype, this.backend));
    tensor.name = name;
    tensor.storage.moveTo(null);
    if (packing) await this.loadPacked(tensor, stored, permuted);
    else if (permuted) this.write(tensor, unpermute(await this.read(stored), shape, permuted));
    else if (this.dtype === 'f32' && this.backend.hostView) {
      const { backend, storage } = { backend: this.backend, storage: tensor.storage };
      await this.file.readFloat32(stored, () => backend.hostView?.(storage.allocation, 'f32', 0, tensor.size) as Float32Array);
    } else this.write(tensor, await this.read(stored));
    this.loaded += tensor.byteLength;
    this.progress?.({ file: this.file.name, loaded: this.loaded, total: this.total });
    return tensor;
  }

  private async loadPacked(tensor: Tensor, stored: string, permuted: number): Promise<void> {
    const { rowBytes, byteOffset } = packedMatrix(tensor);
    const { allocation } = tensor.storage;
    const words = (bytes: Uint8Array): Int32Array => new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    if (!permuted) return this.file.readPacked(stored, (row, rows) => { this.backend.write(allocation, byteOffset + row * rowBytes, words(rows)); });
    const whole = new Uint8Array(tensor.byteLength);
    await this.file.readPacked(stored, (row, rows) => { whole.set(rows, row * rowBytes); });
    this.backend.write(allocation, byteOffset, words(unpermute(whole, [tensor.shape[0], rowBytes], permuted)));
  }

  private read(stored: string): Promise<Float32Array | Float64Array> {
    return this.dtype === 'f32' ? this.file.readFloat32(stored) : this.file.readFloat64(stored);
  }

  private write(tensor: Tensor, data: Float32Array | Float64Array): void {
    this.backend.write(tensor.storage.allocation, 0, data);
  }
}

/** Rows of numbers (or of packed bytes) of each head from (pair, half) order to (half, pair): interleaved rotary embeddings to Hugging Face's rotate-half. */
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
