// A Hugging Face folder of a random two-layer LLaMA with a byte-level tokenizer, small enough to load in milliseconds:
// what tests of whole commands run on.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeSafetensors, type SafetensorsEntry } from '../../src/io/safetensors.js';
import { Random } from '../../src/tensor/threefry.js';

const intermediate = 32;
const heads = 4;
const kvHeads = 2;
const layers = 2;
/** One token a byte, then the end token. */
export const tinyVocabulary = 257;
export const tinyEndToken = 256;

/** Writes the folder and gives its path. `hidden` is the width of the hidden states. */
export async function writeTinyFolder(
  folder: string,
  { hidden = 16 }: { readonly hidden?: number } = {},
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const random = new Random(7, 0);
  const tensor = (name: string, shape: number[], value?: number): SafetensorsEntry => ({
    name,
    dtype: 'F32',
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => value ?? random.next() - 0.5),
  });
  const width = hidden / heads;
  const entries = [
    tensor('model.embed_tokens.weight', [tinyVocabulary, hidden]),
    tensor('model.norm.weight', [hidden], 1),
  ];
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    entries.push(
      tensor(`${at}.input_layernorm.weight`, [hidden], 1),
      tensor(`${at}.post_attention_layernorm.weight`, [hidden], 1),
      tensor(`${at}.self_attn.q_proj.weight`, [hidden, hidden]),
      tensor(`${at}.self_attn.o_proj.weight`, [hidden, hidden]),
      tensor(`${at}.self_attn.k_proj.weight`, [kvHeads * width, hidden]),
      tensor(`${at}.self_attn.v_proj.weight`, [kvHeads * width, hidden]),
      tensor(`${at}.mlp.gate_proj.weight`, [intermediate, hidden]),
      tensor(`${at}.mlp.up_proj.weight`, [intermediate, hidden]),
      tensor(`${at}.mlp.down_proj.weight`, [hidden, intermediate]),
    );
  }
  const config = {
    model_type: 'llama',
    vocab_size: tinyVocabulary,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    eos_token_id: tinyEndToken,
  };
  await writeFile(join(folder, 'model.safetensors'), writeSafetensors(entries));
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(byteTokenizer()));
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|end|>' }));
  return folder;
}

function byteTokenizer(): object {
  // GPT-2's spelling of bytes: printable ones are themselves, the others follow from 256 on.
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  const vocab = Object.fromEntries(
    Array.from({ length: 256 }, (_, byte) => [String.fromCodePoint(printable(byte) ? byte : next++), byte]),
  );
  return {
    version: '1.0',
    added_tokens: [
      {
        id: tinyEndToken,
        content: '<|end|>',
        special: true,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
      },
    ],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [] },
  };
}
