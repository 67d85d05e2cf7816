// What the command reads and writes at its borders: words of options, sizes, counts, exit codes, the table of a
// profile, frequencies of rotary embeddings.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CommanderError } from 'commander';
import { exitCodeOf, Interrupted, UsageError } from '../src/cli/errors.js';
import { byteSize, layers, newTokens, number, positions, wholeNumber } from '../src/cli/options.js';
import { bytesText, countText } from '../src/cli/output.js';
import { lossCurve } from '../src/cli/lossCurve.js';
import { FormatError } from '../src/io/errors.js';
import { ropeFrequencies, ropeTables, rope } from '../src/nn/rope.js';
import { formatProfile, Totals, type ProfileReport } from '../src/profile/report.js';
import { isSigned } from '../src/reft/signedText.js';
import { tensor } from '../src/tensor/index.js';

const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return 'no error';
};
const refused = (run: () => unknown, message: string): void => assert.equal(messageOf(run), message);

describe('words of options', () => {
  test('whole numbers', () => {
    assert.deepEqual(['1', '007', '9007199254740991'].map(wholeNumber(1)), [1, 7, 9007199254740991]);
    assert.equal(wholeNumber(0)('0'), 0);
    for (const text of ['0', '-1', '1.5', '', ' 1', '1e3', '9007199254740992'])
      refused(() => wholeNumber(1)(text), 'Expected a whole number of at least 1.');
  });

  test('numbers within their bounds', () => {
    const share = number({ above: 0, max: 1 });
    assert.deepEqual(['1', '0.5', '1e-3'].map(share), [1, 0.5, 0.001]);
    for (const text of ['0', '1.1', '', ' ', 'x', 'NaN'])
      refused(() => share(text), 'Expected a number above 0 and at most 1.');
    const half = number({ min: 0, below: 1 });
    assert.deepEqual(['0', '0.999'].map(half), [0, 0.999]);
    for (const text of ['-0.1', '1', 'Infinity'])
      refused(() => half(text), 'Expected a number at least 0 and below 1.');
    refused(() => number({})('x'), 'Expected a number.');
    refused(() => number({})('Infinity'), 'Expected a number.');
    assert.equal(number({})('-5'), -5);
  });

  test('sizes', () => {
    for (const [text, bytes] of [
      ['0', 0],
      ['12', 12],
      ['12B', 12],
      ['1kB', 1000],
      ['1KB', 1000],
      ['2MB', 2e6],
      ['2GB', 2e9],
      ['1TB', 1e12],
      ['1KiB', 1024],
      ['512MiB', 512 * 2 ** 20],
      ['1GiB', 2 ** 30],
      ['1TiB', 2 ** 40],
      ['1.5GB', 1.5e9],
      ['0.0005kB', 1],
    ] as const)
      assert.equal(byteSize(text), bytes, text);
    for (const text of ['', 'x', '1.5', '1.5B', '-1', '1 GB', '1gb', '1XB', '9999TiB', 'GB'])
      refused(
        () => byteSize(text),
        'Expected a size like 2GB, 512MiB or 0: a number and one of B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB, or a number of bytes.',
      );
    for (const [bytes, text] of [
      [0, '0 B'],
      [999, '999 B'],
      [1000, '1.0 kB'],
      [999_999, '1000.0 kB'],
      [1e6, '1.0 MB'],
      [1_234_567, '1.2 MB'],
      [1e9, '1.00 GB'],
      [1_234_567_890, '1.23 GB'],
    ] as const)
      assert.equal(bytesText(bytes), text);
    for (const [count, text] of [
      [0, '0'],
      [99_999, '99,999'],
      [100_000, '100.0 k'],
      [999_949, '999.9 k'],
      [1e6, '1.0 M'],
      [134_515_008, '134.5 M'],
      [1e9, '1.00 B'],
    ] as const)
      assert.equal(countText(count), text);
  });

  test('layers, positions, new tokens', () => {
    assert.deepEqual([layers('15'), layers('0,3,6'), layers('all')], [[15], [0, 3, 6], 'all']);
    for (const text of ['', '1,', '-1', '1.5', 'ALL', '1, 2'])
      refused(() => layers(text), 'Expected layer numbers like 15 or 0,3,6, or all.');
    assert.equal(positions('f7+l7'), 'f7+l7');
    assert.match(
      messageOf(() => positions('x')),
      /^positions 'x': expected f<N>/,
    );
    assert.deepEqual(
      [newTokens('all'), newTokens('none'), newTokens('first:8'), newTokens('every:2')],
      ['all', 'none', { first: 8 }, { every: 2 }],
    );
    for (const text of ['', 'first', 'first:0', 'every:01', 'last:1', 'first:1.5', 'first:99999999999999999999'])
      refused(() => newTokens(text), 'Expected all, none, first:N or every:N.');
  });

  test('exit codes', () => {
    const coded = (code: string): Error => Object.assign(new Error('x'), { code });
    for (const [error, code] of [
      [new CommanderError(0, 'commander.help', ''), 0],
      [new CommanderError(1, 'commander.unknownOption', ''), 2],
      [new Interrupted('x'), 130],
      [new UsageError('x'), 2],
      [new FormatError('f', 'x'), 2],
      [new RangeError('rank: 9 is more'), 2],
      [new RangeError('Maximum call stack size exceeded'), 1],
      [new RangeError('Invalid typed array length: 9'), 1],
      [new RangeError('Invalid array length'), 1],
      [new RangeError('Array buffer allocation failed'), 1],
      [new RangeError('Invalid string length'), 1],
      [new RangeError('WebAssembly.Memory.grow(): Maximum memory size exceeded'), 1],
      [new TypeError('x'), 1],
      [undefined, 1],
      [null, 1],
      ...['ENOENT', 'ENOTDIR', 'EISDIR', 'EEXIST', 'EACCES', 'EPERM', 'EROFS'].map(c => [coded(c), 2] as const),
      [coded('ENOSPC'), 1],
    ] as const)
      assert.equal(exitCodeOf(error), code, String(error));
  });

  test('a curve of what can be drawn, signed', async () => {
    const points = [
      { step: 1, loss: 2 },
      { step: 2, loss: 1 },
    ];
    const svg = await lossCurve(points);
    assert.match(svg, /aria-label="Training loss"/);
    assert.match(svg, /<svg[^>]* height="360" width="640"/);
    assert.ok(await isSigned(svg), 'signed');
    assert.ok(!(await isSigned(svg.replace('Training', 'training'))), 'changed');
    const dots = (text: string, colour: string): number =>
      (new RegExp(`<g [^>]*fill="${colour}"[^>]*aria-label="dot"[^>]*>(.*?)</g>`, 's').exec(text)?.[1] ?? '').split(
        '<circle',
      ).length - 1;
    assert.deepEqual([dots(svg, '#1f6f8b'), dots(svg, '#c8553d')], [1, 0]);
    const wild = [
      { step: 0, loss: NaN },
      ...points,
      { step: 3, loss: Infinity },
      { step: 4, loss: 0 },
      { step: 5, loss: -1 },
    ];
    assert.equal(await lossCurve(wild), svg, 'what is no logarithm is left out');
    const both = await lossCurve(points, { title: 'T', evaluation: points });
    assert.deepEqual([dots(both, '#1f6f8b'), dots(both, '#c8553d')], [1, 2]);
    assert.match(both, /aria-label="T"/);
    assert.ok((await lossCurve([])).includes('</svg>'), 'nothing to draw');
  });
});

