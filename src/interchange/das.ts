// Distributed alignment search: rotations (and masks) trained so that interventions have their counterfactual effect,
// and how often they have it. Sources: Geiger et al. 2024 (arXiv 2303.02536); Wu et al. 2023 (arXiv 2305.08809) for
// learned boundaries, their annealing and penalty. Data is in counterfactuals.ts, interventions in interchangeModel.ts.

import { scope } from '../autograd/scope.js';
import { backward, noGrad } from '../autograd/tape.js';
import { batches } from '../data/collate.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { AdamW, clipGradNorm } from '../nn/optim.js';
import { scheduleFactor, type ScheduleName } from '../nn/schedule.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import { CounterfactualData, type CounterfactualExample } from './counterfactuals.js';
import type { InterchangeModel, InterchangeRun } from './interchangeModel.js';
import { countRight, mostLikely } from './predictions.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';

export interface DasOptions {
  readonly examples: readonly CounterfactualExample[];
  /** Where examples that name no places of their own are intervened on. */
  readonly unitLocations?: InterchangeRun['unitLocations'];
  /**
   * The tokens that are in question (ids) for examples that name none of their own: accuracy is judged among them, the
   * loss stays that of the whole vocabulary. Default: the whole vocabulary.
   */
  readonly candidates?: readonly number[];
  /** Either epochs or steps. */
  readonly epochs?: number;
  readonly steps?: number;
  /** Default 32, or all examples where there are fewer. */
  readonly batchSize?: number;
  /** Of rotations and autoencoders. Default 1e-3. */
  readonly learningRate?: number;
  /** Of learned masks and boundaries. Default 1e-2. */
  readonly boundaryLearningRate?: number;
  /** Default linear, down to 0. */
  readonly schedule?: ScheduleName;
  /** Steps, or their share below 1. Default 0.1. */
  readonly warmup?: number;
  /** Bound on the norm of all gradients together; 0 leaves them alone. Default 1. */
  readonly maxGradNorm?: number;
  /**
   * From where to where the temperature of learned masks goes, in equal steps. Default the kind's own: for boundless
   * DAS from 50 (or a tenth of the width, where that is less) to 0.1.
   */
  readonly temperature?: readonly [number, number];
  /** Factor of the swapped share of the features in the loss. Default 1; nothing is learned about it in plain DAS. */
  readonly sparsity?: number;
  /** Of the order of examples. Default 0. */
  readonly seed?: number;
  /** Read once what a frozen base computes the same way each step. Default true. */
  readonly reuse?: boolean;
  /** Most bytes kept for that. Default 1 GiB. */
  readonly reuseBudgetBytes?: number;
  readonly signal?: AbortSignal;
}

const dasKeys: OptionKeys<DasOptions> = {
  examples: true,
  unitLocations: true,
  candidates: true,
  epochs: true,
  steps: true,
  batchSize: true,
  learningRate: true,
  boundaryLearningRate: true,
  schedule: true,
  warmup: true,
  maxGradNorm: true,
  temperature: true,
  sparsity: true,
  seed: true,
  reuse: true,
  reuseBudgetBytes: true,
  signal: true,
};

export interface DasStep {
  /** From 1. */
  readonly index: number;
  readonly total: number;
  /** Cross-entropy of the batch before the update, without the penalty. */
  readonly loss: number;
  /** Interchange intervention accuracy on the batch before the update. */
  readonly accuracy: number;
  readonly learningRate: number;
  readonly temperature: number | null;
}

export interface InterchangeEvaluation {
  /**
   * Interchange intervention accuracy (IIA): the share of examples whose most likely token, among the candidates where
   * there are some, is the counterfactual one.
   */
  readonly accuracy: number;
  /** Mean cross-entropy of the counterfactual token. */
  readonly loss: number;
  readonly rows: number;
}

