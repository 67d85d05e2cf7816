// llama2.c's "version 0" checkpoints: seven int32, then f32 weights in a fixed order. Vocabulary files belong to the
// tokenizers. Names come out as Hugging Face's LLaMA has them, bytes as they are: rows of q and k stand for interleaved
// RoPE (pairs 2i, 2i+1 in a head), and permuting them for a model that rotates halves is the model loader's job. The
// file's RoPE tables are not exposed. Source: karpathy/llama2.c, export.py (legacy_export), run.c (memory_map_weights).

import type { ByteSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { tensorFileOver } from './tensorFile.js';
import type { StoredTensor, TensorFile } from './tensorFile.js';

/** The header's fields, `vocab_size` positive; `tie_word_embeddings` is false where the file has its own head. */
export interface Llama2cConfig {
  readonly dim: number;
  readonly hidden_dim: number;
  readonly n_layers: number;
  readonly n_heads: number;
  readonly n_kv_heads: number;
  readonly vocab_size: number;
  readonly seq_len: number;
  readonly tie_word_embeddings: boolean;
}

const headerFields = ['dim', 'hidden_dim', 'n_layers', 'n_heads', 'n_kv_heads', 'vocab_size', 'seq_len'] as const;
const headerBytes = headerFields.length * 4;

/**
 * Opens a llama2.c v0 checkpoint. `metadata` is a Llama2cConfig. The file must be exactly as long as its header says.
 * Takes over `source`: closed with the file, and when opening fails. Bad bytes throw a FormatError.
 */
export async function openLlama2c(source: ByteSource): Promise<TensorFile> {
  try {
    const config = await readConfig(source);
    return tensorFileOver(source, 'llama2c', layOut(source, config), { ...config });
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function readConfig(source: ByteSource): Promise<Llama2cConfig> {
  const head = await source.read(0, headerBytes);
  const view = new DataView(head.buffer, head.byteOffset, headerBytes);
  if (view.getUint32(0, true) === 0x616b3432) {
    throw new FormatError(
      source.name,
      `is llama2.c version ${view.getInt32(4, true)}, only version 0 (no magic number) can be read`,
    );
  }
  const fields = headerFields.map((_, i) => view.getInt32(i * 4, true));
  const [dim, hidden_dim, n_layers, n_heads, n_kv_heads, signedVocabulary, seq_len] = fields;
  const config = { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size: Math.abs(signedVocabulary), seq_len };
  for (const field of headerFields) {
    if (config[field] < 1)
      throw new FormatError(source.name, `the header's ${field} must be positive, it is ${config[field]}`);
  }
  if (dim % n_heads || (dim / n_heads) % 2) {
    throw new FormatError(source.name, `dim ${dim} must be an even number for each of ${n_heads} heads`);
  }
  if (n_heads % n_kv_heads)
    throw new FormatError(source.name, `${n_heads} heads must be a multiple of ${n_kv_heads} key-value heads`);
  return { ...config, tie_word_embeddings: signedVocabulary > 0 };
}

/** One group of the file: the same weight of every layer, or a weight of which there is one. */
interface Group {
  readonly name: string;
  readonly perLayer: boolean;
  readonly shape: readonly number[];
}

function layOut(source: ByteSource, config: Llama2cConfig): Map<string, StoredTensor> {
  const { dim, hidden_dim: hidden, n_layers: layers, vocab_size: vocabulary, seq_len: length } = config;
  const headDim = dim / config.n_heads;
  const keyDim = headDim * config.n_kv_heads;
  const one = (name: string, ...shape: number[]): Group => ({ name, perLayer: false, shape });
  const each = (name: string, ...shape: number[]): Group => ({ name, perLayer: true, shape });
  const groups: Group[] = [
    one('model.embed_tokens.weight', vocabulary, dim),
    each('input_layernorm.weight', dim),
    each('self_attn.q_proj.weight', dim, dim),
    each('self_attn.k_proj.weight', keyDim, dim),
    each('self_attn.v_proj.weight', keyDim, dim),
    each('self_attn.o_proj.weight', dim, dim),
    each('post_attention_layernorm.weight', dim),
    each('mlp.gate_proj.weight', hidden, dim),
    each('mlp.down_proj.weight', dim, hidden),
    each('mlp.up_proj.weight', hidden, dim),
    one('model.norm.weight', dim),
    one('', length, headDim), // the RoPE tables: cos, then sin, [seq_len, headDim / 2] each
  ];
  if (!config.tie_word_embeddings) groups.push(one('lm_head.weight', vocabulary, dim));

  const bytesOf = (group: Group): number => group.shape.reduce((product, side) => product * side, 4);
  const size = groups.reduce((sum, group) => sum + bytesOf(group) * (group.perLayer ? layers : 1), headerBytes);
  if (size !== source.size) {
    const fields = headerFields.map(field => `${field} ${config[field]}`).join(', ');
    throw new FormatError(source.name, `has ${source.size} bytes, its header (${fields}) asks for ${size}`);
  }
  const tensors = new Map<string, StoredTensor>();
  let byteOffset = headerBytes;
  for (const group of groups) {
    for (let layer = 0; layer < (group.perLayer ? layers : 1); layer++) {
      const name = group.perLayer ? `model.layers.${layer}.${group.name}` : group.name;
      const byteLength = bytesOf(group);
      if (name) tensors.set(name, { name, dtype: 'F32', shape: group.shape, byteOffset, byteLength });
      byteOffset += byteLength;
    }
  }
  return tensors;
}