describe('the table of a profile', () => {
  const call = (name: string, start: number, end: number, flop: number | null, bytes: number) => ({
    name,
    start,
    end,
    flop,
    bytes,
  });
  const report = (change: Partial<ProfileReport> = {}): ProfileReport => {
    const totals = new Totals();
    const place = (component: string, layer: number | null) =>
      ({ component, layer, site: `${component}/${layer}` }) as never;
    totals.add(call('matmul', 0, 2, 4e9, 1e6), place('mlp', 0), 'forward');
    totals.add(call('matmul', 2, 3, 2e9, 2e6), place('mlp', 1), 'forward');
    totals.add(call('sort', 3, 4, null, 0), place('head', null), 'backward' as never);
    return {
      backend: 'cpu',
      recordsOnly: false,
      wallMs: 8,
      waitMs: 2,
      reads: 1,
      steps: [],
      peakBytes: 3e6,
      backendPeakBytes: 4e6,
      declined: {},
      ...totals.rows(),
      ...change,
    };
  };

  test('sums, shares and rates, longest first', () => {
    const { kernelMs, calls, flop, bytes, ops, phases, components, sites } = report();
    assert.deepEqual([kernelMs, calls, flop, bytes], [4, 3, 6e9, 3e6]);
    assert.deepEqual(ops, [
      { name: 'matmul', calls: 2, ms: 3, flop: 6e9, bytes: 3e6, share: 0.75, gflops: 2000, gbps: 1 },
      { name: 'sort', calls: 1, ms: 1, flop: 0, bytes: 0, share: 0.25, gflops: null, gbps: 0 },
    ]);
    assert.deepEqual(
      phases.map(row => [row.name, row.ms]),
      [
        ['forward', 3],
        ['backward', 1],
      ],
    );
    assert.deepEqual(
      components.map(row => [row.name, row.layer, row.ms]),
      [
        ['mlp', null, 3],
        ['head', null, 1],
      ],
    );
    assert.deepEqual(
      sites.map(row => [row.name, row.component, row.layer, row.ms]),
      [
        ['mlp/0', 'mlp', 0, 2],
        ['mlp/1', 'mlp', 1, 1],
        ['head/null', 'head', null, 1],
      ],
    );
    const nothing = new Totals();
    nothing.add(call('x', 1, 1, 5, 5), { component: 'c', layer: 0, site: 'c/0' } as never, 'forward');
    assert.deepEqual(nothing.rows().ops, [
      { name: 'x', calls: 1, ms: 0, flop: 5, bytes: 5, share: 0, gflops: null, gbps: null },
    ]);
  });

  test('as text', () => {
    const lines = formatProfile(report()).split('\n');
    assert.match(lines[0], /^profile \(cpu\): 8\.0 ms; 3 kernels 4\.0 ms \(50 %\)/);
    assert.match(lines.join('\n'), /waiting for reads 2\.0 ms \(25 %\), the rest between kernels/);
    assert.match(
      lines.join('\n'),
      /6\.00 GFLOP at 1500\.0 GFLOP\/s, 0\.00 GB read and written at 0\.8 GB\/s, at most 3\.0 MB in use/,
    );
    const at = lines.findIndex(line => line.startsWith('by op'));
    assert.deepEqual(lines.slice(at, at + 4), [
      'by op   calls   ms   share  GFLOP  GFLOP/s     GB  GB/s',
      'matmul      2  3.0  75.0 %  6.000   2000.0  0.003   1.0',
      'sort        1  1.0  25.0 %  0.000        -  0.000   0.0',
      '',
    ]);
    assert.match(lines[at + 4], /^by site, layers together {2}calls/);
    assert.match(lines[at + 5], /^forward {2}mlp {12,}2 {2}3\.0/);
    const short = formatProfile(report(), { rows: 1 });
    assert.match(short, /^matmul.*\n1 more: 1\.0 ms$/m);
    const long = formatProfile(
      report({
        wallMs: 1000,
        steps: [
          { name: 'a', ms: 1 },
          { name: 'b', ms: 2 },
        ],
        recordsOnly: true,
        declined: { rope: 2, norm: 1 },
      }),
    );
    assert.match(long, /^profile \(cpu\): 1\.00 s, 2 parts; 3 kernels 4\.0 ms \(0 %\)/);
    assert.match(long, /^kernels only record here: /m);
    assert.match(long, /^composed because the fused kernel declined: rope 2, norm 1$/m);
    assert.match(formatProfile(report({ wallMs: 999.94 })), /: 999\.9 ms; /);
    const none = formatProfile({ ...report(), ...new Totals().rows(), wallMs: 0 });
    assert.match(none, /0 kernels 0\.0 ms \(0 %\)/);
    assert.match(none, /0\.00 GFLOP at 0 GFLOP\/s, 0\.00 GB read and written at 0 GB\/s/);
    assert.doesNotMatch(none, /more:|declined|only record/);
  });
});

