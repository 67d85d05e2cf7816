// Training an adapter: the loop. A step clears gradients, adds up those of its micro-batches, clips them, reads the
// loss back once and updates. Options are in options.ts, rows are checked in data.ts, losses are computed in
// batchLosses.ts, checkpoints written and read in runFiles.ts.

import type { Adapter } from '../adapt/adapter.js';
import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Example } from '../data/examples.js';
import { clipGradNorm } from '../nn/optim.js';
import { scheduleFactor } from '../nn/schedule.js';
import { create } from '../tensor/create.js';
import { stack } from '../tensor/layout.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Files } from '../adapt/files.js';
import { BatchLosses } from './batchLosses.js';
import { claim } from './claims.js';
import { checkChanged, labelCount, prepareExamples } from './data.js';
import { EvaluationCourse } from './evaluationCourse.js';
import { objectiveOf } from './objectives.js';
import {
  checkTrainerKeys,
  withDefaults,
  type Evaluation,
  type ResolvedTrainerOptions,
  type TrainerOptions,
  type TrainResult,
  type TrainStep,
} from './options.js';
import { RunError, RunFiles, type Progress } from './runFiles.js';
import { runSettings } from './runSettings.js';
import { Trained } from './trained.js';
import type { TrainingRecord } from './trainingRecord.js';
import type { Window } from './windows.js';

export class Trainer<A extends Adapter = Adapter> {
  readonly adapter: A;
  readonly examples: readonly Example[];
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** Rows that were cut to `maxLength`. */
  readonly truncatedRows: number;
  /** What was measured so far, before a resume too. */
  readonly record: TrainingRecord = { losses: [], evaluation: [] };
  private readonly options: ResolvedTrainerOptions;
  private readonly evaluated: readonly Example[] | null;
  private readonly losses: BatchLosses;
  /** Trained tensors of the base, a head say, are trained along. */
  private readonly trained: Trained;
  private readonly course: EvaluationCourse;
  private readonly files: RunFiles;
  private readonly progress: Progress = { done: 0, lastLoss: NaN, updating: false };
  private seconds = 0;
  private toResume: string | Files | undefined;
  private isRunning = false;

  /** @throws RangeError or Error naming the option or the row that is wrong */
  constructor(adapter: A, options: TrainerOptions) {
    checkTrainerKeys(options);
    this.adapter = adapter;
    adapter.tokenizer ??= options.tokenizer;
    const { objective, data } = objectiveOf(options);
    this.examples = prepareExamples('training', data, adapter, options);
    checkChanged(this.examples, adapter);
    const { evaluation } = options;
    this.evaluated = evaluation ? prepareExamples('evaluation', evaluation, adapter, options) : null;
    this.truncatedRows = this.examples.filter(e => e.truncated > 0).length;
    this.options = withDefaults(options, this.examples.length / objective.unit);
    this.losses = new BatchLosses(adapter, objective, this.examples, this.options);
    this.totalSteps = options.steps ?? (options.epochs as number) * this.losses.stepsPerEpoch;
    this.trained = new Trained(adapter, this.options.weightDecay);
    const { keepBest, earlyStopping } = this.options;
    this.course = new EvaluationCourse({ earlyStopping, keepBest: keepBest ? this.trained.state() : null });
    this.files = this.runFiles();
    this.toResume = options.resume;
  }

  private runFiles(): RunFiles {
    const { adapter, trained, options, totalSteps, examples, evaluated, losses, course, record, progress } = this;
    const { objective, stepsPerEpoch } = losses;
    const run = { adapter, trained, options, objective, totalSteps, stepsPerEpoch, examples, evaluated };
    return new RunFiles({
      ...{ adapter, trained, course, record, progress, totalSteps },
      evaluates: evaluated !== null,
      directory: options.checkpoint?.directory,
      settings: () => runSettings(run),
    });
  }

  /** Whether its steps are being run. */
  get running(): boolean {
    return this.isRunning;
  }

  /** Whether nothing is left to do: all steps and the last evaluation are done, or the evaluations made no progress. */
  private get over(): boolean {
    return (this.progress.done >= this.totalSteps && !this.evaluationIsDue) || this.course.stopped;
  }

