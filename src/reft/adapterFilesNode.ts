// Folders of small files: written, each whole or not at all, and read back. What somebody else wrote there is never
// replaced. Node only; what is in the files is not known here.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFilesAtomic } from '../io/atomicWriteNode.js';
import { FormatError } from '../io/errors.js';
import { makeFolder } from '../io/foldersNode.js';
import { readBounded } from '../io/openFileNode.js';
import { findFiles } from './ownFilesNode.js';
import { tidyFolder } from './savedFilesNode.js';

/** A text for people: the folder is whole without it. */
const optional = 'README.md';

/**
 * Writes `files` into a folder, which is made if need be, and renames them in their order; gives the names that were
 * left as they are, somebody's README.md. `last` is removed first: without it the folder cannot be read, for formats in
 * which old and new files could not be told apart.
 * @throws RangeError, before anything was written, naming a file there that reft did not write
 */
export async function writeFolder(
  directory: string,
  files: ReadonlyMap<string, Uint8Array>,
  last?: string,
): Promise<string[]> {
  const { others } = await findFiles(directory, [...files.keys()]);
  const inTheWay = others.find(name => name !== optional);
  if (inTheWay !== undefined)
    throw new RangeError(
      `${join(directory, inTheWay)} was not written by reft and is not replaced; save into another folder`,
    );
  await makeFolder(directory);
  await tidyFolder(directory, name => files.has(name));
  await writeFilesAtomic(
    directory,
    [...files].filter(([name]) => !others.includes(name)),
    last,
  );
  return others;
}

/** The names of the files in a folder. @throws FormatError when it cannot be read */
export async function listFolder(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory, { withFileTypes: true }))
      .filter(entry => !entry.isDirectory())
      .map(entry => entry.name);
  } catch (cause) {
    throw new FormatError(directory, `cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** The bytes of these files. @throws FormatError naming the one that cannot be read */
export async function readFolder(directory: string, names: readonly string[]): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const name of names) {
    files.set(name, await readBounded(join(directory, name), /\.(json|md)$/.test(name) ? 'settings' : 'weights'));
  }
  return files;
}
