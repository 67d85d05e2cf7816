// Which files of a folder reft wrote, told from what is in them. Only those are ever replaced or removed; all others
// are somebody's. Node only.

import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileSource } from '../io/byteSource.js';
import { openSafetensors } from '../io/safetensors.js';
import { isSigned } from './signedText.js';

/** Larger texts than this are none of ours. */
const mostTextBytes = 2 ** 27;

type Json = Record<string, unknown>;

const jsonWhere =
  (is: (json: Json) => boolean) =>
  async (path: string): Promise<boolean> => {
    const json: unknown = JSON.parse(await textOf(path));
    return typeof json === 'object' && json !== null && is(json as Json);
  };
const configOf = (format: string): Test => jsonWhere(json => json['format'] === format);
const isText: Test = async path => isSigned(await textOf(path));

/** Whether the file at a path, a regular one, is ours; an error counts as no. */
type Test = (path: string) => Promise<boolean>;

const tests: readonly (readonly [name: RegExp, test: Test])[] = [
  [/^README\.md$|\.svg$/, isText],
  [/^adapter_config\.json$/, configOf('reft-adapter')],
  [/^interchange_config\.json$/, configOf('reft-interchange')],
  [/^trainer_state\.json$/, configOf('reft-trainer')],
  [/^training\.json$/, jsonWhere(json => Object.keys(json).sort().join() === 'evaluation,losses')],
  [/^(adapter|interchange)_model\.safetensors$/, path => weightsAreOurs(path)],
  [/^trainer_state\.safetensors$/, async path => typeof (await metadataOf(path))['state'] === 'string'],
  // pyreft's folders have no place for a mark; what is replaced there is another such folder.
  [
    /^config\.json$/,
    jsonWhere(json => Array.isArray(json['sorted_keys']) && Array.isArray(json['intervention_types'])),
  ],
  [/^intkey_.*\.bin$/, path => isOurs(join(path, '..'), 'config.json')],
];

/** Whether a folder's file of this name is there and is one that reft writes. */
export async function isOurs(directory: string, name: string): Promise<boolean> {
  const path = join(directory, name);
  const test = tests.find(([pattern]) => pattern.test(name))?.[1];
  if (!test || !(await stat(path).catch(() => null))?.isFile()) return false;
  return test(path).catch(() => false);
}

/** A trace of `--profile`: those are long, and their end says who made them. */
export const isTrace = async (path: string): Promise<boolean> =>
  (await pieceOf(path, size => Math.max(0, size - pieceBytes))).includes('"otherData":{"producer":"reft"');

/** A control vector in a GGUF. */
export const isControlVector = async (path: string): Promise<boolean> =>
  /^GGUF[^]*general\.architecture[^]*controlvector/.test(await pieceOf(path, () => 0));

export interface Found {
  readonly ours: string[];
  /** Somebody's. */
  readonly others: string[];
}

/** Those of `names` that are in a folder; none where the folder is not there. */
export async function findFiles(directory: string, names: readonly string[]): Promise<Found> {
  const found: Found = { ours: [], others: [] };
  for (const name of names) {
    const there = await stat(join(directory, name)).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code !== 'ENOENT' && error.code !== 'ENOTDIR',
    );
    if (there) found[(await isOurs(directory, name)) ? 'ours' : 'others'].push(name);
  }
  return found;
}

/** Weights say in their header what they are; those of earlier versions are told by the configuration beside them. */
async function weightsAreOurs(path: string): Promise<boolean> {
  const { format } = await metadataOf(path);
  if (format !== undefined) return format === 'reft-adapter' || format === 'reft-interchange';
  return isOurs(join(path, '..'), /adapter_model/.test(path) ? 'adapter_config.json' : 'interchange_config.json');
}

async function metadataOf(path: string): Promise<Readonly<Record<string, unknown>>> {
  const file = await openSafetensors(await fileSource(path));
  await file.close();
  return file.metadata;
}

async function textOf(path: string): Promise<string> {
  const file = await open(path);
  try {
    if ((await file.stat()).size > mostTextBytes) return '';
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

const pieceBytes = 4096;

/** A piece of a regular file; nothing of what is none. */
async function pieceOf(path: string, position: (size: number) => number): Promise<string> {
  if (!(await stat(path)).isFile()) return '';
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(pieceBytes),
      0,
      pieceBytes,
      position((await file.stat()).size),
    );
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await file.close();
  }
}
