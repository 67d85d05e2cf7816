// GEMM against tfjs-wasm and jax-js, one thread, in one process and interleaved: every round measures each engine for a moment, and the
// figure is the best of the rounds' fastest calls, because other work on the machine only ever adds time.
// Alone: `npx tsx bench/gemm.ts [--json FILE] [--only TEXT] [--rounds N]`.

import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';
import { supportsRelaxedSimd } from '../src/backends/cpu/wasm/assembler.js';
import { createGemm } from '../src/backends/cpu/wasm/gemm.js';
import { openPeers, type Peer, type PeerProduct } from './gemmPeers.js';
import type { BenchRow } from './results.js';

interface Job {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly batch: number;
  /** B stored [n, k], as weights are. */
  readonly transposed: boolean;
}

const job = (m: number, k: number, n: number, transposed: boolean, batch = 1): Job => ({ m, k, n, batch, transposed });
const nameOf = ({ m, k, n, batch, transposed }: Job): string =>
  `${batch > 1 ? `${batch} of ` : ''}${m}x${k}x${n} ${transposed ? 'A Bt' : 'A B'}`;

/** The required size first; then layers of a 576-wide model, its vocabulary, attention heads, mat-vec and rank-4 products. */
const quickJobs = [job(128, 576, 1536, false), job(128, 576, 1536, true), job(1, 576, 1536, true)];
const jobs = [
  ...quickJobs,
  job(520, 576, 1536, false), job(520, 576, 1536, true), job(520, 576, 576, false), job(520, 1536, 576, false), job(512, 512, 512, false),
  job(1, 576, 49152, true), job(1, 576, 49152, false), job(121, 576, 49152, true), job(121, 576, 49152, false),
  job(4, 576, 1536, true), job(8, 576, 1536, false), job(112, 576, 4, true), job(112, 4, 576, false),
  job(128, 64, 128, true, 9), job(128, 128, 64, false, 9),
];

export interface Measured {
  readonly job: string;
  readonly engine: string;
  readonly minMs: number;
  /** Median of the rounds' medians. */
  readonly medianMs: number;
  readonly gflops: number;
}

/** A memory with room for the largest job, and products in it. */
function ours() {
  const pages = Math.ceil((4 * 64 * 2 ** 20) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536 });
  const floats = new Float32Array(memory.buffer);
  const scratchAt = 3 * 64 * 2 ** 20;
  const engines = new Map([['plain', createGemm(memory, () => scratchAt)]]);
  if (supportsRelaxedSimd()) engines.set('fused', createGemm(memory, () => scratchAt, { relaxed: true }));
  const place = ({ m, k, n, batch, transposed }: Job) => {
    const round = (x: number): number => Math.ceil(x / 16) * 16;
    const [aAt, bAt] = [16, 16 + round(batch * m * k)];
    const cAt = bAt + round(batch * k * n);
    const a = floats.subarray(aAt, aAt + batch * m * k);
    const b = floats.subarray(bAt, bAt + batch * k * n);
    const c = floats.subarray(cAt, cAt + batch * m * n);
    let state = 12345;
    const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) | 0) / 2 ** 31;
    for (const array of [a, b]) for (let i = 0; i < array.length; i++) array[i] = next();
    const call = {
      a: { byteOffset: 4 * aAt, shape: [batch, m, k], strides: [m * k, k, 1] },
      b: { byteOffset: 4 * bAt, shape: [batch, k, n], strides: transposed ? [k * n, 1, k] : [k * n, n, 1] },
      output: { byteOffset: 4 * cAt, shape: [batch, m, n], strides: [m * n, n, 1] },
    };
    return { a, b, c, call };
  };
  return { engines, place };
}

function sameResult(job: Job, peer: string, got: Float32Array, expected: Float32Array): void {
  let [difference, size] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(got[i] - expected[i]));
    size = Math.max(size, Math.abs(expected[i]));
  }
  if (got.length === expected.length && difference <= 1e-4 * size) return;
  throw new Error(`${nameOf(job)}: ${peer} computes something else (off by ${difference})`);
}

