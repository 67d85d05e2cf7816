// Models of the Hugging Face hub: the local cache in the hub's own layout, and downloads into it.
//   models--ORG--NAME/refs/REVISION (a commit), snapshots/COMMIT/FILE -> blobs/ETAG
// Node only. A blob appears whole and checked or not at all; what a broken-off fetch leaves is resumed.

import { createHash, randomBytes } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { writeFileAtomic } from './atomicWriteNode.js';
import { FormatError } from './errors.js';
import { makeFolder } from './foldersNode.js';
import { readTextBounded } from './openFileNode.js';
import type { DownloadProgress } from './resolve.js';

/** The small files of a model, those of them it has. */
const smallFiles = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
];
const singleWeights = 'model.safetensors';
const weightIndex = 'model.safetensors.index.json';
/** The hub's answer about a model must begin within this; a download may take as long as bytes keep coming. */
const answerMilliseconds = 10_000;
const commitPattern = /^[0-9a-f]{40}$/;

/** A plain file name: what an index of shards may name. */
const shardName = z
  .string()
  .regex(/^[\w.-]+\.safetensors$/)
  .refine(name => !name.includes('..'));
const indexSchema = z.looseObject({ weight_map: z.record(z.string(), shardName) });

export interface HubDownload {
  id: string;
  revision: string;
  cacheDir: string;
  hubUrl: string;
  token?: string | undefined;
  progressCallback?: ((progress: DownloadProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface HubModel {
  /** The snapshot folder. */
  folder: string;
  files: string[];
}

/**
 * Of the files of a folder, those that make the model: the small ones and its safetensors (or their index and all of
 * them).
 */
export function wantedFiles(names: readonly string[]): string[] {
  return names.filter(name => smallFiles.includes(name) || name === weightIndex || name.endsWith('.safetensors'));
}

/** A complete snapshot of a model in the cache: config.json and every weight file. Undefined where there is none. */
export async function cachedModel(cacheDir: string, id: string, revision: string): Promise<HubModel | undefined> {
  const repo = repoFolder(cacheDir, id);
  const commit = commitPattern.test(revision)
    ? revision
    : (await readFile(join(repo, 'refs', revision), 'utf8').catch(() => '')).trim();
  if (!commitPattern.test(commit)) return undefined;
  const folder = join(repo, 'snapshots', commit);
  const names = await readdir(folder).catch((): string[] => []);
  if (!names.includes('config.json')) return undefined;
  const weights = names.includes(weightIndex)
    ? await shardsOf(join(folder, weightIndex)).catch(() => undefined)
    : [singleWeights];
  const files = wantedFiles(names).map(name => join(folder, name));
  if (weights === undefined) return undefined;
  for (const path of [...files, ...weights.map(name => join(folder, name))]) {
    if (!(await stat(path).catch(() => undefined))?.isFile()) return undefined;
  }
  return { folder, files };
}

/**
 * Downloads a model into the cache.
 * @throws Error where the hub does not answer, does not have the model, or has no safetensors of it; FormatError for
 * bytes that do
 *   not have the hash the hub gave; the signal's reason after an abort (what came so far is kept and resumed)
 */
export async function downloadModel(download: HubDownload): Promise<HubModel> {
  const { id, revision, cacheDir, hubUrl, token, signal } = download;
  const { listFiles, modelInfo } = await import('@huggingface/hub');
  const credentials = token === undefined ? {} : { accessToken: token };
  const ask = fetchUntil(AbortSignal.any([AbortSignal.timeout(answerMilliseconds), ...(signal ? [signal] : [])]));
  const { sha: commit } = await modelInfo({
    name: id,
    revision,
    hubUrl,
    additionalFields: ['sha'],
    fetch: ask,
    ...credentials,
  });
  if (!commitPattern.test(commit)) throw new Error(`expected a commit for ${id}, got ${JSON.stringify(commit)}`);

  const entries = new Map<string, RemoteFile>();
  for await (const entry of listFiles({ repo: id, revision: commit, hubUrl, fetch: ask, ...credentials })) {
    const etag = entry.lfs?.oid ?? entry.oid;
    if (entry.type === 'file' && etag !== undefined)
      entries.set(entry.path, { path: entry.path, bytes: entry.lfs?.size ?? entry.size, etag });
  }
  const repo = repoFolder(cacheDir, id);
  const folder = join(repo, 'snapshots', commit);
  const fetchNamed = async (name: string): Promise<void> => {
    const file = entries.get(name);
    if (file === undefined) throw new Error(`${id} has no file ${name}`);
    await fetchFile(file, repo, folder, commit, download);
  };
  for (const name of smallFiles) if (entries.has(name) || name === 'config.json') await fetchNamed(name);
  if (entries.has(weightIndex)) {
    await fetchNamed(weightIndex);
    for (const shard of await shardsOf(join(folder, weightIndex))) await fetchNamed(shard);
  } else if (entries.has(singleWeights)) {
    await fetchNamed(singleWeights);
  } else {
    throw new Error(
      `${id} has no ${singleWeights} and no ${weightIndex}; it has ${[...entries.keys()].slice(0, 20).join(', ')}`,
    );
  }
  // Last, so that a name leads only to what is complete.
  if (revision !== commit) {
    const ref = join(repo, 'refs', revision);
    await makeFolder(dirname(ref));
    await writeFileAtomic(ref, commit);
  }
  return { folder, files: wantedFiles((await readdir(folder)).sort()).map(name => join(folder, name)) };
}

interface RemoteFile {
  path: string;
  bytes: number;
  /** sha256 of the bytes (LFS), or git's sha1 of them as a blob. */
  etag: string;
}

async function fetchFile(
  file: RemoteFile,
  repo: string,
  folder: string,
  commit: string,
  download: HubDownload,
): Promise<void> {
  if (!/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(file.etag))
    throw new Error(`${file.path}: expected a sha1 or sha256, got ${JSON.stringify(file.etag)}`);
  const pointer = join(folder, file.path);
  if (await isFile(pointer)) return;
  const blob = join(repo, 'blobs', file.etag);
  if (!(await isFile(blob))) {
    await makeFolder(dirname(blob));
    const partial = await claimPartial(blob);
    try {
      await fetchBytes(file, partial, commit, download);
      await rename(partial, blob);
    } catch (error) {
      // Wrong bytes are worth nothing; a fetch that broke off is left for the next one.
      if (error instanceof FormatError) await rm(partial, { force: true });
      else await rename(partial, `${blob}.partial`).catch(() => undefined);
      throw error;
    }
  }
  await makeFolder(folder);
  await symlink(relative(folder, blob), pointer).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') return;
    // Windows allows links to administrators only.
    const copy = `${pointer}.${uniqueSuffix()}`;
    await copyFile(blob, copy);
    await rename(copy, pointer);
  });
}

/** Brings `partial` to the whole of a file: what it has is hashed, the rest fetched as a range. */
async function fetchBytes(file: RemoteFile, partial: string, commit: string, download: HubDownload): Promise<void> {
  const { id, hubUrl, token, signal, progressCallback } = download;
  const { downloadFile } = await import('@huggingface/hub');
  await writeFile(partial, '', { flag: 'a' });
  if ((await stat(partial)).size > file.bytes) await truncate(partial);
  let loaded = (await stat(partial)).size;
  const hash = hashFor(file);
  if (loaded > 0)
    await pipeline(createReadStream(partial), async bytes => {
      for await (const chunk of bytes) hash.update(chunk as Buffer);
    });
  progressCallback?.({ file: file.path, loaded, total: file.bytes });
  if (loaded < file.bytes) {
    const start = loaded;
    const contents = await downloadFile({
      repo: id,
      path: file.path,
      revision: commit,
      hubUrl,
      xet: false,
      fetch: fetchUntil(signal),
      ...(token === undefined ? {} : { accessToken: token }),
    });
    if (contents === null) throw new Error(`${file.path}: not found at ${hubUrl}`);
    const count = new Transform({
      transform(chunk: Buffer, _encoding, next) {
        loaded += chunk.length;
        if (loaded > file.bytes)
          return next(new FormatError(`${id}/${file.path}`, `expected ${file.bytes} bytes, got more`));
        hash.update(chunk);
        progressCallback?.({ file: file.path, loaded, total: file.bytes });
        next(null, chunk);
      },
    });
    const rest = start === 0 ? contents : contents.slice(start, file.bytes);
    await pipeline(
      Readable.fromWeb(rest.stream() as Parameters<typeof Readable.fromWeb>[0]),
      count,
      createWriteStream(partial, { flags: 'a' }),
      { ...(signal && { signal }) },
    );
    if (loaded !== file.bytes)
      throw new Error(`${file.path}: the connection ended after ${loaded} of ${file.bytes} bytes`);
  }
  const digest = hash.digest('hex');
  if (digest !== file.etag) throw new FormatError(`${id}/${file.path}`, `expected hash ${file.etag}, got ${digest}`);
}

function hashFor(file: RemoteFile): Hash {
  return file.etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${file.bytes}\0`);
}

/**
 * A file of this process alone to fetch a blob into, with what an earlier fetch left: one that broke off leaves
 * BLOB.partial, a process that was killed BLOB.partial.PID-x.
 */
async function claimPartial(blob: string): Promise<string> {
  const own = `${blob}.partial.${uniqueSuffix()}`;
  const prefix = `${basename(blob)}.partial`;
  for (const name of await readdir(dirname(blob))) {
    if (!name.startsWith(prefix)) continue;
    const owner = /\.partial\.(\d+)-/.exec(name)?.[1];
    if (owner !== undefined && isRunning(Number(owner))) continue;
    if (
      await rename(join(dirname(blob), name), own).then(
        () => true,
        () => false,
      )
    )
      break;
  }
  return own;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function uniqueSuffix(): string {
  return `${process.pid}-${randomBytes(4).toString('hex')}`;
}

async function shardsOf(indexPath: string): Promise<string[]> {
  let value: unknown;
  try {
    value = JSON.parse(await readTextBounded(indexPath, 'index'));
  } catch (error) {
    if (error instanceof FormatError) throw error;
    throw new FormatError(indexPath, `is not JSON: ${(error as Error).message}`, { cause: error });
  }
  const index = indexSchema.safeParse(value);
  if (!index.success)
    throw new FormatError(
      indexPath,
      `expected a weight_map of tensors to .safetensors files beside it: ${index.error.issues[0]!.message}`,
    );
  return [...new Set(Object.values(index.data.weight_map))];
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

function repoFolder(cacheDir: string, id: string): string {
  return join(cacheDir, `models--${id.replaceAll('/', '--')}`);
}

function fetchUntil(signal: AbortSignal | undefined): typeof fetch {
  return (input, init) => fetch(input, signal === undefined ? init : { ...init, signal });
}
