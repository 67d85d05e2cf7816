// Folders that are written in: made with what is missing above them, and cleared of what killed processes left. Node
// only.

import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { writerState, writerTag, writerTagPattern, type WriterState } from './writerNode.js';

/**
 * Makes a folder and those above it; gives the ones that were made, outermost first. Step by step: Node's own recursive
 * mkdir never ends where the system says that a folder is there in which nothing can be (/proc).
 */
export async function makeFolder(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    const there = await stat(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    if (there?.isDirectory()) break;
    if (there) throw Object.assign(new Error(`ENOTDIR: ${folder} is no folder`), { code: 'ENOTDIR' });
    missing.unshift(folder);
  }
  const made: string[] = [];
  for (const folder of missing) {
    try {
      await mkdir(folder);
      made.push(folder);
    } catch (error) {
      // Another process was faster.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  return made;
}

/** The name under which a file is written before it has its own. */
export const unfinishedName = (name: string, unique: string): string => `.${name}.${writerTag}.${unique}.tmp`;

const pattern = new RegExp(`^\\.(.+?)\\.(?:(${writerTagPattern})\\.)?[0-9a-f-]{1,36}\\.tmp$`);
/** What nobody can be asked about goes after this time. */
const staleMs = 3_600_000;

export interface UnfinishedFile {
  readonly entry: string;
  /** What it would have been called. */
  readonly name: string;
  readonly writer: WriterState;
}

/** Those of a folder's entries that are files which are not finished. */
export function unfinishedFiles(entries: readonly string[]): UnfinishedFile[] {
  return entries.flatMap(entry => {
    const [, name, tag] = pattern.exec(entry) ?? [];
    return name === undefined
      ? []
      : [{ entry, name, writer: tag === undefined ? ('unknown' as const) : writerState(tag) }];
  });
}

/** Removes what writers that are gone left of files of these names. */
export async function removeUnfinished(directory: string, isOurs: (name: string) => boolean): Promise<void> {
  for (const { entry, name, writer } of unfinishedFiles(await readdir(directory))) {
    if (!isOurs(name) || writer === 'alive') continue;
    const path = join(directory, entry);
    const age = async (): Promise<number> => Date.now() - ((await stat(path).catch(() => null))?.mtimeMs ?? Infinity);
    if (writer === 'dead' || (await age()) > staleMs) await rm(path, { force: true });
  }
}
