// `reft train --profile` and `reft generate --profile` as a user meets them, on a tiny random model.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ChromeTrace, ProfileReport } from '../src/profile/index.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

const several = fileURLToPath(new URL('helpers/runCommands.ts', import.meta.url));
let folder: string;
let model: string;
let data: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-profile-'));
  model = await writeTinyFolder(join(folder, 'model'));
  data = join(folder, 'rows.jsonl');
  await writeFile(data, '{"prompt":"one two","completion":"three"}\n{"prompt":"four","completion":"five six"}\n');
});
after(() => rm(folder, { recursive: true, force: true }));

interface Run {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs command lines in one process, in `folder`. */
function reftEach(commands: string[][]): Run[] {
  const tsx = import.meta.resolve('tsx');
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', tsx, several], {
    cwd: folder,
    input: JSON.stringify(commands),
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as Run[];
}

const profileOf = ({ stdout }: Run): ProfileReport & { trace: string } => {
  const events = stdout
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line) as { event: string });
  const [found, more] = events.filter(e => e.event === 'profile');
  assert.ok(found && !more, 'one profile event');
  return found as never;
};
const traceAt = async (path: string): Promise<ChromeTrace> => JSON.parse(await readFile(path, 'utf8')) as ChromeTrace;
const parts = (trace: ChromeTrace): string[] => trace.traceEvents.filter(e => e.cat === 'part').map(e => e.name);
const train = (out: string, ...more: string[]): string[] => [
  'train',
  '--model',
  model,
  '--data',
  data,
  '--out',
  join(folder, out),
  '--layers',
  '1',
  '--rank',
  '2',
  '--steps',
  '3',
  '--eval',
  data,
  ...more,
];

test('reft train --profile: an event, a table, a trace in --out, and the adapter that comes without it', async () => {
  const [plain, json, people] = reftEach([
    train('plain'),
    train('json', '--profile', '--json'),
    train('people', '--profile', join(folder, 'mine.json')),
  ]);
  for (const run of [plain, json, people]) assert.equal(run.code, 0, run.stderr);
  const weights = (out: string) => readFile(join(folder, out, 'adapter_model.safetensors'));
  assert.deepEqual(await weights('json'), await weights('plain'));
  assert.deepEqual(await weights('people'), await weights('plain'));

  const report = profileOf(json);
  assert.equal(report.trace, join(folder, 'json', 'profile.json'));
  assert.equal(report.backend, 'cpu');
  assert.ok(
    report.sites.some(s => s.name === 'block_output/1 edits' && s.phase === 'backward'),
    "report.sites.some(s => s.name === 'block_output/1 edits' && s.phase...",
  );
  assert.equal(
    report.ops.reduce((n, r) => n + r.calls, 0),
    report.calls,
  );
  const names = ['step 1', 'step 2', 'step 3'];
  assert.deepEqual(
    report.steps.map(s => s.name).filter(name => name.startsWith('step')),
    names,
  );
  assert.ok(
    report.steps.some(s => s.name === 'evaluation 3'),
    "report.steps.some(s => s.name === 'evaluation 3')",
  );
  assert.deepEqual(
    parts(await traceAt(report.trace)).filter(name => name.startsWith('step')),
    names,
  );

  assert.match(
    people.stderr,
    /profile \(cpu\): [\s\S]*by op +calls[\s\S]*by site, layers together +calls[\s\S]*trace: .*mine\.json/,
  );
  assert.doesNotMatch(people.stdout, /by op/);
  assert.equal(
    (await traceAt(join(folder, 'mine.json'))).traceEvents.filter(e => e.cat === 'kernel').length > 100,
    true,
  );
  await assert.rejects(stat(join(folder, 'people', 'profile.json')));
  await assert.rejects(stat(join(folder, 'plain', 'profile.json')));
  assert.doesNotMatch(plain.stderr, /by op/);
});

test('reft generate --profile: the prompt and each token, with and without an adapter; the text is the same', async () => {
  const ask = ['generate', '--model', model, '--prompt', 'one two', '--max-new-tokens', '4'];
  const [plain, profiled, edited] = reftEach([
    ask,
    [...ask, '--profile'],
    [...ask, '--adapter', join(folder, 'plain'), '--profile', 'edited.json', '--json'],
  ]);
  for (const run of [plain, profiled, edited]) assert.equal(run.code, 0, run.stderr);
  assert.equal(profiled.stdout, plain.stdout);
  const trace = await traceAt(join(folder, 'profile.json'));
  assert.deepEqual(parts(trace).slice(0, 2), ['prompt', 'token 2']);
  const report = profileOf(edited);
  assert.equal(report.trace, 'edited.json');
  assert.ok(
    report.sites.some(s => s.name === 'block_output/1 edits' && s.phase === 'forward'),
    "report.sites.some(s => s.name === 'block_output/1 edits' && s.phase...",
  );
  assert.deepEqual(
    report.phases.map(p => p.name).filter(name => name === 'backward' || name === 'optimizer'),
    [],
  );
});

test('--profile in a folder that is not there ends before any step', () => {
  const [run] = reftEach([train('nowhere', '--profile', join(folder, 'missing', 'trace.json'), '--json')]);
  assert.equal(run.code, 2);
  assert.match(run.stderr, /--profile: there is no folder .*missing to write/);
  assert.doesNotMatch(run.stdout, /"event":"step"/);
});
