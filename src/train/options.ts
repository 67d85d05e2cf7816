// A trainer's options: their defaults, what is checked of them, and what a run reports. What they do is trainer.ts's
// business.

import type { Example } from '../data/examples.js';
import type { PreferencePair } from '../data/preferences.js';
import type { Row } from '../data/rows.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { scheduleNames, type ScheduleName } from '../nn/schedule.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';
import type { Files } from '../adapt/files.js';
import type { EarlyStopping, EvaluatedStep } from './evaluationCourse.js';
import { defaultReuseBytes, defaultReuseDirectoryBytes } from './reuse.js';
import type { TrainingData } from './data.js';

export interface TrainerOptions {
  /** Needed for rows. */
  readonly tokenizer?: Tokenizer;
  readonly rows?: readonly Row[];
  /** From `tokenizeRow`, in place of rows. */
  readonly examples?: readonly Example[];
  /**
   * In place of rows: which of two answers is better (DPO), the unedited base being the reference. `batchSize` then
   * counts pairs.
   */
  readonly preferences?: {
    readonly pairs: readonly PreferencePair[];
    /** How far to move from the base. Default 0.1. */ readonly beta?: number;
  };
  /** Either epochs or steps. */
  readonly epochs?: number;
  readonly steps?: number;
  /** Rows of a micro-batch. Default 8, or all rows where there are fewer. */
  readonly batchSize?: number;
  /** Micro-batches of a step. Default 1. */
  readonly gradientAccumulation?: number;
  /** Default 9e-4. */
  readonly learningRate?: number;
  /** Default linear, down to 0. */
  readonly schedule?: ScheduleName;
  /** Steps until the learning rate is reached; below 1, their share of all steps. Default 0. */
  readonly warmup?: number;
  /** Decoupled; never reaches the parameters of an orthogonal map. Default 0. */
  readonly weightDecay?: number;
  /** Bound on the norm of all gradients together; 0 leaves them alone. Default 1. */
  readonly maxGradNorm?: number;
  /** Of the order of rows and of dropout. Default 0. */
  readonly seed?: number;
  /** Most tokens of a row: prompts are cut on the left. */
  readonly maxLength?: number;
  /** Measured after every `every` steps (default: after each epoch) and at the end. */
  readonly evaluation?: TrainingData & { readonly every?: number | undefined };
  /** Ends with the parameters whose evaluation had the least loss. Needs `evaluation`. Default false: the last ones. */
  readonly keepBest?: boolean;
  /** Ends a run whose evaluations make no more progress. Needs `evaluation`. The schedule still counts on all steps. */
  readonly earlyStopping?: EarlyStopping;
  /** Keep what a frozen base computes the same way each step. Changes no result beyond rounding. Default true. */
  readonly reuse?: boolean;
  /** Most bytes kept for that in memory. Default 1 GiB. */
  readonly reuseBudgetBytes?: number;
  /**
   * A folder (Node) in which it is kept too: beyond memory's bound, and for later runs over the same model and rows,
   * which read it. What is there is found by the hash of all that decides it; a damaged file is made again.
   */
  readonly reuseDirectory?: string;
  /** Most bytes in that folder; what was used longest ago goes first. Default 16 GiB. */
  readonly reuseDirectoryBudgetBytes?: number;
  /**
   * Keep nothing inside the model's blocks for the backward pass, which runs each again: less memory, more time, the
   * same steps. Default false.
   */
  readonly recompute?: boolean;
  /** Ends the run at its next step, after a checkpoint where one is configured. */
  readonly signal?: AbortSignal;
  /**
   * Where a checkpoint is written (Node): on an abort, and after every `everySteps` steps. Default: never in between
   * where memory is the host's, every 25 steps on a device that can be lost with all it holds.
   */
  readonly checkpoint?: { readonly directory: string; readonly everySteps?: number };
  /** A checkpoint to go on from: a folder (Node), or its files. */
  readonly resume?: string | Files;
  readonly onStep?: (step: TrainStep) => void;
  /** After each checkpoint of a run that goes on; awaited. */
  readonly onCheckpoint?: (step: number) => void | Promise<void>;
  readonly onEvaluation?: (evaluation: Evaluation & { readonly step: number }) => void;
}

export interface TrainStep {
  /** From 1. */
  readonly index: number;
  readonly total: number;
  /** From 1. */
  readonly epoch: number;
  /** Mean over the labelled tokens of all its micro-batches (over its pairs, for preferences), before the update. */
  readonly loss: number;
  readonly learningRate: number;
  /** Norm of all gradients together, before clipping. */
  readonly gradNorm: number;
  readonly tokens: number;
  readonly labelled: number;
  readonly seconds: number;
}

export interface Evaluation {
  /** Mean over all labelled tokens (over pairs, for preferences), dropout off. */
  readonly loss: number;
  /** exp(loss); NaN for preferences. */
  readonly perplexity: number;
  readonly labelled: number;
  readonly rows: number;
}

