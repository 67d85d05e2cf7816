// Every flag of every command does something: each stands in a table with what must be different when it is given. A
// flag that is in no table fails, so that a new one is not forgotten. Flags whose work other tests show name the test.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createProgram } from '../src/cli/program.js';
import { reftEach, type Run } from './helpers/commandLine.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

const folder = await mkdtemp(join(tmpdir(), 'reft-flags-'));
const model = join(folder, 'model');
const data = join(folder, 'rows.jsonl');
const fewer = join(folder, 'fewer.jsonl');
const adapter = join(folder, 'base');
after(() => rm(folder, { recursive: true, force: true }));

/** What a run with the flag must show beside one without. */
type Check = (run: Run, base: Run) => void | Promise<void>;
/**
 * The words after the flag (none for a switch), more of the command line, and the check; or the title of the test that
 * shows its work.
 */
type Row = readonly [words: readonly string[], check: Check, more?: readonly string[]] | string;

const steps = (run: Run): Record<string, number>[] =>
  run.events.filter(e => e.event === 'step') as Record<string, number>[];
const of = (run: Run, field: string): number[] => steps(run).map(step => step[field]);
const done = (run: Run): Record<string, unknown> => run.events.at(-1) as Record<string, unknown>;
const succeeds = (run: Run): void => {
  assert.equal(run.code, 0, `${run.args.join(' ')}: ${run.stderr}`);
};
const outOf = (run: Run): string => run.args[run.args.lastIndexOf('--out') + 1];

/** The adapter's configuration holds this. */
const configured =
  (expected: Record<string, unknown>): Check =>
  async run => {
    const {
      configs: [config],
    } = JSON.parse(await readFile(join(outOf(run), 'adapter_config.json'), 'utf8')) as {
      configs: Record<string, unknown>[];
    };
    for (const [name, value] of Object.entries(expected)) assert.deepEqual(config[name], value, name);
  };
const same: (field: string, from: number, to?: number) => Check = (field, from, to) => (run, base) => {
  assert.deepEqual(of(run, field).slice(from, to), of(base, field).slice(from, to), `${field} is as without`);
};
const others: (field: string, from: number) => Check = (field, from) => (run, base) => {
  of(run, field).forEach((value, i) => {
    if (i >= from) assert.notEqual(value, of(base, field)[i], `${field} of step ${i + 1} differs`);
  });
};
const all =
  (...checks: readonly Check[]): Check =>
  async (run, base) => {
    for (const check of checks) await check(run, base);
  };
const near = (a: number, b: number, bound: number): void => {
  assert.equal(Math.abs(a - b) <= bound, true, `${a} is within ${bound} of ${b}`);
};
const refused =
  (message: RegExp): Check =>
  run => {
    assert.equal(run.code, 2, run.stderr);
    assert.match(run.stderr, message);
  };

const modelRows: Record<string, Row> = {
  '--device': 'a device that is not there ends with 3',
  '--cache-dir': 'models of the hub come from --cache-dir, at --revision',
  '--revision': 'models of the hub come from --cache-dir, at --revision',
};

const train = (...more: string[]): string[] => [
  'train',
  '--model',
  model,
  '--data',
  data,
  '--layers',
  '0,1',
  '--rank',
  '2',
  '--batch-size',
  '2',
  '--steps',
  '4',
  '--lr',
  '0.05',
  '--json',
  ...more,
  ...(more.includes('--out') ? [] : ['--out', join(folder, `out-${++outs}`)]),
];
let outs = 0;

