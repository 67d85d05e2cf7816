// What comes from files, hubs and models on its way to a terminal, and weights that are broken.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Output } from '../src/cli/output.js';
import { run } from '../src/cli/program.js';
import { tensor } from '../src/index.js';
import { evaluate } from '../src/reft/index.js';
import { assign } from '../src/adapt/assign.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';
import { tinyModel } from './helpers/tinyModel.js';
import { parameterOf } from './helpers/packed.js';

type Streams = Record<'stdout' | 'stderr', string>;

/** What is written while `body` runs, on a terminal or not. */
async function written(body: () => unknown, terminal = false): Promise<Streams> {
  const texts: Streams = { stdout: '', stderr: '' };
  const kept = (['stdout', 'stderr'] as const).map(name => {
    const stream = process[name];
    const { write, isTTY } = stream;
    stream.write = ((text: string) => {
      texts[name] += text;
      return true;
    }) as typeof write;
    stream.isTTY = terminal;
    return () => {
      stream.write = write;
      stream.isTTY = isTTY;
    };
  });
  try {
    await body();
  } finally {
    for (const restore of kept) restore();
  }
  return texts;
}

/** All but tab and line feed. */
const controls = /(?![\t\n])\p{Cc}/u;
const evil = '\x1b]0;owned\x07\x1b[2J\x9b31m';
const shown = '\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m';

test('lines, errors and answers on their way to a terminal', async () => {
  const output = new Output(false);
  const secret = 'see https://me:hunter2@hub.invalid/x and hf_secret';
  const before = process.env['HF_TOKEN'];
  process.env['HF_TOKEN'] = 'hf_secret';
  try {
    assert.deepEqual(
      await written(() => {
        output.say(evil);
        output.note(`${evil}\n\t${secret}`);
      }),
      { stdout: `${shown}\n`, stderr: `${shown}\n\tsee https://***@hub.invalid/x and ***\n` },
    );
  } finally {
    if (before === undefined) delete process.env['HF_TOKEN'];
    else process.env['HF_TOKEN'] = before;
  }
  // An answer may be in any language, and what is not a terminal gets it as it is.
  const answer = `${evil}\u200f\u2028 caf\u00e9\n`;
  assert.equal(
    (
      await written(() => {
        output.stream(answer);
      }, true)
    ).stdout,
    `${shown}\u200f\u2028 caf\u00e9\n`,
  );
  assert.equal(
    (
      await written(() => {
        output.stream(answer);
      }, false)
    ).stdout,
    answer,
  );
  const { stdout } = await written(() => {
    new Output(true).event('answer', { text: answer });
  });
  assert.doesNotMatch(stdout.slice(0, -1), controls);
  assert.deepEqual(JSON.parse(stdout), { event: 'answer', text: answer });
});

test('reft info of a config, and an error that quotes one, steer nothing', async () => {
  const folder = await writeTinyFolder(await mkdtemp(join(tmpdir(), 'hostile-output-')));
  try {
    const path = join(folder, 'config.json');
    const config = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
    for (const change of [{ model_type: `llama${evil}` }, { hidden_act: evil }, { [evil]: 1 }]) {
      await writeFile(path, JSON.stringify({ ...config, ...change }));
      const { stdout, stderr } = await written(() => run(['info', folder]));
      assert.doesNotMatch(stdout + stderr, controls, JSON.stringify(change));
    }
    const { stderr } = await written(() => run(['info', 'https://me:hunter2@hub.invalid/x']));
    assert.match(stderr, /https:\/\/\*\*\*@hub\.invalid/);
    assert.doesNotMatch(stderr, /hunter2/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('broken weights: the first use of a model says which it is', async () => {
  const model = await tinyModel();
  const weight = parameterOf(model, 'model.norm.weight');
  assign(weight, tensor.from(new Float32Array(weight.size).fill(NaN), weight.shape), 'norm');
  await assert.rejects(
    model.generate([[1, 2]], { maxNewTokens: 1 }),
    /^Error: generate: tiny: new token 0 of prompt 0: the logit of token 0 is NaN; the model or an edit/,
  );
  await assert.rejects(
    evaluate(model, tinyExamples(2)),
    /^Error: evaluate: the loss of tiny is NaN: its weights or the edits are not finite$/,
  );
});
