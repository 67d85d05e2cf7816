// Options and rules that a run could ignore without failing: each has a value here that only comes out when it is
// followed.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { createCpuBackend } from '../src/backends/index.js';
import { AutoTokenizer } from '../src/io/index.js';
import {
  activationPatching,
  compose,
  DasTrainer,
  getInterchangeModel,
  getReftModel,
  layoutOf,
  mixEdits,
  parsePositions,
  ReftTrainer,
  resolvePositions,
  tokenBatch,
  type CounterfactualExample,
  type EditedModel,
  type ReftConfig,
} from '../src/reft/index.js';
import { stepsOfEpoch } from '../src/train/data.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const close = (a: ArrayLike<number>, b: ArrayLike<number>, bound: number, what: string): void => {
  assert.equal(a.length, b.length, what);
  for (let i = 0; i < a.length; i++)
    assert.ok(Math.abs(a[i] - b[i]) <= bound, `${what}, number ${i}: ${a[i]} and ${b[i]}`);
};
const width = 6;
function logitsOf(model: EditedModel, rows: number): number[] {
  const inputIds = Int32Array.from(Array.from({ length: rows }, (_, row) => [...tinyIds(width, row)]).flat());
  const layout = layoutOf(new Int32Array(rows * width).fill(1), [rows, width], new Array<number>(rows).fill(4));
  return Array.from(noGrad(() => model.forward({ inputIds, shape: [rows, width] }, layout).logits).dataSync());
}

