// `npm run bench`: every benchmark in one run, to bench/results.json and bench/RESULTS.md. `--quick` takes fewer sizes and writes nothing.

import { setFlagsFromString } from 'node:v8';

// This process is ours: ask for fused multiply-add before anything compiles.
if (Number(process.versions.node.split('.')[0]) < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');

const quick = process.argv.includes('--quick');
const { report } = await import('./results.js');
const { benchEdit } = await import('./edit.js');
const { benchGemm } = await import('./gemm.js');

const gemm = await benchGemm(!quick);
const rows = [...gemm.rows, ...await benchEdit(!quick)];
if (quick) console.table(rows.map(r => ({ job: r.name, ours: r.ours, peer: r.peer, of: r.peerName })));
else report(rows, gemm.relaxed, gemm.peerVersions);
