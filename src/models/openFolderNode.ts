// A Hugging Face folder on disk as a configuration and open safetensors. Node only; auto.ts loads this when a folder is
// opened.

import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { fileSource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { readTextBounded } from '../io/openFileNode.js';
import { openSafetensors, openShardedSafetensors } from '../io/safetensors.js';
import type { TensorFile } from '../io/tensorFile.js';

export interface OpenFolder {
  /** The content of config.json. */
  readonly json: unknown;
  readonly configPath: string;
  /** That of generation_config.json, where there is one. */
  readonly generation: { readonly json: unknown; readonly path: string } | undefined;
  /** The weights: model.safetensors, or the shards that model.safetensors.index.json lists. */
  readonly open: () => Promise<TensorFile>;
}

export async function openFolder(folder: string): Promise<OpenFolder> {
  const configPath = join(folder, 'config.json');
  const json = await readJson(configPath);
  const exists = (name: string): Promise<boolean> =>
    access(join(folder, name)).then(
      () => true,
      () => false,
    );
  const open = async (): Promise<TensorFile> => {
    if (await exists('model.safetensors')) return openSafetensors(await fileSource(join(folder, 'model.safetensors')));
    if (await exists('model.safetensors.index.json')) {
      return openShardedSafetensors(await fileSource(join(folder, 'model.safetensors.index.json')), shard =>
        fileSource(join(folder, shard)),
      );
    }
    throw new FormatError(folder, 'has neither model.safetensors nor model.safetensors.index.json');
  };
  const path = join(folder, 'generation_config.json');
  const generation = (await exists('generation_config.json')) ? { json: await readJson(path), path } : undefined;
  return { json, configPath, generation, open };
}

async function readJson(path: string): Promise<unknown> {
  const text = await readTextBounded(path, 'settings');
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError(path, `cannot be read as JSON: ${(cause as Error).message}`, { cause });
  }
}
