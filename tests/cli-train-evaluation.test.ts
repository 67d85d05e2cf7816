// `reft train` with rows that it does not train on: what is measured, kept and said; and the flags that say what an
// edit does in training.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { writeTinyFolder } from './helpers/tinyFolder.js';

const several = fileURLToPath(new URL('helpers/runCommands.ts', import.meta.url));
let folder: string;
let model: string;
let data: string;
let heldOut: string;

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}
type Event = Record<string, unknown>;

async function reftEach(commands: string[][]): Promise<Run[]> {
  const child = spawn(process.execPath, ['--import', 'tsx', several], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(JSON.stringify(commands));
  return JSON.parse(await text(child.stdout)) as Run[];
}

const eventsOf = ({ code, stdout, stderr }: Run): Event[] => {
  assert.equal(code, 0, stderr);
  return stdout
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line) as Event);
};
const training = (out: string, ...more: string[]): string[] => [
  'train',
  '--model',
  model,
  '--data',
  data,
  '--out',
  join(folder, out),
  '--layers',
  '0,1',
  '--lr',
  '0.2',
  '--schedule',
  'constant',
  ...more,
];
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-cli-evaluation-'));
  model = await writeTinyFolder(join(folder, 'model'));
  data = join(folder, 'rows.jsonl');
  heldOut = join(folder, 'heldout.jsonl');
  await writeFile(
    data,
    '{"prompt":"one two","completion":"three"}\n{"prompt":"four","completion":"five six"}\n{"prompt":"seven","completion":"eight"}\n',
  );
  await writeFile(heldOut, '{"prompt":"nine","completion":"ten"}\n{"prompt":"eleven","completion":"q"}\n');
});
after(() => rm(folder, { recursive: true, force: true }));

describe('reft train --eval', () => {
  test("says the loss on such rows beside the frozen model's, and keeps the best where it is asked to", async () => {
    const watched = ['--steps', '12', '--eval', heldOut, '--eval-every', '2', '--json'];
    const [last, kept, stopped, measured, frozen] = await reftEach([
      training('last', ...watched),
      training('kept', ...watched, '--keep-best'),
      training('stopped', ...watched, '--early-stopping', '1', '--min-delta', '50'),
      ['eval', '--model', model, '--adapter', join(folder, 'kept'), '--data', heldOut, '--json'],
      ['eval', '--model', model, '--data', heldOut, '--json'],
    ]);
    const evaluations = (events: Event[]): Event[] => events.filter(e => e.event === 'evaluation');
    const losses = evaluations(eventsOf(last));
    assert.deepEqual(
      losses.map(e => e.step),
      [2, 4, 6, 8, 10, 12],
    );
    assert.deepEqual(evaluations(eventsOf(kept)), losses);
    const best = losses.reduce((a, b) => ((b.loss as number) < (a.loss as number) ? b : a));
    assert.notEqual(best.step, 12, 'the best evaluation is not the last one');
    const done = (run: Run): Event & { evaluation: Record<string, unknown> & { loss: number; frozenLoss: number } } =>
      eventsOf(run).at(-1) as Event & { evaluation: Record<string, unknown> & { loss: number; frozenLoss: number } };
    const near = (a: unknown, b: unknown, what: string): void => {
      assert.ok(Math.abs((a as number) - (b as number)) < 1e-5, `${what}: ${String(a)} and ${String(b)}`);
    };
    near(done(last).evaluation.loss, losses.at(-1)?.loss, 'the last parameters');
    near(done(kept).evaluation.loss, best.loss, 'the best parameters');
    near(done(kept).evaluation.loss, eventsOf(measured).at(-1)?.loss, 'what was saved');
    near(done(kept).evaluation.frozenLoss, eventsOf(frozen).at(-1)?.loss, 'the frozen model');
    assert.deepEqual(done(kept).evaluation.best, { step: best.step, loss: best.loss });
    assert.deepEqual(
      [done(kept).evaluation.stoppedEarly, done(kept).evaluation.keptBest, done(last).evaluation.keptBest],
      [false, true, false],
    );
    assert.deepEqual([done(stopped).steps, done(stopped).evaluation.stoppedEarly], [4, true]);
  });

  test('says in words what it kept and why it stopped', async () => {
    const [run] = await reftEach([
      training(
        'words',
        '--steps',
        '12',
        '--eval',
        heldOut,
        '--eval-every',
        '2',
        '--keep-best',
        '--early-stopping',
        '1',
        '--min-delta',
        '50',
      ),
    ]);
    assert.equal(run.code, 0, run.stderr);
    assert.match(run.stdout, /^stopped after step 4 of 12: 1 measurements of --eval without progress$/m);
    assert.match(run.stdout, /^kept the parameters after step [24], the best on the rows of --eval$/m);
    assert.match(run.stdout, /^loss \d+\.\d{4} over the rows of --eval; the frozen model has \d+\.\d{4}$/m);
  });

  test('flags without what they need are refused by their names', async () => {
    const runs = await reftEach(
      [
        ['--keep-best'],
        ['--early-stopping', '2'],
        ['--eval-every', '3'],
        ['--min-delta', '0.1', '--eval', heldOut],
        ['--new-tokens', 'first:0'],
        ['--dropout-on', 'all'],
      ].map(more => training('refused', ...more)),
    );
    const messages = [
      /^reft: --keep-best: has no meaning without --eval$/m,
      /^reft: --early-stopping: has no meaning without --eval$/m,
      /^reft: --eval-every: has no meaning without --eval$/m,
      /^reft: --min-delta: has no meaning without --early-stopping$/m,
      /--new-tokens <which>' argument 'first:0' is invalid\. Expected all, none, first:N or every:N\./,
      /--dropout-on <what>' argument 'all' is invalid\./,
    ];
    runs.forEach((run, i) => {
      assert.equal(run.code, 2, run.stderr);
      assert.match(run.stderr, messages[i]);
    });
  });
});

