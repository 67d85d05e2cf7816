// Files of one save are never read with those of another, wherever a save was cut off; what is not finite is never
// saved; and what a run that went wrong leaves is what its error says.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { writeFilesAtomic } from '../src/io/atomicWriteNode.js';
import { makeFolder } from '../src/io/foldersNode.js';
import { writerState, writerTag } from '../src/io/writerNode.js';
import { writeFolder } from '../src/reft/adapterFilesNode.js';
import {
  adapterToFiles,
  getInterchangeModel,
  getReftModel,
  interchangeToFiles,
  loadInterchange,
  loadReft,
  ReftTrainer,
  saveAdapter,
  saveInterchange,
  type ReftModel,
  type TrainerOptions,
} from '../src/reft/index.js';
import { failingDisk, type FailingDisk } from './helpers/failingDisk.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

let folder: string;
let disk: FailingDisk | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-saves-'));
});
afterEach(async () => {
  disk?.restore();
  await rm(folder, { recursive: true, force: true });
});

const adapter = async (layer: number, rank: number): Promise<ReftModel> =>
  getReftModel(await tinyModel(), { layers: [layer], rank });
const contents = async (directory: string): Promise<Map<string, string>> =>
  new Map(
    await Promise.all(
      (await readdir(directory))
        .sort()
        .map(async (name): Promise<[string, string]> => [
          name,
          (await readFile(join(directory, name))).toString('latin1'),
        ]),
    ),
  );

/** Puts NaN into the first parameter of an edit. */
function spoil(reft: ReftModel, value = NaN): void {
  const { tensor } = reft.trained()[0];
  tensor.backend.write(tensor.storage.allocation, 0, Float32Array.of(value));
  tensor.storage.version++;
}

/** Saves, and is killed before the `death`th rename. */
async function killedSave(save: () => Promise<void>, death: number): Promise<void> {
  let renames = 0;
  disk = failingDisk(folder, (_, call) => (call.startsWith('rename') && ++renames === death ? 'dies' : 'done'));
  void save();
  await disk.died;
  disk.restore();
}

/** As if the process that left files had ended. */
async function bury(directory: string): Promise<void> {
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  const dead = writerTag.replace(/^\d+/, String(pid));
  assert.equal(writerState(dead), 'dead');
  for (const name of await readdir(directory)) {
    if (name.includes(writerTag)) await rename(join(directory, name), join(directory, name.replace(writerTag, dead)));
  }
}

describe('a save that is cut off', () => {
  test('leaves the older adapter or the new one, and the next save clears what it left', async () => {
    for (const [death, rank] of [
      [1, 1],
      [2, 2],
      [3, 2],
    ] as const) {
      const directory = join(folder, `adapter-${death}`);
      await saveAdapter(await adapter(0, 1), directory);
      await killedSave(async () => saveAdapter(await adapter(1, 2), directory), death);
      const { configs, interventions } = await loadReft(await tinyModel(), directory);
      assert.deepEqual(
        [configs[0].rank, interventions[0].id],
        [rank, rank === 1 ? 'block_output/0' : 'block_output/1'],
        `killed before rename ${death}`,
      );
      await bury(directory);
      assert.equal((await loadReft(await tinyModel(), directory)).configs[0].rank, rank);
      await saveAdapter(await adapter(2, 3), directory);
      assert.deepEqual((await readdir(directory)).sort(), [
        'README.md',
        'adapter_config.json',
        'adapter_model.safetensors',
      ]);
      assert.equal((await loadReft(await tinyModel(), directory)).configs[0].rank, 3);
    }
  });

  test('over which another is cut off loses neither', async () => {
    const directory = join(folder, 'adapter');
    await saveAdapter(await adapter(0, 1), directory);
    await killedSave(async () => saveAdapter(await adapter(1, 2), directory), 2);
    await bury(directory);
    // The first rename of the second save ends the first one.
    await killedSave(async () => saveAdapter(await adapter(2, 3), directory), 2);
    assert.equal((await loadReft(await tinyModel(), directory)).configs[0].rank, 2);
  });

  test('of interchange interventions is whole too', async () => {
    const directory = join(folder, 'interchange');
    const model = await tinyModel();
    const spaces = [2, 3].map(lowRankDimension =>
      getInterchangeModel(model, [{ kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension }]),
    );
    await saveInterchange(spaces[0], directory);
    await killedSave(() => saveInterchange(spaces[1], directory), 2);
    assert.deepEqual(
      (await loadInterchange(model, directory)).spaces.map(space => space.parameters().R.shape[0]),
      [3],
    );
  });

  test('of a format without hashes leaves no folder that can be read', async () => {
    const directory = join(folder, 'pyreft');
    const files = (text: string): Map<string, Uint8Array> =>
      new Map(
        ['intkey_a.bin', 'config.json'].map(name => [
          name,
          new TextEncoder().encode(
            name === 'config.json' ? `{"sorted_keys":["${text}"],"intervention_types":[]}` : text,
          ),
        ]),
      );
    await writeFolder(directory, files('old'), 'config.json');
    await killedSave(async () => {
      await writeFolder(directory, files('new'), 'config.json');
    }, 2);
    assert.deepEqual(
      (await readdir(directory)).filter(name => !name.startsWith('.')),
      ['intkey_a.bin'],
    );
  });
});