describe('training', () => {
  test('rows come in another order each epoch, all of them', () => {
    const options = { batchSize: 4, gradientAccumulation: 2, seed: 3 };
    const epochs = [0, 1, 2].map(epoch => stepsOfEpoch(12, options, epoch));
    for (const steps of epochs) {
      assert.deepEqual(
        steps.map(step => step.map(batch => batch.length)),
        [[4, 4], [4]],
      );
      assert.deepEqual(
        steps.flat(2).sort((a, b) => a - b),
        Array.from({ length: 12 }, (_, i) => i),
      );
    }
    assert.equal(new Set(epochs.map(String)).size, 3, 'three epochs, three orders');
    assert.notDeepEqual(stepsOfEpoch(12, { ...options, seed: 4 }, 0), epochs[0]);
  });

  test('accumulated micro-batches leave no gradient behind: memory is flat', async () => {
    const backend = createCpuBackend();
    const reft = getReftModel(await tinyModel({ device: backend }), { layers: [0, 1], positions: 'l1', rank: 2 });
    const options = { batchSize: 2, gradientAccumulation: 3, steps: 40, learningRate: 1e-3 };
    const trainer = new ReftTrainer(reft, { examples: tinyExamples(6), ...options });
    const live: number[] = [];
    for await (const _ of trainer.steps()) live.push(backend.stats().liveBytes);
    assert.equal(Math.max(...live.slice(5)), Math.min(...live.slice(5)));
  });

  test('marker: is the last token of the last occurrence', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'reft-marker-'));
    try {
      const tokenizer = await AutoTokenizer.fromPretrained(await writeTinyFolder(folder));
      // A token a byte: `ab` ends at 1, 6 and 11.
      const ids = tokenizer.encodePrompt('ab x ab x ab x');
      const found = resolvePositions(parsePositions('marker:ab'), ids.length, ids.length, 'both', { ids, tokenizer });
      assert.deepEqual(found.positions, [11]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('sets together', () => {
  test('a trained scale counts in a mixture as it does alone', async () => {
    const model = await tinyModel();
    const config: ReftConfig = { layers: [1], positions: 'all', rank: 2, seed: 1 };
    const scaled = getReftModel(model, { ...config, trainScale: true, scale: 2.5 });
    const [plain, other] = [2, 3].map(seed => getReftModel(model, { ...config, seed }));
    const mixed = logitsOf(mixEdits([scaled, plain, other]), 3);
    const alone = [scaled, plain, other].map(set => logitsOf(set, 3));
    const size = mixed.length / 3;
    alone.forEach((logits, row) => {
      close(mixed.slice(row * size, (row + 1) * size), logits.slice(row * size, (row + 1) * size), 1e-5, `row ${row}`);
    });
  });

  test('weights of a composition count at sites that one set edits', async () => {
    const model = await tinyModel();
    const [a, b] = [0, 2].map(layer =>
      getReftModel(model, { layers: [layer], positions: 'all', rank: 2, seed: layer }),
    );
    const weighted = logitsOf(await compose([a, b], 'add', { weights: [0.5, 2] }), 2);
    const unweighted = logitsOf(await compose([a, b], 'add'), 2);
    a.interventions[0].scale = 0.5;
    b.interventions[0].scale = 2;
    close(weighted, logitsOf(await compose([a, b], 'stack'), 2), 1e-5, 'the same as scales');
    assert.notDeepEqual(weighted, unweighted);
  });
});

describe('interchange', () => {
  const examples = Array.from({ length: 6 }, (_, i): CounterfactualExample => ({
    base: tinyIds(5, 10 + i),
    sources: [tinyIds(5, 30 + i)],
    label: (3 * i) % 23,
  }));
  const unitLocations = { base: -1, source: 1 };

  test('a source that is padded on the left is patched in as it is without padding', async () => {
    const model = await tinyModel({ dtype: 'f64' });
    const [base, source] = [
      [tinyIds(4, 1), tinyIds(4, 2)],
      [tinyIds(4, 3), tinyIds(4, 4)],
    ];
    const answers = [
      { base: 3, source: 5 },
      { base: 7, source: 2 },
    ];
    const padded = {
      inputIds: Int32Array.from(source.flatMap(ids => [0, 0, ...ids])),
      attentionMask: Int32Array.from([0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1]),
      shape: [2, 6],
    };
    const plain = await activationPatching(model, { base: tokenBatch(base), source: tokenBatch(source), answers });
    const left = await activationPatching(model, { base: tokenBatch(base), source: padded, answers });
    close(left.effects.flat(2), plain.effects.flat(2), 1e-9, 'effects');
    assert.ok(
      plain.effects.flat(2).some(x => Math.abs(x) > 1e-3),
      'there is an effect at all',
    );
  });

  test('boundaryLearningRate is the rate of boundaries', async () => {
    for (const boundaryLearningRate of [2e-3, 5e-2]) {
      const interchange = getInterchangeModel(await tinyModel({ dtype: 'f64' }), {
        kind: 'boundlessRotatedSpace',
        layer: 1,
      });
      const [{ space }] = interchange.interventions;
      const boundary = (): number => noGrad(() => space.parameters().interventionBoundaries.dataSync()[0]);
      const before = boundary();
      const steps = { steps: 1, schedule: 'constant', warmup: 0, learningRate: 1e-4, maxGradNorm: 0 } as const;
      const trainer = new DasTrainer(interchange, { examples, unitLocations, ...steps, boundaryLearningRate });
      await trainer.train();
      // Adam's first step is the rate, whatever the gradient.
      const moved = Math.abs(boundary() - before) / boundaryLearningRate;
      assert.ok(Math.abs(moved - 1) < 1e-3, `at ${boundaryLearningRate} it moved by ${moved} of it`);
    }
  });

  test('reuseBudgetBytes bounds what is kept: without room each step reads its sources again', async () => {
    const runs = async (more: { reuseBudgetBytes?: number }): Promise<number> => {
      const model = await tinyModel();
      const forward = model.forward.bind(model);
      let count = 0;
      model.forward = inputs => {
        count++;
        return forward(inputs);
      };
      const interchange = getInterchangeModel(model, { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 2 });
      const trainer = new DasTrainer(interchange, { examples, unitLocations, steps: 5, ...more });
      for await (const step of trainer.steps()) if (step.index === 1) count = 0;
      return count;
    };
    assert.equal(await runs({}), 4, 'with room, a run of the base for each step');
    assert.equal(await runs({ reuseBudgetBytes: 8 }), 8, 'without, a run of the sources too');
  });
});
