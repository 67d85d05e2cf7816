// What a file calls the tensors of a model, which are known here by the names of the family's first release: GGUF's own
// names, and checkpoints whose names have another prefix, as those of base models (`layers.0...`) and of wrapped ones
// (`language_model.model.layers.0...`).

import { FormatError } from '../io/errors.js';
import type { TensorFile } from '../io/tensorFile.js';
import type { Role } from './block.js';
import type { ModelNames } from './families/family.js';

export interface TensorNames {
  /** The file's name of a tensor. */
  stored(name: string): string;
  /** True for a stored name that is part of what the blocks compute, and so must be read. */
  isOfDecoder(stored: string): boolean;
}

/** GGUF's name of each layer of a block. Source: llama.cpp, gguf-py/gguf/tensor_mapping.py. */
const ggufRoles: Partial<Readonly<Record<Role, string>>> = {
  attentionNorm: 'attn_norm',
  q: 'attn_q',
  k: 'attn_k',
  v: 'attn_v',
  qkv: 'attn_qkv',
  qNorm: 'attn_q_norm',
  kNorm: 'attn_k_norm',
  o: 'attn_output',
  attentionPostNorm: 'post_attention_norm',
  attentionSumNorm: 'attn_output_norm',
  mlpNorm: 'ffn_norm',
  gate: 'ffn_gate',
  up: 'ffn_up',
  gateUp: 'ffn_up',
  down: 'ffn_down',
  mlpPostNorm: 'post_ffw_norm',
  mlpSumNorm: 'layer_output_norm',
};

const ggufEmbeddings = {
  word: 'token_embd',
  position: 'position_embd',
  type: 'token_types',
  norm: 'token_embd_norm',
  projection: 'token_embd_proj',
} as const;

/** Canonical names, without `.weight`, to GGUF's, for what is not in a block. */
function ggufOutside({ embeddings, norm, head }: ModelNames): Map<string, string> {
  const names = new Map<string, string>();
  for (const part of Object.keys(ggufEmbeddings) as (keyof typeof ggufEmbeddings)[]) {
    const name = embeddings[part];
    if (name !== undefined) names.set(name, ggufEmbeddings[part]);
  }
  if (norm !== undefined) names.set(norm, 'output_norm');
  if (head !== undefined) names.set(head, 'output');
  return names;
}

function ggufNames(names: ModelNames): TensorNames['stored'] {
  const roles = new Map(
    (Object.entries(names.roles) as [Role, string][]).map(([role, path]) => [
      path,
      names.gguf?.[role] ?? ggufRoles[role],
    ]),
  );
  const outside = ggufOutside(names);
  return name => {
    const parts = /^(.*)\.(weight|bias)$/.exec(name);
    if (!parts) return name;
    const [, path, kind] = parts;
    const alone = outside.get(path);
    if (alone !== undefined) return `${alone}.${kind}`;
    const block = path.startsWith(`${names.blocks}.`)
      ? /^(\d+)\.(.+)$/.exec(path.slice(names.blocks.length + 1))
      : null;
    const role = block && roles.get(block[2]);
    return block && role ? `blk.${block[1]}.${role}.${kind}` : name;
  };
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** What stands where the family has its prefix: `model.` as a rule. */
function prefixOf(file: TensorFile, { prefix, blocks, roles }: ModelNames): string {
  const bare = blocks.slice(prefix.length);
  const probe = roles.o ?? roles.attentionNorm ?? roles.attentionPostNorm ?? roles.attentionSumNorm;
  const pattern = new RegExp(`^(.*?)${escaped(`${bare}.0.${probe}.weight`)}$`);
  const prefixes = [...file.tensors.keys()].flatMap(name => pattern.exec(name)?.[1] ?? []);
  if (prefixes.length <= 1 || prefixes.includes(prefix)) return prefixes.length === 1 ? prefixes[0] : prefix;
  throw new FormatError(
    file.name,
    `holds several decoders, expected one; they begin with ${prefixes.map(p => `'${p}${bare}.0.'`).join(', ')}`,
  );
}

export function tensorNamesOf(file: TensorFile, names: ModelNames): TensorNames {
  // rope_freqs is read with the configuration; the other one is what old converters left of tables.
  if (file.format === 'gguf')
    return {
      stored: ggufNames(names),
      isOfDecoder: stored => stored !== 'rope_freqs.weight' && !/\.attn_rot_embd\./.test(stored),
    };
  if (file.format === 'marian')
    return {
      stored: names.storedAs ?? (name => name),
      // Beside each matrix lies the multiplier of what it is multiplied with in whole numbers.
      isOfDecoder: stored => /^(en|de)coder_l\d+_/.test(stored) && !stored.endsWith('_QuantMultA'),
    };
  const prefix = prefixOf(file, names);
  const { head = 'lm_head', blocks, otherBlocks = [], oldEndings = {}, ignored } = names;
  const ofBlocks = [blocks, ...otherBlocks].map(path => `${prefix}${path.slice(names.prefix.length)}.`);
  /** Under the ending that the file has. */
  const ended = (name: string): string => {
    const ending = file.tensors.has(name) ? undefined : Object.keys(oldEndings).find(end => name.endsWith(end));
    if (ending === undefined) return name;
    const old = name.slice(0, -ending.length) + oldEndings[ending];
    return file.tensors.has(old) ? old : name;
  };
  const wrapped = `${prefix.endsWith(names.prefix) ? prefix.slice(0, -names.prefix.length) : prefix}${head}`;
  return {
    stored: name => {
      if (name.startsWith(`${head}.`)) {
        const inside = wrapped + name.slice(head.length);
        return file.tensors.has(inside) ? inside : name;
      }
      return ended(name.startsWith(names.prefix) ? prefix + name.slice(names.prefix.length) : name);
    },
    isOfDecoder: stored => ofBlocks.some(path => stored.startsWith(path)) && !ignored?.test(stored),
  };
}
