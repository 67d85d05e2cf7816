// What a checkpoint calls the tensors of a decoder, which are known here by Hugging Face's names: GGUF's own names, and
// checkpoints whose names have another prefix than `model.`, as those of base models (`layers.0...`) and of wrapped
// ones (`language_model.model.layers.0...`).

import { FormatError } from '../io/errors.js';
import type { TensorFile } from '../io/tensorFile.js';

export interface TensorNames {
  /** The file's name of a tensor. */
  stored(name: string): string;
  /** True for a stored name that is part of what the decoder computes, and so must be read. */
  isOfDecoder(stored: string): boolean;
}

/** GGUF's name of a LLaMA-like tensor. Source: llama.cpp, gguf-py/gguf/tensor_mapping.py. */
function ggufName(name: string): string {
  const block = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  const parts: Record<string, string> = {
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
    input_layernorm: 'attn_norm',
    post_attention_layernorm: 'ffn_norm',
  };
  if (block && parts[block[2]]) return `blk.${block[1]}.${parts[block[2]]}.${block[3]}`;
  const others: Record<string, string> = {
    'model.embed_tokens.weight': 'token_embd.weight',
    'model.norm.weight': 'output_norm.weight',
    'lm_head.weight': 'output.weight',
  };
  return others[name] ?? name;
}

/** What stands before `layers.0.` in a checkpoint: `model.` as a rule. */
function prefixOf(file: TensorFile): string {
  const prefixes = [...file.tensors.keys()].flatMap(
    name => /^(.*?)layers\.0\.input_layernorm\.weight$/.exec(name)?.[1] ?? [],
  );
  if (prefixes.length <= 1 || prefixes.includes('model.')) return prefixes.length === 1 ? prefixes[0] : 'model.';
  throw new FormatError(
    file.name,
    `holds several decoders, expected one; they begin with ${prefixes.map(prefix => `'${prefix}layers.0.'`).join(', ')}`,
  );
}

export function tensorNamesOf(file: TensorFile): TensorNames {
  // rope_freqs is read with the configuration; the other one is what old converters left of tables.
  if (file.format === 'gguf')
    return {
      stored: ggufName,
      isOfDecoder: stored => stored !== 'rope_freqs.weight' && !/\.attn_rot_embd\./.test(stored),
    };
  const prefix = prefixOf(file);
  const head = `${prefix.replace(/model\.$/, '')}lm_head.weight`;
  return {
    stored: name =>
      name.startsWith('model.')
        ? prefix + name.slice('model.'.length)
        : name === 'lm_head.weight' && file.tensors.has(head)
          ? head
          : name,
    // Old checkpoints hold the frequencies of rotary embeddings, which follow from the configuration.
    isOfDecoder: stored => stored.startsWith(`${prefix}layers.`) && !stored.endsWith('.rotary_emb.inv_freq'),
  };
}
