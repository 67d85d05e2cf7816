// What `reft train --out` and its siblings may replace and what they never touch; when the folder is made and who has
// it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { unfinishedName } from '../src/io/foldersNode.js';
import { writerTag } from '../src/io/writerNode.js';
import { runHere } from './helpers/runHere.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

let folder: string;
let model: string;
let data: string;
let out: string;
let count = 0;

const training = (...more: string[]): string[] => [
  'train',
  '--model',
  model,
  '--data',
  data,
  '--out',
  out,
  '--layers',
  '0,1',
  '--rank',
  '2',
  '--batch-size',
  '2',
  '--steps',
  '2',
  '--threads',
  '1',
  '--json',
  ...more,
];

/** Every file below a folder with its contents. */
async function filesIn(directory: string): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort();
  return Object.fromEntries(
    await Promise.all(
      files.map(async path => [path.slice(directory.length + 1), (await readFile(path)).toString('latin1')]),
    ),
  );
}

async function trained(...more: string[]): Promise<Record<string, string>> {
  const run = await runHere(training(...more));
  assert.equal(run.code, 0, run.text);
  return filesIn(out);
}

/** The run ends with 2, says why, and leaves every file as it is. */
async function refused(args: string[], message: RegExp): Promise<void> {
  const files = await filesIn(folder);
  const run = await runHere(args);
  assert.match(run.text, message);
  assert.equal(run.code, 2, run.text);
  assert.deepEqual(await filesIn(folder), files);
}

/** A tag of a process that has ended. */
function deadTag(): string {
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  return writerTag.replace(/^\d+/, String(pid));
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-out-'));
  model = await writeTinyFolder(join(folder, 'model'));
  data = join(folder, 'rows.jsonl');
  await writeFile(data, '{"prompt":"one two","completion":"three"}\n{"prompt":"four","completion":"five six"}\n');
});
after(() => rm(folder, { recursive: true, force: true }));
beforeEach(() => {
  out = join(folder, `out-${++count}`);
});

describe('what somebody else wrote', () => {
  test("a user's README.md stays, and so does a model card that was changed; the rest is saved, and the run says so", async () => {
    await mkdir(out);
    await writeFile(join(out, 'README.md'), '# My notes\n');
    const run = await runHere(training());
    assert.equal(run.code, 0, run.text);
    assert.match(run.text, /README\.md was not written by reft and is left as it is/);
    const files = await filesIn(out);
    assert.deepEqual(Object.keys(files), [
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'loss.svg',
      'training.json',
    ]);
    assert.equal(files['README.md'], '# My notes\n');

    await rm(join(out, 'README.md'));
    const card = (await trained('--overwrite'))['README.md'];
    assert.match(card, /^---\nbase_model: /);
    assert.equal((await trained('--overwrite'))['README.md'], card);
    const mine = card.replace('# A ReFT adapter', '# My ReFT adapter');
    await writeFile(join(out, 'README.md'), mine, 'latin1');
    assert.equal((await trained('--overwrite', '--seed', '1'))['README.md'], mine);
  });

  for (const [name, contents] of [
    ['adapter_config.json', '{"peft_type":"LORA"}'],
    ['adapter_model.safetensors', 'weights'],
    ['training.json', '{"losses":1}'],
    ['loss.svg', '<svg xmlns="http://www.w3.org/2000/svg"></svg>'],
    ['checkpoint/trainer_state.json', '{}'],
  ] as const) {
    test(`${name} is never replaced, not with --overwrite either`, async () => {
      await mkdir(join(out, 'checkpoint'), { recursive: true });
      await writeFile(join(out, name), contents);
      const message = new RegExp(
        `--out: .*${name.replace('.', '\\.')} was not written by reft and is not replaced; give another folder`,
      );
      await refused(training(), message);
      await refused(training('--overwrite'), message);
    });
  }

  test('other files in the folder and in its checkpoint stay', async () => {
    await trained();
    await mkdir(join(out, 'checkpoint'));
    for (const name of ['notes.txt', 'checkpoint/notes.txt', '.README.md.swp'])
      await writeFile(join(out, name), 'mine');
    const files = await trained('--overwrite', '--save-every', '1');
    assert.deepEqual(Object.keys(files), [
      '.README.md.swp',
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'checkpoint/notes.txt',
      'loss.svg',
      'notes.txt',
      'training.json',
    ]);
  });

  test('a trace is written over a trace alone', async () => {
    const trace = join(folder, `trace-${count}.json`);
    await writeFile(trace, '{"mine":true}');
    await refused(training('--profile', trace), /--profile: .* is no trace of reft and is not replaced/);
    await rm(trace);
    for (const more of [[], ['--overwrite']])
      assert.equal((await runHere(training('--profile', trace, ...more))).code, 0);
    assert.ok(existsSync(trace), 'the trace was written');
  });
});

