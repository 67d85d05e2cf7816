// The course of a run's evaluations: which had the least loss, and for how many there was no progress. Keeps a copy of
// the best parameters, and says when to stop. All of it goes into a checkpoint: a resumed run keeps and stops as the
// run that was not interrupted.

import { assign } from '../adapt/assign.js';
import { keep } from '../autograd/scope.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';

export interface EarlyStopping {
  /** The run ends after this many evaluations in a row without progress. */
  readonly patience: number;
  /** Progress is a loss that is lower than at the last progress by more than this. Default 0. */
  readonly minDelta?: number | undefined;
}

/** An evaluation of a run: after which step, and its mean loss. */
export interface EvaluatedStep {
  readonly step: number;
  readonly loss: number;
}

/** What a checkpoint keeps of it, beside the tensors. */
export interface EvaluationCourseState {
  /** The step of the last evaluation; 0 before the first. */
  readonly evaluated: number;
  readonly best: EvaluatedStep | null;
  /** The loss at the last progress. */
  readonly progress: number | null;
  /** Evaluations since then. */
  readonly waited: number;
}

export class EvaluationCourse {
  private readonly earlyStopping: EarlyStopping | undefined;
  /** A copy of each parameter; none where the best are not kept. */
  private readonly copies: ReadonlyMap<string, Tensor>;
  private current: EvaluationCourseState = { evaluated: 0, best: null, progress: null, waited: 0 };

  /** `keepBest` are the parameters to keep the best values of, by name. */
  constructor({
    earlyStopping,
    keepBest,
  }: {
    earlyStopping: EarlyStopping | undefined;
    keepBest: ReadonlyMap<string, Tensor> | null;
  }) {
    this.earlyStopping = earlyStopping;
    this.copies = new Map(
      [...(keepBest ?? [])].map(([name, { shape, dtype, backend }]) => [
        name,
        keep(create.zeros(shape, { dtype, backend })),
      ]),
    );
  }

  get state(): EvaluationCourseState {
    return this.current;
  }

  /** Whether the run should end before its last step. */
  get stopped(): boolean {
    return this.earlyStopping !== undefined && this.current.waited >= this.earlyStopping.patience;
  }

  /** Takes in an evaluation of these parameters. A loss that is not finite is no progress. */
  see({ step, loss }: EvaluatedStep, parameters: ReadonlyMap<string, Tensor>): void {
    const { best, progress, waited } = this.current;
    const better = Number.isFinite(loss) && (best === null || loss < best.loss);
    const further =
      Number.isFinite(loss) && (progress === null || loss < progress - (this.earlyStopping?.minDelta ?? 0));
    if (better) for (const [name, copy] of this.copies) assign(copy, parameters.get(name) as Tensor, name);
    this.current = {
      evaluated: step,
      best: better ? { step, loss } : best,
      progress: further ? loss : progress,
      waited: further ? 0 : waited + 1,
    };
  }

  /** Puts the best values back into the parameters, where they are kept and there are any. */
  restore(parameters: ReadonlyMap<string, Tensor>): void {
    if (this.current.best) for (const [name, copy] of this.copies) assign(parameters.get(name) as Tensor, copy, name);
  }

  /** The kept values by the names of their parameters: part of a checkpoint, and where one is read into. */
  tensors(): ReadonlyMap<string, Tensor> {
    return this.copies;
  }

  /** Goes on from a checkpoint; `values` are those of `tensors()`. */
  load(state: EvaluationCourseState, values: ReadonlyMap<string, Tensor>): void {
    for (const [name, copy] of this.copies) assign(copy, values.get(name) as Tensor, name);
    this.current = state;
  }

  dispose(): void {
    for (const copy of this.copies.values()) copy.storage.dispose();
  }
}
