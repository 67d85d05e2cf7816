// The command as a user meets it: a process with arguments, two streams and an exit code, on a tiny random model.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createWebGpuBackend } from '../src/backends/webgpu/index.js';
import { lossCurve } from '../src/cli/lossCurve.js';
import { byteSize } from '../src/cli/options.js';
import { reft, reftEach } from './helpers/commandLine.js';
import { tinyEndToken, writeTinyFolder } from './helpers/tinyFolder.js';

let folder: string;
let model: string;
let data: string;

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
  '--rank',
  '2',
  '--batch-size',
  '2',
  '--json',
  ...more,
];
const bytesOf = async (out: string): Promise<Record<string, string>> => {
  const names = (await readdir(join(folder, out))).sort();
  return Object.fromEntries(
    await Promise.all(names.map(async name => [name, (await readFile(join(folder, out, name))).toString('hex')])),
  );
};

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-cli-'));
  model = await writeTinyFolder(join(folder, 'model'));
  data = join(folder, 'rows.jsonl');
  await writeFile(
    data,
    '{"prompt":"one two","completion":"three"}\n{"prompt":"four","completion":"five six"}\n{"instruction":"seven","output":"eight"}\n',
  );
});
after(() => rm(folder, { recursive: true, force: true }));

describe('reft', { concurrency: 2 }, () => {
  test('train writes an adapter, its record and its curve; the same seed writes the same bytes, with --recompute and --reuse-dir too', async () => {
    const [a, b, other] = await Promise.all([
      reft(training('a', '--steps', '3', '--eval', data)),
      reft(training('b', '--steps', '3', '--eval', data, '--recompute', '--reuse-dir', join(folder, 'reuse'))),
      reft(training('c', '--steps', '3', '--seed', '1')),
    ]);
    assert.equal(a.code, 0, a.stderr);
    const steps = a.events.filter(e => e.event === 'step');
    assert.deepEqual(
      steps.map(e => [e.step, e.total]),
      [
        [1, 3],
        [2, 3],
        [3, 3],
      ],
    );
    assert.ok(
      steps.every(e => Number.isFinite(e.loss) && Number.isFinite(e.learningRate) && Number.isFinite(e.gradNorm)),
      'steps.every(e => Number.isFinite(e.loss) && Number.isFinite(e.learn...',
    );
    const done = a.events.at(-1) as Record<string, unknown>;
    assert.deepEqual(Object.keys(done), [
      'event',
      'steps',
      'loss',
      'seconds',
      'trainableParameters',
      'adapter',
      'evaluation',
    ]);
    assert.equal(done.steps, 3);
    assert.equal(done.trainableParameters, 2 * (2 * 16 * 2 + 2));
    assert.equal(done.adapter, join(folder, 'a'));
    assert.ok((done.seconds as number) > 0, '(done.seconds as number) > 0');
    // The rows to evaluate are the rows to learn: two ways to the same number.
    const evaluation = a.events.filter(e => e.event === 'evaluation').at(-1) as Record<string, number>;
    assert.equal(evaluation.step, 3);
    assert.ok(
      Math.abs(evaluation.loss - (done.loss as number)) < 1e-6,
      'Math.abs(evaluation.loss - (done.loss as number)) < 1e-6',
    );

    assert.deepEqual(Object.keys(await bytesOf('a')), [
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'loss.svg',
      'training.json',
    ]);
    assert.equal(b.code, 0, b.stderr);
    assert.deepEqual(await bytesOf('b'), await bytesOf('a'));
    assert.equal(other.code, 0, other.stderr);
    assert.notEqual(
      (await bytesOf('c'))['adapter_model.safetensors'],
      (await bytesOf('a'))['adapter_model.safetensors'],
    );
    const svg = await readFile(join(folder, 'a', 'loss.svg'), 'utf8');
    assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    assert.equal(
      svg,
      await lossCurve(
        steps.map(e => ({ step: e.step as number, loss: e.loss as number })),
        {
          title: 'loreft, 3 rows',
          evaluation: a.events
            .filter(e => e.event === 'evaluation')
            .map(e => ({ step: e.step as number, loss: e.loss as number })),
        },
      ),
    );
  });

  test('sizes bound what reuse keeps, in memory and in its folder', async () => {
    assert.deepEqual(
      ['0', '17', '17B', '2kB', '2KB', '1.5MB', '2GB', '3TB', '1KiB', '0.5MiB', '2GiB', '1TiB'].map(byteSize),
      [0, 17, 17, 2000, 2000, 1.5e6, 2e9, 3e12, 1024, 2 ** 19, 2 ** 31, 2 ** 40],
    );
    const directories = ['small', 'large'].map(name => join(folder, `reuse-${name}`));
    const runs = await reftEach(
      ['0.1kB', '1MiB'].map((size, i) =>
        training(
          `bounded-${i}`,
          '--steps',
          '2',
          '--reuse-budget',
          '0',
          '--reuse-dir',
          directories[i],
          '--reuse-dir-budget',
          size,
        ),
      ),
    );
    for (const run of runs) assert.equal(run.code, 0, run.stderr);
    assert.deepEqual(
      (await Promise.all(directories.map(d => readdir(d)))).map(names => names.length),
      [0, 3],
    );
  });

  test('training lowers the loss, and the adapter changes what is generated', async () => {
    const adapter = join(folder, 'learned');
    const ask = ['generate', '--model', model, '--prompt', 'one two', '--max-new-tokens', '6', '--json'];
    const [trained, base, edited, off, told] = await reftEach([
      training('learned', '--epochs', '40', '--lr', '0.05', '--positions', 'all'),
      ask,
      [...ask, '--adapter', adapter],
      [...ask, '--adapter', adapter, '--scale', '0'],
      ['info', adapter, '--json'],
    ]);
    assert.equal(trained.code, 0, trained.stderr);
    const first = trained.events.find(e => e.event === 'step') as { loss: number };
    const { loss } = trained.events.at(-1) as { loss: number };
    assert.ok(loss < 0.7 * first.loss, `${first.loss} fell to ${loss}`);
    assert.equal(edited.code, 0, edited.stderr);
    assert.notDeepEqual(edited.events.at(-1)?.ids, base.events.at(-1)?.ids);
    assert.deepEqual(off.events.at(-1)?.ids, base.events.at(-1)?.ids);
    const facts = told.events.at(-1) as { kind: string; parameters: number; tensors: Record<string, string> };
    assert.deepEqual(
      [facts.kind, facts.parameters, facts.tensors['block_output/1.R']],
      ['adapter', 2 * (2 * 16 * 2 + 2), 'F32 [2,16]'],
    );
  });

  test('eval measures the model and the adapter; --dpo learns which answers are preferred', async () => {
    const pairs = join(folder, 'pairs.jsonl');
    await writeFile(
      pairs,
      '{"prompt":"one two","chosen":"three","rejected":"four"}\n{"prompt":"four","chosen":"five six","rejected":"seven"}\n',
    );
    const adapter = join(folder, 'evaluated');
    const ask = ['eval', '--model', model, '--data', data, '--json'];
    const [trained, base, edited, preferred] = await reftEach([
      training('evaluated', '--epochs', '60', '--lr', '0.05', '--positions', 'all'),
      ask,
      [...ask, '--adapter', adapter, '--batch-size', '2'],
      training('preferred', '--data', pairs, '--dpo', '0.5', '--epochs', '30', '--lr', '0.05', '--identity-start'),
    ]);
    assert.equal(base.code, 0, base.stderr);
    const [before, after] = [base, edited].map(run => run.events.at(-1) as Record<string, number>);
    assert.deepEqual(Object.keys(before), ['event', 'loss', 'perplexity', 'exactMatch', 'rows']);
    assert.equal(before.rows, 3);
    assert.ok(
      Math.abs(before.perplexity - Math.exp(before.loss)) < 1e-6 * before.perplexity,
      'Math.abs(before.perplexity - Math.exp(before.loss)) < 1e-6 * before...',
    );
    assert.ok(
      Math.abs(after.loss - (trained.events.at(-1) as { loss: number }).loss) < 1e-5,
      'the loss that training ended with',
    );
    assert.ok(
      after.loss < before.loss && after.exactMatch >= before.exactMatch,
      'after.loss < before.loss && after.exactMatch >= before.exactMatch',
    );
    assert.equal(preferred.code, 0, preferred.stderr);
    const steps = preferred.events.filter(e => e.event === 'step') as { loss: number }[];
    assert.ok(
      Math.abs(steps[0].loss - Math.LN2) < 1e-4 && (steps.at(-1)?.loss as number) < 0.5,
      'Math.abs(steps[0].loss - Math.LN2) < 1e-4 && (steps.at(-1)?.loss as...',
    );
  });

  test('Ctrl-C ends within a step, saved, and --resume ends where an unbroken run does', async () => {
    const args = training('broken', '--steps', '150', '--dropout', '0.1');
    let seen = 0;
    const broken = await reft(args, {
      onLine: (line, kill) => {
        if (line.includes('"step"') && ++seen === 3) kill('SIGINT');
      },
    });
    assert.equal(broken.code, 130, broken.stderr);
    const last = broken.events.at(-1) as { event: string; steps: number; checkpoint: string };
    assert.equal(last.event, 'interrupted');
    assert.ok(last.steps >= 3 && last.steps < 150, 'last.steps >= 3 && last.steps < 150');
    assert.equal(last.steps, broken.events.filter(e => e.event === 'step').length);
    assert.match(broken.stderr, /--resume/);
    assert.ok((await stat(last.checkpoint)).isDirectory(), '(await stat(last.checkpoint)).isDirectory()');
    const [resumed, whole] = await Promise.all([
      reft([...args, '--resume']),
      reft(training('unbroken', '--steps', '150', '--dropout', '0.1')),
    ]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal((resumed.events.find(e => e.event === 'step') as { step: number }).step, last.steps + 1);
    assert.equal(whole.code, 0, whole.stderr);
    assert.deepEqual(await bytesOf('broken'), await bytesOf('unbroken'));
  });

  test('generate: ids are the new tokens, text leaves the end token out, people get the text alone', async () => {
    const ask = ['generate', '--model', model, '--max-new-tokens', '5', '--temperature', '1', '--seed', '3'];
    const json = await reft([...ask, '--prompt', 'héllo', '--json']);
    const [people, again] = await reftEach([
      [...ask, '--prompt', 'héllo'],
      [...ask, '--prompt', 'héllo', '--json'],
    ]);
    assert.equal(json.code, 0, json.stderr);
    const done = json.events.at(-1) as { event: string; text: string; ids: number[]; tokensPerSecond: number };
    assert.deepEqual(Object.keys(done), ['event', 'text', 'ids', 'tokensPerSecond']);
    assert.ok(done.ids.length > 0 && done.ids.length <= 5, 'done.ids.length > 0 && done.ids.length <= 5');
    assert.equal(done.text, Buffer.from(done.ids.filter(id => id !== tinyEndToken)).toString('utf8'));
    assert.ok(done.tokensPerSecond >= 0, 'done.tokensPerSecond >= 0');
    assert.equal(people.stdout, `${done.text}\n`);
    assert.deepEqual((again.events.at(-1) as { ids: number[] }).ids, done.ids);
  });

  test('generate --chat and --messages give the same prompt; --stop cuts the text', async () => {
    const ask = ['generate', '--model', model, '--max-new-tokens', '8', '--json'];
    const brief = ['--chat', 'hi', '--system', 'be brief'];
    const [chat, messages] = await reftEach([
      [...ask, ...brief],
      [...ask, '--messages', '[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]'],
    ]);
    assert.equal(chat.code, 0, chat.stderr);
    const { text, ids } = chat.events.at(-1) as { text: string; ids: number[] };
    assert.deepEqual((messages.events.at(-1) as { ids: number[] }).ids, ids);
    const stopAt = text.slice(2, 4);
    const stopped = await reft([...ask, ...brief, '--stop', stopAt]);
    assert.equal((stopped.events.at(-1) as { text: string }).text, text.slice(0, text.indexOf(stopAt)));
  });

  test('chat answers what is piped in, with the adapter on or off', async () => {
    const run = await reft(['chat', '--model', model, '--max-new-tokens', '3', '--json'], {
      input: 'hi\n/adapter off\n/nonsense\n/reset\nhi\n/quit\nnever\n',
    });
    assert.equal(run.code, 0, run.stderr);
    const answers = run.events.filter(e => e.event === 'answer');
    assert.equal(answers.length, 2);
    assert.deepEqual(answers[0].ids, answers[1].ids);
    assert.deepEqual(run.events.at(-1), { event: 'done', turns: 2 });
    assert.match(run.stderr, /no adapter/);
    assert.match(run.stderr, /\/nonsense: not known/);
  });

  test('info tells a model', async () => {
    const run = await reft(['info', model, '--json']);
    assert.equal(run.code, 0, run.stderr);
    const facts = run.events.at(-1) as Record<string, unknown>;
    const parameters = 257 * 16 + 16 + 2 * (2 * 16 + 2 * 256 + 2 * 8 * 16 + 3 * 16 * 32);
    assert.deepEqual(
      [facts.kind, facts.format, facts.architecture, facts.layers],
      ['model', 'safetensors', 'llama', 2],
    );
    assert.equal(facts.parameters, parameters);
    assert.deepEqual(facts.dtypes, { F32: parameters });
    assert.equal((facts.sites as Record<string, number>).mlp_activation, 32);
    assert.deepEqual((facts.tokenizer as { stops: string[] }).stops, ['<|end|>']);
  });

  test('bad usage and bad input end with 2 and name what is wrong', async () => {
    const bad = join(folder, 'bad.jsonl');
    await writeFile(bad, '{"prompt":"a","completion":"b"}\n{"prompt":"a"}\n');
    const broken = await writeTinyFolder(join(folder, 'broken-model'));
    await writeFile(join(broken, 'model.safetensors'), 'not tensors at all');
    const cases: [string[], RegExp][] = [
      [training('x', '--data', join(folder, 'absent.jsonl')), /absent\.jsonl.*cannot be read/],
      [training('x', '--data', bad), /bad\.jsonl:2: .*completion/],
      [training('x', '--rank', 'many'), /--rank.*whole number/],
      [training('x', '--rank', '17', '--steps', '1'), /rank: 17 is more than the 16/],
      [training('x', '--layers', '2', '--steps', '1'), /layers: 2 is out of range/],
      [training('x', '--positions', 'k3'), /positions 'k3': expected f<N>/],
      [training('x', '--intervention', 'magic'), /magic.*loreft/],
      [training('x', '--steps', '1', '--epochs', '1'), /--epochs.*--steps/],
      ...['2gb', '1.5', '-1', '2e9', '', '9999999TB', '2constructor'].map((size): [string[], RegExp] => [
        training('x', `--reuse-budget=${size}`),
        /'--reuse-budget <size>' argument '.*' is invalid\. Expected a size like 2GB, 512MiB or 0/,
      ]),
      [
        training('x', '--reuse-dir', join(folder, 'no-reuse'), '--reuse-dir-budget', '1 GB'),
        /--reuse-dir-budget.*Expected a size like 2GB/,
      ],
      [training('x', '--reuse-dir-budget', '1GB'), /--reuse-dir-budget: has no meaning without --reuse-dir/],
      [training('x', '--bogus'), /unknown option '--bogus'/],
      [training('x', '--resume', '--steps', '1'), /no checkpoint in/],
      [training('x', '--model', join(folder, 'nowhere')), /nowhere.*no file or folder/],
      [training('x', '--model', broken), /model\.safetensors/],
      [training('x', '--max-length', '5', '--steps', '1'), /rows\.jsonl:1: the completion has 6 tokens/],
      [['generate', '--model', model, '--json'], /one of --prompt, --chat and --messages/],
      [['generate', '--model', model, '--messages', '[{]', '--json'], /--messages: is not JSON/],
      [['generate', '--model', model, '--prompt', 'x', '--max-new-tokens', '128', '--json'], /context is 128/],
      [
        ['generate', '--model', model, '--prompt', 'x', '--adapter', join(folder, 'no-adapter'), '--json'],
        /no-adapter/,
      ],
      [['invent', '--json'], /unknown command 'invent'/],
    ];
    (await reftEach(cases.map(([args]) => args))).forEach((run, i) => {
      assert.equal(run.code, 2, `${cases[i][0].join(' ')}: ${run.stderr}`);
      assert.match(run.stderr, cases[i][1]);
      const { event, message, code } = run.events.at(-1) as { event: string; message: string; code: number };
      assert.deepEqual([event, code], ['error', 2]);
      assert.match(message, cases[i][1]);
      assert.doesNotMatch(run.stderr, /\n\s+at /);
    });
  });

  test('devices lists each device, or why it is not there', async () => {
    const [run, people] = await reftEach([['devices', '--json'], ['devices']]);
    assert.equal(run.code, 0, run.stderr);
    const [cpu, webgpu, done] = run.events as Record<string, unknown>[];
    assert.deepEqual([cpu.device, cpu.available], ['cpu', true]);
    assert.ok((cpu.cores as number) >= 1, '(cpu.cores as number) >= 1');
    assert.equal(webgpu.device, 'webgpu');
    if (webgpu.available)
      assert.ok(
        typeof webgpu.adapter === 'string' && typeof webgpu.software === 'boolean',
        "typeof webgpu.adapter === 'string' && typeof webgpu.software === 'b...",
      );
    else assert.match(webgpu.reason as string, /adapter|webgpu/);
    assert.equal(done.event, 'done');
    assert.match(people.stdout, /^cpu .*\nwebgpu .*\nauto /);
  });

  test('a run that dies goes on from its last checkpoint and ends where an unbroken one does; identity start', async () => {
    const args = training('killed', '--steps', '60', '--save-every', '5', '--identity-start');
    let seen = 0;
    const killed = await reft(args, {
      onLine: (line, kill) => {
        if (line.includes('"step"') && ++seen === 13) kill('SIGKILL');
      },
    });
    assert.notEqual(killed.code, 0);
    const [resumed, whole] = await Promise.all([
      reft([...args, '--resume']),
      reft(training('not-killed', '--steps', '60', '--identity-start')),
    ]);
    assert.equal(resumed.code, 0, resumed.stderr);
    const first = (resumed.events.find(e => e.event === 'step') as { step: number }).step;
    assert.ok(first > 10 && first % 5 === 1, `went on at step ${first}`);
    assert.equal(whole.code, 0, whole.stderr);
    assert.deepEqual(await bytesOf('killed'), await bytesOf('not-killed'));
  });

  test('a device that is not there ends with 3', async () => {
    const run = await reft(training('x', '--device', 'webgpu', '--steps', '1'));
    const there = await createWebGpuBackend().then(
      backend => backend.close().then(() => true),
      () => false,
    );
    assert.equal(run.code, there ? 0 : 3, run.stderr);
    if (!there) assert.match(JSON.stringify(run.events.at(-1)), /"event":"error".*webgpu.*"code":3/);
  });

  test('every command has its --help', async () => {
    const helps = await reftEach(
      ['train', 'generate', 'chat', 'info', 'devices', 'eval'].map(name => [name, '--help']),
    );
    assert.deepEqual(
      helps.map(run => run.code),
      [0, 0, 0, 0, 0, 0],
    );
    for (const option of [
      '--model',
      '--data',
      '--out',
      '--intervention',
      '--layers',
      '--positions',
      '--rank',
      '--tied',
      '--component',
      '--orthogonal',
      '--activation',
      '--epochs',
      '--steps',
      '--batch-size',
      '--accumulate',
      '--lr',
      '--schedule',
      '--warmup',
      '--weight-decay',
      '--dropout',
      '--clip',
      '--max-length',
      '--seed',
      '--eval',
      '--resume',
      '--save-every',
      '--identity-start',
      '--device',
      '--dtype',
      '--json',
    ])
      assert.ok(helps[0].stdout.includes(option), `reft train --help lists ${option}`);
    for (const option of [
      '--adapter',
      '--prompt',
      '--chat',
      '--system',
      '--messages',
      '--max-new-tokens',
      '--temperature',
      '--scale',
      '--json',
    ]) {
      assert.ok(helps[1].stdout.includes(option), `reft generate --help lists ${option}`);
    }
    for (const run of helps.slice(2)) assert.match(run.stdout, /--json/);
  });
});
