// A frozen model with a set of interventions: forward, loss and generation with edits in place. The base is never
// changed; edits are values given to its forward. Training is in trainer.ts, files in adapterFiles.ts.

import type { FirstChange, TrainingMode } from '../adapt/adapter.js';
import type { NamedTensor, TrainedTensor } from '../adapt/parameterSet.js';
import { sharedRotations, type SharedRotations } from '../adapt/sharedRotations.js';
import { noGrad } from '../autograd/tape.js';
import { checkPromptLength, shownValue } from '../io/tokenIds.js';
import type { CausalLM } from '../models/causalLM.js';
import type { Model } from '../models/model.js';
import type { SiteEdit } from '../models/patch.js';
import { paddingOf, type TokenRows } from '../models/tokens.js';
import { rowsStackOf, siteName, type Site } from '../models/sites.js';
import type { Tensor } from '../tensor/tensor.js';
import { trainedBaseParameters } from './baseParameters.js';
import { configToJSON, resolveConfig, type ReftConfig, type ResolvedReftConfig } from './config.js';
import { EditedModel } from './editedModel.js';
import { Intervention } from './intervention.js';
import { editedRows, firstEdited, positionsOf, type Sequence, type SequenceLayout } from './layout.js';
import { rowOptionsAt, rowOptionsOf, type RowOptionsFor } from './rowOptions.js';
import { describeNewTokens, describePositions, type Side } from './positions.js';

export class ReftModel<Base extends Model = CausalLM> extends EditedModel<Base> {
  readonly base: Base;
  readonly configs: readonly ResolvedReftConfig[];
  /** In pyreft's order: untied ones all prefix, then all suffix. */
  readonly interventions: readonly Intervention[];
  /** Off, the base's own results, bit for bit. */
  enabled = true;
  /** Told once when a prompt is too short for its positions. */
  onWarning: (message: string) => void = message => console.warn(message);
  private warned = false;

  constructor(base: Base, configs: readonly ResolvedReftConfig[]) {
    super();
    this.base = base;
    this.configs = configs;
    const plans = configs.flatMap(config =>
      planned(config).map(plan => ({
        ...plan,
        config,
        width: base.widthAt(config.component, config.heads?.[0], config.stack),
      })),
    );
    this.interventions = plans.map(
      (plan, number) => new Intervention({ ...plan, number, backend: base.backend, dtype: base.dtype }),
    );
    const ids = this.interventions.map(i => i.id);
    // Several groups at one site are told apart by number.
    ids.forEach((id, i) => {
      if (ids.indexOf(id) !== i)
        throw new RangeError(`two interventions at ${id}: within one set a layer and component may be named once`);
    });
  }

  /** What is trained, R through its orthogonal map. */
  trained(): TrainedTensor[] {
    return this.interventions.flatMap(i => i.trained());
  }

  /** Everything that decides the next step of training, trained or not. */
  state(): NamedTensor[] {
    return this.interventions.flatMap(i => i.state());
  }

  /** Puts back a tensor of `state`. */
  setState(name: string, value: Tensor): void {
    const owner = this.interventions.find(i => i.state().some(s => s.name === name));
    if (!owner) throw new RangeError(`no intervention has the state '${name}'`);
    owner.setState(name, value);
  }

  /** What must be the same for a training run to go on. */
  settings(): Readonly<Record<'edits' | 'scales', string>> {
    const { configs, interventions } = this;
    return { edits: JSON.stringify(configs.map(configToJSON)), scales: interventions.map(i => i.scale).join() };
  }

  /** @throws RangeError for a sequence that does not have the positions of an intervention */
  check(sequence: Sequence): void {
    for (const intervention of this.interventions) {
      const { positions, newTokens } = intervention.config;
      if (newTokens === 'none' && sequence.promptLength === 0) {
        throw new RangeError(
          `a row without a prompt has no positions ${describePositions(positions)}; use 'all', or prompt and completion`,
        );
      }
      positionsOf(intervention, sequence, this.tokenizer);
    }
  }

  /** Whether any token of a sequence is edited, as interventions are switched now. */
  changes(sequence: Sequence): boolean {
    const edits = (i: Intervention): boolean =>
      i.enabled && positionsOf(i, sequence, this.tokenizer).positions.length > 0;
    return this.enabled && this.interventions.some(edits);
  }

