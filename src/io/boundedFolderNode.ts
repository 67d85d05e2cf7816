// A folder of files that can be made again, with a bound on their bytes: what was used longest ago goes first. Node
// only; what is in the files is not known here.

import { readdir, rm, stat, utimes, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from './atomicWriteNode.js';
import { makeFolder, removeUnfinished } from './foldersNode.js';
import { openFile } from './openFileNode.js';

export interface BoundedFolder {
  /**
   * Begins to read a file. Resolves, once the system has been asked for all of its bytes, to what waits for them; null
   * where there is no file. A caller that then computes without a pause finds them read.
   */
  begin(name: string): Promise<(() => Promise<Uint8Array>) | null>;
  /** Writes a file whole, making room but for files of `needed`; false where there is not enough. */
  write(name: string, bytes: Uint8Array, needed: ReadonlySet<string>): Promise<boolean>;
}

/** Systems read less than 2 GiB at once. */
const mostAtOnce = 2 ** 30;

/**
 * Opens a folder, made if need be, of whose files those that end in `suffix` count and may be removed. Errors name the
 * folder.
 */
export async function openBoundedFolder(directory: string, suffix: string, limitBytes: number): Promise<BoundedFolder> {
  const entries = new Map<string, { bytes: number; used: number }>();
  const fail = (what: string, cause: unknown): never => {
    throw new Error(`${directory}: ${what}: ${(cause as Error).message}`, { cause });
  };
  try {
    await makeFolder(directory);
    await removeUnfinished(directory, name => name.endsWith(suffix));
    for (const name of await readdir(directory)) {
      if (!name.endsWith(suffix)) continue;
      const found = await stat(join(directory, name)).catch(() => null);
      if (found?.isFile()) entries.set(name, { bytes: found.size, used: found.mtimeMs });
    }
  } catch (error) {
    fail('cannot be opened', error);
  }
  return {
    async begin(name) {
      try {
        const opened = await openFile(join(directory, name)).catch((error: NodeJS.ErrnoException) => {
          if (error.code === 'ENOENT') return null;
          throw error;
        });
        if (!opened) return null;
        const now = new Date();
        // Only to say that it was used: a folder that is not ours to write in may still be read.
        await utimes(join(directory, name), now, now).catch(() => undefined);
        const whole = readAll(opened.handle, opened.size).catch((error: unknown) =>
          fail(`${name} cannot be read`, error),
        );
        // An error is told to whoever waits; that may be nobody.
        whole.catch(() => undefined);
        return () => whole;
      } catch (error) {
        return fail(`${name} cannot be read`, error);
      }
    },
    async write(name, bytes, needed) {
      entries.delete(name);
      let total = [...entries.values()].reduce((n, entry) => n + entry.bytes, 0);
      try {
        for (const [other, entry] of [...entries].sort(([, a], [, b]) => a.used - b.used)) {
          if (total + bytes.length <= limitBytes) break;
          if (needed.has(other)) continue;
          await rm(join(directory, other), { force: true });
          entries.delete(other);
          total -= entry.bytes;
        }
        if (total + bytes.length > limitBytes) return false;
        await writeFileAtomic(join(directory, name), bytes);
      } catch (error) {
        fail(`${name} cannot be written`, error);
      }
      entries.set(name, { bytes: bytes.length, used: Date.now() });
      return true;
    },
  };
}

/**
 * All of an open file, which is closed: asked for at once, where `readFile` asks for piece after piece and needs the
 * event loop in between.
 */
async function readAll(file: FileHandle, size: number): Promise<Uint8Array> {
  try {
    const bytes = new Uint8Array(size);
    for (let at = 0; at < bytes.length;) {
      const { bytesRead } = await file.read(bytes, at, Math.min(bytes.length - at, mostAtOnce), at);
      if (bytesRead === 0) return bytes.subarray(0, at);
      at += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}
