// What is no ordinary file, or far too large, where files are read: one error that names it and says what it is, and no
// hang.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openBoundedFolder } from '../src/io/boundedFolderNode.js';
import { fileSource } from '../src/io/byteSource.js';
import { FormatError } from '../src/io/errors.js';
import { mostBytes } from '../src/io/openFileNode.js';
import { AutoTokenizer } from '../src/io/autoTokenizer.js';
import { readRows } from '../src/data/index.js';
import { AutoModelForCausalLM } from '../src/models/auto.js';
import { getReftModel, loadReft } from '../src/reft/index.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'hostile-files-'));
});
after(() => rm(root, { recursive: true, force: true }));

const posix = process.platform !== 'win32';

/** Something in place of a file, and what is said of it. */
const kinds: readonly (readonly [what: string, put: (path: string) => Promise<unknown>])[] = [
  ['it is a folder', path => mkdir(path)],
  ...(posix
    ? [
        ['it is a FIFO', async (path: string) => execFileSync('mkfifo', [path])] as const,
        ['it is a device', (path: string) => symlink('/dev/zero', path)] as const,
      ]
    : []),
];

async function refused(what: string, path: string, call: () => Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise(resolve => {
    timer = setTimeout(resolve, 20_000, new Error('it hangs'));
  });
  const thrown = await Promise.race([
    call().then(
      () => 'nothing was thrown',
      (error: unknown) => error,
    ),
    late,
  ]);
  clearTimeout(timer);
  assert.ok(thrown instanceof FormatError, `${path}: ${String(thrown)}`);
  assert.match(thrown.message, new RegExp(what), path);
  assert.ok(thrown.message.includes(path), `${path}: ${thrown.message}`);
}

describe('what is no ordinary file', () => {
  for (const [what, put] of kinds) {
    test(`as a file of a model, of a tokenizer, of an adapter, of rows, of kept states: ${what}`, async () => {
      const folder = join(root, what.replaceAll(' ', '-'));
      await mkdir(folder);
      const model = await writeTinyFolder(join(folder, 'model'));
      const loaded = await AutoModelForCausalLM.fromPretrained(model);
      const adapter = join(folder, 'adapter');
      await getReftModel(loaded, { layers: [1], positions: 'l1', rank: 2 }).save(adapter);
      const instead = async (path: string, call: () => Promise<unknown>): Promise<void> => {
        await rename(path, `${path}.kept`).catch(() => undefined);
        await put(path);
        await refused(`expected a file, ${what}`, path, call);
        await rm(path, { recursive: true });
        await rename(`${path}.kept`, path).catch(() => undefined);
      };
      for (const name of ['config.json', 'model.safetensors', 'generation_config.json']) {
        await instead(join(model, name), () => AutoModelForCausalLM.fromPretrained(model));
      }
      for (const name of [
        'tokenizer.json',
        'tokenizer_config.json',
        'special_tokens_map.json',
        'chat_template.jinja',
      ]) {
        await instead(join(model, name), () => AutoTokenizer.fromPretrained(model));
      }
      for (const name of ['adapter_config.json', 'adapter_model.safetensors'])
        await instead(join(adapter, name), () => loadReft(loaded, adapter));
      await instead(join(folder, 'rows.jsonl'), () => readRows(join(folder, 'rows.jsonl')));
      await instead(join(folder, 'weights.bin'), () => fileSource(join(folder, 'weights.bin')));
      const kept = await openBoundedFolder(join(folder, 'reuse'), '.state', 1e6);
      const state = join(folder, 'reuse', 'a.state');
      await put(state);
      await assert.rejects(
        async () => (await kept.begin('a.state'))?.(),
        new RegExp(`a\\.state cannot be read: .*expected a file, ${what}`),
      );
    });
  }
});

test('files of settings and rows that are far too large are refused before they are read', async () => {
  const folder = await writeTinyFolder(join(root, 'large'));
  const grown = async (name: string, bytes: number, call: () => Promise<unknown>, kind: string): Promise<void> => {
    const path = join(folder, name);
    await rename(path, `${path}.kept`).catch(() => undefined);
    await writeFile(path, '');
    // A file of holes: nothing is stored.
    await truncate(path, bytes + 1);
    const memory = process.memoryUsage().rss;
    await refused(`has ${bytes + 1} bytes, at most ${bytes} are read of ${kind}`, path, call);
    assert.ok(process.memoryUsage().rss - memory < 2 ** 26, 'memory');
    await rm(path);
    await rename(`${path}.kept`, path).catch(() => undefined);
  };
  const model = (): Promise<unknown> => AutoModelForCausalLM.fromPretrained(folder);
  const tokenizer = (): Promise<unknown> => AutoTokenizer.fromPretrained(folder);
  assert.deepEqual(mostBytes, {
    settings: 2 ** 24,
    vocabulary: 2 ** 28,
    index: 2 ** 26,
    rows: 2 ** 30,
    weights: 2 ** 32,
  });
  await grown('config.json', mostBytes.settings, model, 'settings');
  await grown('tokenizer.json', mostBytes.vocabulary, tokenizer, 'vocabulary');
  await grown('tokenizer_config.json', mostBytes.settings, tokenizer, 'settings');
  await grown('rows.jsonl', mostBytes.rows, () => readRows(join(folder, 'rows.jsonl')), 'rows');
});