describe('two saves in one folder', () => {
  test('are refused, of adapters and of interchange', async () => {
    const base = await tinyModel();
    for (const [name, files] of [
      ['a', await adapterToFiles(await adapter(0, 2))],
      ['b', await adapterToFiles(await adapter(0, 2))],
    ] as const) {
      await writeFolder(join(folder, name), files);
    }
    const other = await adapter(0, 2);
    spoil(other, 0.25);
    await saveAdapter(other, join(folder, 'b'));
    await writeFile(join(folder, 'b', 'adapter_config.json'), await readFile(join(folder, 'a', 'adapter_config.json')));
    const message =
      /^FormatError: .*adapter_config\.json: belongs to other weights than those in .*adapter_model\.safetensors: the two files are not of one save/;
    await assert.rejects(loadReft(base, join(folder, 'b')), message);
    const space = getInterchangeModel(base, [{ kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 2, seed: 1 }]);
    const another = getInterchangeModel(base, [
      { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 2, seed: 2 },
    ]);
    await saveInterchange(space, join(folder, 'c'));
    const [[weights, bytes]] = [...(await interchangeToFiles(another))];
    await writeFile(join(folder, 'c', weights), bytes);
    await assert.rejects(
      loadInterchange(base, join(folder, 'c')),
      /interchange_config\.json: belongs to other weights/,
    );
  });

  test('files of an earlier version, without a hash, are read', async () => {
    await saveAdapter(await adapter(0, 2), folder);
    const path = join(folder, 'adapter_config.json');
    const { weights_sha256: hash, ...config } = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
    assert.match(String(hash), /^sha256:[0-9a-f]{64}$/);
    await writeFile(path, JSON.stringify(config));
    assert.equal((await loadReft(await tinyModel(), folder)).configs[0].rank, 2);
  });

  test("somebody's files stay: a save says which one is in the way, and writes nothing", async () => {
    await writeFile(join(folder, 'adapter_config.json'), '{"peft_type":"LORA"}');
    const before = await contents(folder);
    await assert.rejects(
      saveAdapter(await adapter(0, 1), folder),
      /^RangeError: .*adapter_config\.json was not written by reft and is not replaced; save into another folder$/,
    );
    assert.deepEqual(await contents(folder), before);
    const told: string[] = [];
    await mkdir(join(folder, 'other'));
    await writeFile(join(folder, 'other', 'README.md'), 'mine');
    const reft = await adapter(0, 1);
    reft.onWarning = message => told.push(message);
    await saveAdapter(reft, join(folder, 'other'));
    assert.equal((await contents(join(folder, 'other'))).get('README.md'), 'mine');
    assert.deepEqual(told, [`${join(folder, 'other')}: README.md was not written by reft and is left as it is`]);
  });
});

