// A training that is killed at every change of the disk, or whose disk is full, read-only or gone: what was there is
// there, what is loaded is one adapter, and --resume gives the bytes of a run that nothing happened to.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { writerTag } from '../src/io/writerNode.js';
import { AutoModelForCausalLM } from '../src/models/auto.js';
import type { CausalLM } from '../src/models/causalLM.js';
import { loadReft } from '../src/reft/index.js';
import { failingDisk, type FailingDisk, type Fate } from './helpers/failingDisk.js';
import { runHere, type RunHere } from './helpers/runHere.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

let folder: string;
let model: string;
let base: CausalLM;
let data: string;
/** A folder with an older adapter and a user's notes. */
let older: string;
let out: string;
let unharmed: Record<string, string>;
let disk: FailingDisk | undefined;
let deadTag: string;

const own = ['adapter_model.safetensors', 'adapter_config.json', 'README.md', 'training.json', 'loss.svg'];
const training = (directory: string, rank: number, ...more: string[]): string[] => [
  'train',
  '--model',
  model,
  '--data',
  data,
  '--eval',
  data,
  '--eval-every',
  '2',
  '--out',
  directory,
  '--layers',
  '1',
  '--rank',
  String(rank),
  '--batch-size',
  '2',
  '--steps',
  '4',
  '--save-every',
  '3',
  '--dropout',
  '0.1',
  '--threads',
  '1',
  '--json',
  ...more,
];

async function hashes(directory: string): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort();
  const hash = async (path: string): Promise<string> =>
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  return Object.fromEntries(
    await Promise.all(files.map(async path => [path.slice(directory.length + 1), await hash(path)])),
  );
}

/** A fresh copy of the older adapter's folder. */
async function fresh(): Promise<void> {
  await rm(out, { recursive: true, force: true });
  await cp(older, out, { recursive: true });
}

/** Trains over the older adapter until it ends, or dies; then the files look as if another process had written them. */
async function train(
  fate: (number: number, call: string) => Fate,
  args = training(out, 2, '--overwrite'),
): Promise<RunHere | null> {
  disk = failingDisk(out, fate);
  const run = await Promise.race([runHere(args), disk.died.then(() => null)]);
  disk.restore();
  if (run) return run;
  // The run that hangs gives back its thread and its listeners.
  process.emit('SIGTERM');
  for (const directory of [out, join(out, 'checkpoint')]) {
    for (const name of await readdir(directory).catch(() => [])) {
      if (name.includes(writerTag))
        await rename(join(directory, name), join(directory, name.replace(writerTag, deadTag)));
    }
  }
  return null;
}

/** One whole adapter, the older one or the new one. */
async function checkAdapter(where: string): Promise<void> {
  const reft = await loadReft(base, out);
  const weights = (await hashes(out))['adapter_model.safetensors'];
  const expected =
    reft.configs[0].rank === 1
      ? (await hashes(older))['adapter_model.safetensors']
      : unharmed['adapter_model.safetensors'];
  assert.equal(weights, expected, where);
}

/** Goes on, or begins anew where no checkpoint was written, to what an unharmed run leaves. */
async function checkGoingOn(where: string): Promise<void> {
  const again = existsSync(join(out, 'checkpoint', 'trainer_state.safetensors')) ? '--resume' : '--overwrite';
  const run = await runHere(training(out, 2, again));
  assert.equal(run.code, 0, `${where}, ${again}: ${run.text}`);
  assert.deepEqual(await hashes(out), unharmed, `${where}, ${again}`);
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-faults-'));
  model = await writeTinyFolder(join(folder, 'model'));
  base = await AutoModelForCausalLM.fromPretrained(model, { threads: 1 });
  data = join(folder, 'rows.jsonl');
  older = join(folder, 'older');
  out = join(folder, 'out');
  await writeFile(data, '{"prompt":"one two","completion":"three"}\n{"prompt":"four","completion":"five six"}\n');
  assert.equal((await runHere(training(older, 1))).code, 0);
  await writeFile(join(older, 'notes.txt'), 'mine');
  await fresh();
  const run = await runHere(training(out, 2, '--overwrite'));
  assert.equal(run.code, 0, run.text);
  unharmed = await hashes(out);
  assert.deepEqual(Object.keys(unharmed), [...own, 'notes.txt'].sort());
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  deadTag = writerTag.replace(/^\d+/, String(pid));
});
afterEach(() => {
  disk?.restore();
});
after(() => rm(folder, { recursive: true, force: true }));