const trainRows: Record<string, Row> = {
  ...modelRows,
  '--model': [[join(folder, 'other-model')], others('loss', 0)],
  '--threads': [['1', '--device', 'webgpu'], refused(/--threads: for the CPU, and --device is webgpu/)],
  '--dtype': [
    ['f64'],
    async (run, base) => {
      of(run, 'loss').forEach((loss, i) => {
        near(loss, of(base, 'loss')[i], 1e-5);
      });
      await others('loss', 0)(run, base);
    },
  ],
  '--weights': [
    ['f32'],
    all(succeeds, (run, base) => {
      near(of(run, 'loss')[0], of(base, 'loss')[0], 1e-6);
    }),
  ],
  '--data': [[fewer], others('loss', 1)],
  '--out': [
    [join(folder, 'elsewhere')],
    run => {
      assert.equal(done(run).adapter, join(folder, 'elsewhere'));
    },
  ],
  '--intervention': [['direft'], all(configured({ kind: 'direft' }), others('loss', 0))],
  '--layers': [
    ['1'],
    all(configured({ layers: [1] }), run => {
      assert.equal(done(run).trainableParameters, 2 * 16 * 2 + 2);
    }),
  ],
  '--positions': [['f1'], all(configured({ positions: 'f1' }), others('loss', 0))],
  '--new-tokens': [['none'], all(configured({ newTokens: 'none' }), others('loss', 0))],
  '--rank': [
    ['3'],
    all(configured({ rank: 3 }), run => {
      assert.equal(done(run).trainableParameters, 2 * (2 * 16 * 3 + 3));
    }),
  ],
  '--tied': [[], configured({ tied: true }), ['--positions', 'f1+l1']],
  '--component': [['mlp_output'], all(configured({ component: 'mlp_output' }), others('loss', 0))],
  '--orthogonal': [['cayley'], all(configured({ orthogonal: 'cayley' }), others('loss', 1))],
  '--activation': [['tanh'], all(configured({ activation: 'tanh' }), others('loss', 0)), ['--intervention', 'direft']],
  '--identity-start': [
    [],
    async run => {
      // The first step's loss is that of the frozen model on the rows of that step: with all rows in one batch, of all
      // rows.
      const [frozen] = await reftEach([['eval', '--model', model, '--data', data, '--json']]);
      near(of(run, 'loss')[0], done(frozen).loss as number, 1e-5);
    },
    ['--batch-size', '4'],
  ],
  '--dropout': [['0.5'], all(configured({ dropout: 0.5 }), others('loss', 0))],
  '--dropout-on': [['state'], all(configured({ dropoutOn: 'state' }), others('loss', 0)), ['--dropout', '0.5']],
  '--epochs': [
    ['3'],
    run => {
      assert.deepEqual(
        steps(run).map(s => [s.step, s.epoch, s.total]),
        [1, 2, 3, 4, 5, 6].map(n => [n, Math.ceil(n / 2), 6]),
      );
    },
  ],
  '--steps': [
    ['2'],
    run => {
      assert.deepEqual(of(run, 'step'), [1, 2]);
    },
  ],
  '--batch-size': [
    ['1'],
    run => {
      assert.deepEqual(of(run, 'epoch'), [1, 1, 1, 2]);
    },
  ],
  '--accumulate': [
    ['2'],
    run => {
      assert.deepEqual(of(run, 'epoch'), [1, 2, 3, 4]);
    },
  ],
  '--lr': [
    ['0.01'],
    run => {
      assert.deepEqual(
        of(run, 'learningRate').map(rate => rate.toFixed(5)),
        ['0.01000', '0.00750', '0.00500', '0.00250'],
      );
    },
  ],
  '--schedule': [
    ['constant'],
    run => {
      assert.deepEqual(of(run, 'learningRate'), [0.05, 0.05, 0.05, 0.05]);
    },
  ],
  '--warmup': [
    ['2'],
    run => {
      assert.deepEqual(
        of(run, 'learningRate').map(rate => rate.toFixed(4)),
        ['0.0000', '0.0250', '0.0500', '0.0250'],
      );
    },
  ],
  '--weight-decay': [['5'], all(same('loss', 0, 1), others('loss', 1))],
  // AdamW's steps do not depend on the size of gradients, until they are as small as its epsilon.
  '--clip': [['1e-9'], all(same('gradNorm', 0, 1), others('loss', 2))],
  '--max-length': [
    ['8'],
    all(
      (run, base) => {
        assert.match(run.stderr, /3 rows cut to --max-length/);
        assert.doesNotMatch(base.stderr, /cut to --max-length/);
      },
      others('loss', 1),
    ),
  ],
  '--seed': [['1'], all(configured({ seed: 1 }), others('loss', 0))],
  '--eval': [
    [fewer],
    async run => {
      const [measured] = await reftEach([
        ['eval', '--model', model, '--data', fewer, '--adapter', outOf(run), '--json'],
      ]);
      const last = run.events.filter(e => e.event === 'evaluation').at(-1) as Record<string, number>;
      near(last.loss, done(measured).loss as number, 1e-5);
    },
  ],
  '--eval-every': [
    ['1'],
    (run, base) => {
      const measured = (r: Run): unknown[] => r.events.filter(e => e.event === 'evaluation').map(e => e.step);
      assert.deepEqual(
        [measured(run), measured(base)],
        [
          [1, 2, 3, 4],
          [2, 4],
        ],
      );
    },
    ['--eval', fewer],
  ],
  '--keep-best': "says the loss on such rows beside the frozen model's, and keeps the best where it is asked to",
  '--early-stopping': 'says in words what it kept and why it stopped',
  '--min-delta': 'says in words what it kept and why it stopped',
  '--save-every':
    'a run that dies goes on from its last checkpoint and ends where an unbroken one does; identity start',
  '--recompute': [
    [],
    all(same('loss', 0), (run, base) => {
      // Blocks that run again call their kernels again.
      const calls = (r: Run): number => {
        const profile = r.events.find(e => e.event === 'profile') as { ops: { name: string; calls: number }[] };
        return profile.ops.reduce((n, op) => n + op.calls, 0);
      };
      assert.equal(calls(run) > calls(base), true, `${calls(run)} calls are more than ${calls(base)}`);
    }),
    ['--profile', join(folder, 'recompute.json')],
  ],
  '--reuse-budget': 'sizes bound what reuse keeps, in memory and in its folder',
  '--reuse-dir': 'sizes bound what reuse keeps, in memory and in its folder',
  '--reuse-dir-budget': 'sizes bound what reuse keeps, in memory and in its folder',
  '--dpo': 'eval measures the model and the adapter; --dpo learns which answers are preferred',
  '--overwrite': 'an adapter is replaced with --overwrite alone, when the new one is trained',
  '--resume': 'Ctrl-C ends within a step, saved, and --resume ends where an unbroken run does',
  '--profile': [
    [join(folder, 'trace.json')],
    async run => {
      const trace = JSON.parse(await readFile(join(folder, 'trace.json'), 'utf8')) as { traceEvents: unknown[] };
      assert.equal(trace.traceEvents.length > 10, true, 'events');
      assert.match(run.stderr, /trace: .*trace\.json/);
    },
  ],
  '--json':
    'train writes an adapter, its record and its curve; the same seed writes the same bytes, with --recompute and --reuse-dir too',
};