describe('what is not finite', () => {
  const options: TrainerOptions = { examples: tinyExamples(4), steps: 10, batchSize: 2, learningRate: 1e-2 };

  test('is not saved as an adapter, as interchange or as a checkpoint; what is there stays', async () => {
    const directory = join(folder, 'adapter');
    const reft = await adapter(1, 2);
    await saveAdapter(reft, directory);
    const trainer = new ReftTrainer(reft, options);
    await trainer.saveCheckpoint(join(folder, 'checkpoint'));
    const before = [await contents(directory), await contents(join(folder, 'checkpoint'))];
    spoil(reft);
    await assert.rejects(
      reft.save(directory),
      /'block_output\/1\.\w+' has numbers that are not finite: nothing was written/,
    );
    await assert.rejects(
      trainer.saveCheckpoint(join(folder, 'checkpoint')),
      /checkpoint: the checkpoint of step 0 could not be saved: .* has numbers that are not finite: nothing was written; .*checkpoint holds the run up to step 0: resume from there/,
    );
    assert.deepEqual([await contents(directory), await contents(join(folder, 'checkpoint'))], before);
  });

  /** A run whose parameters are spoilt after a step. */
  async function spoilt(
    step: number,
    value: number,
    more: Partial<TrainerOptions> = {},
  ): Promise<{ error: Error; directory: string; trainer: ReftTrainer }> {
    const directory = join(folder, 'checkpoint');
    const reft = getReftModel(await tinyModel(), { kind: 'direft', layers: [1], rank: 2 });
    const trainer = new ReftTrainer(reft, { ...options, checkpoint: { directory }, ...more });
    const error = await trainer
      .train(({ index }) => {
        if (index !== step) return;
        for (const { tensor } of reft.trained()) {
          tensor.backend.write(tensor.storage.allocation, 0, new Float32Array(tensor.size).fill(value));
          tensor.storage.version++;
        }
      })
      .then(
        () => assert.fail('a run that diverged ends with an error'),
        (e: unknown) => e as Error,
      );
    return { error, directory, trainer };
  }

  test('a step that goes wrong saves the parameters before it, and says so', async () => {
    const { error, directory } = await spoilt(3, 1e38);
    assert.equal(
      error.message,
      `training: the loss is NaN at step 4; the parameters are as the step before left them, saved in ${directory}. ` +
        'Try a learning rate below 0.01, a warmup, or maxGradNorm 1',
    );
    const state = JSON.parse(await readFile(join(directory, 'trainer_state.json'), 'utf8')) as { step: number };
    assert.equal(state.step, 3);
    const loaded = await loadReft(await tinyModel(), directory);
    assert.ok(
      loaded.trained().every(t => t.tensor.dataSync().every(x => x === Math.fround(1e38))),
      'the parameters before the bad step',
    );
  });

  test('parameters that are not finite are said to be lost; an earlier checkpoint stays', async () => {
    const { error, directory } = await spoilt(3, NaN);
    assert.match(
      error.message,
      /^training: the loss is NaN at step 4; .*checkpoint: the checkpoint of step 3 could not be saved: 'block_output\/1\.\w+' has numbers that are not finite: nothing was written; nothing of the run was saved\. Try/,
    );
    assert.deepEqual(await readdir(directory).catch(() => []), []);
    const later = await spoilt(3, 1e38, { checkpoint: { directory, everySteps: 2 } });
    assert.match(later.error.message, /; .*checkpoint holds the run up to step 2: resume from there\. Try/);
    assert.deepEqual(later.trainer.lastSaved, { step: 2, directory });
  });

  test('a loss that is not finite after the last step is no success', async () => {
    const { error } = await spoilt(10, 1e38);
    assert.equal(
      error.message,
      'training: the loss after the last step is NaN: it diverged; nothing of the run was saved. Try a learning rate below 0.01, a warmup, or maxGradNorm 1',
    );
  });
});