describe('a training over an older adapter', () => {
  test('that is killed at any change of the disk loses nothing, and goes on to the same bytes', async () => {
    await fresh();
    assert.equal((await train(() => 'done'))?.code, 0);
    const { calls } = disk as FailingDisk;
    // Two checkpoints of five files, the adapter's three, the record and the curve.
    assert.equal(calls.filter(call => call.startsWith('rename')).length, 2 * 5 + 3 + 2, calls.join(', '));
    // One death of each kind: renames and removals all, of writes those of the first checkpoint and of the last files.
    const deaths = calls.flatMap((call, i) =>
      /^(rename|rm|rmdir|mkdir)/.test(call) || (i % 3 === 0 && /^(open|write|sync)/.test(call)) ? [i + 1] : [],
    );
    for (const death of deaths) {
      await fresh();
      const where = `killed at ${death} of ${calls.length}: ${calls[death - 1]}`;
      assert.equal(await train(number => (number === death ? 'dies' : 'done')), null, where);
      assert.equal(await readFile(join(out, 'notes.txt'), 'utf8'), 'mine', where);
      await checkAdapter(where);
      await checkGoingOn(where);
    }
  });

  test('whose disk is full from some write on says what is there, and goes on once there is room', async () => {
    await fresh();
    assert.equal((await train(() => 'done'))?.code, 0);
    const { calls } = disk as FailingDisk;
    const writes = calls.flatMap((call, i) => (call.startsWith('write') ? [i + 1] : []));
    for (const first of writes.filter((_, i) => i % 2 === 0)) {
      await fresh();
      const where = `full from ${first} of ${calls.length} on: ${calls[first - 1]}`;
      const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      const run = await train((number, call) => (number >= first && call.startsWith('write') ? full : 'done'));
      assert.equal(run?.code, 1, where);
      assert.match(run.text, /ENOSPC/, where);
      const saved = /holds the run up to step (\d)/.exec(run.text)?.[1];
      const inCheckpoint = existsSync(join(out, 'checkpoint', 'trainer_state.safetensors'));
      assert.equal(saved !== undefined, inCheckpoint, `${where}: ${run.text}`);
      assert.deepEqual(
        (await readdir(out)).filter(name => name.startsWith('.')),
        [],
        where,
      );
      await checkAdapter(where);
      await checkGoingOn(where);
    }
  });

  test('whose folder is read-only from the start does not begin', async () => {
    await fresh();
    const before = await hashes(out);
    const readOnly = Object.assign(new Error('EROFS: read-only file system, open'), { code: 'EROFS' });
    const run = await train((_, call) => (/^(open|mkdir)/.test(call) ? readOnly : 'done'));
    assert.deepEqual([run?.code, run?.events.some(event => event['event'] === 'step')], [2, false], run?.text);
    assert.match(run?.text ?? '', /--out: .* cannot be written: EROFS: read-only file system/);
    assert.deepEqual(await hashes(out), before);
  });

  test('whose disk is full at the start does not begin, and makes no folder', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    await rm(out, { recursive: true, force: true });
    const run = await train((_, call) => (/^write/.test(call) ? full : 'done'), training(out, 2));
    assert.deepEqual(
      [run?.code, run?.events.some(event => event['event'] === 'step'), existsSync(out)],
      [1, false, false],
      run?.text,
    );
  });

  test('whose folder vanishes makes it again and saves everything', async () => {
    await fresh();
    const run = await runHere(training(out, 2, '--overwrite'), event => {
      if (event['event'] === 'step' && event['step'] === 2) rmSync(out, { recursive: true });
    });
    assert.equal(run.code, 0, run.text);
    const { 'notes.txt': _, ...files } = unharmed;
    assert.deepEqual(await hashes(out), files);
  });
});
