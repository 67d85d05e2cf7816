// Reuse over a frozen base is exact: the same losses, gradients and parameters as computing everything, and less is
// computed.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import type { Example } from '../src/data/examples.js';
import { getReftModel, ReftTrainer, type ReftConfig, type TrainerOptions, type TrainStep } from '../src/reft/index.js';
import { PrefixReuse } from '../src/train/reuse.js';
import { windowBatch } from '../src/train/windows.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel, type TinyModelOptions } from './helpers/tinyModel.js';
import { parameterOf } from './helpers/packed.js';

async function run(
  config: ReftConfig,
  options: Partial<TrainerOptions>,
  examples: readonly Example[],
  model: TinyModelOptions = {},
) {
  const reft = getReftModel(await tinyModel({ dtype: 'f64', ...model }), config);
  const trainer = new ReftTrainer(reft, { examples, steps: 4, batchSize: 3, learningRate: 1e-2, ...options });
  const steps: TrainStep[] = [];
  for await (const step of trainer.steps()) steps.push(step);
  return { steps, parameters: reft.trained().map(t => t.tensor.dataSync()), loss: (await trainer.evaluate()).loss };
}

async function agree(
  config: ReftConfig,
  {
    options = {},
    examples = tinyExamples(6),
    model = {},
    bound = 1e-9,
  }: {
    options?: Partial<TrainerOptions>;
    examples?: readonly Example[];
    model?: TinyModelOptions;
    bound?: number;
  } = {},
): Promise<void> {
  const on = await run(config, options, examples, model);
  const off = await run(config, { ...options, reuse: false }, examples, model);
  on.steps.forEach((step, i) => {
    for (const key of ['loss', 'gradNorm'] as const) {
      assert.ok(
        Math.abs(step[key] - off.steps[i][key]) < bound * Math.max(1, off.steps[i][key]),
        `step ${i}: ${key} ${step[key]} and ${off.steps[i][key]}`,
      );
    }
  });
  on.parameters.forEach((data, i) => {
    data.forEach((x, k) => {
      assert.ok(Math.abs(x - off.parameters[i][k]) < 100 * bound, 'Math.abs(x - off.parameters[i][k]) < 100 * bound');
    });
  });
}

describe('with and without reuse, steps agree', () => {
  test('the last prompt token, at each layer and component', async () => {
    for (const layer of [0, 1, 2])
      await agree({ layers: [layer], positions: 'l1', rank: 2 }, { options: { steps: 2 } });
    for (const component of ['block_input', 'attention_output', 'mlp_activation'] as const) {
      await agree({ layers: [1], component, positions: 'l1', rank: 2 }, { options: { steps: 2 } });
    }
  });

  test('several layers and positions, tied and not, and edits of the answer', async () => {
    await agree({ layers: [1, 2], positions: 'l2', rank: 2 });
    await agree({ layers: [0, 2], positions: 'f1+l2', rank: 2, tied: true });
    await agree({ layers: [1], positions: 'f1+l1', rank: 2 });
    await agree({ layers: [1, 2], positions: 'all', rank: 2, kind: 'direft' });
    await agree({ layers: [1], positions: [-1, 2], rank: 2 });
  });

  test('a sliding window, dropout, accumulation', async () => {
    await agree({ layers: [1], positions: 'l1', rank: 2 }, { model: { slidingWindow: 4 } });
    await agree({ layers: [1, 2], positions: 'l2', rank: 2, dropout: 0.3 });
    await agree({ layers: [1], positions: 'l1', rank: 2 }, { options: { batchSize: 2, gradientAccumulation: 2 } });
  });

  test('in f32 to 1e-5', async () => {
    await agree({ layers: [1, 2], positions: 'l1', rank: 2 }, { model: { dtype: 'f32' }, bound: 1e-5 });
  });

  test('labels before the first edit, prompts without a missing edit, one-token answers', async () => {
    const early = tinyExample(8, 3, 1);
    const learnsPrompt = { ...early, labels: early.ids.slice().fill(-100, 0, 3) };
    const text = { ...tinyExample(9, 0, 2), promptLength: 0, labels: tinyExample(9, 0, 2).ids };
    await agree(
      { layers: [1], positions: 'l1', rank: 2 },
      { examples: [learnsPrompt, tinyExample(6, 1, 3), tinyExample(1, 4, 4)] },
    );
    await agree({ layers: [1], positions: 'all', rank: 2 }, { examples: [text, tinyExample(5, 2, 5)] });
  });

  test('a budget for some of the examples, and for none', async () => {
    const bytes = await keptBytes({ layers: [1], positions: 'l1', rank: 2 });
    for (const reuseBudgetBytes of [0, bytes / 2])
      await agree({ layers: [1], positions: 'l1', rank: 2 }, { options: { reuseBudgetBytes } });
  });
});

/** What reuse keeps for the tiny examples, in bytes as the backend counts them; also checks that it is given back. */
async function keptBytes(config: ReftConfig): Promise<number> {
  const backend = createCpuBackend();
  const reft = getReftModel(await tinyModel({ dtype: 'f64', device: backend }), config);
  // The first run leaves the scratch memory of kernels behind.
  const first = new ReftTrainer(reft, { examples: tinyExamples(6), steps: 2, reuse: false });
  for await (const step of first.steps()) assert.ok(step.loss > 0, 'step.loss > 0');
  first.dispose();
  const trainer = new ReftTrainer(reft, { examples: tinyExamples(6), steps: 2 });
  const before = backend.stats().liveBytes;
  let during = 0;
  for await (const _ of trainer.steps()) during = backend.stats().liveBytes;
  assert.equal(backend.stats().liveBytes, before);
  assert.ok(during > before, 'during > before');
  return during - before;
}

test('only tokens from the first edit on, in layers above the lowest edit, are computed', async () => {
  const reft = getReftModel(await tinyModel(), { layers: [1, 2], positions: 'l1', rank: 2 });
  const examples = [tinyExample(9, 3, 1), tinyExample(4, 5, 2)];
  const reuse = new PrefixReuse(reft, examples);
  const windows = examples.map(e => reuse.windowOf(e)!);
  assert.deepEqual(
    windows.map(({ start, end }) => [start, end]),
    [
      [8, 11],
      [3, 8],
    ],
  );
  const { shape, layout, attentionMask, rows } = windowBatch(windows, 0);
  assert.deepEqual(shape, [2, 5]);
  assert.deepEqual(layout.starts, [-8, -3]);
  assert.deepEqual([...attentionMask], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
  assert.deepEqual([...rows], [0, 1, 2, 5, 6, 7, 8, 9]);
  const { from, cache } = reuse.stateFor(windows);
  assert.deepEqual(
    [from?.layer, from?.component, from?.hiddenStates.shape, cache?.length],
    [1, 'block_output', [2, 5, 16], 8],
  );
  await reuse.close();
});

test('a base that is trained along is computed in full', async () => {
  const reft = getReftModel(await tinyModel(), { layers: [1], positions: 'l1', rank: 2 });
  parameterOf(reft.base, 'model.layers.0.mlp.up_proj.weight').requireGrad();
  const losses: number[] = [];
  for (const reuse of [true, false]) {
    const trainer = new ReftTrainer(reft, { examples: tinyExamples(3), steps: 1, learningRate: 0, reuse });
    losses.push((await trainer.train()).loss);
  }
  assert.equal(losses[0], losses[1]);
});