  /** Whether the step that was done last asks for an evaluation, and it was not made yet. */
  private get evaluationIsDue(): boolean {
    const { done } = this.progress;
    const every = this.options.evaluation?.every ?? this.losses.stepsPerEpoch;
    const asked = done % every === 0 || done === this.totalSteps;
    return this.evaluated !== null && asked && this.course.state.evaluated < done;
  }

  /**
   * Runs the steps that are left. A loop that is left early can be taken up again. @throws Error naming the step where
   * the loss is not finite
   */
  async *steps(): AsyncGenerator<TrainStep, void, undefined> {
    if (this.isRunning) throw new Error('trainer: its steps are already being run');
    claim(this, this.trained.tensors);
    this.isRunning = true;
    try {
      await this.begin();
      while (!this.over) {
        await nextMacrotask();
        if (this.options.signal?.aborted) {
          await this.saveOnAbort();
          return;
        }
        const step = await this.step();
        await this.afterStep(step);
        if (this.over) this.course.restore(this.trained.state());
        yield step;
      }
      if (this.over) this.course.restore(this.trained.state());
    } catch (error) {
      throw await this.files.afterError(error);
    } finally {
      await this.losses.close();
      this.isRunning = false;
    }
  }

  private async begin(): Promise<void> {
    if (this.toResume !== undefined) await this.loadCheckpoint(this.toResume);
    await this.losses.openReuse(this.evaluated ?? []);
    // An evaluation that an abort cut off is made up for.
    await this.evaluateWhenDue();
    if (!this.over) await this.losses.prepare();
  }

  private async afterStep(step: TrainStep): Promise<void> {
    const { checkpoint, onStep, onCheckpoint } = this.options;
    this.record.losses.push({ step: step.index, loss: step.loss });
    onStep?.(step);
    await this.evaluateWhenDue();
    if (!checkpoint) return;
    const saveEvery = checkpoint.everySteps ?? (this.adapter.base.backend.readSync ? Infinity : 25);
    if (this.progress.done % saveEvery !== 0) return;
    await this.files.save(checkpoint.directory);
    await onCheckpoint?.(this.progress.done);
  }

  private async saveOnAbort(): Promise<void> {
    const { checkpoint } = this.options;
    if (checkpoint) await this.files.save(checkpoint.directory);
  }

  /** Does the evaluation that is due, unless it is aborted. */
  private async evaluateWhenDue(): Promise<void> {
    if (!this.evaluated || !this.evaluationIsDue) return;
    const measured = await this.losses.measure(this.evaluated, this.options.signal);
    if (!measured) return;
    const { done: step } = this.progress;
    this.course.see({ step, loss: measured.loss }, this.trained.state());
    this.record.evaluation.push({ step, loss: measured.loss });
    this.options.onEvaluation?.({ step, ...measured });
  }

  /** The last checkpoint that was written, or gone on from; null where there is none. */
  get lastSaved(): { readonly step: number; readonly directory: string } | null {
    return this.files.lastSaved;
  }

  /**
   * Runs the steps to the end, then measures the loss on the training data. @throws Error where a loss is not finite,
   * in the end too
   */
  async train(onStep?: (step: TrainStep) => void): Promise<TrainResult> {
    for await (const step of this.steps()) onStep?.(step);
    const measured = this.over ? await this.losses.measure(this.examples, this.options.signal) : null;
    if (!measured && this.over) await this.saveOnAbort();
    if (measured && !Number.isFinite(measured.loss)) {
      throw new Error(
        `training: the loss after the last step is ${measured.loss}: it diverged; ${this.files.whatIsSaved()}. ${this.calmer()}`,
      );
    }
    const { done, lastLoss } = this.progress;
    return {
      steps: done,
      loss: measured?.loss ?? lastLoss,
      seconds: this.seconds,
      trainableParameters: this.adapter.parameterCount,
      aborted: !measured,
      stoppedEarly: this.course.stopped && done < this.totalSteps,
      best: this.course.state.best,
    };
  }

  private calmer(): string {
    return `Try a learning rate below ${this.options.learningRate}, a warmup, or maxGradNorm 1`;
  }

