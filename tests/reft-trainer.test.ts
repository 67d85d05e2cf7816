// The trainer: that it learns, reports what it measured, touches what it should and nothing else, and ends when told
// to.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Example } from '../src/data/examples.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import {
  getReftModel,
  layoutOf,
  ReftTrainer,
  type ReftConfig,
  type ReftModel,
  type TrainerOptions,
  type TrainStep,
} from '../src/reft/index.js';
import { collate } from '../src/data/collate.js';
import { kinds } from '../src/reft/kinds.js';
import { noGrad } from '../src/autograd/tape.js';
import { scope } from '../src/autograd/scope.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';
import { parameterOf } from './helpers/packed.js';

const config: ReftConfig = { layers: [1], positions: 'l1', rank: 2, seed: 3 };

async function collect(trainer: ReftTrainer): Promise<TrainStep[]> {
  const steps: TrainStep[] = [];
  for await (const step of trainer.steps()) steps.push(step);
  return steps;
}

async function trainedModel(
  options: Partial<TrainerOptions> & { config?: Partial<ReftConfig>; dtype?: 'f32' | 'f64' } = {},
) {
  const { config: more, dtype = 'f32', ...rest } = options;
  const reft = getReftModel(await tinyModel({ dtype }), { ...config, ...more });
  const trainer = new ReftTrainer(reft, {
    examples: tinyExamples(6),
    ...(rest.epochs ? {} : { steps: 8 }),
    learningRate: 1e-2,
    ...rest,
  });
  return { reft, trainer };
}

/** Largest deviation of R R^T from the identity, over all interventions. */
function orthonormality(reft: ReftModel): number {
  return Math.max(
    ...reft.interventions.map(i =>
      noGrad(() =>
        scope(() => {
          const { R } = i.parameters();
          const r = R.shape[0];
          return Math.max(...Array.from(R.matmulT(R).dataSync(), (x, k) => Math.abs(x - (k % (r + 1) === 0 ? 1 : 0))));
        }),
      ),
    ),
  );
}

/** The loss of a padded batch by the model's own forward, not the trainer's. */
function lossOf(reft: ReftModel, examples: readonly Example[], dropout?: { seed: number; step: number }): number {
  const batch = collate(examples, { padTokenId: 0 });
  const layout = layoutOf(batch.attentionMask, batch.shape, batch.promptLengths);
  return noGrad(() => scope(() => reft.loss(batch, batch.labels, layout, dropout).loss.dataSync()[0]));
}