  /** The site and the token of the first edit, whatever is switched off now; null where the base is trained too. */
  firstChanged(sequence: Sequence): FirstChange | null {
    if (trainedBaseParameters(this.base).length > 0) return null;
    const sites = this.interventions.map(i => i.site);
    const layer = Math.min(...sites.map(site => site.layer));
    const afterBlock = sites.every(
      site => site.layer > layer || site.component === 'block_output' || site.component === 'final_norm',
    );
    const atEmbeddings = sites.some(site => site.component === 'embeddings');
    return {
      layer,
      component: atEmbeddings ? 'embeddings' : afterBlock ? 'block_output' : 'block_input',
      position: firstEdited(this.interventions, sequence, this.tokenizer),
    };
  }

  /** Numbers in W, b, R and their like: 2dr + r for a loreft edit. */
  get parameterCount(): number {
    return this.interventions.reduce((n, i) => n + i.parameterCount, 0);
  }

  summary(): string {
    const trained = this.parameterCount;
    const total = this.base.parameterCount;
    const lines = this.configs.map(c => {
      const usual = c.newTokens === (c.positions.type === 'all' ? 'all' : 'none');
      return (
        `${c.kind} at ${c.component} of layers ${c.layers.join(', ')}${c.heads ? `, heads ${c.heads.join(', ')}` : ''}, positions ${describePositions(c.positions)}` +
        `${usual ? '' : `, new tokens ${describeNewTokens(c.newTokens)}`}, rank ${c.rank}${c.tied ? ', tied' : ''}`
      );
    });
    return [
      ...lines,
      `${trained.toLocaleString('en')} trained of ${total.toLocaleString('en')} (${((100 * trained) / total).toFixed(4)} %)`,
    ].join('\n');
  }

  /** The edits of a window of tokens, as values for the base's forward. */
  edits(layout: SequenceLayout, training?: TrainingMode, rows: RowOptionsFor = {}): SiteEdit[] {
    return this.inUse(layout).map(use => this.siteEdit(use, layout, training, rows));
  }

  /** The same for one forward pass alone: orthogonal maps of one shape are evaluated together. */
  protected override editsOnce(layout: SequenceLayout, training?: TrainingMode, rows: RowOptionsFor = {}): SiteEdit[] {
    const uses = this.inUse(layout);
    const shared = sharedRotations(uses.map(use => use.intervention.parameterSet));
    return uses.map(use => this.siteEdit(use, layout, training, rows, shared));
  }

  /** The interventions that edit any token of a window, their number and the rows b * width + column. */
  inUse(layout: SequenceLayout): Use[] {
    if (!this.enabled) return [];
    const taken = new Map<string, Set<number>>();
    return this.interventions.flatMap((intervention, number) => {
      if (!intervention.enabled) return [];
      const { stack } = layout;
      if (stack !== undefined && rowsStackOf(intervention.site, this.base.stacks) !== stack) return [];
      const { indices, dropped } = editedRows(intervention, layout, this.tokenizer);
      if (dropped > 0 && !this.warned) {
        this.warned = true;
        this.onWarning(
          `positions ${describePositions(intervention.config.positions)}: some prompts are too short; their missing positions are left out`,
        );
      }
      const name = siteName(intervention.site);
      const rows = taken.get(name) ?? new Set<number>();
      taken.set(name, rows);
      for (const row of indices) {
        if (rows.has(row))
          throw new RangeError(
            `${name}: two interventions of one set edit token ${row % layout.width} of row ${Math.floor(row / layout.width)}`,
          );
        rows.add(row);
      }
      return indices.length === 0 ? [] : [{ intervention, number, indices }];
    });
  }

  /** The first token of a prompt that is edited; its length where none is. What comes before is the base's own. */
  firstEdited(ids: readonly number[]): number {
    const sequence = { promptLength: ids.length, length: ids.length, ids };
    return this.enabled ? firstEdited(this.interventions, sequence, this.tokenizer) : ids.length;
  }

