// Training edits: the loop. A step clears gradients, adds up those of its micro-batches, clips them, reads the loss
// back once and updates. Options are in trainerOptions.ts, rows are checked in trainerData.ts, batches made in
// trainerWindows.ts, what a frozen base allows to keep is in reuse.ts, files in checkpoint.ts.

import { assign } from '../adapt/assign.js';
import { scope } from '../autograd/scope.js';
import { backward, noGrad } from '../autograd/tape.js';
import type { Example } from '../data/examples.js';
import { nodeOnly } from '../io/nodeOnly.js';
import { AdamW, clipGradNorm } from '../nn/optim.js';
import { scheduleFactor } from '../nn/schedule.js';
import { create } from '../tensor/create.js';
import { stack } from '../tensor/layout.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import type { Tensor } from '../tensor/tensor.js';
import { adapterToFiles, type Files } from '../reft/adapterFiles.js';
import { stateFromFiles, stateTensorsFile, stateToFiles, type TrainerSettings } from './checkpoint.js';
import { configToJSON } from '../reft/config.js';
import { EvaluationCourse } from './evaluationCourse.js';
import { examplesFingerprint, modelFingerprint } from './fingerprint.js';
import { likelihood, preference, type Objective } from './objectives.js';
import type { TrainingMode } from '../reft/editedModel.js';
import type { ReftModel } from '../reft/reftModel.js';
import { canReuse, PrefixReuse } from './reuse.js';
import { checkEdited, labelCount, prepareExamples, stepsOfEpoch } from './data.js';
import {
  checkTrainerKeys,
  withDefaults,
  type Evaluation,
  type ResolvedTrainerOptions,
  type TrainerOptions,
  type TrainResult,
  type TrainStep,
} from './options.js';
import { wholeWindow, type Window } from './windows.js';
import type { TrainingRecord } from './trainingRecord.js';

/** What is trained, in the optimizer's order. */
interface Trained {
  readonly name: string;
  readonly tensor: Tensor;
}

/** The last trainer that ran on an intervention or a tensor of the base. One that nobody holds any more blocks none. */
const trainedBy = new WeakMap<object, WeakRef<ReftTrainer>>();

/** Says already what of the run is saved. */
class RunError extends Error {}

export class ReftTrainer {
  readonly reft: ReftModel;
  readonly examples: readonly Example[];
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** Rows that were cut to `maxLength`. */
  readonly truncatedRows: number;
  /** What was measured so far, before a resume too. */
  readonly record: TrainingRecord = { losses: [], evaluation: [] };
  private readonly options: ResolvedTrainerOptions;
  private readonly evaluated: readonly Example[] | null;
  private readonly objective: Objective;
  private readonly stepsPerEpoch: number;
  /** Trained tensors of the base, a head or LoRA say, are trained along. */
  private readonly trained: readonly Trained[];
  private readonly optimizer: AdamW;
  private readonly course: EvaluationCourse;
  private reuse: PrefixReuse | null = null;
  private done = 0;
  private saved: { readonly step: number; readonly directory: string } | null = null;
  private seconds = 0;
  private lastLoss = NaN;
  private toResume: string | Files | undefined;
  private running = false;
  /** Parameters are being changed: in between they are of no step. */
  private updating = false;