const generate = (...more: string[]): string[] => [
  'generate',
  '--model',
  model,
  '--prompt',
  'one two',
  '--max-new-tokens',
  '12',
  '--json',
  ...more,
];
const ids = (run: Run): number[] => done(run).ids as number[];
const otherIds: Check = (run, base) => {
  assert.notDeepEqual(ids(run), ids(base), 'other tokens');
};
const greedyIds: Check = async run => {
  const [greedy] = await reftEach([generate()]);
  assert.deepEqual(ids(run), ids(greedy), 'the most likely tokens');
};
/** A row whose base is drawn at a temperature. */
const warm = ['--temperature', '3'];

const samplingRows: Record<string, Row> = {
  '--max-new-tokens': [
    ['3'],
    (run, base) => {
      assert.deepEqual(ids(run), ids(base).slice(0, 3));
    },
  ],
  '--temperature': [['3'], otherIds],
  '--top-k': [['1'], all(greedyIds, otherIds), warm],
  '--top-p': [['1e-9'], all(greedyIds, otherIds), warm],
  '--repetition-penalty': [
    ['1e9'],
    run => {
      assert.equal(new Set(ids(run)).size, ids(run).length, 'no token twice');
    },
  ],
  '--seed': [['1'], otherIds, warm],
};
const generateRows: Record<string, Row> = {
  ...modelRows,
  '--model': [[join(folder, 'other-model')], otherIds],
  '--threads': trainRows['--threads'],
  '--dtype': [
    ['f64'],
    run => {
      assert.match(run.stderr, /f64\)/);
    },
  ],
  '--weights': [['stored', '--dtype', 'f64'], refused(/--weights: stored computes in f32/)],
  '--prompt': [['three'], otherIds],
  '--chat': 'generate --chat and --messages give the same prompt; --stop cuts the text',
  '--system': 'generate --chat and --messages give the same prompt; --stop cuts the text',
  '--messages': 'generate --chat and --messages give the same prompt; --stop cuts the text',
  '--stop': 'generate --chat and --messages give the same prompt; --stop cuts the text',
  '--adapter': [[adapter], otherIds],
  '--scale': [['0'], greedyIds, ['--adapter', adapter]],
  ...samplingRows,
  '--profile': trainRows['--profile'],
  '--json': 'generate: ids are the new tokens, text leaves the end token out, people get the text alone',
};

