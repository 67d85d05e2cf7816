// A frozen model with a set of interventions: forward, loss and generation with edits in place. The base is never changed; edits are
// values given to its forward. Training is in trainer.ts, files in adapterFiles.ts.

import { dropout } from '../autograd/elementwise.js';
import { noGrad } from '../autograd/tape.js';
import type { Tokenizer } from '../io/tokenizer.js';
import type { CausalLM, ForwardOptions, ForwardOutput } from '../models/causalLM.js';
import type { SiteEdit } from '../models/context.js';
import { siteName, type Site } from '../models/sites.js';
import type { Generated, GenerateOptions, GenerationEdits, Prompt, StepLayout } from '../models/generate.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { resolveConfig, type ReftConfig, type ResolvedReftConfig } from './config.js';
import { edit, editWith } from './editOp.js';
import { Intervention, type TrainedTensor } from './intervention.js';
import { editedRows, type SequenceLayout } from './layout.js';
import { describeNewTokens, describePositions, type Side } from './positions.js';

/** Dropout while training: a different mask for each step and intervention. */
export interface TrainingMode {
  readonly seed: number;
  readonly step: number;
}

export class ReftModel implements GenerationEdits {
  readonly base: CausalLM;
  readonly configs: readonly ResolvedReftConfig[];
  /** In pyreft's order: untied ones all prefix, then all suffix. */
  readonly interventions: readonly Intervention[];
  /** Off, the base's own results, bit for bit. */
  enabled = true;
  /** Told once when a prompt is too short for its positions. */
  onWarning: (message: string) => void = message => console.warn(message);
  /** Needed by positions that look at the text of a prompt; a trainer with a tokenizer sets it. */
  tokenizer: Tokenizer | undefined;
  private warned = false;

  constructor(base: CausalLM, configs: readonly ResolvedReftConfig[]) {
    this.base = base;
    this.configs = configs;
    this.interventions = configs.flatMap(config => build(base, config));
    const ids = this.interventions.map(i => i.id);
    // Several groups at one site are told apart by number.
    ids.forEach((id, i) => {
      if (ids.indexOf(id) !== i) throw new RangeError(`two interventions at ${id}: within one set a layer and component may be named once`);
    });
  }

  /** What is trained, R through its orthogonal map. */
  trained(): TrainedTensor[] {
    return this.interventions.flatMap(i => i.trained());
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
      return `${c.kind} at ${c.component} of layers ${c.layers.join(', ')}${c.heads ? `, heads ${c.heads.join(', ')}` : ''}, positions ${describePositions(c.positions)}`
        + `${usual ? '' : `, new tokens ${describeNewTokens(c.newTokens)}`}, rank ${c.rank}${c.tied ? ', tied' : ''}`;
    });
    return [...lines, `${trained.toLocaleString('en')} trained of ${total.toLocaleString('en')} (${((100 * trained) / total).toFixed(4)} %)`].join('\n');
  }

  /** The edits of a window of tokens, as values for the base's forward. */
  edits(layout: SequenceLayout, training?: TrainingMode): SiteEdit[] {
    if (!this.enabled) return [];
    const taken = new Map<string, Set<number>>();
    return this.interventions.flatMap((intervention, number) => {
      if (!intervention.enabled) return [];
      const { indices, dropped } = editedRows(intervention, layout, this.tokenizer);
      if (dropped > 0 && !this.warned) {
        this.warned = true;
        this.onWarning(`positions ${describePositions(intervention.config.positions)}: some prompts are too short; their missing positions are left out`);
      }
      const name = siteName(intervention.site);
      const rows = taken.get(name) ?? new Set<number>();
      taken.set(name, rows);
      for (const row of indices) {
        if (rows.has(row)) throw new RangeError(`${name}: two interventions of one set edit token ${row % layout.width} of row ${Math.floor(row / layout.width)}`);
        rows.add(row);
      }
      return indices.length === 0 ? [] : [this.siteEdit(intervention, number, indices, training)];
    });
  }

  private siteEdit(intervention: Intervention, number: number, indices: Int32Array, training: TrainingMode | undefined): SiteEdit {
    const { id, site, config, kind, scale } = intervention;
    const p = config.dropout;
    const count = this.interventions.length;
    return {
      site,
      get about() {
        const parameters = Object.fromEntries(Object.entries(noGrad(() => intervention.parameters())).map(([name, t]) => [name, t.shape]));
        return { id, kind: kind.name, rank: config.rank, positions: describePositions(config.positions), scale, parameters, rows: [...indices] };
      },
      apply(h: Tensor): Tensor {
        const rows = {
          indices, slots: new Int32Array(indices.length),
          ...(scale === 1 ? {} : { scale: create.full([indices.length], scale, { dtype: h.dtype as 'f32', backend: h.backend }) }),
        };
        const bank = intervention.bank();
        if (training && p > 0) return editWith(h, bank, rows, delta => dropout(delta, p, training.seed, training.step * count + number));
        return edit(h, bank, rows, { id, kind: kind.name, site: siteName(site), rank: config.rank, scale });
      },
    };
  }

  /** Forward with edits; `layout` says where prompts lie (see `layoutOf`). */
  forward(options: Omit<ForwardOptions, 'edits'>, layout: SequenceLayout, training?: TrainingMode): ForwardOutput {
    return this.base.forward({ ...options, edits: this.edits(layout, training) });
  }

  /** Mean cross-entropy over the labelled tokens, with edits. */
  loss(
    options: Omit<ForwardOptions, 'edits' | 'logitsAt' | 'hiddenStates'>, labels: Int32Array, layout: SequenceLayout, training?: TrainingMode,
  ): { loss: Tensor; labelled: number } {
    return this.base.loss({ ...options, edits: this.edits(layout, training) }, labels);
  }

  /** The loss's gradient at sites (any of their names), each [B, T, width], after the edits that stand there. */
  gradients(
    options: Omit<ForwardOptions, 'edits' | 'logitsAt' | 'hiddenStates'>, labels: Int32Array, layout: SequenceLayout, sites: readonly (Site | string)[],
  ): { loss: Tensor; gradients: Map<string, Tensor> } {
    return this.base.gradients({ ...options, edits: this.edits(layout) }, labels, sites);
  }

  editsFor(step: StepLayout): SiteEdit[] {
    const { batch, width, promptLengths, generated, ids } = step;
    // A single new token: its row's first token lies `position` columns to the left.
    const starts = step.phase === 'prompt' ? step.starts : Int32Array.from(promptLengths, n => -(n + generated - 1));
    return this.edits({ batch, width, starts, promptLengths, lengths: promptLengths.map(n => n + generated), ids });
  }

  generate(prompts: Prompt | readonly Prompt[], options: Omit<GenerateOptions, 'edits'> = {}): Promise<Generated[]> {
    return this.base.generate(prompts, { ...options, edits: this });
  }

  /** Writes an adapter folder (Node): adapter_config.json, adapter_model.safetensors, README.md. `loadReft` reads it back. */
  async save(directory: string): Promise<void> {
    const { saveAdapter } = await import('./adapterFiles.js');
    await saveAdapter(this, directory);
  }
}