  /** @throws RangeError or Error naming the option or the row that is wrong */
  constructor(reft: ReftModel, options: TrainerOptions) {
    checkTrainerKeys(options);
    this.reft = reft;
    reft.tokenizer ??= options.tokenizer;
    const { preferences } = options;
    if (preferences && (options.rows || options.examples || options.evaluation))
      throw new RangeError('training: preferences take the place of rows, examples and evaluation');
    this.objective = preferences ? preference(preferences.beta ?? 0.1) : likelihood;
    const data = preferences
      ? { examples: preferences.pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]) }
      : options;
    this.examples = prepareExamples('training', data, reft, options);
    checkEdited(this.examples, reft);
    const { evaluation } = options;
    this.evaluated = evaluation ? prepareExamples('evaluation', evaluation, reft, options) : null;
    this.truncatedRows = this.examples.filter(e => e.truncated > 0).length;
    const n = this.units(this.examples).length;
    this.options = withDefaults(options, n);
    this.stepsPerEpoch = Math.ceil(Math.ceil(n / this.options.batchSize) / this.options.gradientAccumulation);
    this.totalSteps = options.steps ?? (options.epochs as number) * this.stepsPerEpoch;
    const edits = reft.trained();
    const base = [...reft.base.namedParameters()].flatMap(([name, tensor]) =>
      tensor.requiresGrad ? [{ name: `base.${name}`, tensor }] : [],
    );
    const [orthogonal, free] = [edits.filter(t => t.orthogonal), [...edits.filter(t => !t.orthogonal), ...base]];
    this.trained = [...orthogonal, ...free];
    this.optimizer = new AdamW([
      { parameters: orthogonal.map(t => t.tensor), orthogonal: true },
      { parameters: free.map(t => t.tensor), weightDecay: this.options.weightDecay },
    ]);
    const { keepBest, earlyStopping } = this.options;
    this.course = new EvaluationCourse({ earlyStopping, keepBest: keepBest ? this.parameterTensors() : null });
    this.toResume = options.resume;
  }

  /** Whether nothing is left to do: all steps and the last evaluation are done, or the evaluations made no progress. */
  private get over(): boolean {
    return (this.done >= this.totalSteps && !this.evaluationIsDue) || this.course.stopped;
  }

  /** Whether the step that was done last asks for an evaluation, and it was not made yet. */
  private get evaluationIsDue(): boolean {
    const every = this.options.evaluation?.every ?? this.stepsPerEpoch;
    const asked = this.done % every === 0 || this.done === this.totalSteps;
    return this.evaluated !== null && asked && this.course.state.evaluated < this.done;
  }

  /**
   * Runs the steps that are left. A loop that is left early can be taken up again. @throws Error naming the step where
   * the loss is not finite
   */
  async *steps(): AsyncGenerator<TrainStep, void, undefined> {
    if (this.running) throw new Error('trainer: its steps are already being run');
    this.claim();
    const { signal, checkpoint, onStep } = this.options;
    const saveEvery = checkpoint?.everySteps ?? (checkpoint && !this.reft.base.backend.readSync ? 25 : Infinity);
    this.running = true;
    try {
      if (this.toResume !== undefined) await this.loadCheckpoint(this.toResume);
      this.reuse = await this.openReuse();
      // An evaluation that an abort cut off is made up for.
      await this.evaluateWhenDue(signal);
      if (!this.over) await this.objective.prepare(this.reft, this.examples, this.options.batchSize);
      while (!this.over) {
        await nextMacrotask();
        if (signal?.aborted) {
          if (checkpoint) await this.saveCheckpoint(checkpoint.directory);
          return;
        }
        const step = await this.step();
        this.record.losses.push({ step: step.index, loss: step.loss });
        onStep?.(step);
        await this.evaluateWhenDue(signal);
        if (checkpoint && this.done % saveEvery === 0) {
          await this.saveCheckpoint(checkpoint.directory);
          await this.options.onCheckpoint?.(this.done);
        }
        if (this.over) this.course.restore(this.parameterTensors());
        yield step;
      }
      if (this.over) this.course.restore(this.parameterTensors());
    } catch (error) {
      throw await this.afterError(error);
    } finally {
      await this.reuse?.close();
      this.reuse = null;
      this.running = false;
    }
  }

  /** Does the evaluation that is due, unless it is aborted. */
  private async evaluateWhenDue(signal: AbortSignal | undefined): Promise<void> {
    if (!this.evaluated || !this.evaluationIsDue) return;
    const measured = await this.measure(this.evaluated, signal);
    if (!measured) return;
    this.course.see({ step: this.done, loss: measured.loss }, this.parameterTensors());
    this.record.evaluation.push({ step: this.done, loss: measured.loss });
    this.options.onEvaluation?.({ step: this.done, ...measured });
  }

  /** Two runs that take turns on one edit would train neither: the second is refused while the first goes on. */
  private claim(): void {
    const base = this.trained.filter(t => t.name.startsWith('base.')).map(t => ({ id: t.name, what: t.tensor }));
    const claimed = [...this.reft.interventions.map(i => ({ id: i.id, what: i })), ...base];
    for (const { id, what } of claimed) {
      const other = trainedBy.get(what)?.deref();
      if (other?.running) throw new Error(`trainer: another trainer is being run on ${id}; end its steps first`);
    }
    for (const { what } of claimed) trainedBy.set(what, new WeakRef(this));
  }

  private async openReuse(): Promise<PrefixReuse | null> {
    const { reuse, reuseBudgetBytes: budgetBytes, reuseDirectory: path, reuseDirectoryBudgetBytes } = this.options;
    if (!reuse || !canReuse(this.reft)) return null;
    const directory = path === undefined ? {} : { directory: { path, budgetBytes: reuseDirectoryBudgetBytes } };
    return PrefixReuse.open(this.reft, [...this.examples, ...(this.evaluated ?? [])], { budgetBytes, ...directory });
  }

  /** The last checkpoint that was written, or gone on from; null where there is none. */
  get lastSaved(): { readonly step: number; readonly directory: string } | null {
    return this.saved;
  }

  /**
   * An error of the device itself ends a run whose state may be gone; after any other one the steps that were done are
   * saved.
   */
  private async afterError(error: unknown): Promise<unknown> {
    const { checkpoint } = this.options;
    if (error instanceof Error && error.name === 'WebGPUError') {
      return new Error(
        `training: step ${this.done + 1} of ${this.totalSteps}: ${error.message}; ${this.whatIsSaved()}`,
        { cause: error },
      );
    }
    const lost = !(error instanceof RunError) && !this.updating && this.saved?.step !== this.done && this.done > 0;
    // The first error is the one to tell.
    if (lost && checkpoint) await this.saveCheckpoint(checkpoint.directory).catch(() => undefined);
    return error;
  }

  private whatIsSaved(): string {
    return this.saved
      ? `${this.saved.directory} holds the run up to step ${this.saved.step}: resume from there`
      : 'nothing of the run was saved';
  }

  /**
   * After a step that went wrong: a checkpoint of the parameters before it, unless there is an earlier one. Says what
   * there is.
   */
  private async afterBadStep(): Promise<string> {
    const { checkpoint } = this.options;
    const asBefore = 'the parameters are as the step before left them';
    if (!checkpoint || this.done === 0) return asBefore;
    try {
      if (!this.saved) await this.saveCheckpoint(checkpoint.directory);
    } catch (error) {
      return (error as Error).message;
    }
    return this.saved?.step === this.done ? `${asBefore}, saved in ${this.saved.directory}` : this.whatIsSaved();
  }

  /**
   * Runs the steps to the end, then measures the loss on the training data. @throws Error where a loss is not finite,
   * in the end too
   */
  async train(onStep?: (step: TrainStep) => void): Promise<TrainResult> {
    const { signal, checkpoint } = this.options;
    for await (const step of this.steps()) onStep?.(step);
    const measured = this.over ? await this.measure(this.examples, signal) : null;
    if (!measured && this.over && checkpoint) await this.saveCheckpoint(checkpoint.directory);
    if (measured && !Number.isFinite(measured.loss)) {
      throw new Error(
        `training: the loss after the last step is ${measured.loss}: it diverged; ${this.whatIsSaved()}. ${this.calmer()}`,
      );
    }
    return {
      steps: this.done,
      loss: measured?.loss ?? this.lastLoss,
      seconds: this.seconds,
      trainableParameters: this.reft.parameterCount,
      aborted: !measured,
      stoppedEarly: this.course.stopped && this.done < this.totalSteps,
      best: this.course.state.best,
    };
  }

  private calmer(): string {
    return `Try a learning rate below ${this.options.learningRate}, a warmup, or maxGradNorm 1`;
  }

  /** The loss on examples (default: the training data), dropout off. */
  async evaluate(examples: readonly Example[] = this.examples): Promise<Evaluation> {
    return (await this.measure(prepareExamples('evaluation', { examples }, this.reft, {}))) as Evaluation;
  }

  private async measure(examples: readonly Example[], signal?: AbortSignal): Promise<Evaluation | null> {
    const { batchSize } = this.options;
    const units = this.units(examples);
    await this.objective.prepare(this.reft, examples, batchSize);
    let sum = 0;
    const batchAt = (at: number): Example[] => units.slice(at, at + batchSize).flat();
    for (let at = 0; at < units.length; at += batchSize) {
      await nextMacrotask();
      if (signal?.aborted) return null;
      const batch = batchAt(at);
      await this.reuse?.fetch(batch);
      await this.reuse?.ahead(() => batchAt(at + batchSize));
      const loss = noGrad(() =>
        scope(() =>
          this.groups(batch)
            .map(windows => this.lossOf(windows))
            .reduce((a, b) => a.add(b)),
        ),
      );
      sum += await loss.item();
      loss.storage.dispose();
      this.reuse?.release();
    }
    const labelled = examples.reduce((n, e) => n + labelCount(e), 0);
    const loss = sum / this.objective.count(examples);
    return { loss, perplexity: this.objective === likelihood ? Math.exp(loss) : NaN, labelled, rows: units.length };
  }

  private async step(): Promise<TrainStep> {
    const begin = performance.now();
    const { learningRate: peak, schedule, warmup, maxGradNorm, seed } = this.options;
    const epoch = Math.floor(this.done / this.stepsPerEpoch);
    const groups = this.groupsOf(this.done);
    const examples = groups.flat().map(w => w.example);
    const labelled = examples.reduce((n, e) => n + labelCount(e), 0);
    const count = this.objective.count(examples);
    this.optimizer.zeroGrad();
    await this.reuse?.fetch(examples);
    if (this.reuse && this.done + 1 < this.totalSteps)
      await this.reuse.ahead(() =>
        this.groupsOf(this.done + 1)
          .flat()
          .map(w => w.example),
      );
    const measured = scope(() => {
      // A stream of dropout for each micro-batch; a step never has more of them than there are examples.
      const losses = groups.map((windows, k) =>
        this.addGradients(windows, count, { seed, step: this.done * this.examples.length + k }),
      );
      const tensors = this.optimizer.parameters;
      const { dtype, backend } = this.reft.base;
      // A step whose prompts are all too short to be edited has no gradients.
      const norm = tensors.some(t => t.grad)
        ? clipGradNorm(tensors, maxGradNorm || Infinity)
        : create.zeros([], { dtype, backend });
      return noGrad(() => stack([losses.reduce((a, b) => a.add(b)), norm]));
    });
    const [loss, gradNorm] = await measured.data();
    measured.storage.dispose();
    this.reuse?.release();
    const learningRate = peak * scheduleFactor(schedule, this.done, this.totalSteps, warmup);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      this.optimizer.zeroGrad();
      const what = Number.isFinite(loss) ? `the norm of the gradients is ${gradNorm}` : `the loss is ${loss}`;
      throw new RunError(`training: ${what} at step ${this.done + 1}; ${await this.afterBadStep()}. ${this.calmer()}`);
    }
    this.updating = true;
    this.optimizer.step(learningRate);
    this.updating = false;
    this.optimizer.zeroGrad();
    this.done++;
    this.lastLoss = loss;
    const seconds = (performance.now() - begin) / 1000;
    this.seconds += seconds;
    return {
      index: this.done,
      total: this.totalSteps,
      epoch: epoch + 1,
      loss,
      learningRate,
      gradNorm,
      seconds,
      labelled,
      tokens: examples.reduce((n, e) => n + e.ids.length, 0),
    };
  }

  /** The micro-batches of a step (from 0), each parted into groups. */
  private groupsOf(step: number): Window[][] {
    const units = this.units(this.examples);
    return stepsOfEpoch(units.length, this.options, Math.floor(step / this.stepsPerEpoch))[
      step % this.stepsPerEpoch
    ].flatMap(numbers => this.groups(numbers.flatMap(i => units[i])));
  }

  /** Adds the gradients of these windows' share of the step's mean loss; gives that share. */
  private addGradients(windows: readonly Window[], count: number, training: TrainingMode): Tensor {
    return scope(() => {
      const loss = this.lossOf(windows, training).mul(1 / count);
      if (loss.needsGrad) backward(loss);
      return loss.detach();
    });
  }

  /** Examples that are never parted. */
  private units(examples: readonly Example[]): Example[][] {
    const { unit } = this.objective;
    return Array.from({ length: examples.length / unit }, (_, i) => examples.slice(i * unit, (i + 1) * unit));
  }

  /** Rows of a micro-batch whose prefixes are kept, and the others. */
  private groups(examples: readonly Example[]): Window[][] {
    if (this.objective.unit > 1 && !examples.every(e => this.reuse?.windowOf(e))) return [examples.map(wholeWindow)];
    const kept = examples.flatMap(e => this.reuse?.windowOf(e) ?? []);
    const whole = examples.filter(e => !this.reuse?.windowOf(e)).map(wholeWindow);
    return [kept, whole].filter(group => group.length > 0);
  }

  /** The summed loss of a group; a group is kept as a whole or not at all. */
  private lossOf(windows: readonly Window[], training?: TrainingMode): Tensor {
    const { reuse } = this;
    const kept = reuse && windows.every(w => reuse.windowOf(w.example) === w) ? reuse.stateFor(windows) : {};
    return this.objective.loss(this.reft, windows, { ...kept, recompute: this.options.recompute ?? false }, training);
  }

  /**
   * What a checkpoint holds, as files: the state of the run, and the adapter. @throws Error where a parameter is not
   * finite
   */
  async checkpointFiles(): Promise<Map<string, Uint8Array>> {
    const state = {
      step: this.done,
      optimizerStep: this.optimizer.state().step,
      record: this.record,
      settings: await this.settings(),
      tensors: this.stateTensors(),
      ...(this.evaluated ? { evaluation: this.course.state } : {}),
    };
    return new Map([...(await stateToFiles(state)), ...(await adapterToFiles(this.reft))]);
  }

  /**
   * Writes a checkpoint folder (Node), which is the old one or the new one, whatever stops the process; also an adapter
   * folder, which `loadReft` reads. @throws Error where a parameter is not finite; the checkpoint there stays
   */
  async saveCheckpoint(directory: string): Promise<void> {
    nodeOnly('a checkpoint in a folder', 'use checkpointFiles()');
    const { writeFolder } = await import('../reft/adapterFilesNode.js');
    try {
      await writeFolder(directory, await this.checkpointFiles());
    } catch (error) {
      if (error instanceof RangeError) throw error;
      throw new RunError(
        `${directory}: the checkpoint of step ${this.done} could not be saved: ${(error as Error).message}; ${this.whatIsSaved()}`,
        { cause: error },
      );
    }
    this.saved = { step: this.done, directory };
  }

  /**
   * Goes on from a checkpoint, bit for bit. @throws RangeError naming a setting that differs, FormatError for bad files
   */
  async loadCheckpoint(from: string | Files): Promise<void> {
    let files: Files;
    if (typeof from === 'string') {
      nodeOnly('resuming from a folder', "give the checkpoint's files");
      const { readFolder } = await import('../reft/adapterFilesNode.js');
      files = await readFolder(from, [stateTensorsFile]);
    } else files = from;
    await stateFromFiles(
      files,
      typeof from === 'string' ? from : 'checkpoint',
      await this.settings(),
      this.stateTensors(),
      state => {
        if (state.step > this.totalSteps)
          throw new RangeError(`resume: the checkpoint is at step ${state.step} of ${this.totalSteps}`);
        const [moments, best] = [new Map<string, Tensor>(), new Map<string, Tensor>()];
        for (const [name, tensor] of state.tensors) {
          if (name.startsWith(momentsPrefix)) moments.set(name.slice(momentsPrefix.length), tensor);
          else if (name.startsWith(bestPrefix)) best.set(name.slice(bestPrefix.length), tensor);
          else this.restore(name, tensor);
        }
        this.optimizer.loadState({ step: state.optimizerStep, tensors: moments });
        if (state.evaluation) this.course.load(state.evaluation, best);
        this.done = state.step;
        this.lastLoss = state.record.losses.at(-1)?.loss ?? NaN;
        for (const name of ['losses', 'evaluation'] as const)
          this.record[name].splice(0, Infinity, ...state.record[name]);
      },
    );
    if (typeof from === 'string') this.saved = { step: this.done, directory: from };
    this.toResume = undefined;
  }

  private restore(name: string, value: Tensor): void {
    const owner = this.reft.interventions.find(i => i.state().some(s => s.name === name));
    if (owner) owner.setState(name, value);
    else assign((this.trained.find(t => t.name === name) as Trained).tensor, value, name);
  }

  private stateTensors(): Map<string, Tensor> {
    const prefixed = (prefix: string, tensors: ReadonlyMap<string, Tensor>): [string, Tensor][] =>
      [...tensors].map(([name, tensor]) => [prefix + name, tensor]);
    const moments = prefixed(momentsPrefix, this.optimizer.state().tensors);
    return new Map([...this.parameterTensors(), ...moments, ...prefixed(bestPrefix, this.course.tensors())]);
  }

  /** Everything that decides what the edited model computes, by name. */
  private parameterTensors(): Map<string, Tensor> {
    const edits = this.reft.interventions.flatMap(i => i.state());
    const base = this.trained.filter(t => t.name.startsWith('base.'));
    return new Map([...edits, ...base].map((t): [string, Tensor] => [t.name, t.tensor]));
  }

  private async settings(): Promise<TrainerSettings> {
    const {
      batchSize,
      gradientAccumulation,
      learningRate,
      schedule,
      warmup,
      weightDecay,
      maxGradNorm,
      seed,
      reuse,
      reuseBudgetBytes,
    } = this.options;
    const { reuseDirectory, reuseDirectoryBudgetBytes, keepBest, earlyStopping, evaluation } = this.options;
    const { base, configs } = this.reft;
    return {
      totalSteps: this.totalSteps,
      batchSize,
      gradientAccumulation,
      learningRate,
      schedule,
      warmup,
      weightDecay,
      maxGradNorm,
      seed,
      reuse,
      reuseBudgetBytes,
      // Where files are does not matter, how many there may be does: an example that is computed in full rounds
      // otherwise.
      ...(reuseDirectory === undefined ? {} : { reuseDirectoryBudgetBytes }),
      // Evaluations decide nothing else.
      ...(this.evaluated && (keepBest || earlyStopping)
        ? {
            keepBest: keepBest ?? false,
            patience: earlyStopping?.patience ?? 0,
            minDelta: earlyStopping?.minDelta ?? 0,
            evaluateEvery: evaluation?.every ?? this.stepsPerEpoch,
            evaluationData: await examplesFingerprint(this.evaluated),
          }
        : {}),
      edits: JSON.stringify(configs.map(configToJSON)),
      scales: this.reft.interventions.map(i => i.scale).join(),
      trained: this.trained.map(t => t.name).join(),
      dtype: base.dtype,
      data: await examplesFingerprint(this.examples),
      objective: this.objective.name,
      // A base that is trained along is part of the state, not of the settings.
      ...(canReuse(this.reft) ? { base: await modelFingerprint(base) } : {}),
    };
  }

  /** Frees the optimizer's moments and the copy of the best parameters; the edits stay. */
  dispose(): void {
    this.optimizer.dispose();
    this.course.dispose();
  }
}

const momentsPrefix = 'optimizer.';
const bestPrefix = 'best.';
