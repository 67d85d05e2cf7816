// Writing a file so that it is either the old one or the whole new one, whatever stops the process (Node only). Nothing
// else.

import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { unfinishedName } from './foldersNode.js';

/**
 * Writes `contents` to a temporary file beside `path`, syncs it to disk, then renames it over `path`.
 * When anything fails the temporary file is removed, `path` is as before, and the system's error is thrown.
 */
export async function writeFileAtomic(path: string, contents: Uint8Array | string): Promise<void> {
  await writeFilesAtomic(dirname(path), [[basename(path), contents]]);
}

/**
 * The same for several files of a folder: all are written before the first is renamed, so that a full disk changes
 * nothing and a process that is killed between two renames leaves the rest of the contents too. The file `last` is
 * there before or after the renames, never between them.
 */
export async function writeFilesAtomic(
  directory: string,
  files: Iterable<readonly [name: string, contents: Uint8Array | string]>,
  last?: string,
): Promise<void> {
  const written: { temporary: string; path: string }[] = [];
  try {
    for (const [name, contents] of files) {
      const temporary = join(directory, unfinishedName(name, randomUUID().slice(0, 8)));
      written.push({ temporary, path: join(directory, name) });
      const handle = await open(temporary, 'wx');
      try {
        await handle.writeFile(contents);
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
    if (last !== undefined) await rm(join(directory, last), { force: true });
    for (const { temporary, path } of written) await rename(temporary, path);
  } catch (error) {
    for (const { temporary } of written) await rm(temporary, { force: true });
    throw error;
  }
}