describe('a run that ends with an error', () => {
  const options: TrainerOptions = { examples: tinyExamples(4), steps: 6, batchSize: 2, learningRate: 1e-2 };

  test('of any kind saves the steps that were done; its record goes on without a gap', async () => {
    const checkpoint = { directory: join(folder, 'checkpoint') };
    const evaluation = { examples: tinyExamples(3), every: 2 };
    const whole = new ReftTrainer(await adapter(1, 2), { ...options, evaluation });
    await whole.train();
    assert.deepEqual(
      [whole.record.losses.map(p => p.step), whole.record.evaluation.map(p => p.step)],
      [
        [1, 2, 3, 4, 5, 6],
        [2, 4, 6],
      ],
    );
    const broken = new ReftTrainer(await adapter(1, 2), {
      ...options,
      checkpoint,
      evaluation,
      onEvaluation: ({ step }) => {
        if (step === 4) throw new Error('mine');
      },
    });
    await assert.rejects(broken.train(), /^Error: mine$/);
    assert.deepEqual(broken.lastSaved, { step: 4, directory: checkpoint.directory });
    const resumed = new ReftTrainer(await adapter(1, 2), { ...options, evaluation, resume: checkpoint.directory });
    await resumed.train();
    assert.deepEqual(resumed.record, whole.record);
    assert.deepEqual(
      resumed.reft.trained().map(t => t.tensor.dataSync()),
      whole.reft.trained().map(t => t.tensor.dataSync()),
    );
  });

  test('an abort while the last loss is measured is seen, and saved', async () => {
    const controller = new AbortController();
    const checkpoint = { directory: join(folder, 'checkpoint') };
    const trainer = new ReftTrainer(await adapter(1, 2), { ...options, checkpoint, signal: controller.signal });
    const { aborted, steps } = await trainer.train(({ index }) => {
      if (index === 6) controller.abort();
    });
    assert.deepEqual([aborted, steps, trainer.lastSaved?.step], [true, 6, 6]);
    const resumed = await new ReftTrainer(await adapter(1, 2), { ...options, resume: checkpoint.directory }).train();
    assert.deepEqual([resumed.aborted, resumed.steps, Number.isFinite(resumed.loss)], [false, 6, true]);
  });
});

describe('files on the way', () => {
  test('several are written before the first is renamed: a full disk changes none', async () => {
    await writeFilesAtomic(folder, [
      ['a', 'old'],
      ['b', 'old'],
    ]);
    let writes = 0;
    disk = failingDisk(folder, (_, call) => (call.startsWith('write') && ++writes === 2 ? new Error('full') : 'done'));
    await assert.rejects(
      writeFilesAtomic(folder, [
        ['a', 'new'],
        ['b', 'new'],
      ]),
      /full/,
    );
    disk.restore();
    assert.deepEqual(
      [...(await contents(folder))],
      [
        ['a', 'old'],
        ['b', 'old'],
      ],
    );
  });

  test('writers are told apart by process, start and host', () => {
    const [pid, start, host] = writerTag.split('-');
    assert.deepEqual([writerTag, `${pid}-00000000-${host}`, `${pid}-${start}-00000000`].map(writerState), [
      'alive',
      process.platform === 'linux' ? 'dead' : 'alive',
      'unknown',
    ]);
  });

  test('folders that are missing are made, outermost first, and named', async () => {
    const path = join(folder, 'a', 'b');
    assert.deepEqual(await makeFolder(path), [join(folder, 'a'), path]);
    assert.deepEqual(await makeFolder(path), []);
    await writeFile(join(path, 'file'), '');
    await assert.rejects(makeFolder(join(path, 'file')), /ENOTDIR: .*file is no folder/);
  });
});
