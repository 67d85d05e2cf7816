// A folder of cases on disk. Models resolve inside the folder, save aliases. Node only.

import { readdir, stat } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve } from 'node:path';
import { tokenizerOf } from '../../src/io/autoTokenizer.js';
import { fileSource } from '../../src/io/byteSource.js';
import { aliasOfFile, pinnedModels, resolveModel, type ResolvedModel } from '../../src/io/resolve.js';
import { openResolved } from '../../src/models/auto.js';
import { readJson, type CaseFiles } from './files.js';

export function folderFiles(folder: string, note: (message: string) => void): CaseFiles {
  const dir = resolve(folder);

  /** The model called `name` in a case's settings: a folder or file in the folder of cases, or an alias. */
  const find = async (name: string): Promise<ResolvedModel> => {
    const path = resolve(dir, name);
    if (
      isInside(path) &&
      (await stat(path).then(
        () => true,
        () => false,
      ))
    )
      return resolveModel(path);
    // A file may be named as the one its alias is pinned to.
    const alias = Object.hasOwn(pinnedModels, name) ? name : aliasOfFile(name);
    if (!alias)
      throw new Error(`model '${name}' is not in ${dir}, and no alias (${Object.keys(pinnedModels).join(', ')})`);
    const resolved = await resolveModel(alias);
    if (resolved.note) note(resolved.note);
    return resolved;
  };
  const isInside = (path: string): boolean => !relative(dir, path).startsWith('..') && !isAbsolute(relative(dir, path));

  const walk = async (at: string): Promise<string[]> =>
    (
      await Promise.all(
        (await readdir(join(dir, at), { withFileTypes: true })).map(entry => {
          const path = at === '' ? entry.name : `${at}/${entry.name}`;
          return entry.isDirectory() ? walk(path) : [path];
        }),
      )
    ).flat();

  return {
    name: dir,
    list: () => walk(''),
    open: path => fileSource(join(dir, path)),
    json: path => json(join(dir, path)),
    async model(name) {
      const resolved = await find(name);
      const config = resolved.kind === 'folder' ? await json(join(resolved.path, 'config.json')) : undefined;
      return { key: resolved.path, config, open: () => openResolved(resolved), tokenizer: () => tokenizerOf(resolved) };
    },
  };
}

const json = (path: string): Promise<unknown> => readJson(fileSource(path), path);
