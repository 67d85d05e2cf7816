// `npm run bench:compare`: has anything become slower? Ends with 1 if a row is worse than `--threshold` (default 0.1, a
// tenth). Two ways:
//   (default)            against bench/results.json, row by row, on the same machine only; times are scaled by the
// speed of multiply-adds on
//                        registers in the two runs, because machines are shared and clocks differ
//   --against COMMIT     against the sources of a commit, in pairs: each job runs on both trees by turns, `--rounds`
// times (default 3), and the
//                        median of the ratios counts. This bench measures both, so the commit must have what it calls.
// `--only few-shot,decode-1` names the jobs (default: those of a minute), `--threads` and `--weights` as for `npm run
// bench`.

import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { comparable, pairRows, slowdown, verdict, type Pair } from './comparison.js';
import { measureAll, type MeasureOptions } from './measure.js';
import { machineLoad, resultsFile, resultsOf, type Results } from './results.js';
import { tableOf } from './table.js';

const { values } = parseArgs({
  options: {
    against: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    threshold: { type: 'string', default: '0.1' },
    only: { type: 'string', default: 'gemm,edit-pyreft,few-shot,prefill-512,decode-1' },
    quick: { type: 'boolean', default: false },
    threads: { type: 'string', default: '2' },
    weights: { type: 'string', default: 'stored' },
  },
});
const [threshold, rounds, threads] = [values.threshold, values.rounds, values.threads].map(Number);
if (!(threshold > 0 && rounds > 0 && threads > 0))
  throw new RangeError('--threshold, --rounds and --threads: expected numbers above 0');
const { against, quick } = values;
const root = fileURLToPath(new URL('..', import.meta.url));
const weights = values.weights === 'f32' ? 'f32' : 'stored';
const options: MeasureOptions = { threads, weights, quick, only: values.only.split(',').filter(Boolean), peers: false };

async function measure(tree?: string): Promise<Results> {
  const load = machineLoad();
  const measured = await measureAll({ ...options, ...(tree === undefined ? {} : { tree }) });
  const { gemm } = measured;
  const registerLoop = gemm ? (gemm.registerLoop.fused ?? gemm.registerLoop.plain) : null;
  return resultsOf(tableOf(measured, threads), {
    relaxed: gemm?.relaxed ?? true,
    threads,
    registerLoop,
    load,
    versions: measured.versions,
  });
}

/** The sources of a commit with this bench beside them, in a folder of their own; the repository is not touched. */
function treeOf(commit: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'reft-compare-'));
  const archive = execFileSync('git', ['archive', commit, 'src', 'package.json', 'tsconfig.json'], {
    cwd: root,
    maxBuffer: 2 ** 30,
  });
  execFileSync('tar', ['-x', '-C', folder], { input: archive });
  cpSync(join(root, 'bench'), join(folder, 'bench'), { recursive: true, filter: path => !path.includes('peers') });
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

async function paired(commit: string): Promise<Pair[]> {
  const folder = treeOf(commit);
  const seen = new Map<string, Pair[]>();
  try {
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? [folder, root] : [root, folder];
      const results = new Map<string, Results>();
      for (const tree of order) results.set(tree, await measure(tree));
      for (const pair of pairRows(results.get(folder) as Results, results.get(root) as Results))
        seen.set(pair.name, [...(seen.get(pair.name) ?? []), pair]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return [...seen.values()].map(pairs => pairs.sort((a, b) => slowdown(a) - slowdown(b))[pairs.length >> 1]);
}

async function withLast(): Promise<Pair[]> {
  const last = JSON.parse(readFileSync(resultsFile, 'utf8')) as Results;
  const now = await measure();
  const obstacle = comparable(last, now);
  if (obstacle !== null) {
    console.error(`${obstacle}; compare in pairs with --against COMMIT, or measure anew with npm run bench:peers`);
    process.exit(2);
  }
  return pairRows(last, now);
}

const pairs = against === undefined ? await withLast() : await paired(against);
const { text, slower } = verdict(pairs, threshold);
console.log(text);
process.exit(slower.length > 0 ? 1 : 0);