describe('a training run', () => {
  test('learns, and reports the loss of the model as it was before the update', async () => {
    const { reft, trainer } = await trainedModel({
      steps: 60,
      learningRate: 5e-2,
      examples: tinyExamples(3),
      config: { layers: [0, 2], rank: 8, seed: 2 },
    });
    const before = lossOf(reft, trainer.examples);
    const steps = await collect(trainer);
    assert.equal(steps.length, 60);
    assert.ok(Math.abs(steps[0].loss - before) < 1e-5, `${steps[0].loss} and ${before}`);
    const { loss, perplexity, labelled, rows } = await trainer.evaluate();
    assert.ok(loss < 0.5 * before, `from ${before} to ${loss}`);
    assert.ok(
      Math.abs(loss - lossOf(reft, trainer.examples)) < 1e-5,
      'Math.abs(loss - lossOf(reft, trainer.examples)) < 1e-5',
    );
    assert.equal(perplexity, Math.exp(loss));
    assert.deepEqual([labelled, rows], [trainer.examples.reduce((n, e) => n + e.ids.length - e.promptLength, 0), 3]);
    assert.deepEqual(
      steps.map(s => s.index),
      Array.from({ length: 60 }, (_, i) => i + 1),
    );
    assert.equal(steps[0].learningRate, 5e-2);
    assert.ok(
      Math.abs(steps[59].learningRate - 5e-2 / 60) < 1e-12,
      'Math.abs(steps[59].learningRate - 5e-2 / 60) < 1e-12',
    );
    assert.ok(
      steps.every(s => s.gradNorm > 0 && s.labelled === labelled && s.seconds > 0),
      'steps.every(s => s.gradNorm > 0 && s.labelled === labelled && s.sec...',
    );
  });

  test('trains every kind', async () => {
    for (const kind of Object.keys(kinds) as (keyof typeof kinds)[]) {
      const { trainer } = await trainedModel({ config: { kind, activation: 'tanh' }, steps: 25, learningRate: 3e-2 });
      const steps = await collect(trainer);
      assert.ok(steps[24].loss < steps[0].loss, `${kind}: ${steps[0].loss} to ${steps[24].loss}`);
    }
  });

  test('epochs visit every row once, in an order that depends on seed and epoch alone', async () => {
    const { trainer } = await trainedModel({ epochs: 3, batchSize: 4 });
    const steps = await collect(trainer);
    assert.equal(trainer.totalSteps, 6);
    assert.deepEqual(
      steps.map(s => s.epoch),
      [1, 1, 2, 2, 3, 3],
    );
    const tokens = trainer.examples.reduce((n, e) => n + e.ids.length, 0);
    for (const epoch of [1, 2, 3])
      assert.equal(
        steps.filter(s => s.epoch === epoch).reduce((n, s) => n + s.tokens, 0),
        tokens,
      );
    const again = await collect((await trainedModel({ epochs: 3, batchSize: 4 })).trainer);
    const strip = (list: TrainStep[]): unknown => list.map(({ seconds: _, ...rest }) => rest);
    assert.deepEqual(strip(again), strip(steps));
    const other = await collect((await trainedModel({ epochs: 3, batchSize: 4, seed: 1 })).trainer);
    assert.notDeepEqual(strip(other), strip(steps));
  });

  test('accumulated micro-batches are one batch: the mean is over all their labelled tokens', async () => {
    const whole = await trainedModel({ batchSize: 6, dtype: 'f64' });
    const parts = await trainedModel({ batchSize: 2, gradientAccumulation: 3, dtype: 'f64' });
    assert.equal(parts.trainer.totalSteps, 8);
    const [a, b] = [await collect(whole.trainer), await collect(parts.trainer)];
    a.forEach((step, i) => {
      assert.ok(
        Math.abs(step.loss - b[i].loss) < 1e-9 && Math.abs(step.gradNorm - b[i].gradNorm) < 1e-8,
        `step ${i}: ${step.loss} ${b[i].loss}`,
      );
    });
  });

  test('evaluation rows are measured when due, without changing the training', async () => {
    const seen: { step: number; rows: number }[] = [];
    const evaluation = { examples: [tinyExample(4, 3, 7)] };
    const { reft, trainer } = await trainedModel({
      epochs: 3,
      batchSize: 3,
      evaluation,
      onEvaluation: ({ step, rows }) => seen.push({ step, rows }),
    });
    const with_ = await collect(trainer);
    assert.deepEqual(seen, [
      { step: 2, rows: 1 },
      { step: 4, rows: 1 },
      { step: 6, rows: 1 },
    ]);
    assert.ok(
      Math.abs((await trainer.evaluate(evaluation.examples)).loss - lossOf(reft, evaluation.examples)) < 1e-5,
      'Math.abs((await trainer.evaluate(evaluation.examples)).loss - lossO...',
    );
    const without = await collect((await trainedModel({ epochs: 3, batchSize: 3 })).trainer);
    assert.deepEqual(
      without.map(s => s.loss),
      with_.map(s => s.loss),
    );
  });

  test('train() ends with the loss over the data after the last update', async () => {
    const { reft, trainer } = await trainedModel({ epochs: 2 });
    let told = 0;
    const result = await trainer.train(() => told++);
    assert.deepEqual([result.steps, result.aborted, told, result.trainableParameters], [2, false, 2, 2 * 2 * 16 + 2]);
    assert.ok(
      Math.abs(result.loss - lossOf(reft, trainer.examples)) < 1e-5,
      'Math.abs(result.loss - lossOf(reft, trainer.examples)) < 1e-5',
    );
    assert.ok(result.seconds > 0, 'result.seconds > 0');
  });
});

