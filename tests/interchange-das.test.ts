// Alignment search on a model whose causal variables are known: what plays a part is found in a direction or a few,
// what does not is not. And the trainer itself: reuse changes nothing, chains train, nothing leaks, bad input is
// refused.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import {
  agreementModel,
  betweenVerbs,
  counterfactuals,
  drawSentence,
  trainAgreement,
  verbOf,
  vocabulary,
  type Variable,
} from '../examples/agreementTask.js';
import { noGrad } from '../src/autograd/tape.js';
import { createCpuBackend } from '../src/backends/index.js';
import type { CausalLM } from '../src/models/causalLM.js';
import {
  DasTrainer,
  getInterchangeModel,
  interchangeAccuracy,
  type CounterfactualExample,
  type DasOptions,
  type InterchangeConfig,
  type InterchangeModel,
} from '../src/interchange/index.js';
import { Random } from '../src/tensor/threefry.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

describe('on agreement of a verb in number and tense', () => {
  let model: CausalLM;
  before(async () => {
    model = await agreementModel();
    await trainAgreement(model, { steps: 120 });
  });

  const lastBlock = { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 1 } as const;
  interface Found {
    readonly interchange: InterchangeModel;
    readonly accuracy: number;
  }
  const search = async (
    config: InterchangeConfig,
    variable: Variable,
    options: Partial<DasOptions> = {},
  ): Promise<Found> => {
    const interchange = getInterchangeModel(model, config);
    const trainer = new DasTrainer(interchange, {
      examples: counterfactuals(variable, 192, 5),
      unitLocations: { base: -1 },
      steps: 45,
      batchSize: 64,
      learningRate: 2e-2,
      ...options,
    });
    await trainer.train();
    const { accuracy } = await trainer.evaluate(counterfactuals(variable, 192, 6));
    trainer.dispose();
    return { interchange, accuracy };
  };

  test('the model learned the language', () => {
    const random = new Random(77);
    const rows = Array.from({ length: 200 }, () => drawSentence(random));
    const ids = Int32Array.from(rows.flatMap(r => r.ids));
    const logitsAt = Int32Array.from(rows, (_, b) => 5 * b + 4);
    const best = noGrad(() => model.forward({ inputIds: ids, shape: [200, 5], logitsAt }).logits.argmax(-1)).dataSync();
    const right = rows.filter(({ number, tense }, b) => best[b] === verbOf(number, tense)).length;
    assert.ok(right > 195, `${right} of 200`);
    assert.equal(new Set(vocabulary).size, vocabulary.length);
  });

  test('one direction carries the number and one the tense, where the verb is said', async () => {
    for (const variable of ['number', 'tense'] as const) {
      const { accuracy } = await search(lastBlock, variable);
      assert.ok(accuracy > 0.95, `${variable}: ${accuracy}`);
    }
  });

  test('a variable that plays no part is not found, nor one that does at a place that does not', async () => {
    const none = await search(lastBlock, 'otherNumber');
    assert.ok(none.accuracy < 0.7, `the other noun's number: ${none.accuracy}`);
    // At the other noun, after the last block has read it.
    const elsewhere = await search(lastBlock, 'number', { unitLocations: { base: 3 } });
    assert.ok(elsewhere.accuracy < 0.65, `elsewhere: ${elsewhere.accuracy}`);
    // All of the state swaps both variables at once.
    const vanilla = getInterchangeModel(model, { kind: 'vanilla', layer: 1 });
    const whole = await interchangeAccuracy(vanilla, counterfactuals('number', 192, 6), {
      unitLocations: { base: -1 },
    });
    assert.ok(whole.accuracy > 0.3 && whole.accuracy < 0.7, `all of it: ${whole.accuracy}`);
    // Between the verbs of one tense it does bring the number along.
    const pairs = betweenVerbs(counterfactuals('number', 192, 6), 'number');
    const among = await interchangeAccuracy(vanilla, pairs, { unitLocations: { base: -1 } });
    assert.ok(among.accuracy > 0.9, `all of it, between two verbs: ${among.accuracy}`);
  });

  test('a partition of one R swaps both variables from two sources', async () => {
    const part = {
      kind: 'lowRankRotatedSpace',
      layer: 1,
      lowRankDimension: 2,
      subspacePartition: [
        [0, 1],
        [1, 2],
      ],
      interventionLinkKey: 'R',
    } as const;
    const interchange = getInterchangeModel(model, [
      { ...part, subspaces: [0] },
      { ...part, subspaces: [1] },
    ]);
    const options = { unitLocations: { base: -1 }, steps: 60, batchSize: 64, learningRate: 2e-2 };
    const trainer = new DasTrainer(interchange, { examples: counterfactuals(['number', 'tense'], 256, 5), ...options });
    await trainer.train();
    assert.ok(
      (await trainer.evaluate(counterfactuals(['number', 'tense'], 192, 6))).accuracy > 0.95,
      "(await trainer.evaluate(counterfactuals(['number', 'tense'], 192, 6...",
    );
    // Each part alone does its own.
    for (const [n, variable] of (['number', 'tense'] as const).entries()) {
      const alone = counterfactuals(variable, 192, 8).map((e): CounterfactualExample => ({
        ...e,
        subspaces: [0, 1].map(i => (i === n ? [n] : [])),
      }));
      assert.ok((await interchangeAccuracy(interchange, alone, options)).accuracy > 0.95, variable);
    }
    trainer.dispose();
  });

  test('boundless DAS finds how many directions are enough, and masks too', async () => {
    const boundless = { kind: 'boundlessRotatedSpace', layer: 1 } as const;
    const { interchange, accuracy } = await search(boundless, 'number', {
      steps: 100,
      learningRate: 1e-2,
      boundaryLearningRate: 2e-2,
    });
    const [{ space, kind }] = interchange.interventions;
    const mask = noGrad(() => Array.from(kind.softMask?.(space.parameters(), space.temperature).dataSync() ?? []));
    const swapped = mask.reduce((a, b) => a + b, 0);
    assert.ok(accuracy > 0.95 && swapped > 0.5 && swapped < 12, `${accuracy} with ${swapped} of 32`);
    assert.ok(Math.abs(space.temperature - 0.1) < 1e-12, 'Math.abs(space.temperature - 0.1) < 1e-12');
    const none = await search(boundless, 'otherNumber', { steps: 60, learningRate: 1e-2, boundaryLearningRate: 2e-2 });
    assert.ok(none.accuracy < 0.7, `${none.accuracy}`);
    const masked = await search({ kind: 'sigmoidMaskRotatedSpace', layer: 1 }, 'number', {
      steps: 60,
      learningRate: 1e-2,
      boundaryLearningRate: 2e-2,
    });
    assert.ok(masked.accuracy > 0.95, `${masked.accuracy}`);
  });
});

