// What must be the same for a run to go on bit by bit from a checkpoint, as numbers and texts that can be compared.

import type { Adapter } from '../adapt/adapter.js';
import type { Example } from '../data/examples.js';
import type { TrainerSettings } from './checkpoint.js';
import { examplesFingerprint, modelFingerprint } from './fingerprint.js';
import type { Objective } from './objectives.js';
import type { ResolvedTrainerOptions } from './options.js';
import type { Trained } from './trained.js';

export interface RunDescription {
  readonly adapter: Adapter;
  readonly trained: Trained;
  readonly options: ResolvedTrainerOptions;
  readonly objective: Objective;
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly examples: readonly Example[];
  readonly evaluated: readonly Example[] | null;
}

const compared = [
  'batchSize',
  'gradientAccumulation',
  'learningRate',
  'schedule',
  'warmup',
  'weightDecay',
  'maxGradNorm',
  'seed',
  'reuse',
  'reuseBudgetBytes',
] as const;

export async function runSettings(run: RunDescription): Promise<TrainerSettings> {
  const { adapter, trained, options, objective, totalSteps, examples } = run;
  const { reuseDirectory, reuseDirectoryBudgetBytes } = options;
  const { base } = adapter;
  const names = trained.tensors.map(t => t.name);
  return {
    totalSteps,
    ...Object.fromEntries(compared.map(name => [name, options[name]])),
    // Where files are does not matter, how many there may be does: an example that is computed in full rounds
    // otherwise.
    ...(reuseDirectory === undefined ? {} : { reuseDirectoryBudgetBytes }),
    ...(await evaluationSettings(run)),
    ...adapter.settings(),
    trained: names.join(),
    dtype: base.dtype,
    data: await examplesFingerprint(examples),
    objective: objective.name,
    // A base that is trained along is part of the state, not of the settings.
    ...(names.some(name => name.startsWith('base.')) ? {} : { base: await modelFingerprint(base) }),
  };
}

/** Evaluations that only report decide nothing. */
async function evaluationSettings({ options, evaluated, stepsPerEpoch }: RunDescription): Promise<TrainerSettings> {
  const { keepBest, earlyStopping, evaluation } = options;
  if (!evaluated || !(keepBest || earlyStopping)) return {};
  return {
    keepBest: keepBest ?? false,
    patience: earlyStopping?.patience ?? 0,
    minDelta: earlyStopping?.minDelta ?? 0,
    evaluateEvery: evaluation?.every ?? stepsPerEpoch,
    evaluationData: await examplesFingerprint(evaluated),
  };
}
