// The main job on WebGPU: training, generation, saving and loading edits give the CPU's results.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Backend } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import type { Example } from '../src/data/examples.js';
import {
  adapterFromFiles,
  adapterToFiles,
  getReftModel,
  ReftTrainer,
  type ReftConfig,
  type TrainerOptions,
} from '../src/reft/index.js';
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

async function train(device: Backend, config: ReftConfig, options: Partial<TrainerOptions> = {}) {
  const reft = getReftModel(await tinyModel({ device }), config);
  const trainer = new ReftTrainer(reft, { examples, steps: 20, batchSize: 3, learningRate: 1e-2, ...options });
  const losses: number[] = [];
  for await (const step of trainer.steps()) losses.push(step.loss);
  return { reft, losses };
}

if (gpu) {
  for (const config of [
    { layers: [1], positions: 'l1', rank: 2 },
    { kind: 'direft', layers: [0, 2], positions: 'f1+l1', rank: 3, tied: true },
  ] as const) {
    test(`WebGPU: 20 steps of ${'kind' in config ? config.kind : 'loreft'} give the CPU's losses, answers and files`, async () => {
      const [there, here] = [await train(gpu, config), await train(createCpuBackend(), config)];
      here.losses.forEach((loss, i) =>
        assert.ok(
          Math.abs(there.losses[i] - loss) <= 1e-4 * Math.abs(loss),
          `step ${i + 1}: ${there.losses[i]}, on the CPU ${loss}`,
        ),
      );
      assert.ok(here.losses[19] < here.losses[0], 'here.losses[19] < here.losses[0]');

      const prompts = examples.map(e => [...e.ids.subarray(0, e.promptLength)]);
      const options = { maxNewTokens: 6, stopTokenIds: [] };
      const [answers, expected] = [
        await there.reft.generate(prompts, options),
        await here.reft.generate(prompts, options),
      ];
      assert.deepEqual(
        answers.map(a => a.ids),
        expected.map(a => a.ids),
      );

      const loaded = await adapterFromFiles(await tinyModel({ device: gpu }), await adapterToFiles(there.reft));
      assert.deepEqual(
        (await loaded.generate(prompts, options)).map(a => a.ids),
        answers.map(a => a.ids),
      );
    });
  }

  test('WebGPU: recomputed blocks, and reuse in a folder by a first run and a second, give the same bits', async () => {
    const config: ReftConfig = { layers: [1, 2], positions: 'l1', rank: 2 };
    const reuseDirectory = await mkdtemp(join(tmpdir(), 'reft-reuse-'));
    const { losses } = await train(gpu, config);
    try {
      for (const options of [{ recompute: true }, { reuseDirectory, reuseBudgetBytes: 0 }, { reuseDirectory }]) {
        assert.deepEqual((await train(gpu, config, options)).losses, losses, JSON.stringify(Object.keys(options)));
      }
    } finally {
      await rm(reuseDirectory, { recursive: true, force: true });
    }
  });
}
