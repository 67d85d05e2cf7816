// Runs that watch rows they do not train on: the best parameters are kept, a run without progress ends early, and both
// survive a resume bit for bit.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EvaluationCourse } from '../src/train/evaluationCourse.js';
import {
  getReftModel,
  ReftTrainer,
  type ReftConfig,
  type ReftModel,
  type TrainerOptions,
  type TrainResult,
} from '../src/reft/index.js';
import { create } from '../src/tensor/create.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';
import { parameterOf } from './helpers/packed.js';

const config: ReftConfig = { layers: [0, 2], positions: 'f1+l1', rank: 3, dropout: 0.1 };
const heldOut = [tinyExample(5, 4, 31), tinyExample(7, 3, 32)];
// Random rows: what is learned of some is wrong for the others, so that the held-out loss falls and rises again.
const options: TrainerOptions = {
  examples: tinyExamples(5),
  steps: 24,
  batchSize: 5,
  learningRate: 5e-2,
  evaluation: { examples: heldOut, every: 2 },
};

interface Run {
  readonly reft: ReftModel;
  readonly trainer: ReftTrainer;
  readonly result: TrainResult;
  readonly evaluations: { step: number; loss: number }[];
}

const valuesOf = (reft: ReftModel): unknown =>
  reft.interventions.flatMap(i => i.state().map(({ name, tensor }) => [name, tensor.dataSync()]));

async function train(more: Partial<TrainerOptions> = {}): Promise<Run> {
  const reft = getReftModel(await tinyModel(), config);
  reft.onWarning = () => undefined;
  const evaluations: { step: number; loss: number }[] = [];
  const trainer = new ReftTrainer(reft, {
    ...options,
    onEvaluation: ({ step, loss }) => evaluations.push({ step, loss }),
    ...more,
  });
  const result = await trainer.train();
  return { reft, trainer, result, evaluations };
}

/** The run left after a step: its parameters then, and the files of a checkpoint. */
async function leftAfter(
  steps: number,
  more: Partial<TrainerOptions> = {},
): Promise<{ values: unknown; files: Map<string, Uint8Array> }> {
  const reft = getReftModel(await tinyModel(), config);
  reft.onWarning = () => undefined;
  const trainer = new ReftTrainer(reft, { ...options, ...more });
  for await (const { index } of trainer.steps()) if (index === steps) break;
  return { values: valuesOf(reft), files: await trainer.checkpointFiles() };
}

const least = (evaluations: Run['evaluations']): { step: number; loss: number } =>
  evaluations.reduce((a, b) => (b.loss < a.loss ? b : a));

describe('the course of evaluations', () => {
  const course = (
    losses: readonly number[],
    earlyStopping: { patience: number; minDelta?: number },
  ): EvaluationCourse => {
    const one = new EvaluationCourse({ earlyStopping, keepBest: null });
    losses.forEach((loss, i) => {
      one.see({ step: i + 1, loss }, new Map());
    });
    return one;
  };

  test('counts evaluations without progress, which is more than minDelta below the last progress', () => {
    assert.deepEqual(course([3, 2, 2.5, 1.9], { patience: 2 }).state, {
      evaluated: 4,
      best: { step: 4, loss: 1.9 },
      progress: 1.9,
      waited: 0,
    });
    const small = course([3, 2.95, 2.85], { patience: 2, minDelta: 0.1 });
    assert.deepEqual(small.state, { evaluated: 3, best: { step: 3, loss: 2.85 }, progress: 2.85, waited: 0 });
    const slow = course([3, 2.99, 2.98], { patience: 2, minDelta: 0.1 });
    assert.deepEqual(
      [slow.state, slow.stopped],
      [{ evaluated: 3, best: { step: 3, loss: 2.98 }, progress: 3, waited: 2 }, true],
    );
    assert.equal(course([3, 2.99], { patience: 2, minDelta: 0.1 }).stopped, false);
    assert.equal(course([3, 3], { patience: 1 }).stopped, true, 'an equal loss is no progress');
  });

  test('a loss that is not finite is neither the best nor progress', () => {
    assert.deepEqual(course([NaN, Infinity], { patience: 3 }).state, {
      evaluated: 2,
      best: null,
      progress: null,
      waited: 2,
    });
    assert.deepEqual(course([2, NaN], { patience: 3 }).state, {
      evaluated: 2,
      best: { step: 1, loss: 2 },
      progress: 2,
      waited: 1,
    });
  });

  test('restores nothing before the first evaluation', () => {
    const parameters = new Map([['a', create.from([1, 2], [2])]]);
    const one = new EvaluationCourse({ earlyStopping: undefined, keepBest: parameters });
    one.restore(parameters);
    assert.deepEqual(Array.from(parameters.get('a')!.dataSync()), [1, 2]);
  });
});

