// Checkpoint tensors onto a device under Hugging Face's names, whatever the file calls them: GGUF names are translated, rows of q and k
// stored for interleaved rotary embeddings are put back into halves. Formats are read in ../io; architectures are not known here.

import type { Backend } from '../backends/backend.js';
import { FormatError } from '../io/errors.js';
import type { TensorFile } from '../io/tensorFile.js';
import { allocate } from '../tensor/create.js';
import { formatShape, sameShape, sizeOf, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

export interface LoadProgress {
  readonly file: string;
  /** Bytes of weights on the device so far, and in all. */
  readonly loaded: number;
  readonly total: number;
}

export type WeightDType = 'f32' | 'f64';

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
  private readonly interleaved: boolean;
  private readonly progress: ((p: LoadProgress) => void) | undefined;
  private readonly signal: AbortSignal | undefined;
  private loaded = 0;
  private readonly total: number;

  constructor(file: TensorFile, backend: Backend, options: { dtype?: WeightDType; progress?: (p: LoadProgress) => void; signal?: AbortSignal } = {}) {
    this.file = file;
    this.backend = backend;
    this.dtype = options.dtype ?? 'f32';
    this.progress = options.progress;
    this.signal = options.signal;
    this.interleaved = file.format === 'llama2c' || (file.format === 'gguf' && file.metadata['general.architecture'] === 'llama');
    this.total = [...file.tensors.values()].reduce((n, t) => n + sizeOf(t.shape), 0) * (this.dtype === 'f64' ? 8 : 4);
  }

  /** Refuses what cannot fit, before anything is read. */
  checkFits(): void {
    const { liveBytes, limitBytes } = this.backend.stats();
    if (this.total + liveBytes > limitBytes) {
      const mib = (n: number): string => `${Math.ceil(n / 2 ** 20)} MiB`;
      throw new Error(`${this.file.name}: will not fit: the weights take ${mib(this.total)} as ${this.dtype}, ${mib(liveBytes)} are in use, `
        + `the ${this.backend.name} backend holds at most ${mib(limitBytes)}`);
    }
  }

  has(name: string): boolean {
    return this.file.tensors.has(this.stored(name));
  }

  private stored(name: string): string {
    return this.file.format === 'gguf' ? ggufName(name) : name;
  }

  /** The tensor called `name`, of exactly `shape`. `heads` > 0 marks rows of q or k, which interleaved files store permuted. */
  async load(name: string, shape: Shape, heads = 0): Promise<Tensor> {
    this.signal?.throwIfAborted();
    const stored = this.stored(name);
    const info = this.file.tensors.get(stored);
    if (info && !sameShape(info.shape, shape)) {
      throw new FormatError(this.file.name, `${stored} has shape ${formatShape(info.shape)}, the configuration says ${formatShape(shape)}`);
    }
    const tensor = allocate(name, shape, this.dtype, this.backend);
    tensor.name = name;
    tensor.storage.moveTo(null);
    if (heads > 0 && this.interleaved) this.write(tensor, unpermute(await this.read(stored), shape, heads));
    else if (this.dtype === 'f32' && this.backend.hostView) {
      const { backend, storage } = { backend: this.backend, storage: tensor.storage };
      await this.file.readFloat32(stored, () => backend.hostView?.(storage.allocation, 'f32', 0, tensor.size) as Float32Array);
    } else this.write(tensor, await this.read(stored));
    this.loaded += tensor.byteLength;
    this.progress?.({ file: this.file.name, loaded: this.loaded, total: this.total });
    return tensor;
  }

  private read(stored: string): Promise<Float32Array | Float64Array> {
    return this.dtype === 'f32' ? this.file.readFloat32(stored) : this.file.readFloat64(stored);
  }

  private write(tensor: Tensor, data: Float32Array | Float64Array): void {
    this.backend.write(tensor.storage.allocation, 0, data);
  }
}

/** Rows of each head from (pair, half) order to (half, pair): interleaved rotary embeddings to Hugging Face's rotate-half. */
function unpermute<T extends Float32Array | Float64Array>(data: T, shape: Shape, heads: number): T {
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
