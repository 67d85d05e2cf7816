// Profiles of training and generation on a tiny model: figures add up and land where they belong, results do not
// change, everything is put back, and the trace nests.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { observer } from '../src/autograd/observer.js';
import { Node } from '../src/autograd/tape.js';
import type { Backend } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { CausalLM } from '../src/models/causalLM.js';
import { Run } from '../src/models/run.js';
import { blockComponents } from '../src/models/sites.js';
import { AdamW, SGD } from '../src/nn/optim.js';
import {
  formatProfile,
  startProfile,
  type Profile,
  type ProfileReport,
  type ProfileRow,
  type TraceEvent,
} from '../src/profile/index.js';
import { getReftModel, ReftTrainer } from '../src/reft/index.js';
import { PrefixReuse } from '../src/train/reuse.js';
import { create } from '../src/tensor/create.js';
import { Tensor } from '../src/tensor/tensor.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const examples = tinyExamples(4);

/** Three steps, profiled or not. */
async function train(options: { profiled: boolean; reuse?: boolean; recompute?: boolean; backend?: Backend }) {
  const { profiled, reuse = false, recompute = false, backend = createCpuBackend() } = options;
  const reft = getReftModel(await tinyModel({ device: backend }), { layers: [1], positions: 'l1', rank: 2 });
  const trainer = new ReftTrainer(reft, { examples, steps: 3, batchSize: 4, reuse, recompute });
  const profile = profiled ? startProfile({ backend }) : undefined;
  const losses: number[] = [];
  try {
    for await (const step of trainer.steps()) {
      losses.push(step.loss);
      profile?.mark(`step ${step.index}`);
    }
  } finally {
    profile?.stop();
  }
  const parameters = await Promise.all(reft.trained().map(async t => [...(await t.tensor.data())]));
  return { losses, parameters, profile: profile as Profile };
}

const sum = (rows: readonly ProfileRow[], of: (row: ProfileRow) => number): number =>
  rows.reduce((n, row) => n + of(row), 0);
const flopAt = (
  report: ProfileReport,
  phase: string,
  test: (component: string, layer: number | null) => boolean,
): number =>
  sum(
    report.sites.filter(s => s.phase === phase && test(s.component, s.layer)),
    s => s.flop,
  );

test('results with a profile are those without, bit for bit', async () => {
  for (const reuse of [false, true]) {
    const [off, on] = [await train({ profiled: false, reuse }), await train({ profiled: true, reuse })];
    assert.deepEqual(on.losses, off.losses);
    assert.deepEqual(on.parameters, off.parameters);
    assert.ok(on.profile.stop().calls > 100, 'on.profile.stop().calls > 100');
  }
});

test('calls, time, operations and bytes by op, by site, by component and by phase add up to the same', async () => {
  const report = (await train({ profiled: true })).profile.stop();
  assert.ok(
    report.calls > 0 && report.flop > 0 && report.bytes > 0 && report.kernelMs > 0,
    'report.calls > 0 && report.flop > 0 && report.bytes > 0 && report.k...',
  );
  for (const rows of [report.ops, report.sites, report.components, report.phases]) {
    assert.equal(
      sum(rows, r => r.calls),
      report.calls,
    );
    assert.equal(
      sum(rows, r => r.flop),
      report.flop,
    );
    assert.equal(
      sum(rows, r => r.bytes),
      report.bytes,
    );
    assert.ok(
      Math.abs(sum(rows, r => r.ms) - report.kernelMs) <= 1e-9 * report.kernelMs,
      'Math.abs(sum(rows, r => r.ms) - report.kernelMs) <= 1e-9 * report.k...',
    );
    assert.ok(Math.abs(sum(rows, r => r.share) - 1) < 1e-9, 'Math.abs(sum(rows, r => r.share) - 1) < 1e-9');
    rows.forEach((row, i) => assert.ok(i === 0 || rows[i - 1].ms >= row.ms, 'longest first'));
    for (const row of rows)
      if (row.gflops !== null)
        assert.ok(
          Math.abs(row.gflops * row.ms * 1e6 - row.flop) <= 1e-9 * row.flop,
          'Math.abs(row.gflops * row.ms * 1e6 - row.flop) <= 1e-9 * row.flop',
        );
  }
  assert.ok(report.kernelMs + report.waitMs <= report.wallMs, 'report.kernelMs + report.waitMs <= report.wallMs');
  assert.deepEqual(
    report.steps.map(s => s.name),
    ['step 1', 'step 2', 'step 3'],
  );
  assert.ok(
    sum(report.steps as never, s => s.ms) <= report.wallMs,
    'sum(report.steps as never, s => s.ms) <= report.wallMs',
  );
});

