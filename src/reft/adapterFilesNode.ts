// Folders of small files: written one by one, each whole or not at all, and read back. Node only; what is in them is not known here.

import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../io/atomicWriteNode.js';
import { FormatError } from '../io/errors.js';

/** Writes `files` in their order into a folder, which is made if need be. */
export async function writeFolder(directory: string, files: ReadonlyMap<string, Uint8Array>): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const [name, bytes] of files) await writeFileAtomic(join(directory, name), bytes);
}

/** The names of the files in a folder. @throws FormatError when it cannot be read */
export async function listFolder(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory, { withFileTypes: true })).filter(entry => !entry.isDirectory()).map(entry => entry.name);
  } catch (cause) {
    throw new FormatError(directory, `cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** The bytes of these files. @throws FormatError naming the one that cannot be read */
export async function readFolder(directory: string, names: readonly string[]): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const name of names) {
    const path = join(directory, name);
    try {
      const bytes = await readFile(path);
      files.set(name, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    } catch (cause) {
      throw new FormatError(path, `cannot be read: ${(cause as Error).message}`, { cause });
    }
  }
  return files;
}
