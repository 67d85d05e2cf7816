// What a bench row is, the machine it ran on, and how rows become bench/results.json and bench/RESULTS.md.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { arch, cpus, loadavg, platform, totalmem } from 'node:os';

export interface BenchRow {
  readonly name: string;
  readonly ours: number;
  /** Null where nothing stands against it, or where the peer was not there. */
  readonly peer: number | null;
  readonly peerName: string;
  readonly unit: string;
  readonly better: 'lower' | 'higher';
  /** What ours / peer must be at most (lower) or at least (higher); null where there is no bar. */
  readonly bar: number | null;
  /** Where runs were paired: the median of their ratios, in place of ours / peer. */
  readonly pairedRatio?: number;
  readonly note?: string;
}

export interface FinishedRow extends Omit<BenchRow, 'pairedRatio'> {
  readonly ratio: number | null;
  readonly pass: boolean | null;
}

export interface Results {
  readonly machine: string;
  readonly node: string;
  readonly relaxed: boolean;
  readonly threads: number;
  /** GFLOP/s of multiply-adds on registers alone: the speed of the machine in this very run. */
  readonly registerLoop: number | null;
  /** Load of the machine before the run, from its last minute: figures of a busy one say little. */
  readonly load: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly commit: string;
  readonly dirty: boolean;
  readonly date: string;
  readonly rows: readonly FinishedRow[];
}

export type RunFacts = Pick<Results, 'relaxed' | 'threads' | 'registerLoop' | 'load' | 'versions'>;

export const resultsFile = new URL('results.json', import.meta.url);

export const machineName = (): string =>
  `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, ${platform()} ${arch()}`;

export const machineLoad = (): number => Number(loadavg()[0].toFixed(2));

const git = (...args: string[]): string => {
  try {
    return execFileSync('git', args, { encoding: 'utf8', cwd: new URL('..', import.meta.url) }).trim();
  } catch {
    return '';
  }
};

export function finish({ pairedRatio, ...row }: BenchRow): FinishedRow {
  const ratio = row.peer === null ? null : (pairedRatio ?? row.ours / row.peer);
  const pass = ratio === null || row.bar === null ? null : row.better === 'lower' ? ratio <= row.bar : ratio >= row.bar;
  return { ...row, ratio, pass };
}

export function resultsOf(rows: readonly BenchRow[], { versions, ...facts }: RunFacts): Results {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return {
    machine: machineName(),
    node: process.version,
    ...facts,
    versions: { reft: version, ...versions },
    commit: git('rev-parse', 'HEAD'),
    dirty: git('status', '--porcelain', '--', 'src', 'bench') !== '',
    date: new Date().toISOString(),
    rows: rows.map(finish),
  };
}

const figure = (x: number | null): string => (x === null ? '' : x >= 100 ? x.toFixed(0) : x.toPrecision(3));

/** The rows as a Markdown table. */
export function tableText(rows: readonly FinishedRow[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const body = rows.map(r =>
    line([
      r.name,
      figure(r.ours),
      r.peerName,
      figure(r.peer),
      r.unit,
      figure(r.ratio),
      r.bar === null ? '' : `${r.better === 'lower' ? 'at most' : 'at least'} ${figure(r.bar)}`,
      r.pass === null ? '' : r.pass ? 'yes' : 'NO',
      r.note ?? '',
    ]),
  );
  const head = ['job', 'ours', 'peer', "peer's", 'unit', 'ratio', 'bar', 'met', 'note'];
  return [line(head), `|${'---|'.repeat(head.length)}`, ...body].join('\n');
}

export function resultsText(results: Results): string {
  const { machine, node, relaxed, threads, registerLoop, load, versions, commit, dirty, date, rows } = results;
  const tables = (row: FinishedRow): boolean => /^(GEMM|edit d) /.test(row.name);
  return [
    '# Results',
    '',
    "Made by `npm run bench:peers`, all rows in one run. Ratios are ours to the peer's; steps are from the second epoch unless a row says otherwise.",
    '',
    `- Machine: ${machine}; load before the run ${load}; Node ${node}; relaxed SIMD ${relaxed ? 'on' : 'off'}; ${threads} threads unless a row says otherwise`,
    ...(registerLoop === null
      ? []
      : [`- Multiply-adds on registers alone, one thread: ${figure(registerLoop)} GFLOP/s`]),
    `- Versions: ${Object.entries(versions)
      .map(([k, v]) => `${k} ${v}`)
      .join(', ')}`,
    `- Commit ${commit.slice(0, 12)}${dirty ? ' with changes' : ''}, ${date.slice(0, 10)}`,
    '',
    tableText(rows.filter(row => !tables(row))),
    '',
    '## Kernels',
    '',
    tableText(rows.filter(tables)),
    '',
  ].join('\n');
}

/** Writes bench/results.json and bench/RESULTS.md. */
export function writeResults(results: Results): void {
  writeFileSync(resultsFile, `${JSON.stringify(results, null, 1)}\n`);
  writeFileSync(new URL('RESULTS.md', import.meta.url), resultsText(results));
}