async function measure(job: Job, machine: ReturnType<typeof ours>, peers: readonly Peer[], rounds: number): Promise<Measured[]> {
  const { a, b, c, call } = machine.place(job);
  const tasks = new Map<string, () => void | Promise<void>>();
  for (const [name, gemm] of machine.engines) tasks.set(name, () => void gemm.matmul(call));
  machine.engines.get('plain')?.matmul(call);
  const products: PeerProduct[] = [];
  for (const peer of peers) {
    const product = peer.product(a.slice(), b.slice(), job.batch, job.m, job.k, job.n, job.transposed);
    products.push(product);
    sameResult(job, peer.name, product.read(), c);
    tasks.set(peer.name, () => product.run());
  }
  const minima = new Map<string, number[]>();
  const medians = new Map<string, number[]>();
  const note = (into: Map<string, number[]>, name: string, value: number): void => void into.set(name, [...(into.get(name) ?? []), value]);
  for (let round = 0; round < rounds; round++) {
    const bench = new Bench({ time: 40, warmupTime: round === 0 ? 40 : 2, iterations: 2, warmupIterations: 1 });
    // Calls that take most of a second are measured in the first round only.
    for (const [name, run] of tasks) if ((minima.get(name)?.[0] ?? 0) < 400) bench.add(name, run);
    await bench.run();
    for (const task of bench.tasks) {
      if (!('latency' in task.result)) throw new Error(`${nameOf(job)}: ${task.name} failed`);
      const { min, p50 } = task.result.latency;
      note(minima, task.name, min);
      note(medians, task.name, p50);
    }
  }
  products.forEach(p => p.dispose());
  const flops = 2 * job.batch * job.m * job.k * job.n;
  return [...tasks.keys()].map(engine => {
    const minMs = Math.min(...(minima.get(engine) ?? []));
    const middle = (medians.get(engine) ?? []).sort((x, y) => x - y);
    return { job: nameOf(job), engine, minMs, medianMs: middle[middle.length >> 1], gflops: flops / minMs / 1e6 };
  });
}

async function measureAll(list: readonly Job[], rounds: number) {
  const { peers, missing } = await openPeers();
  missing.forEach(line => console.error(line));
  const machine = ours();
  const measured: Measured[] = [];
  for (const job of list) measured.push(...(await measure(job, machine, peers, rounds)));
  return { measured, peers, relaxed: machine.engines.has('fused') };
}

/** Rows for `npm run bench`: plain and fused, each against each peer that is installed. The caller has set V8's flags. */
export async function benchGemm(full: boolean): Promise<{ rows: BenchRow[]; relaxed: boolean; peerVersions: Record<string, string> }> {
  const { measured, peers, relaxed } = await measureAll(full ? jobs : quickJobs, full ? 5 : 3);
  const rows: BenchRow[] = [];
  for (const engine of relaxed ? ['plain', 'fused'] : ['plain']) {
    for (const { job, gflops } of measured.filter(m => m.engine === engine)) {
      const against = measured.filter(m => m.job === job && m.engine !== 'plain' && m.engine !== 'fused');
      const row = (peerName: string, peer: number | null): BenchRow => {
        const bar = peerName === 'tfjs-wasm' && job.startsWith('128x576x1536') ? 1 : null;
        return { name: `GEMM ${job}, ${engine} SIMD`, ours: gflops, peer, peerName, unit: 'GFLOP/s', better: 'higher', bar };
      };
      rows.push(...(against.length > 0 ? against.map(m => row(m.engine, m.gflops)) : [row('', null)]));
    }
  }
  return { rows, relaxed, peerVersions: Object.fromEntries(peers.map(p => [p.name, p.version])) };
}

/** One line a job: GFLOP/s of each engine, then ours to theirs. */
function table(measured: readonly Measured[]): string {
  const engines = [...new Set(measured.map(m => m.engine))];
  const peers = engines.filter(e => e !== 'plain' && e !== 'fused');
  const own = engines.filter(e => !peers.includes(e));
  const ratios = own.flatMap(o => peers.map(p => [o, p] as const));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const head = ['GFLOP/s', ...engines, ...ratios.map(([o, p]) => `${o} / ${p}`)];
  const body = [...new Set(measured.map(m => m.job))].map(name => {
    const of = (engine: string): number => measured.find(m => m.job === name && m.engine === engine)?.gflops ?? NaN;
    return line([name, ...engines.map(e => of(e).toFixed(1)), ...ratios.map(([o, p]) => (of(o) / of(p)).toFixed(2))]);
  });
  return [line(head), line(head.map(() => '---')), ...body].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (Number(process.versions.node.split('.')[0]) < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');
  const options = { json: { type: 'string' }, only: { type: 'string' }, rounds: { type: 'string', default: '5' } } as const;
  const { values } = parseArgs({ options });
  const list = jobs.filter(j => nameOf(j).includes(values.only ?? ''));
  const { measured, peers, relaxed } = await measureAll(list, Number(values.rounds));
  console.log(table(measured));
  if (values.json) {
    const versions = Object.fromEntries(peers.map(p => [p.name, p.version]));
    const head = { cpu: cpus()[0]?.model ?? 'unknown', node: process.version, threads: 1, relaxed, versions };
    writeFileSync(values.json, `${JSON.stringify({ ...head, measured }, null, 1)}\n`);
  }
  process.exit(0); // peers keep handles open
}
