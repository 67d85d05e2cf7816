// Where cases and the models they name come from. The checks know this interface only, so they run in Node
// (filesNode.ts) and in a browser (tests/browser/httpFiles.ts). Paths are below one folder, with '/'. What a case means
// is not known here.

import { FormatError } from '../../src/io/errors.js';
import type { ByteSource } from '../../src/io/byteSource.js';
import type { Tokenizer } from '../../src/io/tokenizer.js';
import type { OpenCheckpoint } from '../../src/models/auto.js';

/** A model that a case names, not yet loaded. */
export interface NamedModel {
  /** The same for two names of one model. */
  readonly key: string;
  /** The folder's config.json; undefined where the model is one file. */
  readonly config: unknown;
  open(): Promise<OpenCheckpoint>;
  tokenizer(): Promise<Tokenizer>;
}

export interface CaseFiles {
  /** What messages call the folder. */
  readonly name: string;
  /** Every file's path; folders do not appear. */
  list(): Promise<readonly string[]>;
  open(path: string): Promise<ByteSource>;
  json(path: string): Promise<unknown>;
  /** @throws Error where there is none */
  model(name: string): Promise<NamedModel>;
}

/** The content of a JSON file, which is closed; a FormatError names the file where it has none. */
export async function readJson(source: Promise<ByteSource>, name: string): Promise<unknown> {
  try {
    const file = await source;
    try {
      return JSON.parse(new TextDecoder().decode(await file.read(0, file.size)));
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw new FormatError(name, `cannot be read as JSON: ${(cause as Error).message}`, { cause });
  }
}

/** The folder of a path; '' for the top. */
export const folderOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));

/** The last part of a path. */
export const lastOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1);

/** A path in a folder. */
export const below = (folder: string, name: string): string => (folder === '' ? name : `${folder}/${name}`);
