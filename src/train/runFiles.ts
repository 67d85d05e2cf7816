// What a run leaves on disk: its checkpoints, and what is saved when it goes wrong. What is in the files is
// checkpoint.ts's work.

import type { Adapter } from '../adapt/adapter.js';
import { nodeOnly } from '../io/nodeOnly.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Files } from '../adapt/files.js';
import {
  stateFromFiles,
  stateTensorsFile,
  stateToFiles,
  type TrainerSettings,
  type TrainerState,
} from './checkpoint.js';
import type { EvaluationCourse } from './evaluationCourse.js';
import type { Trained } from './trained.js';
import type { TrainingRecord } from './trainingRecord.js';

/** How far a run is. */
export interface Progress {
  done: number;
  lastLoss: number;
  /** Parameters are being changed: in between they are of no step. */
  updating: boolean;
}

/** An error that says already what of the run is saved. */
export class RunError extends Error {}

export interface RunFilesOptions {
  readonly adapter: Adapter;
  readonly trained: Trained;
  readonly course: EvaluationCourse;
  readonly record: TrainingRecord;
  readonly progress: Progress;
  readonly totalSteps: number;
  /** Whether there are rows to evaluate. */
  readonly evaluates: boolean;
  /** Where checkpoints go; undefined: none are written. */
  readonly directory: string | undefined;
  settings(): Promise<TrainerSettings>;
}

export class RunFiles {
  private readonly run: RunFilesOptions;
  private saved: { readonly step: number; readonly directory: string } | null = null;

  constructor(run: RunFilesOptions) {
    this.run = run;
  }

  /** The last checkpoint that was written, or gone on from; null where there is none. */
  get lastSaved(): { readonly step: number; readonly directory: string } | null {
    return this.saved;
  }

  /** @throws Error where a parameter is not finite */
  async checkpointFiles(): Promise<Map<string, Uint8Array>> {
    const { adapter, trained, course, record, progress, evaluates, settings } = this.run;
    const state = {
      step: progress.done,
      optimizerStep: trained.optimizer.state().step,
      record,
      settings: await settings(),
      tensors: this.stateTensors(),
      ...(evaluates ? { evaluation: course.state } : {}),
    };
    return new Map([...(await stateToFiles(state)), ...(await adapter.toFiles())]);
  }

  /** Writes a checkpoint folder (Node). @throws RangeError or RunError; the checkpoint there stays */
  async save(directory: string): Promise<void> {
    nodeOnly('a checkpoint in a folder', 'use checkpointFiles()');
    const { done } = this.run.progress;
    const { writeFolder } = await import('../reft/adapterFilesNode.js');
    try {
      await writeFolder(directory, await this.checkpointFiles());
    } catch (error) {
      if (error instanceof RangeError) throw error;
      throw new RunError(
        `${directory}: the checkpoint of step ${done} could not be saved: ${(error as Error).message}; ${this.whatIsSaved()}`,
        { cause: error },
      );
    }
    this.saved = { step: done, directory };
  }

  /** Goes on from a checkpoint. @throws RangeError naming a setting that differs, FormatError for bad files */
  async load(from: string | Files): Promise<void> {
    const inFolder = typeof from === 'string';
    const files = inFolder ? await readState(from) : from;
    const source = inFolder ? from : 'checkpoint';
    await stateFromFiles(files, source, await this.run.settings(), this.stateTensors(), state => {
      this.restore(state);
    });
    if (inFolder) this.saved = { step: this.run.progress.done, directory: from };
  }

  private restore(state: TrainerState): void {
    const { trained, course, record, progress, totalSteps } = this.run;
    if (state.step > totalSteps)
      throw new RangeError(`resume: the checkpoint is at step ${state.step} of ${totalSteps}`);
    const [moments, best] = [new Map<string, Tensor>(), new Map<string, Tensor>()];
    for (const [name, tensor] of state.tensors) {
      if (name.startsWith(momentsPrefix)) moments.set(name.slice(momentsPrefix.length), tensor);
      else if (name.startsWith(bestPrefix)) best.set(name.slice(bestPrefix.length), tensor);
      else trained.setState(name, tensor);
    }
    trained.optimizer.loadState({ step: state.optimizerStep, tensors: moments });
    if (state.evaluation) course.load(state.evaluation, best);
    progress.done = state.step;
    progress.lastLoss = state.record.losses.at(-1)?.loss ?? NaN;
    for (const name of ['losses', 'evaluation'] as const) record[name].splice(0, Infinity, ...state.record[name]);
  }

  private stateTensors(): Map<string, Tensor> {
    const { trained, course } = this.run;
    const prefixed = (prefix: string, tensors: ReadonlyMap<string, Tensor>): [string, Tensor][] =>
      [...tensors].map(([name, tensor]) => [prefix + name, tensor]);
    const moments = prefixed(momentsPrefix, trained.optimizer.state().tensors);
    return new Map([...trained.state(), ...moments, ...prefixed(bestPrefix, course.tensors())]);
  }

  /**
   * What to throw for an error of a run. One of the device itself ends a run whose state may be gone; after any other
   * one the steps that were done are saved.
   */
  async afterError(error: unknown): Promise<unknown> {
    const { progress, totalSteps, directory } = this.run;
    if (error instanceof Error && error.name === 'WebGPUError') {
      return new Error(
        `training: step ${progress.done + 1} of ${totalSteps}: ${error.message}; ${this.whatIsSaved()}`,
        { cause: error },
      );
    }
    const unsaved = this.saved?.step !== progress.done && progress.done > 0;
    const lost = !(error instanceof RunError) && !progress.updating && unsaved;
    // The first error is the one to tell.
    if (lost && directory !== undefined) await this.save(directory).catch(() => undefined);
    return error;
  }

  /**
   * After a step that went wrong: a checkpoint of the parameters before it, unless there is an earlier one. Says what
   * there is.
   */
  async afterBadStep(): Promise<string> {
    const { progress, directory } = this.run;
    const asBefore = 'the parameters are as the step before left them';
    if (directory === undefined || progress.done === 0) return asBefore;
    try {
      if (!this.saved) await this.save(directory);
    } catch (error) {
      return (error as Error).message;
    }
    return this.saved?.step === progress.done ? `${asBefore}, saved in ${this.saved.directory}` : this.whatIsSaved();
  }

  whatIsSaved(): string {
    return this.saved
      ? `${this.saved.directory} holds the run up to step ${this.saved.step}: resume from there`
      : 'nothing of the run was saved';
  }
}

async function readState(directory: string): Promise<Files> {
  nodeOnly('resuming from a folder', "give the checkpoint's files");
  const { readFolder } = await import('../reft/adapterFilesNode.js');
  return readFolder(directory, [stateTensorsFile]);
}

const momentsPrefix = 'optimizer.';
const bestPrefix = 'best.';