const evaluate = (...more: string[]): string[] => ['eval', '--model', model, '--data', data, '--json', ...more];
const otherLoss: Check = (run, base) => {
  assert.notEqual(done(run).loss, done(base).loss);
};
const evalRows: Record<string, Row> = {
  ...modelRows,
  '--model': [[join(folder, 'other-model')], otherLoss],
  '--threads': trainRows['--threads'],
  '--dtype': generateRows['--dtype'],
  '--weights': generateRows['--weights'],
  '--adapter': [[adapter], otherLoss],
  '--scale': [
    ['0'],
    async run => {
      const [frozen] = await reftEach([evaluate()]);
      near(done(run).loss as number, done(frozen).loss as number, 1e-6);
    },
    ['--adapter', adapter],
  ],
  '--data': [
    [fewer],
    all(otherLoss, run => {
      assert.equal(done(run).rows, 2);
    }),
  ],
  '--batch-size': [
    ['1'],
    (run, base) => {
      near(done(run).loss as number, done(base).loss as number, 1e-5);
    },
  ],
  '--max-length': [['8'], otherLoss],
  '--json': 'eval measures the model and the adapter; --dpo learns which answers are preferred',
};

const chat = (...more: string[]): string[] => [
  '< one two\nthree\n',
  'chat',
  '--model',
  model,
  '--max-new-tokens',
  '8',
  '--json',
  ...more,
];
const answers = (run: Run): number[][] => run.events.filter(e => e.event === 'answer').map(e => e.ids as number[]);
const otherAnswers: Check = (run, base) => {
  assert.equal(answers(run).length, 2);
  assert.notDeepEqual(answers(run), answers(base), 'other answers');
};
const greedyAnswers: Check = async run => {
  const [greedy] = await reftEach([chat()]);
  assert.deepEqual(answers(run), answers(greedy), 'the most likely tokens');
};
const chatRows: Record<string, Row> = {
  ...modelRows,
  '--model': [[join(folder, 'other-model')], otherAnswers],
  '--threads': trainRows['--threads'],
  '--dtype': generateRows['--dtype'],
  '--weights': generateRows['--weights'],
  '--system': [['be brief'], otherAnswers],
  '--adapter': [
    [adapter],
    all(otherAnswers, run => {
      assert.equal(run.events.find(e => e.event === 'answer')?.adapter, true);
    }),
  ],
  '--scale': [['0'], greedyAnswers, ['--adapter', adapter]],
  '--max-new-tokens': [
    ['3'],
    (run, base) => {
      assert.deepEqual(answers(run)[0], answers(base)[0].slice(0, 3));
    },
  ],
  '--temperature': [['3'], otherAnswers],
  '--top-k': [['1'], all(greedyAnswers, otherAnswers), warm],
  '--top-p': [['1e-9'], all(greedyAnswers, otherAnswers), warm],
  '--repetition-penalty': [
    ['1e9'],
    run => {
      for (const ids of answers(run)) assert.equal(new Set(ids).size, ids.length, 'no token twice');
    },
  ],
  '--seed': [['1'], otherAnswers, warm],
  '--json': 'chat answers what is piped in, with the adapter on or off',
};

