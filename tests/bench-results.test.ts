// What the bench says of its figures: bars, rows of peers that were not there, the comparison of two runs, drawings.
// Nothing is timed here.

import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { comparable, pairRows, slowdown, verdict } from '../bench/comparison.js';
import { drawCurve } from '../bench/drawCurve.js';
import type { Measurements } from '../bench/measure.js';
import type { Figures } from '../bench/modelJobs.js';
import { registerLoop } from '../bench/registerLoop.js';
import { finish, tableText, type BenchRow } from '../bench/results.js';
import { tableOf } from '../bench/table.js';
import { supportsRelaxedSimd } from '../src/backends/cpu/wasm/emit/assembler.js';

const row = (
  name: string,
  ours: number,
  better: 'lower' | 'higher',
  unit: string,
  more: Partial<BenchRow> = {},
): BenchRow => ({ name, ours, better, unit, peer: null, peerName: '', bar: null, ...more });
const run = (rows: BenchRow[], registerLoop: number | null = 50) => ({ rows: rows.map(finish), registerLoop });

test('a bar is met from its own side, and never by a peer that is absent', () => {
  assert.equal(finish(row('a', 1, 'lower', 's', { peer: 2, bar: 0.5 })).pass, true);
  assert.equal(finish(row('a', 1.01, 'lower', 's', { peer: 2, bar: 0.5 })).pass, false);
  assert.equal(finish(row('a', 1.99, 'higher', 'GFLOP/s', { peer: 2, bar: 1 })).pass, false);
  assert.equal(finish(row('a', 2, 'higher', 'GFLOP/s', { peer: 2, bar: 1 })).pass, true);
  assert.deepEqual(
    [finish(row('a', 2, 'lower', 's', { bar: 1 })).pass, finish(row('a', 2, 'lower', 's', { peer: 1 })).pass],
    [null, null],
  );
});

test('rows are made of what was measured, with the reason where a peer was not', () => {
  const measured: Measurements = {
    jobs: new Map<string, Figures>([
      ['few-shot', { step: 0.5, firstEpoch: 2, peakBytes: 1e9, loadSeconds: 1 }],
      ['few-shot --plain', { step: 0.75, firstEpoch: 3, peakBytes: 1e9 }],
      ['decode-edits', { rate: 33, unedited: 30, ratio: 0.9 }],
      ['edit-pyreft', { given: 0.002, mapped: 0.003 }],
    ]),
    python: [
      { case: 'edit', d: 4096, n: 8, forward_backward: 9 },
      { case: 'edit', d: 4096, n: 112, forward_backward: 1.5, r_given: 0.004 },
    ],
    versions: {},
    missing: new Map([['pyreft', 'no module']]),
    failed: [],
  };
  const rows = tableOf(measured, 2).map(finish);
  const of = (name: string, peerName: string) => rows.find(r => r.name === name && r.peerName === peerName);
  assert.deepEqual(
    { ...of('few-shot', 'pyreft') },
    {
      name: 'few-shot',
      ours: 0.5,
      peer: null,
      peerName: 'pyreft',
      unit: 's',
      better: 'lower',
      bar: 0.35,
      note: 'not measured: no module',
      ratio: null,
      pass: null,
    },
  );
  assert.equal(of('few-shot, plain SIMD', '')?.ours, 0.75);
  assert.equal(of('few-shot, first epoch', '')?.ours, 2);
  assert.equal(of('decode-edits', 'un-edited')?.ratio, 0.9);
  assert.equal(of('edit-pyreft', 'pyreft')?.peer, 1500);
  assert.equal(of('edit-pyreft', 'pyreft')?.pass, true);
  assert.equal(of('edit-pyreft', 'torch, R given')?.ratio, 0.75);
  assert.equal(of('gemm-1t', 'tfjs-wasm'), undefined);
  assert.match(
    tableText(rows),
    /\| few-shot \| 0\.500 \| pyreft \|\s+\| s \|\s+\| at most 0\.350 \|\s+\| not measured: no module \|/,
  );
});

