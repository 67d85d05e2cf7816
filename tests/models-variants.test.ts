// Settings of a configuration, each against transformers: head sizes, biases, scalings of rotary embeddings, windows by
// layer. Where a setting is not taken, values differ. Windows hold with padding, a cache, reuse and recomputation, too.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CausalLM } from '../src/models/causalLM.js';
import { getReftModel, ReftTrainer } from '../src/reft/index.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import {
  variantConfig,
  variantGreedy,
  variantIds,
  variantLogits,
  variantModel,
  variantNames,
} from './helpers/variants.js';

const length = variantIds.length;

async function logitsOf(model: CausalLM, ids: Int32Array, attentionMask?: Int32Array): Promise<Float64Array> {
  return (await model
    .forward({ inputIds: ids, shape: [1, ids.length], ...(attentionMask ? { attentionMask } : {}) })
    .logits.data()) as Float64Array;
}

function near(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++)
    assert.ok(
      Math.abs(actual[i] - expected[i]) <= tolerance,
      `${what}, entry ${i}: ${actual[i]}, expected ${expected[i]}`,
    );
}

for (const name of variantNames) {
  test(`${name}: logits and a greedy continuation are those of transformers`, async () => {
    const model = await variantModel(name);
    // The tables of rotary embeddings are f32 on both sides.
    near(await logitsOf(model, variantIds), await variantLogits(name), 1e-5, 'logits');
    const [{ ids }] = await model.generate(variantIds, { maxNewTokens: 8 });
    assert.deepEqual(ids, variantGreedy(name));
  });

  test(`${name}: left padding and a cache change nothing`, async () => {
    const model = await variantModel(name);
    const alone = await logitsOf(model, variantIds);
    const padded = await logitsOf(
      model,
      Int32Array.of(0, 0, 0, ...variantIds),
      Int32Array.of(0, 0, 0, ...variantIds.map(() => 1)),
    );
    near(padded.subarray(3 * 32), alone, 1e-9, 'logits behind padding');
    const [whole] = await model.generate(variantIds, { maxNewTokens: 8, useCache: false });
    assert.deepEqual(whole.ids, variantGreedy(name));
  });
}

const windowed = variantNames.filter(name => name.startsWith('window'));

test('settings that make no window leave the model as it is, to the bit', async () => {
  const plain = await logitsOf(await variantModel('window off'), variantIds);
  for (const settings of [
    { use_sliding_window: true, max_window_layers: 4 },
    { use_sliding_window: true, sliding_window: 64 },
    { sliding_window: null },
  ]) {
    assert.deepEqual(
      await logitsOf(await variantModel('window off', settings), variantIds),
      plain,
      JSON.stringify(settings),
    );
  }
});

test('windows are one for each layer', async () => {
  const windows = async (name: string, settings = {}): Promise<readonly (number | null)[]> =>
    (await variantModel(name, settings)).config.windows;
  assert.deepEqual(await windows('window in the upper half'), [null, null, 3, 3]);
  assert.deepEqual(await windows('window by layer_types'), [3, null, 3, null]);
  assert.deepEqual(await windows('window off'), [null, null, null, null]);
  assert.deepEqual(await windows('window everywhere'), [3, 3, 3, 3]);
  assert.deepEqual(
    await windows('window everywhere', {
      layer_types: ['full_attention', 'sliding_attention', 'full_attention', 'full_attention'],
    }),
    [null, 3, null, null],
  );
});

for (const name of windowed) {
  test(`${name}: training has the same losses with reuse, recomputation and without either`, async () => {
    const losses = async (options: { reuse?: boolean; recompute?: boolean }): Promise<number[]> => {
      const reft = getReftModel(await variantModel(name), { kind: 'loreft', layers: [2], positions: 'l1', rank: 2 });
      const trainer = new ReftTrainer(reft, {
        examples: tinyExamples(5),
        epochs: 2,
        batchSize: 2,
        learningRate: 0.05,
        ...options,
      });
      const found: number[] = [];
      for await (const step of trainer.steps()) found.push(step.loss);
      return found;
    };
    const plain = await losses({ reuse: false });
    assert.equal(plain.length > 2, true);
    near(await losses({ reuse: true }), plain, 1e-9, 'reuse');
    near(await losses({ reuse: false, recompute: true }), plain, 1e-9, 'recompute');
  });
}

test('dynamic scaling holds up to the number of positions, longrope to the original one; more is refused', async () => {
  assert.equal((await variantModel('dynamic')).config.maxPositions, 64);
  const model = await variantModel('longrope');
  assert.equal(model.config.maxPositions, 32);
  await assert.rejects(
    logitsOf(model, new Int32Array(33)),
    /position 32 is out of range: the model has 32 positions \(what its rope scaling 'longrope' does beyond is not computed\)$/,
  );
  await assert.rejects(
    (await variantModel('dynamic')).generate(variantIds, { maxNewTokens: 51 }),
    /the model's context is 64 \(what its rope scaling 'dynamic' does beyond is not computed\)$/,
  );
  assert.equal(variantConfig('longrope')['max_position_embeddings'], 64);
  assert.equal(length < 32, true);
});
