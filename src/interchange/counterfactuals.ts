// Counterfactual data: a base, its sources, and what the model should say if the intervention moved the right thing.
// Checked, located and put into batches here; over a frozen base, what a parallel run reads every time is read once.
// The training loop is in das.ts.

import { keep, scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import { checkIds } from '../io/tokenIds.js';
import { siteName } from '../models/sites.js';
import { concat } from '../tensor/layout.js';
import { bytesPerElement } from '../tensor/dtype.js';
import { sizeOf } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { InterchangeModel, InterchangeRun } from './interchangeModel.js';
import type { Candidates } from './predictions.js';
import { locate, rowsOfBatch, tokenBatch, type UnitLocationPair } from './unitLocations.js';

export interface CounterfactualExample {
  /** Token ids. */
  readonly base: ArrayLike<number>;
  /** One for each group of interventions; a single one feeds all groups of a parallel run. */
  readonly sources: readonly ArrayLike<number>[];
  /** The token that should be predicted with the interventions in place. */
  readonly label: number;
  /** Ids of the tokens in question, the label one of them: what accuracy is judged among. Default the data set's. */
  readonly candidates?: readonly number[];
  /** The position of the base that predicts it; default the last. */
  readonly predictAt?: number;
  /** For this example alone, in place of the data set's. */
  readonly unitLocations?: UnitLocationPair | readonly (UnitLocationPair | null)[];
  /** For each intervention, its subspaces; default its configuration's. */
  readonly subspaces?: readonly (readonly number[] | null)[];
}

/** An example with its positions found: for each intervention, [base, source] lists. */
interface Located {
  readonly example: CounterfactualExample;
  readonly predictAt: number;
  readonly candidates: readonly number[] | null;
  readonly pairs: readonly { readonly base: readonly number[]; readonly source: readonly number[] }[];
}

export interface CounterfactualBatch {
  readonly run: InterchangeRun;
  readonly labels: Int32Array;
  readonly candidates: Candidates;
}

/**
 * What is kept of every example: rows [all rows, d] for each intervention, and the hidden states below the lowest site,
 * [N * T, d].
 */
interface Kept {
  readonly sources: readonly (Tensor | null)[];
  readonly prefix: { readonly layer: number; readonly states: Tensor } | null;
  readonly width: number;
}

export class CounterfactualData {
  readonly size: number;
  private readonly model: InterchangeModel;
  private readonly rows: readonly Located[];
  /** For each intervention, how many base positions the examples before each have. */
  private readonly starts: readonly (readonly number[])[];
  private kept: Kept | null = null;

  /** Places and candidates are for examples without their own. @throws RangeError naming the example that is wrong */
  constructor(
    model: InterchangeModel,
    examples: readonly CounterfactualExample[],
    unitLocations?: InterchangeRun['unitLocations'],
    candidates?: readonly number[],
  ) {
    if (examples.length === 0) throw new RangeError('counterfactual data: expected at least one example, got none');
    this.model = model;
    this.size = examples.length;
    this.rows = examples.map((example, i) => ({
      ...this.located(example, `example ${i}`, example.unitLocations ?? unitLocations),
      candidates: this.checkedCandidates(example, `example ${i}`, example.candidates ?? candidates),
    }));
    this.starts = model.interventions.map((_, n) => {
      let count = 0;
      return this.rows.map(({ pairs }) => (count += pairs[n].base.length) - pairs[n].base.length);
    });
    const [{ sources, subspaces }] = examples;
    examples.forEach((e, i) => {
      if (e.sources.length !== sources.length)
        throw new RangeError(`example ${i}: ${e.sources.length} sources, the first example has ${sources.length}`);
      if ((this.rows[i].candidates === null) !== (this.rows[0].candidates === null)) {
        throw new RangeError(`example ${i}: candidates are given for all examples or for none`);
      }
      if ((e.subspaces === undefined) !== (subspaces === undefined))
        throw new RangeError(`example ${i}: subspaces are given for all examples or for none`);
    });
  }

  private checkedCandidates(
    { label }: CounterfactualExample,
    what: string,
    candidates: readonly number[] | undefined,
  ): readonly number[] | null {
    if (candidates === undefined) return null;
    const { vocabSize } = this.model.base.config;
    const strange = candidates.find(id => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (strange !== undefined) {
      throw new RangeError(`${what}: candidate ${strange} is outside the vocabulary of ${vocabSize}`);
    }
    if (candidates.length < 2 || new Set(candidates).size !== candidates.length) {
      throw new RangeError(`${what}: expected at least two different candidates, got [${candidates.join(', ')}]`);
    }
    if (!candidates.includes(label)) {
      throw new RangeError(`${what}: its label ${label} is not among its candidates [${candidates.join(', ')}]`);
    }
    return candidates;
  }

  private located(
    example: CounterfactualExample,
    what: string,
    unitLocations: InterchangeRun['unitLocations'] | undefined,
  ): Omit<Located, 'candidates'> {
    const {
      interventions,
      groups,
      mode,
      tokenizer,
      base: { config },
    } = this.model;
    const { base, sources, label, predictAt = -1 } = example;
    if (!unitLocations) throw new RangeError(`${what}: has no unitLocations, and neither has the data set`);
    if (sources.length !== groups.length && !(mode === 'parallel' && sources.length === 1)) {
      throw new RangeError(
        `${what}: expected ${groups.length} sources, one for each group of interventions, got ${sources.length}`,
      );
    }
    if (!Number.isInteger(label) || label < 0 || label >= config.vocabSize)
      throw new RangeError(`${what}: label ${label} is outside the vocabulary of ${config.vocabSize}`);
    if (example.subspaces && example.subspaces.length !== interventions.length) {
      throw new RangeError(
        `${what}: subspaces for ${example.subspaces.length} interventions, the model has ${interventions.length}`,
      );
    }
    if (Array.isArray(unitLocations) && unitLocations.length !== interventions.length) {
      throw new RangeError(
        `${what}: unitLocations for ${unitLocations.length} interventions, the model has ${interventions.length}`,
      );
    }
    checkIds(`${what}: base`, base, config.vocabSize);
    sources.forEach((ids, i) => {
      checkIds(`${what}: source ${i}`, ids, config.vocabSize);
    });
    const baseRows = rowsOfBatch(what, tokenBatch([base]));
    const sourceRows = sources.map(ids => rowsOfBatch(what, tokenBatch([ids])));
    const pairs = interventions.map((intervention, n) => {
      const pair = Array.isArray(unitLocations)
        ? (unitLocations as readonly (UnitLocationPair | null)[])[n]
        : (unitLocations as UnitLocationPair);
      if (!pair) return { base: [], source: [] };
      const g = groups.findIndex(group => group.includes(intervention));
      const into = mode === 'serial' ? (sourceRows[g + 1] ?? baseRows) : baseRows;
      const name = `${what}, ${intervention.id}`;
      return {
        base: locate(`${name}: base`, pair.base, into, tokenizer)[0],
        source: intervention.kind.needsSource
          ? locate(`${name}: source`, pair.source ?? pair.base, sourceRows[sources.length === 1 ? 0 : g], tokenizer)[0]
          : [],
      };
    });
    return { example, predictAt: locate(`${what}: predictAt`, predictAt, baseRows)[0][0], pairs };
  }

  /** Some of the examples as a run and its labels. */
  batch(numbers: readonly number[]): CounterfactualBatch {
    const { kept, model } = this;
    const rows = numbers.map(n => this.rows[n]);
    const base = tokenBatch(rows.map(r => r.example.base));
    const labels = Int32Array.from(rows, r => r.example.label);
    const candidates = rows.some(r => !r.candidates) ? null : rows.map(r => r.candidates as readonly number[]);
    const subspaces = rows[0].example.subspaces && {
      subspaces: model.interventions.map((_, n) =>
        rows.every(r => r.example.subspaces?.[n]) ? rows.map(r => r.example.subspaces?.[n] as readonly number[]) : null,
      ),
    };
    const unitLocations = model.interventions.map((_, n) => ({
      base: rows.map(r => r.pairs[n].base),
      source: rows.map(r => r.pairs[n].source),
    }));
    const logitsAt = Int32Array.from(rows, (r, b) => b * base.shape[1] + r.predictAt);
    const run: InterchangeRun = { base, unitLocations, logitsAt, ...subspaces };
    if (!kept) {
      const sources = rows[0].example.sources.map((_, g) => tokenBatch(rows.map(r => r.example.sources[g])));
      return { labels, candidates, run: { ...run, sources } };
    }
    const sourceRepresentations = kept.sources.map(
      (all, n) =>
        all &&
        all.takeRows(
          Int32Array.from(numbers.flatMap(i => this.rows[i].pairs[n].base.map((__, k) => this.starts[n][i] + k))),
        ),
    );
    const [batch, width] = base.shape;
    const columns = Array.from({ length: width }, (_, t) => t);
    const prefix = kept.prefix && {
      layer: kept.prefix.layer,
      hiddenStates: kept.prefix.states
        .takeRows(Int32Array.from(numbers.flatMap(i => columns.map(t => i * kept.width + t))))
        .reshape([batch, width, -1]),
    };
    return { labels, candidates, run: { ...run, sourceRepresentations, ...(prefix ? { from: prefix } : {}) } };
  }

  /**
   * Reads what never changes over a frozen base, once: the rows of all sources, and the base below the lowest site.
   * Changes no result beyond rounding. False where it cannot be (a chain, a trained base) or takes more than
   * `budgetBytes`.
   */
  keepFrozen(batchSize: number, budgetBytes: number): boolean {
    const { model, rows } = this;
    if (model.mode === 'serial' || model.base.parameters().some(t => t.requiresGrad)) return false;
    const width = Math.max(...rows.map(r => r.example.base.length));
    const sites = model.interventions.map(i => i.site);
    const layer = sites.some(s => s.component === 'embeddings') ? 0 : Math.min(...sites.map(s => s.layer));
    const sizes = model.interventions.map(({ kind, space }, n) =>
      kind.needsSource ? [rows.reduce((count, r) => count + r.pairs[n].base.length, 0), space.sizes.width] : [0],
    );
    const below = layer > 0 ? rows.length * width * model.base.config.hiddenSize : 0;
    const needed = bytesPerElement[model.base.dtype] * (sizes.reduce((sum, s) => sum + sizeOf(s), 0) + below);
    if (needed > budgetBytes) return false;
    const chunks = Array.from({ length: Math.ceil(rows.length / batchSize) }, (_, c) =>
      rows.map((__, i) => i).slice(c * batchSize, (c + 1) * batchSize),
    );
    this.kept = noGrad(() =>
      scope(() => {
        const parts = chunks.map(numbers =>
          scope(() => {
            const { run } = this.batch(numbers);
            return {
              sources: model.sourceRows(run),
              states: layer > 0 ? this.statesBelow(layer, numbers, width) : null,
            };
          }),
        );
        const whole = (tensors: readonly (Tensor | null)[]): Tensor | null =>
          tensors.some(t => !t) ? null : keep(concat(tensors as Tensor[]));
        const states = whole(parts.map(p => p.states));
        return {
          sources: sizes.map((_, n) => whole(parts.map(p => p.sources[n]))),
          prefix: states && { layer, states },
          width,
        };
      }),
    );
    return true;
  }

  /** The input of a block for some bases padded to `width`, [n * width, d]. */
  private statesBelow(layer: number, numbers: readonly number[], width: number): Tensor {
    const { base } = this.model;
    const inputIds = new Int32Array(numbers.length * width);
    const attentionMask = new Int32Array(inputIds.length);
    numbers.forEach((n, b) => {
      const ids = this.rows[n].example.base;
      inputIds.set(ids, b * width);
      attentionMask.fill(1, b * width, b * width + ids.length);
    });
    const site = { layer, component: 'block_input' } as const;
    const { collected } = base.forward({
      inputIds,
      attentionMask,
      shape: [numbers.length, width],
      collect: [site],
      logitsAt: new Int32Array(),
    });
    return (collected.get(siteName(site)) as Tensor).reshape([inputIds.length, -1]);
  }

  dispose(): void {
    for (const t of [...(this.kept?.sources ?? []), this.kept?.prefix?.states]) t?.storage.dispose();
    this.kept = null;
  }
}
