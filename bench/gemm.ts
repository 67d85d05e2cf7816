// GEMM against tfjs-wasm and jax-js (one thread each), in one process and interleaved: every round measures each engine
// for a moment, and the figure is the best of the rounds' fastest calls, because other work on the machine only ever
// adds time. Alone: `npx tsx bench/gemm.ts [--json FILE] [--only TEXT] [--rounds N] [--threads N]`.

import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';
import type { Allocation, Backend, View } from '../src/backends/backend.js';
import { createCpuBackend, type CpuOptions } from '../src/backends/cpu/cpu.js';
import { supportsRelaxedSimd } from '../src/backends/cpu/wasm/emit/assembler.js';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';
import { openPeers, type Peer, type PeerProduct } from './gemmPeers.js';
import { registerLoop } from './registerLoop.js';
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

/**
 * The required size first; then layers of a 576-wide model, its vocabulary, attention heads, mat-vec and rank-4
 * products.
 */
const quickJobs = [job(128, 576, 1536, false), job(128, 576, 1536, true), job(1, 576, 1536, true)];
const jobs = [
  ...quickJobs,
  job(520, 576, 1536, false),
  job(520, 576, 1536, true),
  job(520, 576, 576, false),
  job(520, 1536, 576, false),
  job(512, 512, 512, false),
  job(1, 576, 49152, true),
  job(1, 576, 49152, false),
  job(121, 576, 49152, true),
  job(121, 576, 49152, false),
  job(4, 576, 1536, true),
  job(8, 576, 1536, false),
  job(112, 576, 4, true),
  job(112, 4, 576, false),
  job(128, 64, 128, true, 9),
  job(128, 128, 64, false, 9),
];

export interface Measured {
  readonly job: string;
  readonly engine: string;
  readonly minMs: number;
  /** Median of the rounds' medians. */
  readonly medianMs: number;
  readonly gflops: number;
}

export interface Engine {
  readonly name: string;
  readonly backend: Backend;
}

/** Plain SIMD on one thread, fused multiply-add on one thread and on `threads`. */
function ourEngines(threads: number): Engine[] {
  const engine = (name: string, options: CpuOptions): Engine => ({ name, backend: createCpuBackend(options) });
  if (!supportsRelaxedSimd()) return [engine('plain', { relaxed: false, threads: 1 })];
  const many = threads > 1 ? [engine(`fused, ${threads} threads`, { threads })] : [];
  return [engine('plain', { relaxed: false, threads: 1 }), engine('fused', { threads: 1 }), ...many];
}

/** The operands of a job, and its product on a backend: the kernel alone, on tensors that lie there. */
function place({ m, k, n, batch, transposed }: Job) {
  let state = 12345;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) | 0) / 2 ** 31;
  const [a, b] = [batch * m * k, batch * k * n].map(length => Float32Array.from({ length }, next));
  const product = (backend: Backend) => {
    const [x, y, z] = [a, b, new Float32Array(batch * m * n)].map(data => {
      const allocation = backend.allocate(data.byteLength);
      backend.write(allocation, 0, data);
      return allocation;
    });
    const view = (allocation: Allocation, rows: number, columns: number, turned = false): View => ({
      allocation,
      dtype: 'f32',
      offset: 0,
      shape: [batch, rows, columns],
      strides: [rows * columns, turned ? 1 : columns, turned ? rows : 1],
    });
    const call = { a: view(x, m, k), b: view(y, k, n, transposed), output: view(z, m, n) };
    return {
      run: () => backend.kernels.matmul(call),
      read: () => backend.readSync?.(z, 'f32', 0, batch * m * n) as Float32Array,
      dispose: () => [x, y, z].forEach(allocation => backend.free(allocation)),
    };
  };
  return { a, b, product };
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

async function measure(
  job: Job,
  engines: readonly Engine[],
  peers: readonly Peer[],
  rounds: number,
): Promise<Measured[]> {
  const { a, b, product } = place(job);
  const tasks = new Map<string, PeerProduct>(engines.map(({ name, backend }) => [name, product(backend)]));
  for (const peer of peers)
    tasks.set(peer.name, peer.product(a.slice(), b.slice(), job.batch, job.m, job.k, job.n, job.transposed));
  const [first] = tasks.values();
  void first.run();
  const expected = first.read();
  for (const [name, task] of tasks) {
    await task.run();
    sameResult(job, name, task.read(), expected);
  }
  const latencies = await rounded(new Map([...tasks].map(([name, task]) => [name, () => task.run()])), rounds);
  tasks.forEach(task => task.dispose());
  const flops = 2 * job.batch * job.m * job.k * job.n;
  return [...latencies].map(([engine, { minMs, medianMs }]) => ({
    job: nameOf(job),
    engine,
    minMs,
    medianMs,
    gflops: flops / minMs / 1e6,
  }));
}

