// Weights and configuration in a folder, whatever stopped the process that saved them. A save writes all files under
// other names first and renames them one after the other, the weights first: where it was cut off, the configuration
// that belongs to the weights still has its other name. Node only.

import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { removeUnfinished, unfinishedFiles } from '../io/foldersNode.js';
import { readBounded, readTextBounded } from '../io/openFileNode.js';
import type { Files } from '../adapt/files.js';
import { adapterFileNames } from './adapterFiles.js';
import { readFolder } from './adapterFilesNode.js';
import { sha256 } from '../train/fingerprint.js';
import { interchangeFileNames } from '../interchange/files.js';
import { hashKey, type SavedNames } from './savedFiles.js';

const saves: readonly SavedNames[] = [adapterFileNames, interchangeFileNames];

/**
 * Both files, the configuration being the one that belongs to the weights. @throws FormatError naming the one that
 * cannot be read
 */
export async function readSaved(directory: string, names: SavedNames): Promise<Files> {
  const pending = await pendingConfig(directory, names);
  if (pending === null) return readFolder(directory, [names.config, names.weights]);
  return new Map([
    ...(await readFolder(directory, [names.weights])),
    [names.config, await readBounded(join(directory, pending), 'settings')],
  ]);
}

/** Ends saves that were cut off, and removes what else writers that are gone left of files of these names. */
export async function tidyFolder(directory: string, isOurs: (name: string) => boolean): Promise<void> {
  for (const names of saves) {
    const pending = await pendingConfig(directory, names, 'gone');
    if (pending !== null) await rename(join(directory, pending), join(directory, names.config));
  }
  await removeUnfinished(directory, isOurs);
}

/**
 * The unfinished file that holds the configuration of the weights; null where the one with the right name does, or
 * none.
 */
async function pendingConfig(
  directory: string,
  { weights, config }: SavedNames,
  writers: 'any' | 'gone' = 'any',
): Promise<string | null> {
  const found = (await readdir(directory).catch(() => [])).filter(name => name.endsWith('.tmp'));
  const unfinished = unfinishedFiles(found).filter(
    file => file.name === config && (writers === 'any' || file.writer !== 'alive'),
  );
  if (unfinished.length === 0) return null;
  const bytes = await readBounded(join(directory, weights), 'weights').catch(() => null);
  if (!bytes) return null;
  const hash = await sha256(bytes);
  const belongs = async (file: string): Promise<boolean> => {
    try {
      return (
        (JSON.parse(await readTextBounded(join(directory, file), 'settings')) as Record<string, unknown>)[hashKey] ===
        hash
      );
    } catch {
      return false;
    }
  };
  if (await belongs(config)) return null;
  for (const { entry } of unfinished) if (await belongs(entry)) return entry;
  return null;
}
