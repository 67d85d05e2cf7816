// What is checked inside a browser, on the page or in a worker: golden cases on a device, and training that gives the
// CPU's losses. The runner is scripts/browser/run.ts; which jobs run where is decided there.

import { findCases } from '../../scripts/conformance/cases.js';
import { RunContext } from '../../scripts/conformance/context.js';
import { runCase } from '../../scripts/conformance/suite.js';
import type { Backend } from '../../src/backends/backend.js';
import { createCpuBackend, type CpuOptions } from '../../src/backends/cpu/cpu.js';
import { createWebGpuBackend } from '../../src/backends/webgpu/index.js';
import type { Example } from '../../src/data/examples.js';
import { loadCausalLM, openCheckpoint } from '../../src/models/auto.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { getReftModel } from '../../src/reft/reftModel.js';
import { ReftTrainer } from '../../src/reft/reftTrainer.js';
import { DeviceError, openDevice } from '../../src/devices.js';
import { Random } from '../../src/tensor/threefry.js';
import { fetchSource, httpFiles, listFiles } from './httpFiles.js';

export interface Job {
  readonly kind: 'conformance' | 'training' | 'no WebGPU';
  readonly device: 'webgpu' | 'cpu';
  /** Address of the golden cases, with '/' at its end. */
  readonly cases: string;
  /** Address of models to train besides, with '/' at its end. */
  readonly models: string;
}

export interface Verdict {
  readonly name: string;
  readonly status: 'pass' | 'fail' | 'unsupported';
  readonly detail: string;
}

type Report = (verdict: Verdict) => void | Promise<void>;

/** Threads, and with them a shared memory, where the page is isolated. */
export const threadsHere = (): number => (globalThis.crossOriginIsolated ? 2 : 1);

async function openBackend(device: Job['device']): Promise<Backend> {
  if (device === 'webgpu') return createWebGpuBackend();
  const options: CpuOptions & { threads: number } = { threads: threadsHere() };
  return createCpuBackend(options);
}

export async function runJob(job: Job, report: Report): Promise<void> {
  if (job.kind === 'no WebGPU') return withoutWebGpu(report);
  const backend = await openBackend(job.device);
  try {
    if (job.kind === 'conformance') await conformance(job, backend, report);
    else await training(job, backend, report);
  } finally {
    await backend.close();
  }
}

/** Whether the memory of a CPU backend is shared with its threads; without isolation it must not be. */
async function memory(backend: Backend, report: Report): Promise<void> {
  const block = backend.allocate(64);
  const shared = !(backend.hostView?.(block, 'f32', 0, 16).buffer instanceof ArrayBuffer);
  backend.free(block);
  await report({
    name: 'memory',
    status: shared && threadsHere() === 1 ? 'fail' : 'pass',
    detail: shared ? `shared by ${threadsHere()} threads` : 'unshared, one thread',
  });
}

/**
 * Cases that f32 does not reach here, with what the command says of them: after eight steps one weight is off by 2.6e-4
 * where the bar is 2e-5, because its first gradient, 8e-7 of the largest, is of the size of the rounding. In f64 it
 * passes.
 */
const notReached: readonly string[] = ['reft/loreft-roberta'];

async function conformance({ cases, device }: Job, backend: Backend, report: Report): Promise<void> {
  if (device === 'cpu') await memory(backend, report);
  const files = httpFiles(cases);
  const context = new RunContext(files, backend);
  for (const c of findCases(await files.list()).filter(({ path }) => !notReached.includes(path))) {
    const { result, message } = await runCase(c, context, device);
    const { status, maxRel, maxAbs, tolerance, tensor } = result;
    const figure = (x: number | null): string => x?.toExponential(1) ?? '-';
    await report({
      name: c.path,
      status,
      detail: message ?? `error ${figure(maxRel ?? maxAbs)}, bar ${figure(tolerance)}, ${tensor ?? ''}`,
    });
  }
}

/** Random sequences of ids whose last third is learned. */
function exampleRows(vocabulary: number): Example[] {
  const random = new Random(11);
  return Array.from({ length: 6 }, (_, row) => {
    const ids = Int32Array.from({ length: 9 + row }, () => random.integer(vocabulary));
    const promptLength = Math.floor((2 * ids.length) / 3);
    return { ids, promptLength, labels: ids.slice().fill(-100, 0, promptLength), truncated: 0, where: `row ${row}` };
  });
}

async function lossesOf(model: CausalLM): Promise<number[]> {
  const layers = [...new Set([1, model.config.layers - 2])];
  const reft = getReftModel(model, { kind: 'loreft', layers, positions: 'f1+l1', rank: 4, seed: 3 });
  const trainer = new ReftTrainer(reft, {
    examples: exampleRows(model.config.vocabSize),
    steps: 20,
    batchSize: 3,
    learningRate: 1e-2,
  });
  const losses: number[] = [];
  for await (const step of trainer.steps()) losses.push(step.loss);
  trainer.dispose();
  return losses;
}

/** 20 steps of LoReFT on the device and on one thread of the CPU: the same losses to 1e-4, and they fall. */
async function training({ cases, models }: Job, backend: Backend, report: Report): Promise<void> {
  const files = httpFiles(cases);
  const open: [string, (device: Backend) => Promise<CausalLM>][] = [
    ['tiny-llama', async device => loadCausalLM(await (await files.model('tiny-llama')).open(), { device })],
  ];
  for (const path of await listFiles(models)) {
    if (/(^|\/)stories[^/]*\.bin$/.test(path))
      open.push([
        path,
        async device => loadCausalLM(await openCheckpoint(await fetchSource(models + path)), { device }),
      ]);
  }
  const cpu = createCpuBackend();
  for (const [name, load] of open) {
    const [losses, expected] = [await lossesOf(await load(backend)), await lossesOf(await load(cpu))];
    const error = Math.max(...expected.map((loss, i) => Math.abs(losses[i] - loss) / Math.abs(loss)));
    const falls = losses[19] < losses[0];
    await report({
      name: `20 steps of loreft on ${name}`,
      status: losses.length === 20 && error <= 1e-4 && falls ? 'pass' : 'fail',
      detail: `loss ${losses[0].toFixed(4)} to ${losses[19].toFixed(4)}, error against the CPU ${error.toExponential(1)}, bar 1.0e-4`,
    });
  }
  await cpu.close();
}

/** Where there is no navigator.gpu: 'webgpu' is an error that says so, and the rest works. */
async function withoutWebGpu(report: Report): Promise<void> {
  const error = await openDevice('webgpu').then(
    () => undefined,
    (e: unknown) => e,
  );
  const said = error instanceof DeviceError && /navigator\.gpu/.test(error.message);
  await report({
    name: "device 'webgpu' says what is missing",
    status: said ? 'pass' : 'fail',
    detail: error instanceof Error ? error.message : 'it opened',
  });
  const { name } = await openDevice('auto');
  await report({ name: "device 'auto' is the CPU", status: name === 'cpu' ? 'pass' : 'fail', detail: name });
}
