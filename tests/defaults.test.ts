// Every default is pinned here: as the value that documents name, and by leaving an option out giving what naming its
// default gives. Seeds and streams of starting values are shown to matter.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generate } from '../src/models/generation/generate.js';
import {
  AdamW,
  Embedding,
  kaimingUniform,
  Linear,
  linearInit,
  normalInit,
  orthogonalInit,
  scheduleFactor,
  SGD,
} from '../src/nn/index.js';
import { resolveConfig } from '../src/reft/config.js';
import { getReftModel } from '../src/reft/reftModel.js';
import { withDefaults } from '../src/train/options.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

const numbers = (t: Tensor): number[] => [...(t.dataSync() as Float32Array)];

test('a configuration of edits', async () => {
  const model = await tinyModel();
  const filled = resolveConfig({ layers: [1] }, model.config);
  assert.deepEqual(filled, {
    kind: 'loreft',
    kindOptions: {},
    layers: [1],
    positions: { type: 'ends', first: 0, last: 1 },
    newTokens: 'none',
    rank: 4,
    tied: false,
    component: 'block_output',
    heads: null,
    activation: 'linear',
    bias: true,
    dropout: 0,
    dropoutOn: 'difference',
    scale: 1,
    trainScale: false,
    orthogonal: 'householder',
    identityStart: false,
    seed: 0,
  });
  assert.equal(resolveConfig({ layers: [1], positions: 'all' }, model.config).newTokens, 'all');
});

test("a trainer's options", () => {
  const { steps, ...filled } = withDefaults({ steps: 7 }, 20);
  assert.equal(steps, 7);
  assert.deepEqual(filled, {
    batchSize: 8,
    gradientAccumulation: 1,
    learningRate: 9e-4,
    schedule: 'linear',
    warmup: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    seed: 0,
    reuse: true,
    reuseBudgetBytes: 2 ** 30,
    reuseDirectoryBudgetBytes: 16 * 2 ** 30,
  });
  assert.equal(withDefaults({ steps: 7 }, 3).batchSize, 3, 'no more rows than there are');
  assert.equal(scheduleFactor('linear', 0, 10), 1, 'no warm-up');
});

/** What three steps with gradients 1, -2 and 3 make of a parameter 5. */
function trained(make: (parameter: Tensor) => AdamW | SGD, rate?: number): number {
  const parameter = tensor([5]).requireGrad();
  const optimizer = make(parameter);
  for (const gradient of [1, -2, 3]) {
    parameter.grad = tensor([gradient]);
    optimizer.step(rate);
  }
  return numbers(parameter)[0];
}

test('optimizers: leaving an option out is naming its default, and each option matters', () => {
  const adamw = { learningRate: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 } as const;
  const plain = trained(p => new AdamW([p]));
  assert.equal(
    trained(p => new AdamW([p], adamw)),
    plain,
  );
  assert.equal(
    trained(p => new AdamW([p]), 1e-3),
    plain,
  );
  for (const other of [
    { learningRate: 2e-3 },
    { betas: [0.8, 0.999] },
    { betas: [0.9, 0.9] },
    { eps: 1 },
    { weightDecay: 0.1 },
  ] as const) {
    assert.notEqual(
      trained(p => new AdamW([p], { ...adamw, ...other })),
      plain,
      JSON.stringify(other),
    );
  }
  const sgd = { learningRate: 1e-2, momentum: 0, nesterov: false, weightDecay: 0 };
  const simple = trained(p => new SGD([p]));
  assert.equal(
    trained(p => new SGD([p], sgd)),
    simple,
  );
  assert.equal(simple, Math.fround(Math.fround(Math.fround(5 - 0.01) + 0.02) - 0.03));
  for (const other of [{ learningRate: 2e-2 }, { momentum: 0.5 }, { weightDecay: 0.1 }]) {
    assert.notEqual(
      trained(p => new SGD([p], { ...sgd, ...other })),
      simple,
      JSON.stringify(other),
    );
  }
  const heavy = { ...sgd, momentum: 0.5 };
  assert.notEqual(
    trained(p => new SGD([p], { ...heavy, nesterov: true })),
    trained(p => new SGD([p], heavy)),
  );
  // A group's own words come before the optimizer's.
  const grouped = trained(
    p => new AdamW([{ parameters: [p], learningRateScale: 2, weightDecay: 0 }], { ...adamw, weightDecay: 0.5 }),
  );
  assert.equal(
    grouped,
    trained(p => new AdamW([p], { ...adamw, learningRate: 2e-3 })),
  );
});