/** IIA of interventions on examples, as they are. */
export async function interchangeAccuracy(
  model: InterchangeModel,
  examples: readonly CounterfactualExample[],
  {
    unitLocations,
    candidates,
    batchSize = 32,
  }: Pick<DasOptions, 'unitLocations' | 'candidates'> & { batchSize?: number } = {},
): Promise<InterchangeEvaluation> {
  return measure(model, new CounterfactualData(model, examples, unitLocations, candidates), batchSize);
}

async function measure(
  model: InterchangeModel,
  data: CounterfactualData,
  batchSize: number,
): Promise<InterchangeEvaluation> {
  let [right, sum] = [0, 0];
  for (let at = 0; at < data.size; at += batchSize) {
    await nextMacrotask();
    const numbers = Array.from({ length: Math.min(batchSize, data.size - at) }, (_, i) => at + i);
    const { labels, candidates, loss, best } = noGrad(() =>
      scope(() => {
        const { run, labels, candidates } = data.batch(numbers);
        const { logits } = model.run(run);
        return { labels, candidates, loss: crossEntropy(logits, labels).sum(), best: mostLikely(logits, candidates) };
      }),
    );
    const [predicted, total] = [await best.data(), await loss.item()];
    for (const t of [best, loss]) t.storage.dispose();
    right += countRight(predicted, labels, candidates);
    sum += total;
  }
  return { accuracy: right / data.size, loss: sum / data.size, rows: data.size };
}

export class DasTrainer {
  readonly model: InterchangeModel;
  readonly totalSteps: number;
  private readonly options: DasOptions &
    Required<Omit<DasOptions, 'unitLocations' | 'candidates' | 'epochs' | 'steps' | 'temperature' | 'signal'>>;
  private readonly data: CounterfactualData;
  private readonly optimizer: AdamW;
  private readonly annealing: readonly [number, number] | null;
  private done = 0;

  /** @throws RangeError or Error naming the option or the example that is wrong */
  constructor(model: InterchangeModel, options: DasOptions) {
    checkOptionKeys('das', options, dasKeys);
    this.model = model;
    this.data = new CounterfactualData(model, options.examples, options.unitLocations, options.candidates);
    this.options = {
      ...options,
      batchSize: Math.min(options.batchSize ?? 32, this.data.size),
      learningRate: options.learningRate ?? 1e-3,
      boundaryLearningRate: options.boundaryLearningRate ?? 1e-2,
      schedule: options.schedule ?? 'linear',
      warmup: options.warmup ?? 0.1,
      maxGradNorm: options.maxGradNorm ?? 1,
      sparsity: options.sparsity ?? 1,
      seed: options.seed ?? 0,
      reuse: options.reuse ?? true,
      reuseBudgetBytes: options.reuseBudgetBytes ?? 2 ** 30,
    };
    this.totalSteps = totalSteps(this.options, this.data.size);
    const masked = model.spaces.filter(space => space.kind.softMask);
    this.annealing =
      masked.length > 0 ? (options.temperature ?? masked[0].kind.annealing?.(masked[0].sizes.width) ?? null) : null;
    if (options.temperature && masked.length === 0)
      throw new RangeError('das: temperature belongs to kinds with a learned mask; there is none');
    for (const t of this.annealing ?? [])
      if (!(t > 0 && t < Infinity)) throw new RangeError(`das: temperature must be above 0, got ${t}`);
    const trained = model.spaces.flatMap(space =>
      space.trained().map(t => ({ ...t, mask: !t.orthogonal && space.kind.softMask !== undefined })),
    );
    if (trained.length === 0)
      throw new RangeError(`das: nothing is trained in ${model.interventions.map(i => i.id).join(', ')}`);
    const { learningRate, boundaryLearningRate } = this.options;
    const tensors = (which: (t: (typeof trained)[number]) => boolean): (typeof trained)[number]['tensor'][] =>
      trained.filter(which).map(t => t.tensor);
    this.optimizer = new AdamW([
      { parameters: tensors(t => t.orthogonal), orthogonal: true },
      { parameters: tensors(t => !t.orthogonal && !t.mask) },
      { parameters: tensors(t => t.mask), learningRateScale: boundaryLearningRate / learningRate },
    ]);
  }