/** Every round measures each task for a moment: the best of the rounds' fastest calls, the median of their medians. */
async function rounded(tasks: ReadonlyMap<string, () => void | Promise<void>>, rounds: number) {
  const minima = new Map<string, number[]>();
  const medians = new Map<string, number[]>();
  const note = (into: Map<string, number[]>, name: string, value: number): void =>
    void into.set(name, [...(into.get(name) ?? []), value]);
  for (let round = 0; round < rounds; round++) {
    const bench = new Bench({ time: 40, warmupTime: round === 0 ? 40 : 2, iterations: 2, warmupIterations: 1 });
    // Calls that take most of a second are measured in the first round only.
    for (const [name, run] of tasks) if ((minima.get(name)?.[0] ?? 0) < 400) bench.add(name, run);
    await bench.run();
    for (const task of bench.tasks) {
      if (!('latency' in task.result)) throw new Error(`${task.name} failed`);
      const { min, p50 } = task.result.latency;
      note(minima, task.name, min);
      note(medians, task.name, p50);
    }
  }
  return new Map(
    [...tasks.keys()].map(name => {
      const middle = (medians.get(name) ?? []).sort((x, y) => x - y);
      return [name, { minMs: Math.min(...(minima.get(name) ?? [])), medianMs: middle[middle.length >> 1] }];
    }),
  );
}

export interface GemmOptions {
  /** All sizes, not only those of the quick list. */
  readonly full: boolean;
  readonly threads: number;
  /** Off measures our own engines alone. */
  readonly peers: boolean;
  readonly rounds?: number;
  /** Only jobs whose name contains this. */
  readonly only?: string;
}

export interface GemmResult {
  readonly measured: readonly Measured[];
  /** GFLOP/s of multiply-adds on registers alone, one thread. */
  readonly registerLoop: { readonly plain: number; readonly fused: number | null };
  readonly relaxed: boolean;
  readonly peerVersions: Readonly<Record<string, string>>;
  readonly missing: readonly string[];
}

/** The size of the rows gemm-1t and gemm-2t. */
export const requiredJob = nameOf(jobs[0]);

/** The caller has set V8's flags, and ends the process: peers keep handles open. */
export async function measureGemm({
  full,
  threads,
  peers: wanted,
  rounds = full ? 5 : 3,
  only = '',
}: GemmOptions): Promise<GemmResult> {
  const { peers, missing } = wanted ? await openPeers() : { peers: [], missing: [] };
  const engines = ourEngines(threads);
  const relaxed = engines.length > 1;
  const rateOfLoop = async (fused: boolean): Promise<number> => {
    const loop = registerLoop(fused);
    return loop.flops / ((await rounded(new Map([['loop', loop.run]]), rounds)).get('loop')?.minMs ?? NaN) / 1e6;
  };
  const loops = { plain: await rateOfLoop(false), fused: relaxed ? await rateOfLoop(true) : null };
  const measured: Measured[] = [];
  for (const job of (full ? jobs : quickJobs).filter(j => nameOf(j).includes(only)))
    measured.push(...(await measure(job, engines, peers, rounds)));
  for (const { backend } of engines) await backend.close?.();
  return {
    measured,
    registerLoop: loops,
    relaxed,
    peerVersions: Object.fromEntries(peers.map(p => [p.name, p.version])),
    missing,
  };
}

const isOurs = (engine: string): boolean => engine.startsWith('plain') || engine.startsWith('fused');

/** Every size, each of our engines against each peer that was there; no bars. */
export function gemmRows({ measured }: GemmResult): BenchRow[] {
  return measured
    .filter(m => isOurs(m.engine))
    .flatMap(({ job, engine, gflops }): BenchRow[] => {
      const against = measured.filter(m => m.job === job && !isOurs(m.engine));
      const row = {
        name: `GEMM ${job}, ${engine}`,
        ours: gflops,
        unit: 'GFLOP/s',
        better: 'higher',
        bar: null,
      } as const;
      return against.length > 0
        ? against.map(m => ({ ...row, peer: m.gflops, peerName: m.engine }))
        : [{ ...row, peer: null, peerName: '' }];
    });
}

/** One line a job: GFLOP/s of each engine, then ours to theirs. */
function table(measured: readonly Measured[]): string {
  const engines = [...new Set(measured.map(m => m.engine))];
  const ratios = engines.filter(isOurs).flatMap(o => engines.filter(e => !isOurs(e)).map(p => [o, p] as const));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const head = ['GFLOP/s', ...engines, ...ratios.map(([o, p]) => `${o} / ${p}`)];
  const body = [...new Set(measured.map(m => m.job))].map(name => {
    const of = (engine: string): number => measured.find(m => m.job === name && m.engine === engine)?.gflops ?? NaN;
    return line([name, ...engines.map(e => of(e).toFixed(1)), ...ratios.map(([o, p]) => (of(o) / of(p)).toFixed(2))]);
  });
  return [line(head), line(head.map(() => '---')), ...body].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  allowRelaxedSimd();
  const options = {
    json: { type: 'string' },
    only: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '2' },
  } as const;
  const { values } = parseArgs({ options });
  const result = await measureGemm({
    full: true,
    threads: Number(values.threads),
    peers: true,
    rounds: Number(values.rounds),
    only: values.only ?? '',
  });
  result.missing.forEach(line => console.error(line));
  console.log(table(result.measured));
  console.log(
    `registers alone: plain ${result.registerLoop.plain.toFixed(1)}, fused ${result.registerLoop.fused?.toFixed(1) ?? '-'} GFLOP/s`,
  );
  if (values.json)
    writeFileSync(
      values.json,
      `${JSON.stringify({ cpu: cpus()[0]?.model ?? 'unknown', node: process.version, ...result }, null, 1)}\n`,
    );
  process.exit(0); // peers keep handles open
}
