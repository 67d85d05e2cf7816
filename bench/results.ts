// What a bench row is, the machine it ran on, and how rows become bench/results.json and bench/RESULTS.md.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, platform, arch, totalmem } from 'node:os';

export interface BenchRow {
  readonly name: string;
  readonly ours: number;
  readonly peer: number | null;
  readonly peerName: string;
  readonly unit: string;
  readonly better: 'lower' | 'higher';
  /** What ours / peer must be at most (lower) or at least (higher); null where there is no bar. */
  readonly bar: number | null;
}

const git = (...args: string[]): string => {
  try {
    return execFileSync('git', args, { encoding: 'utf8' }).trim();
  } catch {
    return '';
  }
};

function versionOf(manifest: string): string {
  return (JSON.parse(readFileSync(new URL(manifest, import.meta.url), 'utf8')) as { version: string }).version;
}

export function report(rows: readonly BenchRow[], relaxed: boolean, peerVersions: Readonly<Record<string, string>>): void {
  const finished = rows.map(row => {
    const ratio = row.peer === null ? null : row.ours / row.peer;
    const pass = ratio === null || row.bar === null ? null : row.better === 'lower' ? ratio <= row.bar : ratio >= row.bar;
    return { ...row, ratio, pass };
  });
  const head = {
    machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, ${platform()} ${arch()}`,
    node: process.version, relaxed, threads: 1, versions: { reft: versionOf('../package.json'), ...peerVersions },
    commit: git('rev-parse', 'HEAD'), dirty: git('status', '--porcelain', '--', 'src', 'bench') !== '', date: new Date().toISOString(),
  };
  writeFileSync(new URL('results.json', import.meta.url), `${JSON.stringify({ ...head, rows: finished }, null, 1)}\n`);
  const figure = (x: number | null): string => (x === null ? '' : x >= 100 ? x.toFixed(0) : x.toPrecision(3));
  const table = finished.map(r => `| ${r.name} | ${figure(r.ours)} | ${r.peerName} | ${figure(r.peer)} | ${r.unit} | ${figure(r.ratio)} | `
    + `${r.bar === null ? '' : `${r.better === 'lower' ? 'at most' : 'at least'} ${figure(r.bar)}`} | ${r.pass === null ? '' : r.pass ? 'yes' : 'NO'} |`);
  const text = [
    '# Results', '', 'Made by `npm run bench`, all rows in one run. Ratios are ours to the peer\'s.', '',
    `- Machine: ${head.machine}; Node ${head.node}; relaxed SIMD ${relaxed ? 'on' : 'off'}; one thread`,
    `- Versions: ${Object.entries(head.versions).map(([k, v]) => `${k} ${v}`).join(', ')}`,
    `- Commit ${head.commit.slice(0, 12)}${head.dirty ? ' with changes' : ''}, ${head.date.slice(0, 10)}`, '',
    '| job | ours | peer | peer\'s | unit | ratio | bar | met |', '|---|---|---|---|---|---|---|---|', ...table, '',
  ].join('\n');
  writeFileSync(new URL('RESULTS.md', import.meta.url), text);
  console.log(text);
}
