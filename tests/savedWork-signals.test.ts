// Signals and broken pipes, as processes meet them: what they save, and that the second Ctrl-C always ends.

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Random } from '../src/tensor/threefry.js';
import { runHere } from './helpers/runHere.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
let folder: string;
let model: string;
let data: string;

const training = (out: string): string[] => [
  'train',
  '--model',
  model,
  '--data',
  data,
  '--eval',
  data,
  '--eval-every',
  '30',
  '--out',
  join(folder, out),
  '--layers',
  '0,1',
  '--rank',
  '2',
  '--batch-size',
  '2',
  '--steps',
  '120',
  '--dropout',
  '0.1',
  '--threads',
  '1',
  '--json',
];

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process with what it says; `onStdout` sees the text so far. */
function start(
  args: readonly string[],
  onStdout?: (text: string, child: ChildProcess) => void,
): { child: ChildProcess; ended: Promise<Ended>; said: () => string } {
  const child = spawn(process.execPath, ['--import', 'tsx', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    onStdout?.(stdout, child);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<Ended>(resolve =>
    child.on('close', (code, signal) => {
      resolve({ code, signal, stdout, stderr });
    }),
  );
  return { child, ended, said: () => stderr };
}

async function until(what: string, is: () => boolean): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (is()) return;
    await delay(50);
  }
  assert.fail(`${what} did not come`);
}

const filesOf = async (out: string): Promise<Record<string, string>> => {
  const names = (await readdir(join(folder, out))).sort();
  return Object.fromEntries(
    await Promise.all(
      names.map(async name => [
        name,
        createHash('sha256')
          .update(await readFile(join(folder, out, name)))
          .digest('hex'),
      ]),
    ),
  );
};

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-signals-'));
  model = await writeTinyFolder(join(folder, 'model'));
  data = join(folder, 'rows.jsonl');
  await writeFile(data, '{"prompt":"one two","completion":"three"}\n{"prompt":"four","completion":"five six"}\n');
  const unbroken = await runHere(training('unbroken'));
  assert.equal(unbroken.code, 0, unbroken.text);
});
after(() => rm(folder, { recursive: true, force: true }));

describe('a signal', { skip: process.platform === 'win32' }, () => {
  test('SIGINT, SIGTERM and SIGHUP at any step save the run and end it with 130; --resume gives the bytes of an unbroken run', async () => {
    const random = new Random(11, 0);
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      const step = 1 + Math.floor(90 * random.next());
      let sent = 0;
      const { ended } = start([main, ...training(name)], (text, child) => {
        // Twice, as npm and closed terminals do.
        if (sent === 0 && text.includes(`"event":"step","step":${step},`)) for (; sent < 2; sent++) child.kill(name);
      });
      const run = await ended;
      assert.equal(run.code, 130, `${name} at step ${step}: ${run.signal} ${run.stderr}`);
      const last = JSON.parse(run.stdout.trim().split('\n').at(-1) as string) as { event: string; steps: number };
      assert.equal(last.event, 'interrupted');
      assert.ok(last.steps >= step && last.steps < 120, `${name} was sent at step ${step}, seen after ${last.steps}`);
      assert.match(
        run.stderr,
        /ending after this step; Ctrl-C again to end at once[^]*saved .*checkpoint; continue with the same command and --resume/,
      );
      assert.deepEqual(
        Object.keys(await filesOf(name).catch(() => ({}))).filter(file => file.startsWith('.')),
        [],
      );
      const resumed = await runHere([...training(name), '--resume']);
      assert.equal(resumed.code, 0, resumed.text);
      assert.deepEqual(await filesOf(name), await filesOf('unbroken'));
    }
  });

  test('SIGTERM and SIGHUP end generate, eval and chat with 130 too', async () => {
    const generate = await runHere(
      ['generate', '--model', model, '--prompt', 'one', '--max-new-tokens', '100', '--temperature', '1', '--json'],
      event => {
        if (event['event'] === 'text') process.emit('SIGTERM');
      },
    );
    assert.equal(generate.code, 130, generate.text);
    assert.match(generate.text, /interrupted after \d+ tokens/);
    const evaluate = runHere(['eval', '--model', model, '--data', data, '--json']);
    while (process.listenerCount('SIGHUP') === 0) await delay(1);
    process.emit('SIGHUP');
    assert.equal((await evaluate).code, 130);
    const chat = start([main, 'chat', '--model', model, '--json']);
    await until('the conversation', () => chat.said().includes('Type a message'));
    chat.child.kill('SIGHUP');
    assert.equal((await chat.ended).code, 130);
  });

  test('a second Ctrl-C ends a process that computes without a pause, from the first signal on', async () => {
    const script = join(folder, 'hang.ts');
    await writeFile(
      script,
      `
      import { onInterrupt } from ${JSON.stringify(new URL('../src/cli/interrupt.ts', import.meta.url).href)};
      import { Output } from ${JSON.stringify(new URL('../src/cli/output.ts', import.meta.url).href)};
      const { signal } = onInterrupt(new Output(false), 'ending');
      setTimeout(() => {
        process.stderr.write('hanging');
        if (process.argv[2] === 'expression') /^(a|a)*b$/.test('a'.repeat(80));
        else for (;;) Math.random();
      }, 1000);
      setInterval(() => signal.aborted, 1000);
    `,
    );
    for (const work of ['expression', 'loop']) {
      const { child, ended, said } = start([script, work]);
      await until('the hang', () => said().includes('hanging'));
      child.kill('SIGINT');
      await delay(30);
      child.kill('SIGINT');
      await until('the answer to the first', () => said().includes('ending; Ctrl-C again to end at once'));
      await delay(1000);
      assert.equal(child.exitCode ?? child.signalCode, null, 'one Ctrl-C, though it comes twice, ends nothing');
      child.kill('SIGINT');
      const run = await Promise.race([ended, delay(10_000, null)]);
      if (!run) child.kill('SIGKILL');
      assert.equal(run?.signal, 'SIGINT', 'the second Ctrl-C ends the process');
    }
  });
});

describe('a pipe that nobody reads any more', () => {
  test('does not end a training: it goes on, and everything is saved', async () => {
    let closed = false;
    const { ended } = start([main, ...training('piped')], (_, child) => {
      if (!closed) child.stdout?.destroy();
      closed = true;
    });
    const run = await ended;
    assert.equal(run.code, 0, run.stderr);
    assert.deepEqual(await filesOf('piped'), await filesOf('unbroken'));
  });

  test('ends what only writes there, without a fuss', async () => {
    const { ended } = start([main, 'info', model], (_, child) => {
      child.stdout?.destroy();
    });
    const run = await ended;
    assert.deepEqual([run.code, run.stderr], [0, '']);
  });
});
