// Training with recomputed blocks: the same losses and parameters to the bit, in clearly less memory.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { scope } from '../src/autograd/scope.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { KVCache } from '../src/models/cache.js';
import { collate } from '../src/data/collate.js';
import { getReftModel, layoutOf, ReftTrainer, type ReftConfig, type TrainerOptions } from '../src/reft/index.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

async function run(config: ReftConfig | ReftConfig[], options: Partial<TrainerOptions>, base: readonly string[] = []) {
  const model = await tinyModel();
  for (const [name, t] of model.namedParameters()) if (base.includes(name)) t.requireGrad();
  const reft = getReftModel(model, config);
  reft.onWarning = () => undefined;
  const data = options.preferences ? {} : { examples: tinyExamples(6) };
  const trainer = new ReftTrainer(reft, { ...data, steps: 4, batchSize: 3, learningRate: 1e-2, ...options });
  const steps: number[] = [];
  for await (const { loss, gradNorm } of trainer.steps()) steps.push(loss, gradNorm);
  return { steps, parameters: reft.trained().map(t => [...t.tensor.dataSync()]) };
}

describe('with recomputed blocks, training is the same to the bit', () => {
  const same = async (
    config: ReftConfig | ReftConfig[],
    options: Partial<TrainerOptions> = {},
    base: readonly string[] = [],
  ): Promise<void> => {
    assert.deepEqual(
      await run(config, { ...options, recompute: true }, base),
      await run(config, options, base),
      JSON.stringify(config),
    );
  };

  test('for kinds whose R is evaluated together, alone, or is not there', async () => {
    for (const kind of ['loreft', 'direft', 'noreft', 'gated', 'adaptive', 'nonlinear'] as const)
      await same({ layers: 'all', positions: 'f1+l2', rank: 2, kind });
    await same({ layers: [1], positions: 'l1', rank: 2 });
    await same([
      { layers: [0, 2], positions: 'l1', rank: 2, orthogonal: 'cayley' },
      { layers: [0], component: 'mlp_input', positions: 'all', rank: 3 },
    ]);
  });

  test('at sites within blocks, in single heads, with dropout, with reuse and without, for preferences', async () => {
    for (const component of ['block_input', 'query_output', 'mlp_activation'] as const)
      await same({ layers: [0, 1], component, positions: 'l2', rank: 2 });
    await same({ layers: [1], component: 'value_output', heads: [0, 1], positions: 'l2', rank: 2 });
    await same({ layers: 'all', positions: 'l2', rank: 2, dropout: 0.3 });
    await same({ layers: 'all', positions: 'l2', rank: 2 }, { reuse: false, gradientAccumulation: 2 });
    const rows = tinyExamples(4);
    const pairs = [0, 2].map(i => ({ chosen: rows[i], rejected: rows[i + 1] }));
    await same({ layers: 'all', positions: 'l2', rank: 2 }, { preferences: { pairs } });
  });

  test('beside weights of the base', async () => {
    await same({ layers: [1], positions: 'l1', rank: 2 }, {}, [
      'model.layers.0.mlp.up_proj.weight',
      'model.norm.weight',
    ]);
  });
});

test('gradients at sites and collected states come from blocks that are kept; a cache that is written to is refused', async () => {
  const reft = getReftModel(await tinyModel(), { layers: [0, 1], positions: 'l2', rank: 2 });
  const { inputIds, shape, attentionMask, labels, promptLengths } = collate(
    [tinyExample(5, 3, 1), tinyExample(3, 4, 2)],
    { padTokenId: 0 },
  );
  const layout = layoutOf(attentionMask, shape, promptLengths);
  const [on, off] = [true, false].map(
    recompute =>
      reft.gradients({ inputIds, shape, attentionMask, recompute }, labels, layout, ['mlp_output/1', 'block_output/2'])
        .gradients,
  );
  for (const [name, gradient] of on) assert.deepEqual(gradient.dataSync(), off.get(name)!.dataSync(), name);
  const collect = [{ layer: 2, component: 'attention_output' }] as const;
  const states = [true, false].map(recompute =>
    reft.forward({ inputIds, shape, attentionMask, recompute, collect }, layout).collected.get('attention_output/2')!,
  );
  assert.ok(states[0].needsGrad, 'states[0].needsGrad');
  assert.deepEqual(states[0].dataSync(), states[1].dataSync());
  assert.throws(
    () => reft.forward({ inputIds, shape, attentionMask, recompute: true, cache: new KVCache() }, layout),
    /recompute: not while a cache is written to/,
  );
});

/** How often each block of three was computed in one forward and backward pass, with recomputation. */
async function blocksComputed(config: ReftConfig | ReftConfig[], base: readonly string[] = []): Promise<number[]> {
  const model = await tinyModel();
  for (const [name, t] of model.namedParameters()) if (base.includes(name)) t.requireGrad();
  const reft = getReftModel(model, config);
  const { inputIds, shape, attentionMask, labels, promptLengths } = collate(
    [tinyExample(5, 3, 1), tinyExample(3, 4, 2)],
    { padTokenId: 0 },
  );
  const layout = layoutOf(attentionMask, shape, promptLengths);
  const counts = model.decoder.blocks.map(() => 0);
  for (const [layer, block] of model.decoder.blocks.entries()) {
    const forward = block.forward.bind(block);
    block.forward = (...args) => {
      counts[layer]++;
      return forward(...args);
    };
  }
  scope(() => {
    reft.loss({ inputIds, shape, attentionMask, recompute: true }, labels, layout).loss.backward();
  });
  return counts;
}

test('the block of the lowest edit is not computed again where what its edit needs is small; nor are those below', async () => {
  for (const positions of ['l1', 'all']) {
    for (const component of ['block_output', 'mlp_output'] as const)
      assert.deepEqual(await blocksComputed({ layers: [1, 2], component, positions, rank: 2 }), [1, 1, 2]);
  }
  assert.deepEqual(await blocksComputed({ layers: 'all', positions: 'f1+l1', rank: 2 }), [1, 2, 2]);
  assert.deepEqual(await blocksComputed({ layers: [2], positions: 'l1', rank: 2, kind: 'direft' }), [1, 1, 1]);
  // Edits at the beginning of a block, or of weights there, need all of it.
  assert.deepEqual(
    await blocksComputed({ layers: [1], component: 'block_input', positions: 'all', rank: 2 }),
    [1, 2, 2],
  );
  assert.deepEqual(
    await blocksComputed({ layers: [1], positions: 'l1', rank: 2 }, ['model.layers.0.input_layernorm.weight']),
    [2, 2, 2],
  );
});

test('a deep model trains in less than half the memory', async () => {
  const peak = async (recompute: boolean): Promise<number> => {
    const backend = createCpuBackend();
    const reft = getReftModel(await tinyModel({ layers: 12, hidden: 32, device: backend }), {
      layers: 'all',
      positions: 'l1',
      rank: 2,
    });
    const before = backend.stats().liveBytes;
    let most = 0;
    const { allocate } = backend;
    backend.allocate = bytes => {
      const made = allocate.call(backend, bytes);
      most = Math.max(most, backend.stats().liveBytes);
      return made;
    };
    const examples = Array.from({ length: 8 }, (_, i) => tinyExample(20, 30, i));
    await new ReftTrainer(reft, { examples, steps: 1, batchSize: 8, reuse: false, recompute }).train();
    return most - before;
  };
  const [off, on] = [await peak(false), await peak(true)];
  assert.ok(on < 0.5 * off, `${on} of ${off} bytes`);
});
