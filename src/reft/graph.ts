// The graph of one forward: the sites of a model in the order they are passed, with edits as nodes that can be listed,
// drawn, inserted, replaced, removed and switched off. It runs itself, forward and backward; the model and the adapter
// it was traced from are never changed. Drawing is in graphDrawing.ts.

import { noGrad } from '../autograd/tape.js';
import { checkIds } from '../io/tokenIds.js';
import { CausalLM, type ForwardOptions, type ForwardOutput } from '../models/causalLM.js';
import { onBatch, type EditDescription, type SiteEdit } from '../models/patch.js';
import { checkSite, siteName, type Site } from '../models/sites.js';
import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { drawMermaid, drawSvg } from './graphDrawing.js';
import type { SequenceLayout } from './layout.js';
import type { TrainingMode } from '../adapt/adapter.js';
import { layoutOf, type ReftModel } from './reftModel.js';

/** A batch: ids [B, T], and where its prompts end (default: the whole sequence is prompt). */
export interface TraceInputs extends Omit<ForwardOptions, 'edits' | 'onSite'> {
  readonly promptLengths?: readonly number[];
}

export interface SiteNode {
  readonly type: 'site';
  /** `block_output/3` */
  readonly id: string;
  readonly shape: Shape;
}

export interface EditNode extends EditDescription {
  readonly type: 'edit';
  readonly site: string;
  readonly enabled: boolean;
}

export interface GraphJSON {
  readonly model: {
    readonly name: string;
    readonly architecture: string;
    readonly layers: number;
    readonly hiddenSize: number;
  };
  /** In the order they are passed: an edit stands before the site it changes. */
  readonly nodes: readonly (SiteNode | EditNode)[];
  /** Ids of the nodes before and after. */
  readonly edges: readonly (readonly [string, string])[];
}

/** An edit of your own: a function of the hidden states [B, T, width] at its site. */
export interface InsertedEdit {
  readonly id: string;
  /** Any name of the site. */
  readonly site: string | Site;
  readonly kind?: string;
  readonly parameters?: Readonly<Record<string, Tensor>>;
  apply(hiddenStates: Tensor, layout: SequenceLayout): Tensor;
}

interface Entry {
  readonly id: string;
  readonly site: Site;
  enabled: boolean;
  /** What an inserted or replaced edit does; null: the adapter's own. */
  own: Omit<InsertedEdit, 'site'> | null;
  description: EditDescription;
}

export class EditGraph {
  readonly base: CausalLM;
  private readonly reft: ReftModel | null;
  private readonly sites: readonly SiteNode[];
  private readonly entries: Entry[];

  /** Use `trace`. */
  constructor(
    source: CausalLM | ReftModel,
    sites: readonly SiteNode[],
    edits: readonly { site: Site; about: EditDescription }[],
  ) {
    this.base = source instanceof CausalLM ? source : source.base;
    this.reft = source instanceof CausalLM ? null : source;
    this.sites = sites;
    this.entries = edits.map(({ site, about }) => ({
      id: about.id,
      site,
      enabled: true,
      own: null,
      description: about,
    }));
  }

  /** The edits, in the order they apply. */
  get edits(): EditNode[] {
    return this.entries.map(({ id, site, enabled, description }) => ({
      type: 'edit',
      ...description,
      id,
      site: siteName(site),
      enabled,
    }));
  }

  /**
   * Adds an edit at its site: last there, or before or after another edit of that site. @throws RangeError when the id
   * is taken
   */
  insert(edit: InsertedEdit, place: { before?: string; after?: string } = {}): this {
    const { base } = this;
    if (this.entries.some(e => e.id === edit.id)) throw new RangeError(`graph: there is an edit '${edit.id}' already`);
    const site = typeof edit.site === 'string' ? base.site(edit.site) : checkSite(edit.site, base.stacks);
    const beside = place.before ?? place.after;
    let at = this.entries.length;
    if (beside !== undefined) {
      const neighbour = this.entry(beside);
      if (siteName({ ...neighbour.site, head: undefined } as Site) !== siteName({ ...site, head: undefined } as Site)) {
        throw new RangeError(`graph: '${beside}' stands at ${siteName(neighbour.site)}, not at ${siteName(site)}`);
      }
      at = this.entries.indexOf(neighbour) + (place.after === undefined ? 0 : 1);
    }
    this.entries.splice(at, 0, { id: edit.id, site, enabled: true, own: edit, description: describe(edit) });
    return this;
  }

