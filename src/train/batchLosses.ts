// The losses of a run: examples as units that are never parted, units as batches, batches as groups of which one starts
// from what reuse keeps (reuse.ts), each group one forward pass.

import type { Adapter, TrainingMode } from '../adapt/adapter.js';
import { scope } from '../autograd/scope.js';
import { backward, noGrad } from '../autograd/tape.js';
import type { Example } from '../data/examples.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import type { Tensor } from '../tensor/tensor.js';
import { labelCount, stepsOfEpoch } from './data.js';
import { likelihood, type Objective } from './objectives.js';
import type { Evaluation, ResolvedTrainerOptions } from './options.js';
import { canReuse, PrefixReuse } from './reuse.js';
import { wholeWindow, type Window } from './windows.js';

export class BatchLosses {
  readonly adapter: Adapter;
  readonly objective: Objective;
  readonly stepsPerEpoch: number;
  private readonly examples: readonly Example[];
  private readonly options: ResolvedTrainerOptions;
  private reuse: PrefixReuse | null = null;

  constructor(adapter: Adapter, objective: Objective, examples: readonly Example[], options: ResolvedTrainerOptions) {
    this.adapter = adapter;
    this.objective = objective;
    this.examples = examples;
    this.options = options;
    const batches = Math.ceil(this.units(examples).length / options.batchSize);
    this.stepsPerEpoch = Math.ceil(batches / options.gradientAccumulation);
  }

  /** What must be there before the first loss of a run: what reuse keeps, and what the objective compares with. */
  async openReuse(evaluated: readonly Example[]): Promise<void> {
    const { reuse, reuseBudgetBytes: budgetBytes, reuseDirectory: path, reuseDirectoryBudgetBytes } = this.options;
    if (!reuse || !canReuse(this.adapter, this.examples[0])) return;
    const directory = path === undefined ? {} : { directory: { path, budgetBytes: reuseDirectoryBudgetBytes } };
    this.reuse = await PrefixReuse.open(this.adapter, [...this.examples, ...evaluated], { budgetBytes, ...directory });
  }

  async prepare(examples: readonly Example[] = this.examples): Promise<void> {
    await this.objective.prepare(this.adapter, examples, this.options.batchSize);
  }

  async close(): Promise<void> {
    await this.reuse?.close();
    this.reuse = null;
  }

  /** The micro-batches of a step (from 0), each parted into groups. */
  groupsOf(step: number): Window[][] {
    const units = this.units(this.examples);
    return stepsOfEpoch(units.length, this.options, Math.floor(step / this.stepsPerEpoch))[
      step % this.stepsPerEpoch
    ].flatMap(numbers => this.groups(numbers.flatMap(i => units[i])));
  }

  /** Brings what a step needs into memory, and begins to read what the next one will. */
  async fetch(examples: readonly Example[], nextStep: number | null): Promise<void> {
    await this.reuse?.fetch(examples);
    if (this.reuse && nextStep !== null)
      await this.reuse.ahead(() =>
        this.groupsOf(nextStep)
          .flat()
          .map(w => w.example),
      );
  }

  release(): void {
    this.reuse?.release();
  }

  /** Adds the gradients of these windows' share of the step's mean loss; gives that share. */
  addGradients(windows: readonly Window[], count: number, training: TrainingMode): Tensor {
    return scope(() => {
      const loss = this.lossOf(windows, training).mul(1 / count);
      if (loss.needsGrad) backward(loss);
      return loss.detach();
    });
  }

  /** The mean loss over examples, dropout off; null when it was aborted. */
  async measure(examples: readonly Example[], signal?: AbortSignal): Promise<Evaluation | null> {
    const { batchSize } = this.options;
    const units = this.units(examples);
    await this.prepare(examples);
    let sum = 0;
    const batchFrom = (first: number): Example[] => units.slice(first, first + batchSize).flat();
    for (let first = 0; first < units.length; first += batchSize) {
      await nextMacrotask();
      if (signal?.aborted) return null;
      const batch = batchFrom(first);
      await this.reuse?.fetch(batch);
      await this.reuse?.ahead(() => batchFrom(first + batchSize));
      sum += await this.sumOver(batch);
      this.release();
    }
    const labelled = examples.reduce((n, e) => n + labelCount(e), 0);
    const loss = sum / this.objective.count(examples);
    return { loss, perplexity: this.objective === likelihood ? Math.exp(loss) : NaN, labelled, rows: units.length };
  }

  private async sumOver(batch: readonly Example[]): Promise<number> {
    const loss = noGrad(() =>
      scope(() =>
        this.groups(batch)
          .map(windows => this.lossOf(windows))
          .reduce((a, b) => a.add(b)),
      ),
    );
    const value = await loss.item();
    loss.storage.dispose();
    return value;
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
    return this.objective.loss(
      this.adapter,
      windows,
      { ...kept, recompute: this.options.recompute ?? false },
      training,
    );
  }
}