describe('what an edit does in training', () => {
  test('--new-tokens and --dropout-on reach the adapter, and change what is learned', async () => {
    const one = ['--steps', '2', '--json'];
    const runs = await reftEach([
      training('plain', ...one),
      training('none', ...one, '--new-tokens', 'none'),
      training('first', ...one, '--new-tokens', 'first:1'),
      training('every', ...one, '--new-tokens', 'every:2'),
      training('difference', ...one, '--dropout', '0.3'),
      training('state', ...one, '--dropout', '0.3', '--dropout-on', 'state'),
    ]);
    const losses = runs.map(run => eventsOf(run).at(-1)?.loss);
    assert.equal(new Set(losses).size, runs.length, `each is another run: ${losses.join()}`);
    const settings = async (out: string): Promise<unknown> => {
      const {
        configs: [{ newTokens, dropout, dropoutOn }],
      } = JSON.parse(await readFile(join(folder, out, 'adapter_config.json'), 'utf8')) as { configs: Event[] };
      return [newTokens, dropout, dropoutOn];
    };
    assert.deepEqual(await settings('plain'), ['all', 0, 'difference']);
    assert.deepEqual(await settings('none'), ['none', 0, 'difference']);
    assert.deepEqual(await settings('first'), [{ first: 1 }, 0, 'difference']);
    assert.deepEqual(await settings('every'), [{ every: 2 }, 0, 'difference']);
    assert.deepEqual(await settings('state'), ['all', 0.3, 'state']);
  });

  test('the defaults are five epochs of batches of four', async () => {
    const [run] = await reftEach([training('defaults', '--json')]);
    const steps = eventsOf(run).filter(e => e.event === 'step');
    assert.deepEqual([steps.length, steps.at(-1)?.epoch], [5, 5], 'three rows are one batch');
    const five = join(folder, 'five.jsonl');
    await writeFile(five, Array.from({ length: 5 }, (_, i) => `{"prompt":"row ${i}","completion":"yes"}\n`).join(''));
    const [more] = await reftEach([[...training('defaults5', '--json').map(part => (part === data ? five : part))]]);
    assert.equal(eventsOf(more).filter(e => e.event === 'step').length, 10, 'five rows are two batches');
  });
});