test('a forward pass costs what its matrices say, each product at its site', async () => {
  const backend = createCpuBackend();
  const model = await tinyModel({ device: backend });
  const { layers, hiddenSize: d, intermediateSize: f, heads, kvHeads, headDim, vocabSize } = model.config;
  const [B, T] = [2, 5];
  const profile = startProfile({ backend });
  model.forward({ inputIds: tinyIds(B * T, 1), shape: [B, T] });
  const report = profile.stop();
  const products = report.ops.filter(r => r.name.startsWith('matmul'));
  const perToken = layers * (2 * d * heads * headDim + 2 * d * kvHeads * headDim + 3 * d * f) + vocabSize * d;
  // What is added to the hidden states, twice in a block, is added by the products.
  assert.equal(
    sum(products, r => r.flop),
    2 * B * T * perToken + layers * B * T * 2 * d,
  );
  assert.deepEqual(
    report.phases.map(r => r.name),
    ['forward'],
  );
  assert.deepEqual(report.declined, {});

  for (let layer = 0; layer < layers; layer++) {
    const at = (component: string) => report.sites.find(s => s.name === `${component}/${layer}`);
    // Sums are made by the products before them, keys and values in one step with the queries.
    const without = ['block_input', 'key_output', 'value_output', 'block_middle', 'block_output'];
    for (const component of blockComponents)
      assert.equal(at(component) === undefined, without.includes(component), `${component}/${layer}`);
    assert.equal(at('query_output')?.flop, 2 * B * T * d * (heads + 2 * kvHeads) * headDim);
    assert.equal(at('mlp_output')?.flop, 2 * B * T * d * f + B * T * d);
    assert.equal(at('attention_output')?.flop, 2 * B * T * d * heads * headDim + B * T * d);
    assert.equal(at('mlp_output')?.layer, layer);
  }
  assert.equal(report.components.find(c => c.name === 'mlp_output')?.calls, layers);
  const head = report.sites.find(s => s.name === 'head');
  assert.equal(head?.flop, 2 * B * T * vocabSize * d + 4 * B * T * d);
});

test('training: the way back is placed at the sites it came from, above the edit alone; edits, loss and updates have their own', async () => {
  const report = (await train({ profiled: true })).profile.stop();
  assert.deepEqual(new Set(report.phases.map(p => p.name)), new Set(['forward', 'backward', 'optimizer']));
  const forward = flopAt(report, 'forward', (component, layer) => layer === 2 && component === 'mlp_output');
  // Of 2 f + 1 operations for each number, one adds the residual; nothing of that is on the way back.
  const { intermediateSize: f } = (await tinyModel({ device: createCpuBackend() })).config;
  assert.equal(
    flopAt(report, 'backward', (component, layer) => layer === 2 && component === 'mlp_output') * (2 * f + 1),
    forward * 2 * f,
  );
  assert.equal(
    flopAt(
      report,
      'backward',
      (component, layer) => (layer ?? 9) < 1 || (layer === 1 && component !== 'block_output edits'),
    ),
    0,
  );
  for (const phase of ['forward', 'backward']) {
    assert.ok(flopAt(report, phase, component => component === 'block_output edits') > 0, phase);
    assert.ok(flopAt(report, phase, component => component === 'loss') > 0, phase);
  }
  const adamw = report.ops.find(r => r.name === 'map adamw');
  assert.equal(adamw?.calls, report.phases.find(p => p.name === 'optimizer')?.calls);
  assert.equal((adamw?.calls ?? 0) % 3, 0);
});

test('blocks that run again count as forward, their way back at the sites it came from', async () => {
  const [again, once] = [await train({ profiled: true, recompute: true }), await train({ profiled: true })];
  assert.deepEqual(again.losses, once.losses);
  const [a, b] = [again, once].map(run => run.profile.stop());
  const product = (component: string, layer: number | null): boolean => layer === 2 && component === 'mlp_output';
  assert.equal(flopAt(a, 'forward', product), 2 * flopAt(b, 'forward', product));
  assert.equal(flopAt(a, 'backward', product), flopAt(b, 'backward', product));
  assert.equal(
    flopAt(a, 'forward', (_, layer) => layer === 0),
    flopAt(b, 'forward', (_, layer) => layer === 0),
  );
  assert.deepEqual(new Set(a.phases.map(p => p.name)), new Set(b.phases.map(p => p.name)));
});

