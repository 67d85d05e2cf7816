// Long runs on WebGPU: memory that stays flat, nothing read back but the loss, a device that goes away in the middle.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createWebGpuBackend, type WebGpuBackend } from '../src/backends/webgpu/index.js';
import type { Example } from '../src/data/examples.js';
import { getReftModel, ReftTrainer, type TrainerOptions } from '../src/reft/index.js';
import { tinyModel } from './helpers/tinyModel.js';
import { openForTests } from './helpers/webgpu.js';

const gpu = await openForTests();

const examples: Example[] = [
  [5, 9, 3, 7, 11, 4],
  [8, 2, 6, 1, 3, 12, 10],
  [4, 4, 9, 13, 2],
].map((ids, i) => ({
  ids: Int32Array.from(ids),
  promptLength: 3,
  labels: Int32Array.from(ids, (id, t) => (t < 3 ? -100 : id)),
  truncated: 0,
  where: `row ${i}`,
}));

function occupied({ counters, ...backend }: WebGpuBackend): Record<string, number> {
  const { liveBytes, pooledBytes } = backend.stats();
  return { liveBytes, pooledBytes, buffers: counters.buffers, pipelines: counters.pipelines };
}

async function trainer(device: WebGpuBackend, options: Partial<TrainerOptions>): Promise<ReftTrainer> {
  const reft = getReftModel(await tinyModel({ device }), { layers: [1], positions: 'l1', rank: 2 });
  return new ReftTrainer(reft, { examples, batchSize: 3, learningRate: 1e-2, schedule: 'constant', ...options });
}

if (gpu) {
  test('500 steps: live and pooled bytes are flat, a step reads its loss back and nothing else, and compiles nothing new', async () => {
    const run = await trainer(gpu, { steps: 500 });
    let settled: Record<string, number> | undefined;
    let { reads } = gpu.counters;
    for await (const step of run.steps()) {
      if (step.index > 1) assert.equal(gpu.counters.reads - reads, 1, `step ${step.index}`);
      ({ reads } = gpu.counters);
      const now = occupied(gpu);
      if (step.index === 20) settled = now;
      if (step.index > 20) assert.deepEqual(now, settled, `step ${step.index}`);
    }
    assert.ok(settled, 'settled');
  });

  test('a device lost in the middle of a run: one clear error, and a checkpoint that goes on to the same end', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'reft-lost-'));
    try {
      const checkpoint = { directory: folder, everySteps: 4 };
      const lost = await createWebGpuBackend();
      const run = await trainer(lost, { steps: 12, checkpoint });
      await assert.rejects(
        (async () => {
          for await (const step of run.steps()) if (step.index === 6) lost.device.destroy();
        })(),
        (error: Error) =>
          /^training: step 7 of 12: .*the device was lost .*; .* holds the run up to step 4: resume from there$/.test(
            error.message,
          ) &&
          error.message.includes(folder) &&
          (error.cause as Error).name === 'WebGPUError',
      );
      await lost.close();

      const resumed = await trainer(gpu, { steps: 12, resume: folder });
      const unbroken = await trainer(gpu, { steps: 12 });
      const [losses, expected]: [number[], number[]] = [[], []];
      for await (const step of resumed.steps()) losses.push(step.loss);
      for await (const step of unbroken.steps()) expected.push(step.loss);
      assert.deepEqual(losses, expected.slice(4));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('a device lost with nothing saved says so', async () => {
    const lost = await createWebGpuBackend();
    const run = await trainer(lost, { steps: 5 });
    await assert.rejects(
      (async () => {
        for await (const step of run.steps()) if (step.index === 1) lost.device.destroy();
      })(),
      /step 2 of 5: .*lost.*; nothing of the run was saved$/,
    );
    await lost.close();
  });
}