  /** What one of them does, as a value for the base's forward. */
  siteEdit(
    { intervention, number, indices }: Use,
    layout: SequenceLayout,
    training: TrainingMode | undefined,
    rows: RowOptionsFor = {},
    shared?: SharedRotations,
  ): SiteEdit {
    const { id, site, config, kind, scale } = intervention;
    const { dropout: p, dropoutOn: on } = config;
    const stream = training && training.step * this.interventions.length + number;
    const options = rowOptionsOf(rows, intervention);
    const apply = (h: Tensor, rows: TokenRows): Tensor => {
      const edited = rows.find(indices);
      const dropout = training && p > 0 ? { dropout: { p, on, seed: training.seed, stream: stream as number } } : {};
      const meta = { id, kind: kind.name, site: siteName(site), rank: config.rank, scale };
      const given = rowOptionsAt(options, edited.tokens, { ...layout, rank: config.rank }, h);
      return intervention.apply(
        h,
        { indices: edited.places, meta, ...dropout, ...given },
        shared?.get(intervention.parameterSet),
      );
    };
    return {
      site,
      apply,
      // Dropout draws for the tokens that are there.
      ...(training && p > 0 ? {} : { rows: indices }),
      get about() {
        const parameters = Object.fromEntries(
          Object.entries(noGrad(() => intervention.parameters())).map(([name, t]) => [name, t.shape]),
        );
        return {
          id,
          kind: kind.name,
          rank: config.rank,
          positions: describePositions(config.positions),
          scale,
          parameters,
          rows: [...indices],
        };
      },
    };
  }

  /** The adapter's files by name (adapterFiles.ts). */
  async toFiles(): Promise<Map<string, Uint8Array>> {
    const { adapterToFiles } = await import('./adapterFiles.js');
    return adapterToFiles(this);
  }

  /**
   * Writes an adapter folder (Node): adapter_config.json, adapter_model.safetensors, README.md. `loadReft` reads it
   * back.
   */
  async save(directory: string): Promise<void> {
    const { saveAdapter } = await import('./adapterFiles.js');
    await saveAdapter(this, directory);
  }
}

/** An intervention that edits some of a window's tokens. */
export interface Use {
  readonly intervention: Intervention;
  /** Its place in the set. */
  readonly number: number;
  /** Rows b * width + column. */
  readonly indices: Int32Array;
}

/**
 * The interventions of a configuration, in order: what each is called, where it stands, which side of the positions it
 * takes.
 */
export function planned(config: ResolvedReftConfig): { id: string; site: Site; side: Side }[] {
  const { positions, tied, layers, component, heads, stack } = config;
  const pair = !tied && positions.type === 'ends' && positions.first > 0 && positions.last > 0;
  const sides: Side[] = pair ? ['prefix', 'suffix'] : ['both'];
  const sites = layers.flatMap((layer): Site[] =>
    (heads ?? [undefined]).map(head => ({
      ...(stack === undefined ? {} : { stack }),
      layer,
      component,
      ...(head === undefined ? {} : { head }),
    })),
  );
  return sides.flatMap((side, n) =>
    sites.map(site => ({ id: `${siteName(site)}${n > 0 ? `#${n}` : ''}`, site, side })),
  );
}

/** Puts a set of edits on a frozen model: `getReftModel(model, { layers: [10, 20], positions: 'l1', rank: 4 })`. */
export function getReftModel<Base extends Model>(
  base: Base,
  config: ReftConfig | readonly ReftConfig[],
): ReftModel<Base> {
  const list = Array.isArray(config) ? (config as readonly ReftConfig[]) : [config as ReftConfig];
  return new ReftModel(
    base,
    list.map(c => resolveConfig(c, base.stacks)),
  );
}

/**
 * The layout of a padded batch [B, T] whose real tokens are the ones of `attentionMask`; `inputIds` where positions
 * depend on them.
 */
export function layoutOf(
  attentionMask: Int32Array,
  shape: readonly number[],
  promptLengths: readonly number[],
  inputIds?: Int32Array,
): SequenceLayout {
  const [batch, width] = shape;
  const { keyStart: starts, keyEnd } = paddingOf(attentionMask, shape);
  const lengths = keyEnd.map((end, b) => end - starts[b]);
  if (promptLengths?.length !== batch) {
    const given = Array.isArray(promptLengths) ? `${promptLengths.length} of them` : shownValue(promptLengths);
    throw new RangeError(`promptLengths: expected one for each of ${batch} rows, got ${given}`);
  }
  lengths.forEach((length, b) => {
    checkPromptLength(`row ${b}`, promptLengths[b], length);
  });
  const ids =
    inputIds && Array.from(starts, (start, b) => inputIds.subarray(b * width + start, b * width + start + lengths[b]));
  return { batch, width, starts, promptLengths, lengths, ...(ids ? { ids } : {}) };
}