  /** Puts another function in an edit's place, at the same site and in the same order. */
  replace(id: string, edit: Omit<InsertedEdit, 'id' | 'site'>): this {
    const entry = this.entry(id);
    entry.own = { ...edit, id };
    entry.description = describe(entry.own);
    return this;
  }

  remove(id: string): this {
    this.entries.splice(this.entries.indexOf(this.entry(id)), 1);
    return this;
  }

  disable(id: string): this {
    this.entry(id).enabled = false;
    return this;
  }

  enable(id: string): this {
    this.entry(id).enabled = true;
    return this;
  }

  private entry(id: string): Entry {
    const found = this.entries.find(e => e.id === id);
    if (!found)
      throw new RangeError(`graph: has no edit '${id}'; it has ${this.entries.map(e => e.id).join(', ') || 'none'}`);
    return found;
  }

  /** The edits of a batch, as the base's forward takes them. */
  siteEdits(layout: SequenceLayout, training?: TrainingMode): SiteEdit[] {
    const adapters = new Map(this.reft?.edits(layout, training).map(edit => [edit.about?.id, edit]));
    return this.entries.flatMap(({ id, site, enabled, own, description }): SiteEdit[] => {
      if (!enabled) return [];
      if (own) return [{ site, about: description, apply: onBatch(h => own.apply(h, layout)) }];
      const edit = adapters.get(id);
      return edit ? [edit] : [];
    });
  }

  /** The forward this graph is; gradients flow through it as through any other. */
  forward(inputs: TraceInputs, training?: TrainingMode): ForwardOutput {
    const { promptLengths: _, ...options } = inputs;
    return this.base.forward({ ...options, edits: this.siteEdits(layoutFor(inputs), training) });
  }

  /** Mean cross-entropy at the labels [B, T] that are not negative, see CausalLM.loss. */
  loss(inputs: TraceInputs, labels: Int32Array, training?: TrainingMode): { loss: Tensor; labelled: number } {
    const { promptLengths: _, ...options } = inputs;
    return this.base.loss({ ...options, edits: this.siteEdits(layoutFor(inputs), training) }, labels);
  }

  toJSON(): GraphJSON {
    const { name, config } = this.base;
    const nodes = this.sites.flatMap((site): (SiteNode | EditNode)[] => [
      ...this.edits.filter(edit => withoutHead(edit.site) === site.id),
      site,
    ]);
    return {
      model: { name, architecture: config.modelType, layers: config.layers, hiddenSize: config.hiddenSize },
      nodes,
      edges: nodes.slice(1).map((node, i) => [nodes[i].id, node.id] as const),
    };
  }

  /** For Markdown that draws Mermaid; blocks without an edit are drawn as one. */
  toMermaid(): string {
    return drawMermaid(this.toJSON());
  }

  toSVG(): string {
    return drawSvg(this.toJSON());
  }
}

const withoutHead = (name: string): string => name.replace(/:\d+$/, '');

function describe(edit: Omit<InsertedEdit, 'site'>): EditDescription {
  const { id, kind = 'function', parameters } = edit;
  return {
    id,
    kind,
    ...(parameters
      ? { parameters: Object.fromEntries(Object.entries(parameters).map(([name, t]) => [name, t.shape])) }
      : {}),
  };
}

function layoutFor({ inputIds, shape, attentionMask, promptLengths }: TraceInputs): SequenceLayout {
  const mask = attentionMask ?? new Int32Array(inputIds.length).fill(1);
  const real = layoutOf(mask, shape, new Int32Array(shape[0]) as unknown as number[]);
  return layoutOf(mask, shape, promptLengths ?? Array.from(real.lengths), inputIds);
}

/** Runs a batch once and gives its graph. Adapters whose positions fall outside this batch have no node. */
export function trace(source: CausalLM | ReftModel, inputs: TraceInputs): EditGraph {
  const { promptLengths: _, ...options } = inputs;
  const base = source instanceof CausalLM ? source : source.base;
  checkIds('inputIds', inputs.inputIds, base.config.vocabSize);
  const edits = source instanceof CausalLM ? [] : source.edits(layoutFor(inputs));
  const sites: SiteNode[] = [];
  const applied: { site: Site; about: EditDescription }[] = [];
  noGrad(() =>
    base.forward({
      ...options,
      edits,
      onSite: (site, hiddenStates, there) => {
        sites.push({ type: 'site', id: siteName(site), shape: hiddenStates.shape });
        for (const edit of there) applied.push({ site: edit.site, about: edit.about as EditDescription });
      },
    }),
  );
  return new EditGraph(source, sites, applied);
}