describe('what reft wrote', () => {
  test('an adapter is replaced with --overwrite alone, when the new one is trained', async () => {
    const first = await trained();
    await refused(
      training('--seed', '1'),
      /--out: .* holds an adapter; --overwrite replaces it when the new one is trained/,
    );
    // Nothing is lost when the new run fails.
    const failed = await runHere(training('--seed', '1', '--overwrite', '--lr', '1e20', '--steps', '1'));
    assert.equal(failed.code, 1, failed.text);
    assert.match(
      failed.text,
      /training: the loss after the last step is NaN: it diverged; nothing of the run was saved\. Try a learning rate below 100000000000000000000/,
    );
    assert.deepEqual(await filesIn(out), first);
    const second = await trained('--seed', '1', '--overwrite');
    assert.notEqual(second['adapter_model.safetensors'], first['adapter_model.safetensors']);
    assert.deepEqual(Object.keys(second), Object.keys(first));
  });

  test('a checkpoint is gone on with or replaced, as was asked for', async () => {
    const interrupt = (event: Record<string, unknown>): void => {
      if (event['step'] === 2) process.emit('SIGINT');
    };
    const longer = training('--steps', '4');
    assert.equal((await runHere(longer, interrupt)).code, 130);
    await refused(
      longer,
      /--out: .* holds a checkpoint of a run that was interrupted; --resume goes on with it, --overwrite starts anew/,
    );
    await refused([...longer, '--resume', '--overwrite'], /'--resume' cannot be used with option '--overwrite'/);
    const resumed = await runHere([...longer, '--resume']);
    assert.equal(resumed.code, 0, resumed.text);
    assert.deepEqual(
      resumed.events.filter(e => e['event'] === 'step').map(e => e['step']),
      [3, 4],
    );
    const files = await filesIn(out);
    assert.equal((await runHere([...longer, '--overwrite'], interrupt)).code, 130);
    const anew = await runHere([...longer, '--overwrite']);
    assert.deepEqual(
      anew.events.filter(e => e['event'] === 'step').map(e => e['step']),
      [1, 2, 3, 4],
    );
    assert.deepEqual(await filesIn(out), files);
  });

  test('convert asks too, and replaces edits of its format alone', async () => {
    await trained();
    const to = (target: string, name: string): string[] => [
      'convert',
      '--model',
      model,
      '--from',
      out,
      '--to',
      target,
      '--out',
      join(folder, name),
      '--json',
    ];
    const pyreft = to('pyreft', `pyreft-${count}`);
    assert.equal((await runHere(pyreft)).code, 0);
    await refused(pyreft, /--out: .* holds intkey_.*, config\.json; --overwrite replaces what is there/);
    assert.equal((await runHere([...pyreft, '--overwrite'])).code, 0);
    await refused(
      [...to('pyreft', 'model'), '--overwrite'],
      /model.config\.json was not written by reft and is not replaced/,
    );
    await refused(
      to('reft', `out-${count}`),
      /holds adapter_model\.safetensors, adapter_config\.json, README\.md; --overwrite/,
    );
    await writeFile(join(folder, 'v.gguf'), 'mine');
    await refused(
      [...to('control-vector', 'v.gguf'), '--overwrite'],
      /v\.gguf is there, is no control vector and is not replaced/,
    );
  });
});

describe('the folder', () => {
  test('is not made where the layers, the rows or the model are wrong, nor are those above it', async () => {
    const above = join(folder, 'above');
    out = join(above, 'deep', 'out');
    for (const more of [
      ['--layers', '9'],
      ['--data', join(folder, 'none.jsonl')],
      ['--model', join(folder, 'none')],
      ['--max-length', '3'],
      ['--rank', '99'],
    ]) {
      assert.equal((await runHere(training(...more))).code, 2, more.join(' '));
      assert.equal(existsSync(above), false, more.join(' '));
    }
  });

  test('that cannot be made or is a file is an error at once', { skip: process.platform !== 'linux' }, async () => {
    out = '/proc/x';
    await refused(training(), /--out: \/proc\/x cannot be written: ENOENT/);
    out = join(folder, 'a-file');
    await writeFile(out, '');
    await refused(training(), /--out: .*a-file is no folder/);
    out = join(folder, 'not-begun');
    const run = await runHere(training('--reuse-dir', '/proc/x'));
    assert.match(run.text, /\/proc\/x: cannot be opened: ENOENT/);
    assert.deepEqual([run.code, existsSync(out)], [1, false]);
  });

  test('is of one run at a time; what a dead one left is cleared', async () => {
    let second: Promise<unknown> | undefined;
    const first = await runHere(training('--steps', '4'), event => {
      second ??=
        event['event'] === 'step'
          ? (async () => {
              const locks = (await readdir(out)).filter(name => name.endsWith('.lock'));
              assert.deepEqual(locks, [`.reft-train.${writerTag}.lock`]);
            })()
          : undefined;
    });
    assert.equal(first.code, 0, first.text);
    await second;

    const lock = join(out, `.reft-train.${writerTag}.lock`);
    await writeFile(lock, '');
    await refused(
      training('--overwrite'),
      new RegExp(
        `is being written by another reft train \\(process ${process.pid}\\); wait for it, or give another folder`,
      ),
    );
    await rm(lock);
    const elsewhere = join(out, '.reft-train.1-00000000-00000000.lock');
    await writeFile(elsewhere, '');
    await refused(
      training('--overwrite'),
      /another reft train on another machine \(process 1 there; if that has ended, remove .*\.lock\)/,
    );
    await rm(elsewhere);

    const tag = deadTag();
    const leftovers = [
      `.reft-train.${tag}.lock`,
      ...['loss.svg', 'adapter_model.safetensors', 'reft-probe'].map(name =>
        unfinishedName(name, 'abc').replace(writerTag, tag),
      ),
    ];
    const stays = [unfinishedName('loss.svg', 'def'), unfinishedName('other', 'abc').replace(writerTag, tag)];
    const [old, young] = ['11', '22'].map(n => `.training.json.${n}345678-1234-1234-1234-123456789abc.tmp`);
    for (const name of [...leftovers, ...stays, old, young]) await writeFile(join(out, name), 'x');
    await utimes(join(out, old), new Date(0), new Date(0));
    await trained('--overwrite');
    assert.deepEqual((await readdir(out)).filter(name => name.startsWith('.')).sort(), [...stays, young].sort());
  });
});