  /** The loss on examples (default: the training data), dropout off. */
  async evaluate(examples: readonly Example[] = this.examples): Promise<Evaluation> {
    return (await this.losses.measure(prepareExamples('evaluation', { examples }, this.adapter, {}))) as Evaluation;
  }

  private async step(): Promise<TrainStep> {
    const begin = performance.now();
    const { learningRate: peak, schedule, warmup } = this.options;
    const { done } = this.progress;
    const groups = this.losses.groupsOf(done);
    const examples = groups.flat().map(w => w.example);
    this.trained.optimizer.zeroGrad();
    await this.losses.fetch(examples, done + 1 < this.totalSteps ? done + 1 : null);
    const measured = this.gradients(groups, this.losses.objective.count(examples));
    const [loss, gradNorm] = await measured.data();
    measured.storage.dispose();
    this.losses.release();
    await this.checkFinite(loss, gradNorm);
    const learningRate = peak * scheduleFactor(schedule, done, this.totalSteps, warmup);
    this.update(learningRate);
    this.progress.done++;
    this.progress.lastLoss = loss;
    const seconds = (performance.now() - begin) / 1000;
    this.seconds += seconds;
    return {
      index: done + 1,
      total: this.totalSteps,
      epoch: Math.floor(done / this.losses.stepsPerEpoch) + 1,
      loss,
      learningRate,
      gradNorm,
      seconds,
      labelled: examples.reduce((n, e) => n + labelCount(e), 0),
      tokens: examples.reduce((n, e) => n + e.ids.length, 0),
    };
  }

  /** Adds up the gradients of a step and clips them; gives its loss and their norm before, [2]. */
  private gradients(groups: readonly (readonly Window[])[], count: number): Tensor {
    const { seed, maxGradNorm } = this.options;
    const { dtype, backend } = this.adapter.base;
    return scope(() => {
      // A stream of dropout for each micro-batch; a step never has more of them than there are examples.
      const losses = groups.map((windows, k) =>
        this.losses.addGradients(windows, count, { seed, step: this.progress.done * this.examples.length + k }),
      );
      const tensors = this.trained.optimizer.parameters;
      // A step whose prompts are all too short to be edited has no gradients.
      const norm = tensors.some(t => t.grad)
        ? clipGradNorm(tensors, maxGradNorm || Infinity)
        : create.zeros([], { dtype, backend });
      return noGrad(() => stack([losses.reduce((a, b) => a.add(b)), norm]));
    });
  }

  private async checkFinite(loss: number, gradNorm: number): Promise<void> {
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return;
    this.trained.optimizer.zeroGrad();
    const what = Number.isFinite(loss) ? `the norm of the gradients is ${gradNorm}` : `the loss is ${loss}`;
    const saved = await this.files.afterBadStep();
    throw new RunError(`training: ${what} at step ${this.progress.done + 1}; ${saved}. ${this.calmer()}`);
  }

  private update(learningRate: number): void {
    const { optimizer } = this.trained;
    this.progress.updating = true;
    optimizer.step(learningRate);
    this.progress.updating = false;
    optimizer.zeroGrad();
  }

  /**
   * What a checkpoint holds, as files: the state of the run, and the adapter. @throws Error where a parameter is not
   * finite
   */
  checkpointFiles(): Promise<Map<string, Uint8Array>> {
    return this.files.checkpointFiles();
  }

  /**
   * Writes a checkpoint folder (Node), which is the old one or the new one, whatever stops the process; also an adapter
   * folder. @throws Error where a parameter is not finite; the checkpoint there stays
   */
  saveCheckpoint(directory: string): Promise<void> {
    return this.files.save(directory);
  }

  /**
   * Goes on from a checkpoint, bit for bit. @throws RangeError naming a setting that differs, FormatError for bad files
   */
  async loadCheckpoint(from: string | Files): Promise<void> {
    await this.files.load(from);
    this.toResume = undefined;
  }

  /** Frees the optimizer's moments and the copy of the best parameters; the adapter stays. */
  dispose(): void {
    this.trained.optimizer.dispose();
    this.course.dispose();
  }
}