const infoRows: Record<string, Row> = {
  '--cache-dir': 'models of the hub come from --cache-dir, at --revision',
  '--json': 'info tells a model',
};

const convert = (...more: string[]): string[] => [
  'convert',
  '--model',
  model,
  '--from',
  join(folder, 'pyreft'),
  '--json',
  ...more,
  ...(more.includes('--out') ? [] : ['--out', join(folder, `out-${++outs}`)]),
];
const convertRows: Record<string, Row> = {
  ...modelRows,
  '--model': [[join(folder, 'wide-model')], refused(/hidden|width|layers/)],
  '--threads': trainRows['--threads'],
  '--dtype': generateRows['--dtype'],
  '--weights': generateRows['--weights'],
  '--from': [
    [adapter],
    all(configured({ positions: 'all' }), run => {
      assert.equal(done(run).from, 'reft');
    }),
  ],
  '--to': [
    ['control-vector'],
    run => {
      assert.match(run.stderr, /control vector|addition/);
    },
  ],
  '--out': [
    [join(folder, 'converted')],
    run => {
      assert.equal(done(run).out, join(folder, 'converted'));
    },
  ],
  '--overwrite': 'convert asks too, and replaces edits of its format alone',
  '--positions': [['f1'], configured({ positions: 'f1' })],
  '--activation': [['tanh'], configured({ activation: 'tanh' })],
  '--json': 'reft convert: with the flag it is otherwise',
};

interface CommandTable {
  /** The command line without the flag. */
  readonly line: (...more: string[]) => string[];
  readonly rows: Readonly<Record<string, Row>>;
}

const tables: Readonly<Record<string, CommandTable>> = {
  train: { line: train, rows: trainRows },
  generate: { line: generate, rows: generateRows },
  eval: { line: evaluate, rows: evalRows },
  chat: { line: chat, rows: chatRows },
  info: { line: (...more) => ['info', model, ...more], rows: infoRows },
  convert: { line: convert, rows: convertRows },
  devices: {
    line: (...more) => ['devices', ...more],
    rows: { '--json': 'devices lists each device, or why it is not there' },
  },
};

before(async () => {
  await writeTinyFolder(model);
  const other = await writeTinyFolder(join(folder, 'other-model'));
  const config = JSON.parse(await readFile(join(other, 'config.json'), 'utf8')) as object;
  await writeFile(join(other, 'config.json'), JSON.stringify({ ...config, rope_theta: 100, rms_norm_eps: 0.1 }));
  const rows = [
    '{"prompt":"one two","completion":"three"}',
    '{"prompt":"four","completion":"five"}',
    '{"prompt":"seven","completion":"eight"}',
  ];
  await writeFile(data, `${rows.join('\n')}\n`);
  await writeFile(fewer, `${rows.slice(1).join('\n')}\n`);
  const [trained] = await reftEach([train('--positions', 'all', '--steps', '20', '--out', adapter)]);
  succeeds(trained);
  const [direft] = await reftEach([train('--intervention', 'direft', '--steps', '1', '--out', join(folder, 'direft'))]);
  succeeds(direft);
  const [pyreft] = await reftEach([
    ['convert', '--model', model, '--from', join(folder, 'direft'), '--to', 'pyreft', '--out', join(folder, 'pyreft')],
  ]);
  succeeds(pyreft);
  await writeTinyFolder(join(folder, 'wide-model'), { hidden: 32 });
});

