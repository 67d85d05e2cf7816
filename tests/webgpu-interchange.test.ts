// Interchange interventions on WebGPU give what they give on the CPU: every kind in a run, and alignment search step by
// step.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../src/backends/index.js';
import { scope } from '../src/autograd/scope.js';
import { noGrad } from '../src/autograd/tape.js';
import {
  activationPatching,
  DasTrainer,
  getInterchangeModel,
  interchangeKinds,
  tokenBatch,
  type CounterfactualExample,
  type InterchangeConfig,
  type InterchangeKindName,
} from '../src/interchange/index.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';
import { openForTests } from './helpers/webgpu.js';

const gpu = await openForTests();
const devices = (device: Backend | undefined): { device?: Backend } => (device ? { device } : {});

const base = tokenBatch([tinyIds(5, 1), tinyIds(7, 2)]);
const source = tokenBatch([tinyIds(6, 3), tinyIds(4, 4)]);

const relative = (actual: ArrayLike<number>, expected: ArrayLike<number>): number => {
  const scale = Math.max(...Array.from(expected, Math.abs));
  return Math.max(...Array.from(expected, (x, i) => Math.abs(x - actual[i]))) / scale;
};

if (gpu) {
  test('every kind, with subspaces and without', async () => {
    for (const kind of Object.keys(interchangeKinds) as InterchangeKindName[]) {
      const sized =
        interchangeKinds[kind].features === 'latents'
          ? { latentDim: 20 }
          : interchangeKinds[kind].features === 'rank'
            ? { lowRankDimension: 5 }
            : {};
      const config: InterchangeConfig = { kind, layer: 1, temperature: 0.8, noiseLevel: 0.5, ...sized };
      for (const subspaces of [
        undefined,
        [
          [
            [0, 3],
            [1, 2, 4],
          ],
        ],
      ]) {
        const results: ArrayLike<number>[] = [];
        for (const device of [undefined, gpu]) {
          const interchange = getInterchangeModel(await tinyModel(devices(device)), config);
          const logits = noGrad(() =>
            scope(
              () =>
                interchange.run({
                  base,
                  sources: [source],
                  unitLocations: { base: [1, -1], source: [0, 2] },
                  ...(subspaces ? { subspaces } : {}),
                }).logits,
            ),
          );
          results.push(await logits.data());
          logits.storage.dispose();
          interchange.dispose();
        }
        const off = relative(results[1], results[0]);
        assert.ok(off < 1e-4, `${kind}: ${off}`);
      }
    }
  });

  test('the losses of alignment search, and a patching sweep', async () => {
    const examples = Array.from({ length: 6 }, (_, i): CounterfactualExample => ({
      base: tinyIds(5, 10 + i),
      sources: [tinyIds(4, 20 + i)],
      label: i,
    }));
    const losses: number[][] = [];
    const effects: number[][] = [];
    for (const device of [undefined, gpu]) {
      const model = await tinyModel(devices(device));
      const interchange = getInterchangeModel(model, [
        { kind: 'boundlessRotatedSpace', layer: 0 },
        { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 3 },
      ]);
      const trainer = new DasTrainer(interchange, {
        examples,
        unitLocations: { base: -1, source: 1 },
        steps: 5,
        batchSize: 3,
        learningRate: 1e-2,
      });
      const list: number[] = [];
      for await (const { loss } of trainer.steps()) list.push(loss);
      losses.push([...list, (await trainer.evaluate()).loss]);
      const answers = [
        { source: 3, base: 5 },
        { source: 7, base: 1 },
      ];
      effects.push(
        (await activationPatching(model, { base, source, answers, positions: [0, -1], layers: [0, 1] })).effects.flat(
          2,
        ),
      );
    }
    assert.ok(relative(losses[1], losses[0]) < 1e-4, `${losses.join(' and ')}`);
    assert.ok(relative(effects[1], effects[0]) < 1e-4, `${effects.join(' and ')}`);
  });
}
