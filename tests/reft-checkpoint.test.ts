// Checkpoints: a run that is stopped and resumed is, bit for bit, the run that was not.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  getReftModel,
  loadReft,
  ReftTrainer,
  type ReftConfig,
  type ReftModel,
  type TrainerOptions,
} from '../src/reft/index.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';
import { parameterOf } from './helpers/packed.js';

const options: TrainerOptions = {
  examples: tinyExamples(5),
  steps: 10,
  batchSize: 2,
  learningRate: 2e-2,
  schedule: 'cosine',
  warmup: 2,
  weightDecay: 0.1,
};
const configs: ReftConfig[] = [
  { layers: [0, 2], positions: 'f1+l2', rank: 3, dropout: 0.2 },
  { kind: 'direft', layers: [1], rank: 2, component: 'mlp_output' },
  { layers: [1], rank: 2, orthogonal: 'torch', component: 'attention_output' },
];

const bytesOf = (reft: ReftModel): unknown =>
  reft.interventions.flatMap(i => i.state().map(({ name, tensor }) => [name, tensor.dataSync()]));
const fresh = async (config: ReftConfig | ReftConfig[] = configs): Promise<ReftModel> => {
  const reft = getReftModel(await tinyModel(), config);
  reft.onWarning = () => undefined;
  return reft;
};

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'reft-checkpoint-'));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The parameters after `steps` steps, and the files of a checkpoint then. */
async function runFor(steps: number, more: Partial<TrainerOptions> = {}, reft?: ReftModel) {
  const model = reft ?? (await fresh());
  const trainer = new ReftTrainer(model, { ...options, ...more });
  const losses: number[] = [];
  for await (const step of trainer.steps()) {
    losses.push(step.loss);
    if (step.index === steps) break;
  }
  return { model, losses, files: await trainer.checkpointFiles() };
}

describe('resuming', () => {
  test('5 steps and 5 more are 10 steps, bit for bit', async () => {
    const straight = await runFor(10);
    const half = await runFor(5);
    const rest = await runFor(10, { resume: half.files });
    assert.deepEqual([...half.losses, ...rest.losses], straight.losses);
    assert.deepEqual(bytesOf(rest.model), bytesOf(straight.model));
    assert.deepEqual([...rest.files], [...straight.files]);
  });

  test('with a part of the base trained along', async () => {
    const make = async (): Promise<ReftModel> => {
      const reft = await fresh({ layers: [1], rank: 2 });
      parameterOf(reft.base, 'model.norm.weight').requireGrad();
      return reft;
    };
    const straight = await runFor(6, { steps: 6 }, await make());
    const rest = await runFor(
      6,
      { steps: 6, resume: (await runFor(3, { steps: 6 }, await make())).files },
      await make(),
    );
    const norms = [rest, straight].map(run => parameterOf(run.model.base, 'model.norm.weight').dataSync());
    assert.deepEqual(norms[0], norms[1]);
    assert.deepEqual(bytesOf(rest.model), bytesOf(straight.model));
  });

  test('an aborted run leaves a checkpoint, an adapter too (fault 12), and goes on from its folder', async () => {
    await withFolder(async folder => {
      const directory = join(folder, 'checkpoint');
      const controller = new AbortController();
      const trainer = new ReftTrainer(await fresh(), {
        ...options,
        signal: controller.signal,
        checkpoint: { directory },
      });
      const result = await trainer.train(step => {
        if (step.index === 4) controller.abort();
      });
      assert.deepEqual([result.aborted, result.steps], [true, 4]);
      assert.deepEqual((await readdir(directory)).sort(), [
        'README.md',
        'adapter_config.json',
        'adapter_model.safetensors',
        'trainer_state.json',
        'trainer_state.safetensors',
      ]);
      assert.equal(
        (await loadReft(await tinyModel(), directory)).interventions.length,
        trainer.reft.interventions.length,
      );
      const resumed = await fresh();
      const rest = await new ReftTrainer(resumed, { ...options, resume: directory }).train();
      assert.deepEqual([rest.aborted, rest.steps], [false, 10]);
      assert.deepEqual(bytesOf(resumed), bytesOf((await runFor(10)).model));
    });
  });

  test('checkpoints on the way', async () => {
    await withFolder(async folder => {
      const checkpoint = { directory: folder, everySteps: 4 };
      await new ReftTrainer(await fresh(), { ...options, checkpoint }).train();
      const rest = await runFor(10, { resume: folder });
      assert.equal(rest.losses.length, 2);
      assert.deepEqual(bytesOf(rest.model), bytesOf((await runFor(10)).model));
    });
  });

  test('refuses another run, naming what differs', async () => {
    const { files } = await runFor(2);
    const refused = async (more: Partial<TrainerOptions>, message: RegExp, reft?: ReftModel): Promise<void> => {
      await assert.rejects(runFor(10, { ...more, resume: files }, reft), message);
    };
    await refused(
      { learningRate: 1e-3 },
      /^RangeError: resume: learningRate is 0\.001, but checkpoint was made with 0\.02; a run can only go on unchanged$/,
    );
    await refused({ seed: 1 }, /resume: seed is 1/);
    await refused({ steps: 12 }, /resume: totalSteps is 12/);
    await refused({ examples: tinyExamples(4) }, /resume: data is sha256:/);
    await refused({}, /resume: edits is /, await fresh({ layers: [1], rank: 2 }));
    const other = getReftModel(await tinyModel({ seed: 2 }), configs);
    other.onWarning = () => undefined;
    await refused({}, /resume: base is sha256:/, other);
  });

  test('refuses files that are wrong, and changes nothing', async () => {
    const { files } = await runFor(2);
    const state = files.get('trainer_state.safetensors')!;
    const broken = new Map([
      ['a', new Map()],
      ['b', new Map([['trainer_state.safetensors', state.subarray(0, state.length - 4)]])],
    ] as const);
    for (const [name, message] of [
      ['a', /is no checkpoint: it has no trainer_state\.safetensors/],
      ['b', /^FormatError: checkpoint\/trainer_state\.safetensors: /],
    ] as const) {
      const reft = await fresh();
      const before = bytesOf(reft);
      await assert.rejects(runFor(10, { resume: broken.get(name) as Map<string, Uint8Array> }, reft), message);
      assert.deepEqual(bytesOf(reft), before);
    }
  });
});