describe('keepBest', () => {
  test('ends with the parameters of the evaluation with the least loss, to the bit', async () => {
    const last = await train();
    const best = least(last.evaluations);
    assert.ok(best.step > 2 && best.step < 20, `the held-out loss is least after step ${best.step}`);
    assert.deepEqual(last.result.best, best);
    const kept = await train({ keepBest: true });
    assert.deepEqual(kept.evaluations, last.evaluations, 'keeping changes no step');
    assert.deepEqual([kept.result.steps, kept.result.stoppedEarly, kept.result.best], [24, false, best]);
    assert.deepEqual(valuesOf(kept.reft), (await leftAfter(best.step)).values);
    assert.notDeepEqual(valuesOf(kept.reft), valuesOf(last.reft));
    // A loop over the steps sees them at the last one, and may end there.
    const looped = await leftAfter(24, { keepBest: true });
    assert.deepEqual(looped.values, valuesOf(kept.reft));
    assert.ok(
      Math.abs((await kept.trainer.evaluate(heldOut)).loss - best.loss) < 1e-6,
      'its held-out loss is the best one',
    );
    assert.equal(
      kept.result.loss,
      (await kept.trainer.evaluate()).loss,
      "the run's loss is that of the parameters it ends with",
    );
  });

  test('keeps trained tensors of the base too', async () => {
    const ends = await Promise.all(
      [true, false].map(async keepBest => {
        const reft = getReftModel(await tinyModel(), config);
        reft.onWarning = () => undefined;
        const weight = parameterOf(reft.base, 'model.norm.weight').requireGrad();
        const trainer = new ReftTrainer(reft, { ...options, learningRate: 0.3, keepBest });
        let atBest: unknown;
        const { best } = await trainer.train();
        const again = getReftModel(await tinyModel(), config);
        again.onWarning = () => undefined;
        parameterOf(again.base, 'model.norm.weight').requireGrad();
        for await (const { index } of new ReftTrainer(again, { ...options, learningRate: 0.3 }).steps()) {
          if (index !== best?.step) continue;
          atBest = parameterOf(again.base, 'model.norm.weight').dataSync().slice();
          break;
        }
        return { weight: weight.dataSync(), atBest };
      }),
    );
    assert.notEqual(ends[0].atBest, undefined, 'the best evaluation is not the last one');
    assert.deepEqual(ends[0].weight, ends[0].atBest);
    assert.notDeepEqual(ends[1].weight, ends[1].atBest);
  });
});

describe('early stopping', () => {
  test('ends after so many evaluations without progress', async () => {
    const whole = await train();
    // The first evaluation that is the second in a row above the least loss before them.
    const lowest = whole.evaluations.map((_, i, all) => least(all.slice(0, i + 1)));
    const end = whole.evaluations.findIndex(({ step }, i) => step - lowest[i].step === 4);
    assert.ok(
      end > 1 && end < whole.evaluations.length - 1,
      `it should stop at evaluation ${end + 1} of ${whole.evaluations.length}`,
    );
    const stopped = await train({ earlyStopping: { patience: 2 } });
    assert.deepEqual(
      [stopped.result.steps, stopped.result.stoppedEarly, stopped.result.aborted],
      [whole.evaluations[end].step, true, false],
    );
    assert.deepEqual(stopped.evaluations, whole.evaluations.slice(0, end + 1));
    assert.deepEqual(
      valuesOf(stopped.reft),
      (await leftAfter(stopped.result.steps)).values,
      'without keepBest the last parameters stay',
    );
    const kept = await train({ earlyStopping: { patience: 2 }, keepBest: true });
    assert.deepEqual(valuesOf(kept.reft), (await leftAfter(lowest[end].step)).values);
    assert.equal(
      (await train({ earlyStopping: { patience: 1, minDelta: 100 } })).result.steps,
      4,
      'a minDelta that nothing reaches',
    );
  });

  test('a run that makes progress to its end is not stopped', async () => {
    const { result } = await train({ steps: 4, earlyStopping: { patience: 2 } });
    assert.deepEqual([result.steps, result.stoppedEarly], [4, false]);
  });
});