  /**
   * Runs the steps that are left. A loop that is left early can be taken up again. @throws Error naming the step where
   * the loss is not finite
   */
  async *steps(): AsyncGenerator<DasStep, void, undefined> {
    const { batchSize, reuse, reuseBudgetBytes, signal } = this.options;
    if (reuse) this.data.keepFrozen(batchSize, reuseBudgetBytes);
    try {
      while (this.done < this.totalSteps) {
        await nextMacrotask();
        if (signal?.aborted) return;
        yield await this.step();
      }
    } finally {
      this.data.dispose();
    }
  }

  /** Runs the steps to the end, then measures IIA on the training data. */
  async train(onStep?: (step: DasStep) => void): Promise<InterchangeEvaluation> {
    for await (const step of this.steps()) onStep?.(step);
    return this.evaluate();
  }

  /** IIA on examples (default: the training data). */
  evaluate(examples?: readonly CounterfactualExample[]): Promise<InterchangeEvaluation> {
    const { unitLocations, candidates, batchSize } = this.options;
    const data = examples ? new CounterfactualData(this.model, examples, unitLocations, candidates) : this.data;
    return measure(this.model, data, batchSize);
  }

  private async step(): Promise<DasStep> {
    const { batchSize, seed, learningRate: peak, schedule, warmup, maxGradNorm, sparsity } = this.options;
    const { model, data, optimizer, annealing, totalSteps: total } = this;
    const perEpoch = Math.ceil(data.size / batchSize);
    const numbers = batches(data.size, batchSize, seed, Math.floor(this.done / perEpoch))[this.done % perEpoch];
    const temperature =
      annealing && annealing[0] + ((annealing[1] - annealing[0]) * this.done) / Math.max(1, total - 1);
    if (temperature !== null) model.setTemperature(temperature);
    optimizer.zeroGrad();
    const { labels, candidates, loss, best } = scope(() => {
      const { run, labels, candidates } = data.batch(numbers);
      const { logits } = model.run(run);
      const loss = crossEntropy(logits, labels).mean();
      const penalty = sparsity === 0 ? null : model.sparsity();
      backward(penalty ? loss.add(penalty.mul(sparsity)) : loss);
      if (maxGradNorm > 0) clipGradNorm(optimizer.parameters, maxGradNorm);
      return { labels, candidates, loss: loss.detach(), best: noGrad(() => mostLikely(logits.detach(), candidates)) };
    });
    const [value, predicted] = [await loss.item(), await best.data()];
    for (const t of [loss, best]) t.storage.dispose();
    if (!Number.isFinite(value))
      throw new Error(`das: the loss is ${value} at step ${this.done + 1}; try a learning rate below ${peak}`);
    const learningRate = peak * scheduleFactor(schedule, this.done, total, warmup);
    optimizer.step(learningRate);
    for (const space of model.spaces) space.putBack();
    optimizer.zeroGrad();
    this.done++;
    const accuracy = countRight(predicted, labels, candidates) / labels.length;
    return { index: this.done, total, loss: value, accuracy, learningRate, temperature };
  }

  /** Frees the optimizer's moments; the interventions stay. */
  dispose(): void {
    this.optimizer.dispose();
    this.data.dispose();
  }
}

function totalSteps(
  { epochs, steps, batchSize, learningRate, boundaryLearningRate }: DasTrainer['options'],
  size: number,
): number {
  if ((epochs === undefined) === (steps === undefined)) throw new RangeError('das: expected either epochs or steps');
  for (const [name, value] of Object.entries({ epochs, steps, batchSize })) {
    if (value !== undefined && !(Number.isInteger(value) && value > 0))
      throw new RangeError(`das: ${name} must be a whole number above 0, got ${value}`);
  }
  for (const [name, value] of Object.entries({ learningRate, boundaryLearningRate })) {
    if (!(value > 0 && value < Infinity)) throw new RangeError(`das: ${name} must be above 0, got ${value}`);
  }
  return steps ?? (epochs as number) * Math.ceil(size / batchSize);
}
