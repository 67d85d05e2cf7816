// Which cases a folder holds, and which of them globs choose. A case is a path without extension; folders that pyreft
// saved are cases themselves; the files of models, tokenizers and adapters are not.

import { lastOf } from './files.js';

export interface Case {
  /** Below the folder of all cases, with '/', without extension. */
  readonly path: string;
  readonly type: 'saved' | 'json' | 'tensors';
}

/** JSON files that models, tokenizers and adapters come with. */
const notCases =
  /^(config|generation_config|preprocessor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|vocab|adapter_config|.*\.index)$/;
const weights = /^(model|adapter_model|pytorch_model)([-.].*)?$/;

/** The cases among the paths of files, sorted. */
export function findCases(paths: readonly string[]): Case[] {
  const found = new Map<string, Case>();
  for (const path of paths) {
    const saved = /^(.*?-saved-by-(?:pyreft|peft))\//.exec(path)?.[1];
    if (saved) {
      if (saved.endsWith('-saved-by-pyreft')) found.set(saved, { path: saved, type: 'saved' });
      continue;
    }
    const match = /^(.+)\.(json|safetensors)$/.exec(lastOf(path));
    if (!match || notCases.test(match[1]) || weights.test(match[1])) continue;
    const stem = path.slice(0, -match[2].length - 1);
    if (match[2] === 'safetensors' || !found.has(stem))
      found.set(stem, { path: stem, type: match[2] === 'json' ? 'json' : 'tensors' });
  }
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * A test for paths: the glob matches the whole path, `*` any characters, '/' too; without `*` also a folder, for all
 * below it.
 */
export function globTest(glob: string): (path: string) => boolean {
  const trimmed = glob.replace(/^\.\//, '').replace(/\/+$/, '');
  if (!trimmed.includes('*')) return path => path === trimmed || path.startsWith(`${trimmed}/`);
  const pattern = new RegExp(
    `^${trimmed
      .split('*')
      .map(part => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'))
      .join('.*')}$`,
    's',
  );
  return path => pattern.test(path);
}
