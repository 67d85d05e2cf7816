// Our ops against PyTorch's own samples (OpInfo): values, gradients and second-order gradients, in f64, in f32 and on
// WebGPU. torchOps/export.py writes the samples, torchOps/calls.ts says which op of ours stands for which of torch,
// torchOps/differences.ts what differs on purpose. Usage: npm run check:torch -- [--python PATH] [--device
// f64|f32|webgpu] [--all] [op names as OpInfo has them]; --all prints every difference. Where Python has no torch there
// is nothing to compare with: that is said, and no failure unless --python named it.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { createCpuBackend } from '../src/backends/index.js';
import { createWebGpuBackend, WebGPUError } from '../src/backends/webgpu/index.js';
import { NotOurs } from './torchOps/arguments.js';
import { calls } from './torchOps/calls.js';
import { deliberate, type Deliberate } from './torchOps/differences.js';
import { parts, runSample, type Device, type Outcome } from './torchOps/run.js';
import { readSamples, type Sample } from './torchOps/samples.js';

// Fused multiply-add is behind a flag on Node 20.
if (process.versions.node.startsWith('20.')) setFlagsFromString('--experimental-wasm-relaxed-simd');

const deviceNames = ['f64', 'f32', 'webgpu'] as const;
type DeviceName = (typeof deviceNames)[number];

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    device: { type: 'string', multiple: true },
    all: { type: 'boolean', default: false },
  },
});
const names = positionals.length > 0 ? positionals : Object.keys(calls);
for (const name of names)
  if (!(name in calls)) stop(2, `no op of ours stands for ${name}; known: ${Object.keys(calls).join(' ')}`);
for (const name of options.device ?? []) {
  if (!deviceNames.includes(name as DeviceName)) stop(2, `--device: expected ${deviceNames.join(', ')}, got ${name}`);
}

function stop(code: number, why: string): never {
  console.error(`check:torch: ${why}`);
  process.exit(code);
}

/** The environment that checkPyreft.ts makes has torch. */
function pythonPath(): string {
  const made = join(import.meta.dirname, '..', '.tmp', 'pyreft-venv', 'bin', 'python');
  return options.python ?? process.env['REFT_PYTHON'] ?? (existsSync(made) ? made : 'python3');
}

const closing: (() => void)[] = [];
async function openDevices(): Promise<Device[]> {
  const wanted = (name: DeviceName): boolean => options.device?.includes(name) ?? true;
  const devices: Device[] = [];
  if (wanted('f64'))
    devices.push({ name: 'f64', backend: createCpuBackend({ simd: false }), dtype: 'f64', hasF64: true });
  if (wanted('f32')) devices.push({ name: 'f32', backend: createCpuBackend(), dtype: 'f32', hasF64: true });
  if (!wanted('webgpu')) return devices;
  try {
    const backend = await createWebGpuBackend();
    closing.push(() => backend.close());
    devices.push({ name: 'webgpu', backend, dtype: 'f32', hasF64: false });
  } catch (error) {
    if (options.device || process.env['REQUIRE_WEBGPU'] === '1' || !(error instanceof WebGPUError)) throw error;
    console.log(`WebGPU is not checked: ${error.message}`);
  }
  return devices;
}

/** Counts by part, and what differs. */
class Tally {
  readonly passed = { values: 0, gradients: 0, second: 0 };
  readonly total = { values: 0, gradients: 0, second: 0 };
  meant = 0;
  notOurs = 0;
  readonly failures: string[] = [];

  add(sample: Sample, outcome: Outcome, device: string): void {
    for (const part of parts) {
      const difference = outcome[part];
      if (difference === undefined) continue;
      this.total[part]++;
      const reason = difference === null ? undefined : deliberate.find(d => d.covers(sample, part, difference, device));
      if (reason) needed.add(reason);
      if (reason) this.meant++;
      else if (difference === null) this.passed[part]++;
      else
        this.failures.push(
          `${device} ${sample.op}, ${sample.dtype} ${sample.kind} ${sample.n}, ${part}: ${difference}; called with ${inWords(sample)}`,
        );
    }
  }

  toString(): string {
    const counts = parts
      .filter(p => this.total[p] > 0)
      .map(p => `${p} ${this.passed[p]}/${this.total[p]}`)
      .join(', ');
    return `${counts || 'nothing'}${this.meant > 0 ? `, ${this.meant} meant` : ''}${this.notOurs > 0 ? `, ${this.notOurs} calls are not ours` : ''}`;
  }
}

const inWords = ({ args, kwargs }: Sample): string =>
  JSON.stringify([args, kwargs], (_, value: unknown) => {
    if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
    return value !== null && typeof value === 'object' && 'shape' in value && 'dtype' in value
      ? `${value.dtype}[${String(value.shape)}]`
      : value;
  }).slice(0, 300);

const needed = new Set<Deliberate>();
const folder = await mkdtemp(join(tmpdir(), 'reft-torch-'));
try {
  const python = pythonPath();
  const { status, error } = spawnSync(python, [join(import.meta.dirname, 'torchOps', 'export.py'), folder, ...names], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (status === 3 || (error && 'code' in error && error.code === 'ENOENT')) {
    const why = `${python} has no torch and numpy: nothing is compared`;
    if (options.python !== undefined) stop(1, why);
    console.log(`check:torch: ${why}`);
    process.exit(0);
  }
  if (status !== 0) stop(1, `export.py ended with ${status ?? String(error)}`);

  const devices = await openDevices();
  const totals = new Map(devices.map(d => [d.name, new Tally()]));
  for (const name of names) {
    const samples = await readSamples(folder, name);
    for (const device of devices) {
      const tally = new Tally();
      for (const sample of samples) {
        if (sample.dtype === (device.dtype === 'f64' ? 'f32' : 'f64')) continue;
        try {
          const outcome = await runSample(sample, device);
          for (const t of [tally, totals.get(device.name) as Tally]) t.add(sample, outcome, device.name);
        } catch (why) {
          if (!(why instanceof NotOurs)) throw why;
          for (const t of [tally, totals.get(device.name) as Tally]) t.notOurs++;
        }
      }
      console.log(`${tally.failures.length > 0 ? 'FAILED' : 'ok    '} ${name} ${device.name}: ${String(tally)}`);
      for (const failure of options.all ? tally.failures : tally.failures.slice(0, 3))
        console.log(`         ${failure}`);
    }
  }
  console.log('');
  for (const [name, tally] of totals) console.log(`${name}: ${String(tally)}`);
  const unneeded =
    positionals.length === 0 && options.device === undefined ? deliberate.filter(d => !needed.has(d)) : [];
  for (const { why } of unneeded) console.log(`a deliberate difference that no sample shows any more: ${why}`);
  if (unneeded.length > 0 || [...totals.values()].some(t => t.failures.length > 0)) process.exitCode = 1;
  for (const close of closing) close();
} finally {
  await rm(folder, { recursive: true, force: true });
}
