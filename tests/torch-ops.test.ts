// The parts of scripts/checkTorchOps.ts that need no torch: what counts as a difference, which calls have no
// counterpart, and what it says and how it ends where Python has no torch or an op is not known.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createCpuBackend } from '../src/backends/index.js';
import { NotOurs } from '../scripts/torchOps/arguments.js';
import { difference } from '../scripts/torchOps/compare.js';
import { runSample, type Device } from '../scripts/torchOps/run.js';
import { Stored, type Sample } from '../scripts/torchOps/samples.js';

const bound = { relative: 1e-5, least: 1e-6 };
const f32 = (...values: number[]): Stored => new Stored('f32', [values.length], Float32Array.from(values), 0);

test('numbers differ beyond the bound, in NaN, infinities, shape and dtype', () => {
  const compare = (a: Stored, b: Stored, exact: Stored | null = null, sums = false): string | null =>
    difference(a, b, exact, bound, sums);
  assert.equal(compare(f32(1, NaN, Infinity), f32(1.000005, NaN, Infinity)), null);
  assert.equal(compare(f32(1, 2), f32(1, 2.1)), 'entry 1 is 2, torch has 2.0999999046325684');
  assert.equal(compare(f32(NaN), f32(0)), 'entry 0 is NaN, torch has 0');
  assert.equal(compare(f32(0), f32(NaN)), 'entry 0 is 0, torch has NaN');
  assert.equal(compare(f32(Infinity), f32(-Infinity)), 'entry 0 is Infinity, torch has -Infinity');
  assert.equal(compare(f32(1), f32(1, 1)), 'shape [1], torch has [2]');
  assert.equal(compare(f32(1), new Stored('f64', [1], Float64Array.of(1))), 'dtype f32, torch has f64');
  assert.equal(compare(f32(2), f32(3), f32(2)), null, 'what torch has in f64 counts too');
  assert.equal(compare(f32(1000, 1.001), f32(1000, 1), null, true), null, 'sums are relative to the largest');
  assert.notEqual(compare(f32(1000, 1.001), f32(1000, 1)), null);
});

test('a sample is run with its gradients, and a call without counterpart is left out', async () => {
  const device: Device = { name: 'f64', backend: createCpuBackend({ simd: false }), dtype: 'f64', hasF64: true };
  const f64 = (values: number[], number?: number): Stored =>
    new Stored('f64', [values.length], Float64Array.from(values), number);
  const sample: Sample = {
    op: 'square',
    dtype: 'f64',
    kind: 'sample',
    n: 0,
    args: [f64([1, 3], 0)],
    kwargs: {},
    outputs: [f64([1, 9])],
    gradients: { of: [0], wrt: [0], cotangents: [f64([1, 2])], values: [f64([2, 12])] },
    second: { of: [0], cotangents: [f64([1, 1])], values: [f64([2, 4]), f64([2, 6])] },
  };
  assert.deepEqual(await runSample(sample, device), { values: null, gradients: null, second: null });
  const wrong = await runSample(
    { ...sample, outputs: [f64([1, 8])], second: { ...sample.second!, values: [f64([2, 4]), null] } },
    device,
  );
  assert.deepEqual(wrong, {
    values: 'entry 1 is 9, torch has 8',
    gradients: null,
    second: 'entry 0 is 2, torch has 0',
  });
  await assert.rejects(
    runSample({ ...sample, kwargs: { out: f64([1, 1]) } }, device),
    (e: Error) => e instanceof NotOurs && /no counterpart of out/.test(e.message),
  );
  const refused = await runSample({ ...sample, op: 'add', args: [f64([1, 3], 0), f64([1, 2, 3], 1)] }, device);
  assert.match(String(refused.values), /^throws ShapeError: add: shapes \[2\] and \[3\] do not broadcast/);
});

test('without torch nothing is compared: that is said, and an error only for a Python that was named', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'reft-python-'));
  try {
    const python = path.join(folder, 'python');
    writeFileSync(python, '#!/bin/sh\nexit 3\n');
    chmodSync(python, 0o755);
    const script = fileURLToPath(new URL('../scripts/checkTorchOps.ts', import.meta.url));
    const run = (args: string[], env: Record<string, string> = {}): { status: number | null; output: string } => {
      const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, ...args], {
        encoding: 'utf8',
        env: { ...process.env, ...env },
      });
      return { status, output: `${stdout}${stderr}`.trim() };
    };
    const said = `check:torch: ${python} has no torch and numpy: nothing is compared`;
    assert.deepEqual(run(['--device', 'f64', 'abs'], { REFT_PYTHON: python }), { status: 0, output: said });
    assert.deepEqual(run(['--device', 'f64', 'abs', '--python', python]), { status: 1, output: said });
    const unknown = run(['absolute']);
    assert.equal(unknown.status, 2);
    assert.match(unknown.output, /^check:torch: no op of ours stands for absolute; known: neg abs /);
    assert.deepEqual(run(['--device', 'cuda']), {
      status: 2,
      output: 'check:torch: --device: expected f64, f32, webgpu, got cuda',
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
