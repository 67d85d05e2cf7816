// A batch in which every row has edits of its own: none, a set, or several sets stacked in order. Edits of one form
// that stand at one site go through the edit op together, from a bank with a slot for each set, so that hundreds of
// adapters cost one kernel. Sets keep their own switches and scales, which act at once. What a set does is its own
// business.

import type { TrainingMode } from '../adapt/adapter.js';
import { keep, scope } from '../autograd/scope.js';
import { shouldRecord } from '../autograd/tape.js';
import type { CausalLM } from '../models/causalLM.js';
import type { SiteEdit } from '../models/patch.js';
import { siteName } from '../models/sites.js';
import type { TokenRows } from '../models/tokens.js';
import { create } from '../tensor/create.js';
import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import { EditedModel } from './editedModel.js';
import { edit, type EditBank } from './editOp.js';
import type { Intervention } from './intervention.js';
import { isPlaced } from './kinds.js';
import type { SequenceLayout } from './layout.js';
import type { ReftModel, Use } from './reftModel.js';
import { rowOptionsAt, rowOptionsOf, type RowOptionsFor } from './rowOptions.js';

/** The edits of one row of a batch; a list applies in order. */
export type RowEdits = ReftModel | readonly ReftModel[] | null;

const matrices = ['A', 'b', 'C', 'e', 'P'] as const;

interface KeptBank {
  readonly versions: string;
  readonly bank: EditBank;
}

export class MixedEdits extends EditedModel {
  readonly base: CausalLM;
  /** For each row of the batch, what applies first, second and so on. */
  private readonly stacks: readonly (readonly ReftModel[])[];
  private readonly kept = new Map<string, KeptBank>();

  /** @throws RangeError for sets of different models, or none at all without a `base` */
  constructor(rows: readonly RowEdits[], base?: CausalLM) {
    super();
    this.stacks = rows.map(row =>
      row === null ? [] : Array.isArray(row) ? (row as readonly ReftModel[]) : [row as ReftModel],
    );
    const all = this.stacks.flat();
    const found = base ?? all[0]?.base;
    if (!found) throw new RangeError('mixEdits: no row has edits; give the model as the second argument');
    this.base = found;
    for (const reft of all)
      if (reft.base !== found)
        throw new RangeError(`mixEdits: the sets belong to different models, ${found.name} and ${reft.base.name}`);
  }

  edits(layout: SequenceLayout, training?: TrainingMode, rows: RowOptionsFor = {}): SiteEdit[] {
    const count = layout.rowCount ?? layout.batch;
    if (count !== this.stacks.length)
      throw new RangeError(`mixEdits: edits for ${this.stacks.length} rows, a batch of ${count}`);
    const depth = Math.max(0, ...this.stacks.map(stack => stack.length));
    return Array.from({ length: depth }, (_, level) => this.level(level, layout, training, rows)).flat();
  }

  /**
   * The sets that stand at one place of their rows' lists: each edits rows of its own, so their order does not matter.
   */
  private level(
    level: number,
    layout: SequenceLayout,
    training: TrainingMode | undefined,
    options: RowOptionsFor,
  ): SiteEdit[] {
    const rowsOf = new Map<ReftModel, Set<number>>();
    for (let b = 0; b < layout.batch; b++) {
      const stack = this.stacks[layout.rowOf?.[b] ?? b];
      if (!stack[level] || (layout.only && !layout.only.has(b))) continue;
      const rows = rowsOf.get(stack[level]);
      if (rows) rows.add(b);
      else rowsOf.set(stack[level], new Set([b]));
    }
    const alone: SiteEdit[] = [];
    const groups = new Map<string, Use[]>();
    for (const [reft, rows] of rowsOf) {
      const own = { ...layout, only: rows };
      for (const use of reft.inUse(own)) {
        // What has subspaces of its own shares no kernel.
        const form = rowOptionsOf(options, use.intervention).subspaces ? null : formOf(use.intervention, training);
        if (form === null) alone.push(reft.siteEdit(use, own, training, options));
        else if (groups.has(form)) groups.get(form)?.push(use);
        else groups.set(form, [use]);
      }
    }
    return [...alone, ...[...groups.values()].map(uses => this.together(uses, level, layout, options))];
  }

