// The page of the WebGPU bench: matmul against peers, the fused edit against its composition, and what a training step
// asks of the device. The runner is bench/browser.ts. Nothing is asserted but that peers computed the same product.

import { createWebGpuBackend, type WebGpuBackend } from '../../src/backends/webgpu/index.js';
import { gradientsOf } from '../../src/autograd/tape.js';
import { scope } from '../../src/autograd/scope.js';
import type { Example } from '../../src/data/examples.js';
import { edit } from '../../src/reft/editOp.js';
import { getReftModel } from '../../src/reft/reftModel.js';
import { ReftTrainer } from '../../src/reft/reftTrainer.js';
import { create } from '../../src/tensor/create.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { tinyIds, tinyModel } from '../../tests/helpers/tinyModel.js';
import type { BenchRow } from '../results.js';
import { jaxJs, tfjs, type Product } from './peers.js';

export interface BenchResult {
  readonly adapter: string;
  readonly rows: readonly BenchRow[];
  /** Peers that were not measured, and why. */
  readonly missing: readonly string[];
}

declare global {
  interface Window {
    bench(peers: string, seconds: number): Promise<BenchResult>;
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/**
 * Milliseconds of one call of each, medians of rounds that go round the jobs in turn, so that a busy moment of the
 * machine meets all of them. A round of a job is as many calls as take about a fifth of a second.
 */
async function timed(jobs: readonly ((times: number) => Promise<void>)[], seconds: number): Promise<number[]> {
  const counts: number[] = [];
  for (const job of jobs) {
    await job(2);
    const from = performance.now();
    await job(2);
    counts.push(Math.max(1, Math.ceil(400 / Math.max(0.1, performance.now() - from))));
  }
  const times: number[][] = jobs.map(() => []);
  const until = performance.now() + 1000 * seconds * jobs.length;
  do {
    for (const [i, job] of jobs.entries()) {
      const from = performance.now();
      await job(counts[i]);
      times[i].push((performance.now() - from) / counts[i]);
    }
  } while (performance.now() < until || times[0].length < 5);
  return times.map(median);
}

function checkSame(peer: string, actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  const scale = Array.from(expected).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  for (let i = 0; i < expected.length; i++) {
    if (!(Math.abs(actual[i] - expected[i]) <= 1e-4 * scale))
      throw new Error(`${peer} computed another product: ${actual[i]} at ${i}, ours ${expected[i]}`);
  }
}

async function matmul(backend: WebGpuBackend, peers: string, seconds: number, missing: string[]): Promise<BenchRow[]> {
  const [m, k, n] = [128, 576, 1536];
  const [a, b] = [
    [m, k],
    [k, n],
  ].map((shape, i) => create.normal(shape, { seed: i + 1, backend }));
  const ours: Product = {
    run: async times => {
      for (let i = 0; i < times; i++)
        scope(() => {
          a.matmul(b);
        });
      await backend.flush();
    },
    read: async () => (await a.matmul(b).data()) as ArrayLike<number>,
  };
  const [x, y] = [Float32Array.from(await a.data()), Float32Array.from(await b.data())];
  const products: { name: string; product: Product }[] = [];
  for (const [name, open] of [
    ['jax-js', jaxJs],
    ['tfjs-webgpu', tfjs],
  ] as const) {
    try {
      const product = (await open(peers)).product(x, y, m, k, n);
      checkSame(name, await product.read(), await ours.read());
      products.push({ name, product });
    } catch (error) {
      missing.push(`${name} is not measured: ${(error as Error).message}`);
    }
  }
  const times = await timed(
    [ours, ...products.map(p => p.product)].map(p => calls => p.run(calls)),
    seconds,
  );
  const [own, ...others] = times.map(ms => (2 * m * k * n) / ms / 1e6);
  const row = { name: `matmul ${m}x${k}x${n}`, ours: own, unit: 'GFLOP/s', better: 'higher' } as const;
  if (others.length === 0) return [{ ...row, peer: null, peerName: '', bar: null }];
  return others.map((peer, i) => ({
    ...row,
    peer,
    peerName: products[i].name,
    bar: products[i].name === 'jax-js' ? 1.3 : null,
  }));
}

/** Forward and backward of one LoReFT edit of `n` rows; every row is edited. */
function editStep(backend: WebGpuBackend, d: number, r: number, n: number): (times: number) => Promise<void> {
  const make = (shape: number[], seed: number): Tensor =>
    create.normal(shape, { seed, backend, std: 1 / Math.sqrt(d) }).requireGrad();
  const [W, R] = [make([1, r, d], 1), make([1, r, d], 2)];
  const [b, h] = [make([1, r], 3), make([n, d], 4)];
  const gradient = create.normal([n, d], { seed: 5, backend });
  const [indices, slots] = [Int32Array.from({ length: n }, (_, i) => i), new Int32Array(n)];
  return async times => {
    for (let i = 0; i < times; i++)
      scope(() => {
        gradientsOf(edit(h, { A: W, b, C: R, P: R }, { indices, slots }), [h, W, b, R], { gradient });
      });
    await backend.flush();
  };
}

async function edits(backend: WebGpuBackend, seconds: number): Promise<BenchRow[]> {
  // A second device on which the composition runs.
  const composed = await createWebGpuBackend();
  for (const name of [...composed.fused.keys()])
    if (name === 'edit' || name.startsWith('edit.')) (composed.fused as Map<string, unknown>).delete(name);
  const rows: BenchRow[] = [];
  for (const [d, r, n] of [
    [576, 4, 1],
    [576, 4, 112],
    [2048, 8, 112],
  ]) {
    const [ours, peer] = await timed([editStep(backend, d, r, n), editStep(composed, d, r, n)], seconds);
    rows.push({
      name: `edit d ${d}, r ${r}, n ${n}, forward and backward`,
      ours,
      peer,
      peerName: 'composed',
      unit: 'ms',
      better: 'lower',
      bar: null,
    });
  }
  await composed.close();
  return rows;
}

/** Counts of one LoReFT step on a LLaMA of 5 layers, after the first ones, and the time of it. */
async function trainingStep(backend: WebGpuBackend): Promise<BenchRow[]> {
  const model = await tinyModel({
    hidden: 64,
    layers: 5,
    heads: 8,
    kvHeads: 4,
    vocabulary: 512,
    maxPositions: 128,
    device: backend,
  });
  const examples = Array.from({ length: 8 }, (_, i): Example => {
    const ids = tinyIds(32, i, 512);
    return { ids, promptLength: 20, labels: ids.slice().fill(-100, 0, 20), truncated: 0, where: `row ${i}` };
  });
  const reft = getReftModel(model, { layers: [1, 3], positions: 'f1+l1', rank: 4 });
  const trainer = new ReftTrainer(reft, { examples, steps: 24, batchSize: 8, learningRate: 1e-3 });
  const counts: Record<'submits' | 'dispatches' | 'reads' | 'pipelines', number[]> = {
    submits: [],
    dispatches: [],
    reads: [],
    pipelines: [],
  };
  const names = Object.keys(counts) as (keyof typeof counts)[];
  const times: number[] = [];
  let before = { ...backend.counters };
  for await (const { index, seconds } of trainer.steps()) {
    const now = { ...backend.counters };
    if (index > 8) {
      times.push(1000 * seconds);
      for (const name of names) counts[name].push(now[name] - before[name]);
    }
    before = now;
  }
  const what = 'LoReFT training step, 5 layers of 64, 8 rows of 32 tokens';
  const row = (name: string, ours: number, unit: string): BenchRow => ({
    name: `${what}: ${name}`,
    ours,
    peer: null,
    peerName: '',
    unit,
    better: 'lower',
    bar: null,
  });
  return [...names.map(name => row(name, median(counts[name]), 'a step')), row('time', median(times), 'ms')];
}

window.bench = async (peers, seconds) => {
  const backend = await createWebGpuBackend();
  const { vendor, architecture, description, software } = backend.adapter;
  const missing: string[] = [];
  const rows = [
    ...(await matmul(backend, peers, seconds, missing)),
    ...(await edits(backend, seconds)),
    ...(await trainingStep(backend)),
  ];
  await backend.close();
  return {
    adapter: `${[vendor, architecture, description].filter(Boolean).join(' ')}${software ? ' (software)' : ''}`,
    rows,
    missing,
  };
};