/** The interventions of a configuration, in order: what each is called, where it stands, which side of the positions it takes. */
export function planned(config: ResolvedReftConfig): { id: string; site: Site; side: Side }[] {
  const { positions, tied, layers, component, heads } = config;
  const pair = !tied && positions.type === 'ends' && positions.first > 0 && positions.last > 0;
  const sides: Side[] = pair ? ['prefix', 'suffix'] : ['both'];
  const sites = layers.flatMap((layer): Site[] => (heads ?? [undefined]).map(head => ({ layer, component, ...(head === undefined ? {} : { head }) })));
  return sides.flatMap((side, n) => sites.map(site => ({ id: `${siteName(site)}${n > 0 ? `#${n}` : ''}`, site, side })));
}

function build(base: CausalLM, config: ResolvedReftConfig): Intervention[] {
  const width = base.widthAt(config.component, config.heads?.[0]);
  return planned(config).map((plan, i) => new Intervention({ ...plan, config, width, seed: config.seed + i, backend: base.backend, dtype: base.dtype }));
}

/** Puts a set of edits on a frozen model: `getReftModel(model, { layers: [10, 20], positions: 'l1', rank: 4 })`. */
export function getReftModel(base: CausalLM, config: ReftConfig | readonly ReftConfig[]): ReftModel {
  const list = Array.isArray(config) ? (config as readonly ReftConfig[]) : [config as ReftConfig];
  return new ReftModel(base, list.map(c => resolveConfig(c, base.config)));
}

/** The layout of a padded batch [B, T] whose real tokens are the ones of `attentionMask`; `inputIds` where positions depend on them. */
export function layoutOf(attentionMask: Int32Array, shape: readonly number[], promptLengths: readonly number[], inputIds?: Int32Array): SequenceLayout {
  const [batch, width] = shape;
  const starts = new Int32Array(batch);
  const lengths = new Int32Array(batch);
  for (let b = 0; b < batch; b++) {
    const row = attentionMask.subarray(b * width, (b + 1) * width);
    starts[b] = Math.max(0, row.indexOf(1));
    lengths[b] = row.reduce((n, m) => n + m, 0);
    if (promptLengths[b] > lengths[b]) throw new RangeError(`row ${b}: a prompt of ${promptLengths[b]} tokens in a sequence of ${lengths[b]}`);
  }
  const ids = inputIds && Array.from(starts, (start, b) => inputIds.subarray(b * width + start, b * width + start + lengths[b]));
  return { batch, width, starts, promptLengths, lengths, ...(ids ? { ids } : {}) };
}