test('the portable bar is the arithmetic at 0.7 of the GEMM rate of the same run', () => {
  const engine = (name: string, gflops: number) => ({
    job: '128x576x1536 A B',
    engine: name,
    minMs: 1,
    medianMs: 1,
    gflops,
  });
  const measured: Measurements = {
    gemm: {
      measured: [engine('plain', 40), engine('fused', 50), engine('fused, 2 threads', 100), engine('tfjs-wasm', 30)],
      registerLoop: { plain: 45, fused: 60 },
      relaxed: true,
      peerVersions: {},
      missing: [],
    },
    jobs: new Map<string, Figures>([
      ['train-1', { step: 2, firstEpoch: 4, peakBytes: 1e9 }],
      ['decode-16', { steps: 10, one: 11, ratio: 0.96, gflops: 70 }],
    ]),
    python: [],
    versions: {},
    missing: new Map(),
    failed: [],
  };
  const rows = tableOf(measured, 2).map(finish);
  const found = (name: string, peerName: string) => rows.find(r => r.name === name && r.peerName === peerName);
  assert.ok(
    Math.abs((found('train-1', 'portable bar')?.peer ?? 0) - 161 / 70) < 1e-12,
    "Math.abs((found('train-1', 'portable bar')?.peer ?? 0) - 161 / 70) ...",
  );
  assert.equal(found('train-1', 'portable bar')?.pass, true);
  assert.equal(found('decode-16', 'our GEMM rate')?.ratio, 0.7);
  assert.equal(found('decode-16', 'one adapter')?.ratio, 0.96);
  assert.equal(found('gemm-1t', 'registers alone')?.ratio, 50 / 60);
  assert.equal(found('gemm-2t', 'tfjs-wasm')?.ratio, 100 / 30);
  assert.equal(found('gemm-1t', 'jax-js')?.note, 'not measured');
});

test('a slower machine alone is no regression; a slower program is', () => {
  const before = run(
    [row('step', 1, 'lower', 's'), row('rate', 100, 'higher', 'tokens/s'), row('memory', 2, 'lower', 'GB')],
    60,
  );
  const slowMachine = run(
    [row('step', 2, 'lower', 's'), row('rate', 50, 'higher', 'tokens/s'), row('memory', 2, 'lower', 'GB')],
    30,
  );
  for (const pair of pairRows(before, slowMachine)) assert.ok(Math.abs(slowdown(pair) - 1) < 1e-12, pair.name);
  const slowProgram = run(
    [
      row('step', 1.2, 'lower', 's'),
      row('rate', 95, 'higher', 'tokens/s'),
      row('memory', 3, 'lower', 'GB'),
      row('new', 1, 'lower', 's'),
    ],
    60,
  );
  const { text, slower } = verdict(pairRows(before, slowProgram), 0.1);
  assert.deepEqual(
    slower.map(p => p.name),
    ['memory', 'step'],
  );
  assert.match(text, /step .*\+20\.0 % {2}SLOWER/);
  assert.match(text, /2 of 3 rows are more than 10 % slower/);
  assert.throws(() => verdict([], 0.1), /no row that both runs have/);
});

test('comparison does not depend on the direction of a figure or on the order of rows', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.1, max: 10, noNaN: true }),
      fc.double({ min: 0.1, max: 10, noNaN: true }),
      (a, b) => {
        const rows = (x: number) => [row('time', x, 'lower', 's'), row('speed', 1 / x, 'higher', 'tokens/s')];
        const [time, speed] = pairRows(run(rows(a)), run(rows(b).reverse())).sort((x, y) =>
          y.name.localeCompare(x.name),
        );
        assert.equal(time.name, 'time');
        assert.ok(
          Math.abs(slowdown(time) / slowdown(speed) - 1) < 1e-12,
          'Math.abs(slowdown(time) / slowdown(speed) - 1) < 1e-12',
        );
        assert.ok(Math.abs(slowdown(time) / (b / a) - 1) < 1e-12, 'Math.abs(slowdown(time) / (b / a) - 1) < 1e-12');
      },
    ),
  );
});

test('runs of different machines, threads or instructions are not compared', () => {
  const facts = { machine: 'A', threads: 2, relaxed: true };
  assert.equal(comparable(facts, facts), null);
  assert.match(comparable(facts, { ...facts, machine: 'B' }) ?? '', /another machine \(A; this is B\)/);
  assert.match(comparable(facts, { ...facts, threads: 1 }) ?? '', /of 2 threads, not 1/);
  assert.match(comparable(facts, { ...facts, relaxed: false }) ?? '', /relaxed SIMD on/);
});

test('a scaling curve is an SVG of its own with every line, and the same points give the same text', () => {
  const points = [1, 2, 4].flatMap(x => [
    { x, y: 3 * x, line: 'first' },
    { x, y: x, line: 'later' },
  ]);
  const curve = { title: 'Steps over rows', x: 'rows', y: 'seconds', note: 'a machine', points };
  const svg = drawCurve(curve);
  assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www.w3.org\/2000\/svg"/);
  for (const text of ['Steps over rows', 'first', 'later', 'a machine']) assert.ok(svg.includes(`>${text}<`), text);
  assert.equal([...svg.matchAll(/<circle/g)].length, 6);
  assert.equal(drawCurve(curve), svg);
});

test('multiply-adds on registers come to their fixed point, whichever instructions do them', () => {
  const loop = registerLoop(false, 100);
  assert.doesNotThrow(() => loop.run());
  assert.equal(loop.flops, 2 * 4 * 12 * 4 * 100);
  if (supportsRelaxedSimd()) assert.doesNotThrow(() => registerLoop(true, 100).run());
});