test('models of the hub come from --cache-dir, at --revision', async () => {
  const commits = { main: 'a'.repeat(40), other: 'b'.repeat(40) };
  const cache = join(folder, 'cache');
  const entry = join(cache, 'models--org--tiny');
  await mkdir(join(entry, 'refs'), { recursive: true });
  for (const [name, commit] of Object.entries(commits)) {
    await writeFile(join(entry, 'refs', name), commit);
    await cp(join(folder, name === 'main' ? 'model' : 'other-model'), join(entry, 'snapshots', commit), {
      recursive: true,
    });
  }
  const hub = ['--model', 'org/tiny', '--cache-dir', cache];
  const lines: readonly (readonly string[])[] = [
    generate(),
    generate(...hub),
    generate('--model', join(folder, 'other-model')),
    generate(...hub, '--revision', 'other'),
    train(...hub, '--revision', 'other'),
    evaluate(...hub, '--revision', 'other'),
    evaluate(...hub),
    ['< hi\n', 'chat', ...hub, '--revision', 'other', '--json'],
    convert(...hub, '--revision', 'other'),
    ['info', 'org/tiny', '--cache-dir', cache, '--json'],
    generate(...hub, '--revision', 'third'),
  ];
  const runs = await reftEach(lines, { HF_HUB_OFFLINE: '1' });
  runs.slice(0, -1).forEach(succeeds);
  assert.deepEqual(ids(runs[1]), ids(runs[0]));
  assert.deepEqual(ids(runs[3]), ids(runs[2]));
  assert.notDeepEqual(ids(runs[3]), ids(runs[1]));
  assert.notEqual(done(runs[5]).loss, done(runs[6]).loss);
  assert.equal(runs.at(-1)?.code === 0, false, 'a revision that is not there');
});

describe('every flag does something', () => {
  const titles = ['cli', 'cli-flags', 'cli-train-evaluation', 'savedWork-out']
    .map(name => readFileSync(new URL(`${name}.test.ts`, import.meta.url), 'utf8'))
    .join('\n');

  for (const [name, { line, rows }] of Object.entries(tables)) {
    test(`reft ${name}: each flag has its row`, () => {
      const command = createProgram().commands.find(c => c.name() === name)!;
      const flags = command.options
        .map(option => option.long)
        .filter(flag => flag !== '--help' && flag !== '--version');
      assert.deepEqual(
        flags.filter(flag => !flag || !rows[flag]),
        [],
        'flags without a row',
      );
      assert.deepEqual(
        Object.keys(rows).filter(flag => !flags.includes(flag)),
        [],
        'rows without a flag',
      );
    });

    if (Object.values(rows).some(row => typeof row !== 'string'))
      test(`reft ${name}: with the flag it is otherwise`, async t => {
        const tried = Object.entries(rows).filter(
          (entry): entry is [string, Exclude<Row, string>] => typeof entry[1] !== 'string',
        );
        const runs = await reftEach(
          tried.flatMap(([flag, [words, , more = []]]) => {
            const given = line(...more, flag, ...words);
            // Epochs stand in place of steps.
            const steps = flag === '--epochs' ? given.indexOf('--steps') : -1;
            return [steps < 0 ? given : given.toSpliced(steps, 2), line(...more)];
          }),
        );
        for (const [i, [flag, [, check]]] of tried.entries()) {
          await t.test(flag, async () => {
            const [run, base] = runs.slice(2 * i, 2 * i + 2);
            succeeds(base);
            await check(run, base);
          });
        }
      });

    for (const [flag, row] of Object.entries(rows)) {
      if (typeof row !== 'string') continue;
      test(`reft ${name} ${flag}: a test shows its work`, () => {
        assert.equal(
          titles.includes(row.replaceAll("'", "\\'")) || titles.includes(row),
          true,
          `there is a test called '${row}'`,
        );
      });
    }
  }
});