describe('rotary frequencies', () => {
  const of = (
    scaling: Record<string, unknown> | null,
    more: { headDim?: number; theta?: number; divisors?: number[] } = {},
  ) => ropeFrequencies({ headDim: 4, theta: 100, scaling, ...more });

  test('settings that are wrong, missing or not known', () => {
    assert.deepEqual(of(null), { perPosition: Float32Array.of(1, 0.1), scale: 1 });
    for (const headDim of [0, 3, -2])
      refused(
        () => of(null, { headDim }),
        `rope: the columns that are rotated must be even in number and positive, got ${headDim}`,
      );
    for (const theta of [0, -1, NaN]) refused(() => of(null, { theta }), `rope: theta must be positive, got ${theta}`);
    refused(
      () => of({ rope_type: 'x' }),
      "rope scaling 'x' is not known; known: default, linear, dynamic, llama3, yarn, longrope",
    );
    refused(
      () => of({ rope_type: 'toString' }),
      "rope scaling 'toString' is not known; known: default, linear, dynamic, llama3, yarn, longrope",
    );
    refused(() => of({ rope_type: 'linear', type: 'yarn', factor: 2 }), "rope scaling 'linear': type says 'yarn'");
    assert.deepEqual([...of({ type: 'linear', factor: 2 }).perPosition], [0.5, Math.fround(Math.fround(0.1) / 2)]);
    assert.deepEqual(
      [...of({ rope_type: 'linear', type: 'linear', factor: 1 }).perPosition],
      [...of(null).perPosition],
    );
    for (const factor of [0, -1, NaN, Infinity, '2', undefined])
      refused(
        () => of({ rope_type: 'linear', factor }),
        `rope scaling 'linear': factor must be a positive number, got ${factor}`,
      );
    assert.deepEqual(of({ partial_rotary_factor: 1, rope_theta: 5 }).perPosition, of(null).perPosition);
    refused(() => of({ factor: 2 }), "rope scaling 'default': factor is not understood; it has rope_theta");
    refused(
      () => of({ rope_type: 'linear', factor: 2, beta: 1 }),
      "rope scaling 'linear': beta is not understood; it has rope_theta, factor",
    );
    assert.deepEqual(of({ rope_type: 'default', beta: null }).perPosition, of(null).perPosition, 'null is not given');
    refused(
      () => of({ rope_type: 'dynamic', factor: 0 }),
      "rope scaling 'dynamic': factor must be a positive number, got 0",
    );
    refused(
      () => of({ rope_type: 'yarn', factor: 2, original_max_position_embeddings: 8, truncate: 1 }),
      "rope scaling 'yarn': truncate must be true or false, got 1",
    );
    const long = { rope_type: 'longrope', factor: 2, original_max_position_embeddings: 16 };
    for (const [list, shown] of [
      [[1], 'a list of 1'],
      [[1, 0], 'a list of 2'],
      [[1, 'a'], 'a list of 2'],
      [5, '5'],
      [undefined, 'undefined'],
    ] as const)
      refused(
        () => of({ ...long, short_factor: list, long_factor: [1, 1] }),
        `rope scaling 'longrope': short_factor must be a list of 2 positive numbers, got ${shown}`,
      );
    refused(
      () => of({ ...long, short_factor: [1, 1] }),
      "rope scaling 'longrope': long_factor must be a list of 2 positive numbers, got undefined",
    );
  });

  test('scales of sines and cosines', () => {
    const long = (factor: number, more = {}) =>
      of({
        rope_type: 'longrope',
        factor,
        original_max_position_embeddings: 16,
        short_factor: [1, 2],
        long_factor: [4, 4],
        ...more,
      });
    assert.deepEqual(long(1).scale, 1);
    assert.ok(Math.abs(long(4).scale - Math.sqrt(1.5)) < 1e-15, String(long(4).scale));
    assert.equal(long(4, { attention_factor: 3 }).scale, 3);
    assert.deepEqual([...long(4).perPosition], [1, Math.fround(1 / 20)]);
    const yarn = (factor: number, more = {}) =>
      of({ rope_type: 'yarn', factor, original_max_position_embeddings: 64, ...more });
    assert.equal(yarn(1).scale, 1);
    assert.ok(Math.abs(yarn(4).scale - (0.1 * Math.log(4) + 1)) < 1e-15, String(yarn(4).scale));
    assert.equal(yarn(4, { mscale: 2, mscale_all_dim: 2 }).scale, 1);
    assert.ok(
      Math.abs(yarn(4, { mscale: 2, mscale_all_dim: 1 }).scale - (0.2 * Math.log(4) + 1) / (0.1 * Math.log(4) + 1)) <
        1e-15,
      'both',
    );
    assert.equal(yarn(4, { mscale: 2 }).scale, yarn(4).scale, 'one alone counts for nothing');
    assert.equal(yarn(4, { attention_factor: 0.5 }).scale, 0.5);
  });

  test('divisors, tables, and tables that do not fit', () => {
    assert.deepEqual([...of(null, { divisors: [2, 1] }).perPosition], [0.5, Math.fround(0.1)]);
    for (const divisors of [[1], [1, 0], [1, -1], [1, Infinity], [1, NaN]])
      refused(
        () => of(null, { divisors }),
        `rope: expected 2 positive divisors of frequencies, got ${divisors.length}`,
      );
    const { cos, sin } = ropeTables({ perPosition: Float32Array.of(1, 0.5), scale: 2 }, Int32Array.of(0, 3));
    const f = Math.fround;
    assert.deepEqual([...cos], [2, 2, f(2 * f(Math.cos(3))), f(2 * f(Math.cos(1.5)))]);
    assert.deepEqual([...sin], [0, 0, f(2 * f(Math.sin(3))), f(2 * f(Math.sin(1.5)))]);
    const x = tensor.ones([2, 3, 1, 4]);
    const table = (...shape: number[]) => tensor.ones(shape);
    assert.deepEqual(rope(x, table(1, 3, 2), table(1, 3, 2)).shape, [2, 3, 1, 4]);
    assert.deepEqual(rope(x, table(2, 3, 2), table(2, 3, 2)).shape, [2, 3, 1, 4]);
    for (const shape of [
      [3, 3, 2],
      [1, 2, 2],
      [1, 3, 4],
      [3, 2],
    ])
      refused(
        () => rope(x, table(...shape), table(...shape)),
        `rope: tables [${shape.join(',')}] and [${shape.join(',')}] do not fit [2,3,1,4], expected [2|1,3,1 to 2]`,
      );
    refused(
      () => rope(x, table(1, 3, 2), table(2, 3, 2)),
      'rope: tables [1,3,2] and [2,3,2] do not fit [2,3,1,4], expected [2|1,3,1 to 2]',
    );
    refused(
      () => rope(tensor.ones([3, 1, 4]), table(1, 3, 2), table(1, 3, 2)),
      'rope: tables [1,3,2] and [1,3,2] do not fit [3,1,4], expected [3|1,1,1 to NaN]',
    );
  });
});