export interface TrainResult {
  /** Steps done, those before a resume included. */
  readonly steps: number;
  /** Mean over all labelled tokens of the training data at the end of the run; after an abort, the last step's loss. */
  readonly loss: number;
  /** Of this run's steps alone. */
  readonly seconds: number;
  readonly trainableParameters: number;
  readonly aborted: boolean;
  /** Whether evaluations without progress ended it. */
  readonly stoppedEarly: boolean;
  /** The evaluation with the least loss; null where there was none. */
  readonly best: EvaluatedStep | null;
}

export type ResolvedTrainerOptions = Required<
  Pick<
    TrainerOptions,
    | 'batchSize'
    | 'gradientAccumulation'
    | 'learningRate'
    | 'schedule'
    | 'warmup'
    | 'weightDecay'
    | 'maxGradNorm'
    | 'seed'
    | 'reuse'
    | 'reuseBudgetBytes'
    | 'reuseDirectoryBudgetBytes'
  >
> &
  TrainerOptions;

const trainerKeys: OptionKeys<TrainerOptions> = {
  tokenizer: true,
  rows: true,
  examples: true,
  preferences: true,
  epochs: true,
  steps: true,
  batchSize: true,
  gradientAccumulation: true,
  learningRate: true,
  schedule: true,
  warmup: true,
  weightDecay: true,
  maxGradNorm: true,
  seed: true,
  maxLength: true,
  evaluation: true,
  keepBest: true,
  earlyStopping: true,
  reuse: true,
  reuseBudgetBytes: true,
  reuseDirectory: true,
  reuseDirectoryBudgetBytes: true,
  recompute: true,
  signal: true,
  checkpoint: true,
  resume: true,
  onStep: true,
  onCheckpoint: true,
  onEvaluation: true,
};

/** @throws RangeError for an option that there is not */
export function checkTrainerKeys(options: TrainerOptions): void {
  checkOptionKeys('training', options, trainerKeys);
}

/** Options with their defaults, for `n` rows (or pairs). @throws RangeError naming the one that is wrong */
export function withDefaults(options: TrainerOptions, n: number): ResolvedTrainerOptions {
  const resolved = {
    ...options,
    batchSize: Math.min(n, options.batchSize ?? 8),
    gradientAccumulation: options.gradientAccumulation ?? 1,
    learningRate: options.learningRate ?? 9e-4,
    schedule: options.schedule ?? 'linear',
    warmup: options.warmup ?? 0,
    weightDecay: options.weightDecay ?? 0,
    maxGradNorm: options.maxGradNorm ?? 1,
    seed: options.seed ?? 0,
    reuse: options.reuse ?? true,
    reuseBudgetBytes: options.reuseBudgetBytes ?? defaultReuseBytes,
    reuseDirectoryBudgetBytes: options.reuseDirectoryBudgetBytes ?? defaultReuseDirectoryBytes,
  };
  checkOptions(resolved);
  return resolved;
}

/** Options that are numbers from 0 on. */
const numbers = [
  'learningRate',
  'weightDecay',
  'maxGradNorm',
  'reuseBudgetBytes',
  'reuseDirectoryBudgetBytes',
  'warmup',
] as const;

function checkOptions(o: ResolvedTrainerOptions): void {
  if ((o.epochs === undefined) === (o.steps === undefined))
    throw new RangeError('training: expected either epochs or steps');
  const whole = (name: string, value: number | undefined, least: number): void => {
    if (value !== undefined && !(Number.isInteger(value) && value >= least))
      throw new RangeError(`${name}: expected a whole number from ${least} on, got ${value}`);
  };
  for (const name of ['epochs', 'steps', 'batchSize', 'gradientAccumulation'] as const) whole(name, o[name], 1);
  whole('evaluation.every', o.evaluation?.every, 1);
  whole('earlyStopping.patience', o.earlyStopping?.patience, 1);
  const { minDelta } = o.earlyStopping ?? {};
  if (minDelta !== undefined && !(minDelta >= 0 && Number.isFinite(minDelta))) {
    throw new RangeError(`earlyStopping.minDelta: expected a number from 0 on, got ${minDelta}`);
  }
  for (const name of ['keepBest', 'earlyStopping'] as const) {
    if (o[name] && !o.evaluation) throw new RangeError(`${name}: needs evaluation`);
  }
  whole('checkpoint.everySteps', o.checkpoint?.everySteps, 1);
  whole('seed', o.seed, 0);
  if (o.reuseDirectory !== undefined && !o.reuse) throw new RangeError('reuseDirectory: has no meaning without reuse');
  const atLeast0 = (name: (typeof numbers)[number]): void => {
    if (!(o[name] >= 0 && Number.isFinite(o[name])))
      throw new RangeError(`${name}: expected a number from 0 on, got ${o[name]}`);
  };
  for (const name of numbers) atLeast0(name);
  if (!scheduleNames.includes(o.schedule))
    throw new RangeError(`schedule: expected ${scheduleNames.join(', ')}, got '${o.schedule}'`);
}
