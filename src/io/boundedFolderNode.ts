// A folder of files that can be made again, with a bound on their bytes: what was used longest ago goes first. Node only; what is in the files
// is not known here.

import { mkdir, readdir, readFile, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from './atomicWriteNode.js';

export interface BoundedFolder {
  /** A file's bytes, null where there is none. */
  read(name: string): Promise<Uint8Array | null>;
  /** Writes a file whole, making room but for files of `needed`; false where there is not enough. */
  write(name: string, bytes: Uint8Array, needed: ReadonlySet<string>): Promise<boolean>;
}

/** What a process that was killed while writing left behind is removed after this time. */
const staleMs = 3_600_000;

/** Opens a folder, made if need be, of whose files those that end in `suffix` count and may be removed. Errors name the folder. */
export async function openBoundedFolder(directory: string, suffix: string, limitBytes: number): Promise<BoundedFolder> {
  const entries = new Map<string, { bytes: number; used: number }>();
  const fail = (what: string, cause: unknown): never => {
    throw new Error(`${directory}: ${what}: ${(cause as Error).message}`, { cause });
  };
  try {
    await mkdir(directory, { recursive: true });
    for (const name of await readdir(directory)) {
      const unfinished = name.startsWith('.') && name.includes(suffix) && name.endsWith('.tmp');
      if (!unfinished && !name.endsWith(suffix)) continue;
      const found = await stat(join(directory, name)).catch(() => null);
      if (!found?.isFile()) continue;
      if (!unfinished) entries.set(name, { bytes: found.size, used: found.mtimeMs });
      else if (Date.now() - found.mtimeMs > staleMs) await rm(join(directory, name), { force: true });
    }
  } catch (error) {
    fail('cannot be opened', error);
  }
  return {
    async read(name) {
      try {
        const bytes = await readFile(join(directory, name));
        const now = new Date();
        // Only to say that it was used: a folder that is not ours to write in may still be read.
        await utimes(join(directory, name), now, now).catch(() => undefined);
        return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
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