describe('the trainer', () => {
  const examples = Array.from({ length: 7 }, (_, i): CounterfactualExample => ({
    base: tinyIds(4 + (i % 3), 10 + i),
    sources: [tinyIds(5, 30 + i), tinyIds(3 + (i % 2), 50 + i)],
    label: (3 * i) % 23,
  }));
  const unitLocations = [
    { base: -1, source: 1 },
    { base: [0, 2], source: [-1, 0] },
  ];
  const configs: InterchangeConfig[] = [
    { kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 4 },
    { kind: 'boundlessRotatedSpace', layer: 2, component: 'mlp_output' },
  ];
  const options: DasOptions = { examples, unitLocations, steps: 6, batchSize: 3, learningRate: 1e-2 };

  const losses = async (mode: 'parallel' | 'serial', more: Partial<DasOptions> = {}): Promise<number[]> => {
    const trainer = new DasTrainer(getInterchangeModel(await tinyModel({ dtype: 'f64' }), configs, { mode }), {
      ...options,
      ...more,
    });
    const list: number[] = [];
    for await (const { loss } of trainer.steps()) list.push(loss);
    return list;
  };

  test('keeping what a frozen base computes changes no loss', async () => {
    const [kept, computed] = [await losses('parallel'), await losses('parallel', { reuse: false })];
    assert.equal(kept.length, 6);
    kept.forEach((loss, i) =>
      assert.ok(Math.abs(loss - computed[i]) < 1e-12 * computed[i], `step ${i + 1}: ${loss} and ${computed[i]}`),
    );
    assert.deepEqual(await losses('parallel', { reuseBudgetBytes: 8 }), computed, 'no room for it');
  });

  test('trains a chain: the first rotation has its gradient through the source it edits', async () => {
    const interchange = getInterchangeModel(await tinyModel({ dtype: 'f64' }), configs, { mode: 'serial' });
    const chained = [
      { base: [0, 1], source: [1, 0] },
      { base: [-1, 0], source: [1, 0] },
    ];
    const start = interchange.trained().map(t => Array.from(t.tensor.dataSync()));
    const trainer = new DasTrainer(interchange, {
      ...options,
      unitLocations: chained,
      steps: 30,
      schedule: 'constant',
      warmup: 0,
    });
    const list: number[] = [];
    for await (const { loss } of trainer.steps()) list.push(loss);
    interchange.trained().forEach((t, i) => assert.notDeepEqual(Array.from(t.tensor.dataSync()), start[i], t.name));
    const { loss } = await trainer.evaluate();
    const fresh = await interchangeAccuracy(
      getInterchangeModel(await tinyModel({ dtype: 'f64' }), configs, { mode: 'serial' }),
      examples,
      { unitLocations: chained },
    );
    assert.ok(loss < fresh.loss, `${fresh.loss} to ${loss}`);
  });

  test('R stays orthonormal, boundaries within their bounds, and the base does not move', async () => {
    const model = await tinyModel();
    const weights = model.parameters().map(t => t.dataSync());
    const interchange = getInterchangeModel(model, configs);
    const trainer = new DasTrainer(interchange, {
      ...options,
      steps: 40,
      learningRate: 0.2,
      boundaryLearningRate: 0.5,
      schedule: 'constant',
    });
    await trainer.train();
    for (const space of interchange.spaces) {
      const { R, interventionBoundaries } = noGrad(() => space.parameters());
      const [r] = R.shape;
      const gram = noGrad(() => R.matmulT(R).dataSync());
      gram.forEach((x, i) =>
        assert.ok(Math.abs(x - Number(i % (r + 1) === 0)) < 1e-5, 'Math.abs(x - Number(i % (r + 1) === 0)) < 1e-5'),
      );
      const [c] = interventionBoundaries?.dataSync() ?? [1];
      assert.ok(c >= 1e-3 * (1 - 1e-6) && c <= 1, `${c}`);
    }
    model.parameters().forEach((t, i) => {
      assert.deepEqual(t.dataSync(), weights[i]);
      assert.equal(t.grad, null);
    });
  });

  test('memory is flat over steps, and given back', async () => {
    const backend = createCpuBackend();
    const model = await tinyModel({ device: backend });
    const interchange = getInterchangeModel(model, configs);
    const after: number[] = [];
    for (let run = 0; run < 2; run++) {
      const trainer = new DasTrainer(interchange, { ...options, steps: 20 });
      const live: number[] = [];
      for await (const { index } of trainer.steps()) live[index] = backend.stats().liveBytes;
      assert.deepEqual(live.slice(8), live.slice(8).fill(live[8]));
      await trainer.evaluate();
      trainer.dispose();
      after.push(backend.stats().liveBytes);
    }
    assert.equal(after[1], after[0]);
  });

  test('a run that is stopped goes on where it was', async () => {
    const whole = await losses('parallel');
    const trainer = new DasTrainer(getInterchangeModel(await tinyModel({ dtype: 'f64' }), configs), options);
    const list: number[] = [];
    for await (const { loss, index } of trainer.steps()) {
      list.push(loss);
      if (index === 2) break;
    }
    for await (const { loss } of trainer.steps()) list.push(loss);
    assert.deepEqual(list, whole);
  });

  test('refuses what does not fit, naming it', async () => {
    const model = await tinyModel();
    const interchange = getInterchangeModel(model, configs);
    const [first] = examples;
    const cases: [Partial<DasOptions>, RegExp][] = [
      [{ examples: [] }, /expected at least one example/],
      [{ examples: [{ ...first, label: 23 }] }, /example 0: label 23 is outside the vocabulary of 23/],
      [
        { examples: [{ ...first, sources: [] }] },
        /example 0: expected 2 sources, one for each group of interventions, got 0/,
      ],
      [
        { examples: [first, { ...first, sources: first.sources.slice(1) }] },
        /example 1: 1 sources, the first example has 2/,
      ],
      [
        { examples: [{ ...first, predictAt: 9 }] },
        /example 0: predictAt, row 0: position 9 is out of range for 4 tokens/,
      ],
      [{ examples: [{ ...first, base: [] }] }, /row 0 has no tokens/],
      [
        { examples: [first, { ...first, subspaces: [null, null] }] },
        /example 1: subspaces are given for all examples or for none/,
      ],
      [{ examples: [{ ...first, subspaces: [null] }] }, /example 0: subspaces for 1 interventions, the model has 2/],
      [{ unitLocations: [{ base: 0 }] }, /example 0: unitLocations for 1 interventions, the model has 2/],
      [
        { unitLocations: { base: 7, source: 0 } },
        /example 0, lowRankRotatedSpace@block_output\/1: base, row 0: position 7 is out of range/,
      ],
      [{ epochs: 1 }, /expected either epochs or steps/],
      [{ steps: 0 }, /steps must be a whole number above 0, got 0/],
      [{ batchSize: 0 }, /batchSize must be a whole number above 0, got 0/],
      [{ learningRate: -1 }, /learningRate must be above 0, got -1/],
      [{ temperature: [1, 0] }, /temperature must be above 0, got 0/],
    ];
    for (const [wrong, message] of cases)
      assert.throws(() => new DasTrainer(interchange, { ...options, ...wrong }), { message });
    const { unitLocations: _, ...nowhere } = options;
    assert.throws(() => new DasTrainer(interchange, nowhere), /example 0: has no unitLocations/);
    const fixed = getInterchangeModel(model, { kind: 'vanilla', layer: 0 });
    const one = { ...options, unitLocations: { base: 0 } };
    assert.throws(
      () => new DasTrainer(fixed, { ...one, examples: [{ ...first, sources: first.sources.slice(1) }] }),
      /das: nothing is trained in vanilla@block_output\/0/,
    );
    const plain = getInterchangeModel(model, { kind: 'rotatedSpace', layer: 0 });
    const single = { ...one, examples: [{ ...first, sources: first.sources.slice(1) }] };
    assert.throws(
      () => new DasTrainer(plain, { ...single, temperature: [1, 0.1] }),
      /temperature belongs to kinds with a learned mask/,
    );
  });
});