  private together(uses: readonly Use[], level: number, layout: SequenceLayout, options: RowOptionsFor): SiteEdit {
    const [{ intervention: first }] = uses;
    const name = siteName(first.site);
    const apply = (h: Tensor, present: TokenRows): Tensor => {
      const placed = uses.map(use => ({ ...use, ...present.find(use.indices) }));
      const indices = Int32Array.from(placed.flatMap(use => [...use.places]));
      const slots = Int32Array.from(placed.flatMap((use, slot) => Array.from(use.places, () => slot)));
      const scales = placed.flatMap(({ intervention, places: { length } }) =>
        new Array<number>(length).fill(intervention.scale),
      );
      const { dtype, backend } = h;
      const own = scales.every(c => c === 1)
        ? null
        : create.from(Float64Array.from(scales), [scales.length], { dtype, backend });
      const scaleOf = (intervention: Intervention, rows: Int32Array): Tensor => {
        const { scale } = rowOptionsAt(
          rowOptionsOf(options, intervention),
          rows,
          { ...layout, rank: first.config.rank },
          h,
        );
        return scale ?? create.ones([rows.length], { dtype, backend });
      };
      const scaled = uses.some(use => rowOptionsOf(options, use.intervention).scale);
      const byRow = scaled ? concat(placed.map(({ intervention, tokens }) => scaleOf(intervention, tokens))) : null;
      const both = own && byRow ? own.mul(byRow) : (own ?? byRow);
      const scale = both ? { scale: both } : {};
      const meta = {
        id: `${name}@${level}`,
        kind: first.kind.name,
        site: name,
        rank: first.config.rank,
        sets: uses.length,
      };
      return edit(h, this.bank(uses.map(use => use.intervention)), { indices, slots, ...scale }, meta);
    };
    const rows = uses.flatMap(use => [...use.indices]);
    return {
      site: first.site,
      apply,
      rows: Int32Array.from(rows),
      about: { id: `${name}@${level}`, kind: first.kind.name, rank: first.config.rank, rows },
    };
  }

  /** The bank of several interventions, a slot each: on the tape while training, kept from call to call while not. */
  private bank(interventions: readonly Intervention[]): EditBank {
    const tensors = interventions.flatMap(i => i.state().map(s => s.tensor));
    if (interventions.length === 1) return interventions[0].bank();
    if (shouldRecord(tensors)) return joined(interventions);
    const key = interventions.map(numberOf).join();
    const versions = tensors.map(t => t.storage.version).join();
    const found = this.kept.get(key);
    if (found?.versions === versions) return found.bank;
    if (found) disposeBank(found.bank);
    const bank = scope(() => {
      const made = joined(interventions);
      for (const matrix of matrices) if (made[matrix]) keep(made[matrix]);
      return made;
    });
    if (this.kept.size >= mostBanks) this.dispose();
    this.kept.set(key, { versions, bank });
    return bank;
  }

  /** Frees the joined banks; the sets stay. */
  dispose(): void {
    for (const { bank } of this.kept.values()) disposeBank(bank);
    this.kept.clear();
  }
}

/** One for each site and level of a mixture, usually. */
const mostBanks = 512;
const numbers = new WeakMap<Intervention, number>();
let next = 0;

function numberOf(intervention: Intervention): number {
  let found = numbers.get(intervention);
  if (found === undefined) numbers.set(intervention, (found = next++));
  return found;
}

const disposeBank = (bank: EditBank): void => {
  for (const matrix of matrices) bank[matrix]?.storage.dispose();
};

function joined(interventions: readonly Intervention[]): EditBank {
  const banks = interventions.map(i => i.bank());
  const join = (matrix: (typeof matrices)[number]): Tensor | null => {
    const parts = banks.flatMap(bank => bank[matrix] ?? []);
    return parts.length > 0 ? concat(parts, 0) : null;
  };
  return {
    A: join('A'),
    b: join('b'),
    C: join('C'),
    e: join('e'),
    P: join('P') as Tensor,
    ...(banks[0].activation ? { activation: banks[0].activation } : {}),
  };
}

/** What must agree for edits to share a bank; null for an edit that cannot. */
function formOf({ kind, config, site }: Intervention, training: TrainingMode | undefined): string | null {
  if (!isPlaced(kind) || config.trainScale || (training && config.dropout > 0)) return null;
  return [siteName(site), kind.name, config.rank, config.activation, String(config.bias)].join('|');
}

/**
 * A different set of edits (or none, or several in order) for each row of a batch: `mixEdits([a, null, [a,
 * b]]).generate(prompts)`.
 */
export function mixEdits(rows: readonly RowEdits[], base?: CausalLM): MixedEdits {
  return new MixedEdits(rows, base);
}
