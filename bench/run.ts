// `npm run bench`: our side alone, to the terminal: kernels, edits, training steps, prompts, decoding. `npm run
// bench:peers -- --python PATH`: the same and the peers in one run, to bench/results.json and bench/RESULTS.md.
// Options:
//   --only few-shot,decode-1   some jobs (also gemm, edits); nothing is written
//   --quick                    fewest repeats and sizes; nothing is written
//   --threads N                default 2, as the peers; --weights f32|stored: of prompts and decoding, default stored
//   --json FILE                the results, wherever they go otherwise
//   --peers, --python PATH, --baseline PATH   a Python with pyreft, and pyreft_baseline.py (default: beside the
// repository)

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { defaultBaseline, measureAll } from './measure.js';
import { machineLoad, resultsOf, tableText, writeResults } from './results.js';
import { tableOf } from './table.js';

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    threads: { type: 'string', default: '2' },
    weights: { type: 'string', default: 'stored' },
    json: { type: 'string' },
    peers: { type: 'boolean', default: false },
    python: { type: 'string' },
    baseline: { type: 'string', default: defaultBaseline },
  },
});
const threads = Number(values.threads);
if (!(Number.isInteger(threads) && threads > 0))
  throw new RangeError(`--threads: expected a whole number above 0, got ${values.threads}`);
const { quick, peers, baseline, python, weights } = values;
if (weights !== 'f32' && weights !== 'stored')
  throw new RangeError(`--weights: expected f32 or stored, got ${weights}`);
const only = values.only.split(',').filter(Boolean);

const load = machineLoad();
if (load > 0.5) console.error(`the machine is busy (load ${load}): figures will be too slow`);
const measured = await measureAll({ threads, weights, quick, only, peers, baseline, ...(python ? { python } : {}) });
const { gemm, versions, missing, failed } = measured;
for (const [peer, why] of missing) console.error(`${peer} is not measured: ${why}`);
const registerLoop = gemm ? (gemm.registerLoop.fused ?? gemm.registerLoop.plain) : null;
const results = resultsOf(tableOf(measured, threads), {
  relaxed: gemm?.relaxed ?? true,
  threads,
  registerLoop,
  load,
  versions,
});
if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
if (peers && !quick && only.length === 0 && failed.length === 0) writeResults(results);
console.log(tableText(results.rows));
if (failed.length > 0) {
  console.error(`failed: ${failed.join(', ')}; nothing was written to bench/`);
  process.exitCode = 1;
}