describe('what a run must not do', () => {
  test('the base stays as it was, bit for bit', async () => {
    const { reft, trainer } = await trainedModel();
    const before = reft.base.parameters().map(t => t.dataSync());
    await collect(trainer);
    reft.base.parameters().forEach((t, i) => assert.deepEqual(t.dataSync(), before[i]));
  });

  test('R stays orthonormal over 300 steps, with either map, and float32 stays float32', async () => {
    for (const orthogonal of ['householder', 'torch'] as const) {
      const { reft, trainer } = await trainedModel({
        steps: 300,
        learningRate: 5e-2,
        schedule: 'constant',
        config: { rank: 4, orthogonal },
      });
      await collect(trainer);
      assert.ok(orthonormality(reft) < 1e-5, `${orthogonal}: ${orthonormality(reft)}`);
      assert.ok(
        reft.trained().every(t => t.tensor.dtype === 'f32'),
        "reft.trained().every(t => t.tensor.dtype === 'f32')",
      );
    }
  });

  test('weight decay never reaches R (fault 1), and does reach the rest', async () => {
    for (const orthogonal of ['householder', 'torch'] as const) {
      // Adam moves a number by about the learning rate, 1e-3; decay takes a tenth of it, lr * weightDecay.
      const { reft, trainer } = await trainedModel({
        learningRate: 1e-3,
        weightDecay: 100,
        schedule: 'constant',
        steps: 10,
        config: { orthogonal },
      });
      const before = noGrad(() => reft.interventions[0].parameters());
      const norm = (data: ArrayLike<number>): number => Math.hypot(...Array.from(data));
      const [R0, W0] = [before.R.dataSync().slice(), before.W.dataSync().slice()];
      await collect(trainer);
      const after = noGrad(() => reft.interventions[0].parameters());
      assert.ok(norm(after.W.dataSync()) < 0.5 * norm(W0), 'W decays');
      assert.ok(Math.abs(norm(after.R.dataSync()) - norm(R0)) < 1e-5, 'R keeps its length');
      assert.ok(orthonormality(reft) < 1e-5, 'orthonormality(reft) < 1e-5');
    }
  });

  test('gradients are cleared each step, of trained tensors of the base too (fault 2)', async () => {
    const { reft } = await trainedModel();
    const head = parameterOf(reft.base, 'model.norm.weight').requireGrad();
    const trainer = new ReftTrainer(reft, {
      examples: tinyExamples(4),
      steps: 3,
      learningRate: 1e-2,
      maxGradNorm: 0,
      schedule: 'constant',
    });
    const before = head.dataSync();
    for await (const step of trainer.steps()) {
      assert.ok(step.gradNorm > 0, 'step.gradNorm > 0');
      for (const t of [head, ...reft.trained().map(x => x.tensor)]) assert.equal(t.grad, null);
    }
    assert.notDeepEqual(head.dataSync(), before, 'it is trained along');
    // One more step from the same parameters has the gradient of its own loss alone.
    const norms: number[] = [];
    for (let run = 0; run < 2; run++) {
      const again = new ReftTrainer(reft, { examples: tinyExamples(4), steps: 1, learningRate: 0, maxGradNorm: 0 });
      norms.push((await collect(again))[0].gradNorm);
    }
    assert.equal(norms[0], norms[1]);
  });

  test('dropout works in training and is off when evaluating (fault 3)', async () => {
    const { reft, trainer } = await trainedModel({
      config: { dropout: 0.5 },
      learningRate: 0,
      schedule: 'constant',
      steps: 4,
    });
    const losses = (await collect(trainer)).map(s => s.loss);
    assert.equal(new Set(losses).size, 4, 'another mask each step');
    const clean = lossOf(reft, trainer.examples);
    assert.ok(
      Math.abs((await trainer.evaluate()).loss - clean) < 1e-6,
      'Math.abs((await trainer.evaluate()).loss - clean) < 1e-6',
    );
    assert.ok(
      losses.every(l => Math.abs(l - clean) > 1e-6),
      'losses.every(l => Math.abs(l - clean) > 1e-6)',
    );
  });

  test('memory is flat over 300 steps', async () => {
    const backend = createCpuBackend();
    const reft = getReftModel(await tinyModel({ device: backend }), { ...config, layers: [0, 1], dropout: 0.1 });
    const trainer = new ReftTrainer(reft, { examples: tinyExamples(4), steps: 300, batchSize: 4, learningRate: 1e-3 });
    const live: number[] = [];
    for await (const _ of trainer.steps()) live.push(backend.stats().liveBytes);
    assert.equal(Math.max(...live.slice(5)), Math.min(...live.slice(5)));
  });

  test('a loss that is not finite ends the run with the parameters of the step before', async () => {
    const { reft, trainer } = await trainedModel({ steps: 50 });
    let snapshot: unknown;
    let steps = 0;
    await assert.rejects(async () => {
      for await (const _ of trainer.steps()) {
        steps++;
        if (steps === 3) {
          const { b } = noGrad(() => reft.interventions[0].parameters());
          b.backend.write(b.storage.allocation, 0, Float32Array.of(NaN, 1));
          b.storage.version++;
          snapshot = reft.trained().map(t => t.tensor.dataSync());
        }
      }
    }, /^Error: training: the loss is NaN at step 4; the parameters are as the step before left them\. Try a learning rate below 0\.01/);
    assert.deepEqual(
      reft.trained().map(t => t.tensor.dataSync()),
      snapshot,
    );
    assert.ok(
      reft.trained().every(t => t.tensor.grad === null),
      'reft.trained().every(t => t.tensor.grad === null)',
    );
  });
});