test('starting values depend on the seed, the stream and the spread, and on nothing else', () => {
  const draws: Record<string, (options: { seed: number; stream?: number }) => Tensor> = {
    linearInit: options => linearInit([4, 6], options),
    normalInit: options => normalInit([4, 6], options),
    kaimingUniform: options => kaimingUniform([4, 6], options),
    orthogonalInit: options => orthogonalInit([4, 6], options),
    'weight of Linear': options => Linear.create({ input: 6, output: 4, ...options }).weight,
    'bias of Linear': options => Linear.create({ input: 6, output: 24, ...options }).bias as Tensor,
    Embedding: options => Embedding.create({ count: 4, size: 6, ...options }).weight,
  };
  for (const [name, draw] of Object.entries(draws)) {
    const first = numbers(draw({ seed: 1 }));
    assert.deepEqual(numbers(draw({ seed: 1 })), first, `${name}: the same seed`);
    assert.deepEqual(numbers(draw({ seed: 1, stream: 0 })), first, `${name}: stream 0 is the default`);
    for (const other of [{ seed: 2 }, { seed: 1, stream: 1 }]) {
      const shared = numbers(draw(other)).filter(value => first.includes(value)).length;
      assert.equal(shared, 0, `${name}: ${JSON.stringify(other)} draws other numbers`);
    }
  }
  const layer = Linear.create({ input: 6, output: 4, seed: 1 });
  const shared = numbers(layer.bias as Tensor).filter(value => numbers(layer.weight).includes(value)).length;
  assert.equal(shared, 0, 'the bias does not repeat the weight');
  assert.equal(Linear.create({ input: 6, output: 4, seed: 1, bias: false }).bias, null);

  const within = (t: Tensor, bound: number): void => {
    const most = Math.max(...numbers(t).map(Math.abs));
    assert.equal(most <= bound && most > 0.9 * bound, true, `the largest of many is ${most}, the bound ${bound}`);
  };
  within(linearInit([100, 25], { seed: 1 }), 1 / 5);
  within(linearInit([100, 25], { seed: 1, fanIn: 4 }), 1 / 2);
  within(Linear.create({ input: 25, output: 300, seed: 1 }).bias as Tensor, 1 / 5);
  within(kaimingUniform([100, 25], { seed: 1 }), 1 / 5);
  within(kaimingUniform([100, 24], { seed: 1, a: 0 }), 1 / 2);
  const embedded = (std?: number): Tensor =>
    Embedding.create({ count: 100, size: 25, seed: 1, ...(std === undefined ? {} : { std }) }).weight;
  const spread = (t: Tensor): number => Math.sqrt(numbers(t).reduce((sum, value) => sum + value * value, 0) / t.size);
  for (const [t, std] of [
    [normalInit([100, 25], { seed: 1 }), 0.02],
    [normalInit([100, 25], { seed: 1, std: 3 }), 3],
    [embedded(), 0.02],
    [embedded(1), 1],
  ] as const)
    assert.equal(Math.abs(spread(t) / std - 1) < 0.05, true, `${spread(t)} is about ${std}`);
});

test("an edit's starting values depend on its seed, and no two interventions begin alike", async () => {
  const model = await tinyModel();
  const start = (seed?: number): number[][] => {
    const one = { kind: 'loreft', rank: 5, ...(seed === undefined ? {} : { seed }) } as const;
    const reft = getReftModel(model, [
      { ...one, layers: [0, 1] },
      { ...one, layers: [2], component: 'mlp_output' },
    ]);
    return reft.interventions.flatMap(i =>
      Object.values(i.parameters())
        .filter(t => t.size > 5)
        .map(numbers),
    );
  };
  const zero = start();
  assert.deepEqual(start(0), zero);
  const all = [...zero, ...start(1)].map(list => list.join());
  assert.equal(new Set(all).size, all.length, 'all different');
});

test('generation takes the most likely tokens, 64 of them; a seed matters only where it draws', async () => {
  const model = await tinyModel({ maxPositions: 128 });
  const prompt = tinyIds(5, 3);
  const ids = async (options: Parameters<typeof generate>[2]): Promise<number[]> =>
    (await generate(model, prompt, options))[0].ids;
  const greedy = await ids({});
  assert.equal(greedy.length, 64);
  const named = {
    maxNewTokens: 64,
    temperature: 0,
    repetitionPenalty: 1,
    seed: 0,
    useCache: true,
    rounded: true,
    defaults: 'reft',
  } as const;
  assert.deepEqual(await ids(named), greedy);
  assert.deepEqual(await ids({ seed: 5 }), greedy);
  const drawn = await ids({ temperature: 6 });
  assert.deepEqual(await ids({ temperature: 6, seed: 0 }), drawn);
  assert.notDeepEqual(await ids({ temperature: 6, seed: 5 }), drawn);
});
