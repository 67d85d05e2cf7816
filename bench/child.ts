// One measurement in a process of its own, so that memory, compiled code and handles of one job are not those of
// another: `tsx bench/child.ts JOB --threads N --weights FORM [--plain] [--quick] [--peers]`. The result is one line of
// JSON on stdout. Started by measure.ts.

import { parseArgs } from 'node:util';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';

// This process is ours: ask for fused multiply-add before anything compiles.
allowRelaxedSimd();
const {
  values,
  positionals: [job],
} = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '2' },
    weights: { type: 'string', default: 'f32' },
    plain: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    peers: { type: 'boolean', default: false },
  },
});
const { quick, plain, peers } = values;
const threads = Number(values.threads);
const weights = (['f32', 'stored'] as const).find(form => form === values.weights);
if (!weights) throw new RangeError(`--weights: expected f32 or stored, got ${values.weights}`);

async function result(weights: 'f32' | 'stored'): Promise<unknown> {
  if (job === 'gemm') return (await import('./gemm.js')).measureGemm({ full: !quick, threads, peers });
  if (job === 'edits') return (await import('./edit.js')).benchEdit(!quick);
  if (job === 'llama.cpp') return (await import('./llamaCpp.js')).measureLlamaCpp(threads, quick);
  const { createCpuBackend } = await import('../src/backends/cpu/cpu.js');
  const backend = createCpuBackend({ threads, relaxed: !plain });
  if (job === 'edit-pyreft') return (await import('./edit.js')).measureWholeEdit(backend, quick);
  const { modelJobs } = await import('./modelJobs.js');
  if (!Object.hasOwn(modelJobs, job)) throw new RangeError(`no such job: ${job}`);
  return modelJobs[job]({ backend, weights, quick });
}

process.stdout.write(`${JSON.stringify(await result(weights))}\n`, () => process.exit(0)); // peers keep handles open