describe('resuming', () => {
  const watched = { keepBest: true, earlyStopping: { patience: 3 } };

  test('keeps and stops as the run that was not stopped, wherever it is taken up', async () => {
    const straight = await train(watched);
    assert.equal(straight.result.stoppedEarly, true);
    const { best, steps } = straight.result;
    // Before the first evaluation, at the best one, after it, and at the end.
    for (const at of [1, best!.step, best!.step + 3, steps]) {
      const rest = await train({ ...watched, resume: (await leftAfter(at, watched)).files });
      assert.deepEqual(
        [rest.result.best, rest.result.steps, rest.result.stoppedEarly],
        [best, steps, true],
        `from step ${at}`,
      );
      assert.deepEqual(valuesOf(rest.reft), valuesOf(straight.reft), `from step ${at}`);
      assert.deepEqual(
        rest.evaluations,
        straight.evaluations.filter(e => e.step > at),
        `from step ${at}`,
      );
      assert.deepEqual(
        [...(await rest.trainer.checkpointFiles())],
        [...(await straight.trainer.checkpointFiles())],
        `from step ${at}`,
      );
    }
  });

  test('an evaluation that an abort cut off is made up for', async () => {
    const straight = await train(watched);
    for (const at of [4, straight.result.steps]) {
      const controller = new AbortController();
      const cut = await train({
        ...watched,
        signal: controller.signal,
        onStep: ({ index }) => {
          if (index === at) controller.abort();
        },
      });
      assert.deepEqual([cut.result.aborted, cut.result.steps], [true, at]);
      assert.deepEqual(
        cut.evaluations,
        straight.evaluations.filter(e => e.step < at),
      );
      const rest = await train({ ...watched, resume: await cut.trainer.checkpointFiles() });
      assert.deepEqual(
        rest.evaluations,
        straight.evaluations.filter(e => e.step >= at),
      );
      assert.deepEqual(valuesOf(rest.reft), valuesOf(straight.reft));
    }
  });

  test('refuses a run that watches other rows or otherwise', async () => {
    const { files } = await leftAfter(4, watched);
    const refused = (more: Partial<TrainerOptions>, message: RegExp): Promise<void> =>
      assert.rejects(train({ ...watched, ...more, resume: files }), message);
    await refused({ keepBest: false }, /^RangeError: resume: keepBest is false, but checkpoint was made with true/);
    await refused(
      { earlyStopping: { patience: 4 } },
      /^RangeError: resume: patience is 4, but checkpoint was made with 3/,
    );
    await refused({ earlyStopping: { patience: 3, minDelta: 0.5 } }, /^RangeError: resume: minDelta is 0\.5/);
    await refused({ evaluation: { examples: heldOut, every: 4 } }, /^RangeError: resume: evaluateEvery is 4/);
    await refused(
      { evaluation: { examples: heldOut.slice(1), every: 2 } },
      /^RangeError: resume: evaluationData is sha256:/,
    );
  });
});

describe('what is refused', () => {
  test('wrong options, each by its name', async () => {
    const reft = getReftModel(await tinyModel(), config);
    const refused = (more: Partial<TrainerOptions>, message: RegExp): void => {
      assert.throws(() => new ReftTrainer(reft, { ...options, ...more }), message);
    };
    refused({ evaluation: undefined, keepBest: true }, /^RangeError: keepBest: needs evaluation$/);
    refused({ evaluation: undefined, earlyStopping: { patience: 1 } }, /^RangeError: earlyStopping: needs evaluation$/);
    refused(
      { earlyStopping: { patience: 0 } },
      /^RangeError: earlyStopping\.patience: expected a whole number from 1 on, got 0$/,
    );
    refused(
      { earlyStopping: { patience: 1, minDelta: -1 } },
      /^RangeError: earlyStopping\.minDelta: expected a number from 0 on, got -1$/,
    );
  });

  test('evaluation.every is honoured', async () => {
    const { evaluations } = await train({ steps: 8, evaluation: { examples: heldOut, every: 3 } });
    assert.deepEqual(
      evaluations.map(e => e.step),
      [3, 6, 8],
    );
  });
});