test('with reuse, what is computed once is a phase of its own, and steps cost less', async () => {
  const [kept, whole] = [await train({ profiled: true, reuse: true }), await train({ profiled: true })].map(run =>
    run.profile.stop(),
  );
  assert.ok(
    flopAt(kept, 'reuse', (_, layer) => layer === 0) > 0,
    "flopAt(kept, 'reuse', (_, layer) => layer === 0) > 0",
  );
  assert.equal(
    flopAt(kept, 'forward', (_, layer) => layer === 0),
    0,
  );
  assert.ok(
    flopAt(kept, 'forward', () => true) < flopAt(whole, 'forward', () => true),
    "flopAt(kept, 'forward', () => true) < flopAt(whole, 'forward', () =...",
  );
});

test('memory: the peak of the profiled time, and what a read brings back', async () => {
  const backend = createCpuBackend();
  const before = create.zeros([1000], { backend });
  const profile = startProfile({ backend });
  const big = create.zeros([50_000], { backend });
  big.storage.dispose();
  await create.zeros([10], { backend }).data();
  const report = profile.stop();
  assert.ok(report.peakBytes >= 4 * 51_000 && report.peakBytes < 4 * 51_000 * 1.3, `${report.peakBytes}`);
  assert.ok(report.backendPeakBytes >= report.peakBytes, 'report.backendPeakBytes >= report.peakBytes');
  assert.ok(report.waitMs >= 0, 'report.waitMs >= 0');
  assert.equal(report.reads, 1);
  assert.equal(before.size, 1000);
});

test('after stop everything is as before; another backend is never measured', async () => {
  const [backend, neighbour] = [createCpuBackend(), createCpuBackend()];
  const state = () => [
    ...[backend, neighbour].flatMap(b => [
      ...Object.values(b.kernels),
      ...b.fused.values(),
      b.allocate,
      b.write,
      b.read,
    ]),
    ...[Tensor, Node, Run, CausalLM, AdamW, PrefixReuse].flatMap(type =>
      Object.entries(Object.getOwnPropertyDescriptors(type.prototype)).flat(),
    ),
  ];
  const ofEngine = () =>
    [Tensor, Node, AdamW, SGD, PrefixReuse].flatMap(type =>
      Object.entries(Object.getOwnPropertyDescriptors(type.prototype)).flat(),
    );
  const [before, engineBefore] = [state(), ofEngine()];
  assert.equal(observer, null);
  const profile = startProfile({ backend });
  assert.notEqual(backend.kernels.map, before[0]);
  // The engine tells its observer; its own methods stay as they are.
  assert.notEqual(observer, null);
  assert.deepEqual(ofEngine(), engineBefore);
  create.zeros([3], { backend: neighbour }).add(1);
  create.zeros([3], { backend }).add(1);
  const report = profile.stop();
  assert.equal(report.calls, 2);
  assert.deepEqual(state(), before);
  assert.equal(observer, null);
  create.zeros([3], { backend }).add(1);
  assert.equal(profile.stop().calls, 2);
  assert.deepEqual(Object.keys(Object.getOwnPropertyDescriptor(AdamW.prototype, 'step') ?? {}), [
    'value',
    'writable',
    'enumerable',
    'configurable',
  ]);
});

test('an error inside leaves the profile usable, and what is asked wrongly is said', async () => {
  const backend = createCpuBackend();
  const model = await tinyModel({ device: backend });
  assert.throws(
    () => startProfile({ backend, traceCalls: -1 }),
    /traceCalls: expected a whole number from 0 on, got -1/,
  );
  const profile = startProfile({ backend });
  assert.throws(() => startProfile({ backend: createCpuBackend() }), /another profile is running/);
  assert.throws(() => profile.trace(), /after stop/);
  assert.throws(() => model.forward({ inputIds: Int32Array.of(1, 99), shape: [1, 2] }), /outside the vocabulary/);
  model.forward({ inputIds: Int32Array.of(1, 2), shape: [1, 2] });
  const report = profile.stop();
  assert.ok(report.calls > 0, 'report.calls > 0');
  assert.throws(() => profile.mark('late'), /after stop/);
  startProfile({ backend }).stop();
});

