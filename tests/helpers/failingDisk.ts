// Stands in for the disk below a folder: counts what is done there, and fails or stops the world where a test says so.
// A process that is killed does nothing more: the call at which it "dies" never returns (a write is left half done),
// nor does any later one.

import { constants } from 'node:fs';
import fs, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { basename } from 'node:path';

export interface FailingDisk {
  /** What was done so far: "rename loss.svg". */
  readonly calls: string[];
  /** Resolves when the process has died. */
  readonly died: Promise<void>;
  /** Puts the real functions back. */
  restore(): void;
}

/** What happens at a call: it is done, the process dies in it, or it fails with this error. */
export type Fate = 'done' | 'dies' | Error;

const onlyReads = (flags: string | number): boolean =>
  typeof flags === 'string'
    ? flags === 'r'
    : (flags & (constants.O_WRONLY | constants.O_RDWR | constants.O_CREAT)) === 0;

export function failingDisk(folder: string, fate: (number: number, call: string) => Fate): FailingDisk {
  const real = { open: fs.open, rename: fs.rename, rm: fs.rm, rmdir: fs.rmdir, mkdir: fs.mkdir };
  const calls: string[] = [];
  let dead = false;
  let die: () => void = () => undefined;
  const died = new Promise<void>(resolve => {
    die = resolve;
  });
  const never = new Promise<never>(() => undefined);

  async function at<T>(
    what: string,
    path: unknown,
    body: () => Promise<T>,
    half: () => Promise<unknown> = async () => undefined,
  ): Promise<T> {
    if (!String(path).startsWith(folder)) return body();
    if (dead) return never;
    const call = `${what} ${basename(String(path))}`;
    calls.push(call);
    const is = fate(calls.length, call);
    if (is instanceof Error) throw is;
    if (is === 'done') return body();
    dead = true;
    await half();
    die();
    return never;
  }

  function watched(handle: FileHandle, path: unknown): FileHandle {
    const writeFile = handle.writeFile.bind(handle);
    const write = handle.write.bind(handle) as (bytes: Uint8Array, from: number, length: number) => Promise<unknown>;
    const sync = handle.sync.bind(handle);
    return Object.assign(handle, {
      writeFile: (data: Uint8Array | string) =>
        at(
          'write',
          path,
          () => writeFile(data),
          () => writeFile(data.slice(0, data.length / 2)),
        ),
      write: (bytes: Uint8Array, from: number, length: number) => at('write', path, () => write(bytes, from, length)),
      sync: () => at('sync', path, sync),
    });
  }

  const replaced = {
    open: (path: string, flags: string | number = 'r', mode?: number) =>
      onlyReads(flags)
        ? real.open(path, flags, mode)
        : at('open', path, async () => watched(await real.open(path, flags, mode), path)),
    rename: (from: string, to: string) => at('rename', to, () => real.rename(from, to)),
    rm: (path: string, options: object) => at('rm', path, () => real.rm(path, options)),
    rmdir: (path: string) => at('rmdir', path, () => real.rmdir(path)),
    mkdir: (path: string) => at('mkdir', path, () => real.mkdir(path)),
  };
  Object.assign(fs, replaced);
  syncBuiltinESMExports();
  return {
    calls,
    died,
    restore() {
      Object.assign(fs, real);
      syncBuiltinESMExports();
    },
  };
}