describe('ending early', () => {
  test('an abort from outside, a timer or Ctrl-C, is seen', async () => {
    const { trainer } = await trainedModel({ signal: AbortSignal.timeout(50), steps: 1e6 });
    const { aborted, steps } = await trainer.train();
    assert.ok(aborted && steps < 1e6, 'aborted && steps < 1e6');
  });

  test('an abort after a step is seen before the next', async () => {
    const controller = new AbortController();
    const { trainer } = await trainedModel({ signal: controller.signal });
    const result = await trainer.train(step => {
      if (step.index === 3) controller.abort();
    });
    assert.deepEqual([result.aborted, result.steps, Number.isFinite(result.loss)], [true, 3, true]);
  });

  test('a loop left early is taken up where it was', async () => {
    const straight = (await collect((await trainedModel()).trainer)).map(s => s.loss);
    const { trainer } = await trainedModel();
    const losses: number[] = [];
    for await (const step of trainer.steps()) {
      losses.push(step.loss);
      if (step.index === 3) break;
    }
    for await (const step of trainer.steps()) losses.push(step.loss);
    assert.deepEqual(losses, straight);
  });
});

describe('what is refused', () => {
  const refused = async (
    options: Partial<TrainerOptions>,
    message: RegExp,
    more: Partial<ReftConfig> = {},
  ): Promise<void> => {
    const reft = getReftModel(await tinyModel(), { ...config, ...more });
    assert.throws(() => new ReftTrainer(reft, { examples: tinyExamples(2), steps: 1, ...options }), message);
  };

  test('wrong options and rows, each by its name', async () => {
    await refused({ examples: [] }, /^RangeError: training: there are no rows$/);
    await refused({ examples: undefined }, /^RangeError: training: expected either rows or examples$/);
    await refused(
      { examples: undefined, rows: [{ kind: 'text', text: 'a', where: 'a:1' }] },
      /^RangeError: training: rows need a tokenizer$/,
    );
    await refused({ epochs: 2 }, /^RangeError: training: expected either epochs or steps$/);
    await refused({ steps: undefined }, /^RangeError: training: expected either epochs or steps$/);
    await refused({ steps: 1.5 }, /^RangeError: steps: expected a whole number from 1 on, got 1\.5$/);
    await refused({ batchSize: 0 }, /^RangeError: batchSize: /);
    await refused({ learningRate: -1 }, /^RangeError: learningRate: expected a number from 0 on, got -1$/);
    await refused(
      { schedule: 'steep' as 'linear' },
      /^RangeError: schedule: expected constant, linear, cosine, got 'steep'$/,
    );
    await refused({ evaluation: { examples: [] } }, /^RangeError: evaluation: there are no rows$/);
    await refused(
      { examples: [tinyExample(60, 10, 1)] },
      /^RangeError: tiny:1: has 70 tokens, the model's context is 64; give a maxLength/,
    );
    await refused(
      { examples: [{ ...tinyExample(4, 2, 2), labels: new Int32Array(6).fill(-100) }] },
      /^RangeError: tiny:2: no token has a label/,
    );
    await refused(
      { examples: [tinyExample(0, 5, 3)] },
      /^RangeError: tiny:3: a row without a prompt has no positions l1; use 'all'/,
    );
    await refused(
      { examples: [tinyExample(4, 2, 4)] },
      /^RangeError: tiny:4: block_output\/1: position 4 is out of range for a prompt of 4 tokens$/,
      { positions: [0, 4] },
    );
    await refused(
      { examples: [tinyExample(1, 5, 5)] },
      /^RangeError: training: no token of any row is edited: the prompts are too short/,
    );
  });

  test('two loops over one trainer at a time', async () => {
    const { trainer } = await trainedModel();
    const loop = trainer.steps();
    await loop.next();
    await assert.rejects(trainer.steps().next(), /its steps are already being run/);
    await loop.return();
  });

  test('prompts too short for their positions are told once, and trained on what they have', async () => {
    const reft = getReftModel(await tinyModel(), { ...config, positions: 'f3+l3', tied: true });
    const told: string[] = [];
    reft.onWarning = message => told.push(message);
    await collect(
      new ReftTrainer(reft, { examples: [tinyExample(1, 4, 1), tinyExample(4, 4, 2), tinyExample(9, 2, 3)], steps: 3 }),
    );
    assert.equal(told.length, 1);
    assert.match(told[0], /positions f3\+l3: some prompts are too short/);
  });
});
