// `npm run bench:curves`: how cost grows with tokens, batch, layers, adapters, threads, width and rank, each as an SVG
// in bench/curves/. Steps are loreft edits of rank 4 at the last token of the prompt of SmolLM2, the fastest of a few.
// `--quick` takes two points a curve and writes nothing, `--only tokens,rank` some of them, `--threads N` (default 2)
// and `--weights f32|stored` as for `npm run bench`.

import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';
import { drawCurve, type Curve, type CurvePoint } from './drawCurve.js';
import { machineLoad, machineName } from './results.js';

// This process is ours: ask for fused multiply-add before anything compiles.
allowRelaxedSimd();
const { createCpuBackend } = await import('../src/backends/cpu/cpu.js');
const { getReftModel, mixEdits } = await import('../src/index.js');
const { wholeEdit } = await import('./edit.js');
const { decodeRate, examples, openModel, stepSeconds, tokens } = await import('./modelJobs.js');

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    threads: { type: 'string', default: '2' },
    weights: { type: 'string', default: 'f32' },
  },
});
const { quick } = values;
const only = values.only.split(',').filter(Boolean);
const threads = Number(values.threads);
const weights = values.weights === 'stored' ? 'stored' : 'f32';
const backend = createCpuBackend({ threads });
const { base } = await openModel({ backend, weights, quick });

/** All points, or the two that take least. */
const points = (...xs: number[]): number[] => (quick ? xs.slice(0, 2) : xs);

/** A point a value and line; the first step of a run, and the fastest of the later ones. */
async function training(
  xs: readonly number[],
  of: (x: number) => { batch: number; length: number; layers: readonly number[] },
): Promise<CurvePoint[]> {
  const found: CurvePoint[] = [];
  for (const x of xs) {
    const { batch, length, layers } = of(x);
    const [first, ...later] = await stepSeconds(
      base,
      { layers, positions: 'l1', rank: 4 },
      examples(batch, length, length / 2),
      quick ? 2 : 4,
    );
    found.push({ x, y: first, line: 'first epoch' }, { x, y: Math.min(...later), line: 'later epochs' });
  }
  return found;
}

async function edits(xs: readonly number[], of: (x: number) => readonly [d: number, r: number]): Promise<CurvePoint[]> {
  const found: CurvePoint[] = [];
  for (const x of xs) {
    const [d, r] = of(x);
    const { given, mapped } = wholeEdit(backend, d, r, 112);
    const bench = new Bench({ time: quick ? 20 : 300, warmupTime: 50 });
    bench.add('R given', given).add('R from its map', mapped);
    await bench.run();
    for (const { name, result } of bench.tasks)
      found.push({ x, y: (result as { latency: { min: number } }).latency.min, line: name });
  }
  return found;
}

/**
 * New tokens a second, all rows together: a batch of 16 rows that has so many different adapters, each editing every
 * token in ten layers.
 */
async function adapters(): Promise<CurvePoint[]> {
  const layers = Array.from({ length: 10 }, (_, i) => 3 * i);
  const prompts = Array.from({ length: 16 }, (_, i) => tokens(16, i));
  const found: CurvePoint[] = [];
  for (const x of points(1, 2, 4, 8, 16)) {
    const sets = Array.from({ length: x }, (_, i) =>
      getReftModel(base, { layers, positions: 'all', rank: 8, seed: 100 * i }),
    );
    const mixed = mixEdits(prompts.map((_, row) => sets[row % x]));
    const rates: number[] = [];
    for (let i = 0; i < (quick ? 1 : 3); i++) rates.push(16 * (await decodeRate(mixed, prompts, quick ? 4 : 16)));
    found.push({ x, y: Math.max(...rates), line: 'ten edits a token' });
    mixed.dispose();
  }
  return found;
}

/** Tokens a second of a prompt of 256, on backends of their own. */
async function threadCounts(): Promise<CurvePoint[]> {
  const found: CurvePoint[] = [];
  for (let x = 1; x <= Math.max(2, availableParallelism()); x++) {
    const own = createCpuBackend({ threads: x });
    const model = (await openModel({ backend: own, weights, quick })).base;
    const rates: number[] = [];
    for (let i = 0; i < (quick ? 2 : 5); i++)
      rates.push(256 / (await model.generate(tokens(256, 0), { maxNewTokens: 1, stopTokenIds: [] }))[0].promptSeconds);
    found.push({ x, y: Math.max(...rates), line: 'prompt of 256 tokens' });
    await own.close();
  }
  return found;
}

const topLayers = (n: number): number[] => Array.from({ length: n }, (_, i) => base.config.layers - n + i);
const curves: Readonly<Record<string, Omit<Curve, 'points'> & { measure: () => Promise<CurvePoint[]> }>> = {
  tokens: {
    title: 'A training step over tokens in a row: 2 rows, layer 15',
    x: 'tokens',
    y: 'seconds',
    measure: () => training(points(32, 64, 128, 256, 512), length => ({ batch: 2, length, layers: [15] })),
  },
  batch: {
    title: 'A training step over rows of 64 tokens: layer 15',
    x: 'rows',
    y: 'seconds',
    measure: () => training(points(1, 2, 4, 8, 16), batch => ({ batch, length: 64, layers: [15] })),
  },
  layers: {
    title: 'A training step over edited layers, from the top down: 4 rows of 64 tokens',
    x: 'layers',
    y: 'seconds',
    measure: () => training(points(1, 5, 10, 20, 30), n => ({ batch: 4, length: 64, layers: topLayers(n) })),
  },
  width: {
    title: 'An edit of 112 positions, forward and backward, over their width: rank 8',
    x: 'd',
    y: 'milliseconds',
    measure: () => edits(points(256, 576, 1024, 2048, 4096, 8192), d => [d, 8]),
  },
  rank: {
    title: 'An edit of 112 positions, forward and backward, over its rank: width 2048',
    x: 'r',
    y: 'milliseconds',
    measure: () => edits(points(1, 2, 4, 8, 16, 32, 64), r => [2048, r]),
  },
  adapters: {
    title: 'Decoding 16 rows over different adapters in the batch',
    x: 'adapters',
    y: 'tokens a second',
    fromZero: true,
    measure: adapters,
  },
  threads: {
    title: 'A prompt over threads',
    x: 'threads',
    y: 'tokens a second',
    fromZero: true,
    measure: threadCounts,
  },
};

for (const name of only)
  if (!Object.hasOwn(curves, name))
    throw new RangeError(`--only: expected some of ${Object.keys(curves).join(', ')}, got ${name}`);
const load = machineLoad();
if (load > 0.5) console.error(`the machine is busy (load ${load}): figures will be too slow`);
const folder = new URL('curves/', import.meta.url);
const note = `${machineName()}, ${threads} threads, Node ${process.version}, load before ${load}`;
for (const [name, { measure, ...about }] of Object.entries(curves)) {
  if (only.length > 0 && !only.includes(name)) continue;
  const begin = performance.now();
  const measured = await measure();
  console.log(`${about.title} (${about.y}; ${((performance.now() - begin) / 1000).toFixed(0)} s)`);
  for (const { x, y, line } of measured) console.log(`  ${about.x} ${x}, ${line}: ${y.toPrecision(3)}`);
  const svg = drawCurve({
    ...about,
    points: measured,
    note: name === 'threads' ? note.replace(/, \d+ threads/, '') : note,
  });
  if (quick) continue;
  mkdirSync(folder, { recursive: true });
  writeFileSync(new URL(`${name}.svg`, folder), svg);
  console.log(`  ${fileURLToPath(new URL(`${name}.svg`, folder))}`);
}
process.exit(0);
