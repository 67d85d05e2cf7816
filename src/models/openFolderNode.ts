// A Hugging Face folder on disk as a configuration and open safetensors. Node only; auto.ts loads this when a folder is opened.

import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileSource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { openSafetensors, openShardedSafetensors } from '../io/safetensors.js';
import type { TensorFile } from '../io/tensorFile.js';

/** The content of the folder's config.json, and its weights: model.safetensors, or the shards that model.safetensors.index.json lists. */
export async function openFolder(folder: string): Promise<{ json: unknown; configPath: string; open: () => Promise<TensorFile> }> {
  const configPath = join(folder, 'config.json');
  let json: unknown;
  try {
    json = JSON.parse(await readFile(configPath, 'utf8'));
  } catch (cause) {
    throw new FormatError(configPath, `cannot be read as JSON: ${(cause as Error).message}`, { cause });
  }
  const exists = (name: string): Promise<boolean> => access(join(folder, name)).then(() => true, () => false);
  const open = async (): Promise<TensorFile> => {
    if (await exists('model.safetensors')) return openSafetensors(await fileSource(join(folder, 'model.safetensors')));
    if (await exists('model.safetensors.index.json')) {
      return openShardedSafetensors(await fileSource(join(folder, 'model.safetensors.index.json')), shard => fileSource(join(folder, shard)));
    }
    throw new FormatError(folder, 'has neither model.safetensors nor model.safetensors.index.json');
  };
  return { json, configPath, open };
}
