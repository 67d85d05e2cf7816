// All measurements of one run, one process after the other: ours, and of the peers those that are wanted and there.
// What they mean is in table.ts.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { resolveModel } from '../src/io/resolve.js';
import type { GemmResult } from './gemm.js';
import type { LlamaCppResult } from './llamaCpp.js';
import type { Figures } from './modelJobs.js';
import type { BenchRow } from './results.js';

export interface MeasureOptions {
  readonly threads: number;
  /** Weights of prompts and decoding; training has f32. */
  readonly weights: 'f32' | 'stored';
  readonly quick: boolean;
  /** Only jobs whose name is among these; empty: all. */
  readonly only: readonly string[];
  readonly peers: boolean;
  /** A Python with pyreft, and the script that times it. */
  readonly python?: string;
  readonly baseline?: string;
  /** Where bench/child.ts lies: another tree, to compare with. */
  readonly tree?: string;
}

/** What pyreft_baseline.py prints for a case. */
export interface PythonCase {
  readonly case: string;
  readonly [figure: string]: number | string;
}

export interface Measurements {
  readonly gemm?: GemmResult;
  readonly edits?: readonly BenchRow[];
  /** By job; of plain SIMD under `JOB --plain`. */
  readonly jobs: ReadonlyMap<string, Figures>;
  readonly llamaCpp?: LlamaCppResult;
  readonly python: readonly PythonCase[];
  readonly versions: Readonly<Record<string, string>>;
  /** Why a peer is not among them. */
  readonly missing: ReadonlyMap<string, string>;
  /** Jobs of ours that ended with an error. */
  readonly failed: readonly string[];
}

const root = fileURLToPath(new URL('..', import.meta.url));
export const defaultBaseline = '../shared/tools/pyreft_baseline.py';
const training = ['few-shot', 'train-1', 'train-30'];
const others = ['prefill-512', 'decode-1', 'decode-edits', 'decode-16'];

/**
 * Runs a program to its end; its lines on stdout. Its complaints go to the terminal, or into the error with `quiet`.
 */
export async function linesOf(
  command: string,
  args: readonly string[],
  { cwd = root, quiet = false } = {},
): Promise<string[]> {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', quiet ? 'pipe' : 'inherit'] });
  let [text, complaint] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    complaint = (complaint + part).slice(-4000);
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const why =
    complaint
      .trim()
      .split('\n')
      .findLast(line => /error|exception/i.test(line)) ?? complaint.trim().split('\n').at(-1);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}${why ? `: ${why}` : ''}`);
  return text
    .trim()
    .split('\n')
    .filter(line => line !== '');
}

/** One job in a process of its own. */
export async function measureJob<T>(
  job: string,
  { threads, weights, quick, tree = root }: MeasureOptions,
  flags: readonly string[] = [],
): Promise<T> {
  const form = training.includes(job) ? 'f32' : weights;
  const args = [
    '--import',
    'tsx',
    'bench/child.ts',
    job,
    '--threads',
    String(threads),
    '--weights',
    form,
    ...(quick ? ['--quick'] : []),
    ...flags,
  ];
  return JSON.parse(
    (await linesOf(process.execPath, args, { cwd: tree, quiet: job === 'llama.cpp' })).at(-1) ?? '',
  ) as T;
}

const reason = (error: unknown): string => (error as Error).message.split('\n')[0];

export async function measureAll(options: MeasureOptions): Promise<Measurements> {
  const { only, peers, threads, quick } = options;
  const wanted = (...names: string[]): boolean => only.length === 0 || names.some(name => only.includes(name));
  const timed = async <T>(what: string, body: () => Promise<T>): Promise<T> => {
    const begin = performance.now();
    try {
      return await body();
    } finally {
      console.error(`${what}: ${((performance.now() - begin) / 1000).toFixed(0)} s`);
    }
  };
  /** One of ours: the others go on without it. */
  const own = async <T>(what: string, body: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await timed(what, body);
    } catch (error) {
      console.error(`${what} failed: ${reason(error)}`);
      failed.push(what);
      return undefined;
    }
  };
  const failed: string[] = [];
  const jobs = new Map<string, Figures>();
  const missing = new Map<string, string>();
  const versions: Record<string, string> = {};

  const gemm = wanted('gemm-1t', 'gemm-2t', 'gemm', 'decode-16', ...training)
    ? await own('gemm', () =>
        measureJob<GemmResult>('gemm', { ...options, quick: quick || only.length > 0 }, peers ? ['--peers'] : []),
      )
    : undefined;
  if (gemm) {
    Object.assign(versions, gemm.peerVersions);
    for (const line of gemm.missing) missing.set(line.split(' ')[0], line);
  }
  const edits = wanted('edits') ? await own('edits', () => measureJob<BenchRow[]>('edits', options)) : undefined;
  for (const job of ['edit-pyreft', ...training, ...others].filter(name => wanted(name))) {
    for (const plain of [...training, 'prefill-512', 'decode-1'].includes(job) ? [false, true] : [false]) {
      const figures = await own(`${job}${plain ? ', plain SIMD' : ''}`, () =>
        measureJob<Figures>(job, options, plain ? ['--plain'] : []),
      );
      if (figures) jobs.set(`${job}${plain ? ' --plain' : ''}`, figures);
    }
  }

  let llamaCpp: LlamaCppResult | undefined;
  if (peers && wanted('prefill-512', 'decode-1')) {
    try {
      llamaCpp = await timed('llama.cpp', () => measureJob<LlamaCppResult>('llama.cpp', options));
      versions['node-llama-cpp'] = llamaCpp.version;
    } catch (error) {
      missing.set('llama.cpp', reason(error));
    }
  }
  const python: PythonCase[] = [];
  const cases = pythonCases.filter(([, job]) => wanted(job)).map(([name]) => name);
  if (peers && cases.length > 0) {
    try {
      python.push(...(await timed('pyreft', () => measurePython(options, cases, threads))));
      Object.assign(versions, await pythonVersions(options.python as string));
    } catch (error) {
      missing.set('pyreft', reason(error));
    }
  }
  return {
    ...(gemm ? { gemm } : {}),
    ...(edits ? { edits } : {}),
    jobs,
    ...(llamaCpp ? { llamaCpp } : {}),
    python,
    versions,
    missing,
    failed,
  };
}

const pythonCases = [
  ['edit', 'edit-pyreft'],
  ['few-shot', 'few-shot'],
  ['train-1', 'train-1'],
  ['train-30', 'train-30'],
  ['prefill', 'prefill-512'],
  ['decode', 'decode-1'],
] as const;

async function measurePython(
  { python, baseline = defaultBaseline }: MeasureOptions,
  cases: readonly string[],
  threads: number,
): Promise<PythonCase[]> {
  if (!python) throw new Error('no --python was given');
  const script = fileURLToPath(new URL(baseline, new URL('..', import.meta.url)));
  if (!existsSync(script)) throw new Error(`there is no ${baseline}; name the script with --baseline`);
  const { path } = await resolveModel('smollm2-135m');
  const lines = await linesOf(python, [script, path, ...cases, '--threads', String(threads)], { quiet: true });
  return lines.filter(line => line.startsWith('{')).map(line => JSON.parse(line) as PythonCase);
}

async function pythonVersions(python: string): Promise<Record<string, string>> {
  const code =
    'import json, importlib.metadata as m; print(json.dumps({p: m.version(p) for p in ("torch", "pyreft", "pyvene", "transformers")}))';
  return JSON.parse((await linesOf(python, ['-c', code], { quiet: true })).at(-1) ?? '') as Record<string, string>;
}