test('the trace is JSON whose events nest: part, phase, site, kernel', async () => {
  const { profile } = await train({ profiled: true, reuse: true });
  const report = profile.stop();
  const trace = JSON.parse(JSON.stringify(profile.trace())) as {
    traceEvents: TraceEvent[];
    otherData: Record<string, unknown>;
  };
  assert.deepEqual(trace.otherData, { producer: 'reft', backend: 'cpu' });
  const events = trace.traceEvents;
  const levels = ['part', 'phase', 'site', 'kernel'];
  const complete = events.filter(e => e.ph === 'X');
  for (const e of complete) {
    assert.ok(
      levels.includes(e.cat as string) &&
        e.ts >= 0 &&
        (e.dur as number) >= 0 &&
        e.pid === 1 &&
        e.tid === 1 &&
        typeof e.name === 'string',
      'levels.includes(e.cat as string) && e.ts >= 0 && (e.dur as number) ...',
    );
  }
  const end = (e: TraceEvent): number => e.ts + (e.dur as number);
  const byLevel = levels.map(level =>
    complete.filter(e => e.cat === level).sort((a, b) => a.ts - b.ts || end(a) - end(b)),
  );
  byLevel.forEach((list, level) => {
    list.forEach((e, i) => assert.ok(i === 0 || end(list[i - 1]) <= e.ts, `${e.name} overlaps its neighbour`));
    if (level === 0) return;
    let parent = 0;
    for (const e of list) {
      while (parent < byLevel[level - 1].length && end(byLevel[level - 1][parent]) < end(e)) parent++;
      const above = byLevel[level - 1][parent];
      assert.ok(above && above.ts <= e.ts && end(above) >= end(e), `${e.name} lies in no ${levels[level - 1]}`);
    }
  });
  assert.deepEqual(
    byLevel[0].map(e => e.name),
    ['step 1', 'step 2', 'step 3'],
  );
  assert.equal(byLevel[3].length, report.calls);
  assert.ok(
    byLevel[2].some(e => e.name === 'mlp_output/2') && byLevel[1].some(e => e.name === 'backward'),
    "byLevel[2].some(e => e.name === 'mlp_output/2') && byLevel[1].some(...",
  );
  const reads = events.filter(e => e.cat === 'read');
  assert.equal(reads.filter(e => e.ph === 'b').length, report.reads);
  assert.equal(reads.filter(e => e.ph === 'e').length, report.reads);
  assert.ok(
    events.some(e => e.ph === 'C' && e.name === 'memory' && (e.args?.live as number) > 0),
    "events.some(e => e.ph === 'C' && e.name === 'memory' && (e.args?.li...",
  );
});

test('a trace keeps the calls it was asked to keep; figures count all', async () => {
  const backend = createCpuBackend();
  const x = create.ones([4], { backend });
  const profile = startProfile({ backend, traceCalls: 2 });
  for (let i = 0; i < 5; i++) x.add(1);
  assert.equal(profile.stop().calls, 5);
  const { traceEvents, otherData } = profile.trace();
  assert.equal(traceEvents.filter(e => e.cat === 'kernel').length, 2);
  assert.equal(otherData.kernelsLeftOut, 3);
});

test('fused kernels that decline are counted, not timed', () => {
  const backend = createCpuBackend();
  backend.fused.set('never', () => false);
  const profile = startProfile({ backend });
  assert.equal(backend.fused.get('never')?.({ inputs: [], outputs: [], attributes: {} }), false);
  const report = profile.stop();
  assert.deepEqual(report.declined, { never: 1 });
  assert.equal(report.calls, 0);
  assert.match(formatProfile(report), /the fused kernel declined: never 1/);
});

test('the table shows the longest rows and adds up the rest', async () => {
  const report = (await train({ profiled: true })).profile.stop();
  const text = formatProfile(report, { rows: 3 });
  const [byOp] = text.split('by site, layers together');
  assert.match(text, /^profile \(cpu\): .* 3 parts; \d+ kernels .*\n\d+\.\d\d GFLOP at /);
  for (const row of report.ops.slice(0, 3)) assert.ok(byOp.includes(row.name), 'byOp.includes(row.name)');
  assert.ok(
    byOp.includes(`${report.ops.length - 3} more: ${sum(report.ops.slice(3), r => r.ms).toFixed(1)} ms`),
    'byOp.includes(`${report.ops.length - 3} more: ${sum(report.ops.slic...',
  );
  for (const row of report.components.slice(0, 3))
    assert.ok(text.includes(`${row.phase}  ${row.name}`), 'text.includes(`${row.phase} ${row.name}`)');
});
