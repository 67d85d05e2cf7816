// One forward pass of a stack, as its blocks see it. A block is written with a `BlockRun`: sites where edits stand,
// products that patches may change, attention, recurrences. No block knows padding, caches or patches, and nothing
// outlives the call.

import { isWantedSite, site } from '../autograd/grad.js';
import type { Backend } from '../backends/backend.js';
import { attention, type AttentionOptions } from '../nn/attention.js';
import { finish, Linear, project, type LinearEpilogue } from '../nn/linear.js';
import { rope } from '../nn/rope.js';
import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Kept } from './kept.js';
import {
  isPrefixPatch,
  isProjectionPatch,
  isSiteEdit,
  type Patch,
  type PrefixPatch,
  type ProjectionPatch,
  type SiteEdit,
} from './patch.js';
import {
  componentsOf,
  crossComponents,
  isOfEncoderRows,
  siteName,
  type Component,
  type Site,
  type StackSites,
} from './sites.js';
import type { TokenRows, Tokens } from './tokens.js';

/** cos and sin [B|1, T|N, D/2] for hidden states seen as [B, T] or [1, N]; the dimensions that are rotated. */
export interface Rotary {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** What a decoder reads of an encoder: its packed states [M, width] and where they lie. */
export interface CrossStates {
  readonly states: Tensor;
  readonly tokens: Tokens;
}

export type OnSite = (site: Site, hiddenStates: Tensor, edits: readonly SiteEdit[]) => void;

export interface RunOptions {
  readonly sites: StackSites;
  readonly tokens: Tokens;
  readonly backend: Backend;
  readonly cache?: Kept | undefined;
  readonly cross?: CrossStates | undefined;
  /** Those of all stacks; this one takes its own. */
  readonly patches?: readonly Patch[] | undefined;
  readonly collect?: readonly Site[] | undefined;
  /** Told of every site as it is passed, after its edits. */
  readonly onSite?: OnSite | undefined;
}

/** Options of one attention, see nn/attention.ts; what lies where is the run's business. */
export type AttendOptions = Pick<AttentionOptions, 'causal' | 'window' | 'scale' | 'softcap'>;

/** Sites after attention in a block: those that rows nobody asks for may be left out of. An encoder's rows all stay. */
const lateComponents: ReadonlySet<Component> = new Set([
  'attention_output',
  'block_middle',
  ...crossComponents.filter(component => !isOfEncoderRows(component)),
  'mlp_input',
  'mlp_activation',
  'mlp_output',
  'block_output',
  'mixer_activation',
  'mixer_output',
  'final_norm',
]);

export class Run {
  readonly sites: StackSites;
  readonly tokens: Tokens;
  readonly backend: Backend;
  readonly cache: Kept | undefined;
  readonly cross: CrossStates | undefined;
  /** States of the sites that were asked for, by name: [B, T, width]. */
  readonly collected = new Map<string, Tensor>();
  private readonly edits = new Map<string, SiteEdit[]>();
  private readonly projections = new Map<string, ProjectionPatch[]>();
  private readonly prefixes = new Map<number, PrefixPatch>();
  private readonly wanted = new Map<string, Site[]>();
  private readonly onSite: OnSite | undefined;
  /** What is left of the rows of the last block after its attention. */
  private narrowed: { readonly layer: number; readonly rows: TokenRows; readonly places: Int32Array } | undefined;

  constructor({ sites, tokens, backend, cache, cross, patches = [], collect = [], onSite }: RunOptions) {
    this.sites = sites;
    this.tokens = tokens;
    this.backend = backend;
    this.cache = cache;
    this.cross = cross;
    this.onSite = onSite;
    for (const patch of patches) {
      if (isSiteEdit(patch) && patch.site.stack === sites.stack) append(this.edits, wholeSite(patch.site), patch);
      else if (isProjectionPatch(patch) && patch.at.stack === sites.stack)
        append(this.projections, `${patch.at.projection}/${patch.at.layer}`, patch);
      else if (isPrefixPatch(patch) && patch.prefix.stack === sites.stack) {
        const { layer } = patch.prefix;
        if (this.prefixes.has(layer)) throw new RangeError(`layer ${layer} is given two prefixes of keys and values`);
        this.prefixes.set(layer, patch);
      }
    }
    for (const place of collect) if (place.stack === sites.stack) append(this.wanted, wholeSite(place), place);
  }

  private nameOf(layer: number, component: Component): string {
    const { stack } = this.sites;
    return siteName({ ...(stack === undefined ? {} : { stack }), layer, component });
  }

  /**
   * Passes the packed hidden states of a site on: edited, collected, with a name for gradients. Edits apply in the
   * order they were given.
   */
  site(layer: number, component: Component, hiddenStates: Tensor, rows: TokenRows = this.tokens): Tensor {
    const name = this.nameOf(layer, component);
    const edits = this.edits.get(name) ?? [];
    let h = hiddenStates;
    for (const edit of edits) h = this.edited(h, edit, rows);
    const wanted = this.wanted.get(name) ?? [];
    if (wanted.length === 0 && !this.onSite && !isWantedSite(name)) return h;
    const seen = site(name, rows.spread(h));
    const { headDim, stack } = this.sites;
    for (const place of wanted) {
      const { head } = place;
      const state = head === undefined ? seen : seen.slice(-1, head * headDim, (head + 1) * headDim);
      this.collected.set(siteName(place), state);
    }
    this.onSite?.({ ...(stack === undefined ? {} : { stack }), layer, component }, seen, edits);
    return rows.gather(seen);
  }

  private edited(h: Tensor, edit: SiteEdit, rows: TokenRows): Tensor {
    const { head } = edit.site;
    if (head === undefined) return edit.apply(h, rows);
    const { headDim } = this.sites;
    const [from, to, width] = [head * headDim, (head + 1) * headDim, h.shape[1]];
    const parts = [h.slice(-1, 0, from), edit.apply(h.slice(-1, from, to), rows), h.slice(-1, to, width)];
    return concat(
      parts.filter(part => part.shape[1] > 0),
      -1,
    );
  }

  /** True where nothing happens at a site: no edit, and nobody who looks. */
  passes(layer: number, component: Component): boolean {
    const name = this.nameOf(layer, component);
    return this.onSite === undefined && !this.edits.has(name) && !this.isLookedAt(name);
  }

  /** Collected, or its gradient asked for. */
  private isLookedAt(name: string): boolean {
    return this.wanted.has(name) || isWantedSite(name);
  }

  /** True where somebody looks at a state inside block `layer`, or at its gradient. */
  isSeen(layer: number): boolean {
    const inside = componentsOf(this.sites).filter(
      component => component !== 'embeddings' && component !== 'final_norm',
    );
    return this.onSite !== undefined || inside.some(component => this.isLookedAt(this.nameOf(layer, component)));
  }

  /**
   * Has block `layer`, the last one, go on from attention with some tokens alone (b * T + t), if nobody looks at the
   * others there or at the final norm, and edits there can do without them; false if not. Each edit keeps some token,
   * so that its parameters have gradients as ever.
   */
  narrow(layer: number, tokens: Int32Array): boolean {
    const late = componentsOf(this.sites).filter(c => lateComponents.has(c));
    const names = late.map(component => this.nameOf(layer, component));
    if (this.isSeen(layer) || names.some(name => this.isLookedAt(name))) return false;
    const distinct = new Set(tokens);
    const keeps = (edit: SiteEdit): boolean => edit.rows?.some(token => distinct.has(token)) === true;
    const edits = names.flatMap(name => this.edits.get(name) ?? []);
    // The final norm's site is passed with all tokens; and a token that is asked for twice has two places.
    if (edits.some(edit => edit.site.component === 'final_norm' || !keeps(edit))) return false;
    if (edits.length > 0 && distinct.size < tokens.length) return false;
    const places = this.tokens.placesOf(tokens);
    if (places.some(place => place < 0)) return false;
    this.narrowed = { layer, rows: this.tokens.only(tokens), places };
    return true;
  }

  /** The rows block `layer` goes on with after attention; null: all. */
  rowsLeft(layer: number): { readonly rows: TokenRows; readonly places: Int32Array } | null {
    return this.narrowed?.layer === layer ? this.narrowed : null;
  }

  patchesOf(layer: number, projection: string): readonly ProjectionPatch[] {
    return this.projections.get(`${projection}/${layer}`) ?? [];
  }

  prefixOf(layer: number): PrefixPatch | undefined {
    return this.prefixes.get(layer);
  }

  /** What a block of this pass is written with. `rotary`: its rotary tables; `bias`: its position bias [1, H, T, S]. */
  block(
    layer: number,
    { rotary = null, bias = null }: { rotary?: Rotary | null; bias?: Tensor | null } = {},
  ): BlockRun {
    return new BlockRun(this, layer, rotary, bias);
  }
}

/** The run as one block sees it. A block that runs again is given a new one. */
export class BlockRun {
  readonly layer: number;
  private readonly run: Run;
  private readonly rotary: Rotary | null;
  private readonly bias: Tensor | null;
  /** The rows from here on. */
  private rows: TokenRows;

  constructor(run: Run, layer: number, rotary: Rotary | null, bias: Tensor | null) {
    this.run = run;
    this.layer = layer;
    this.rotary = rotary;
    this.bias = bias;
    this.rows = run.tokens;
  }

  get tokens(): Tokens {
    return this.run.tokens;
  }

  get cross(): CrossStates | undefined {
    return this.run.cross;
  }

  get cache(): Kept | undefined {
    return this.run.cache;
  }

  /** Hidden states at a site: edited, collected, named for gradients. */
  site(component: Component, h: Tensor): Tensor {
    return this.run.site(this.layer, component, h, this.rows);
  }

  /** The same for states of the encoder that a decoder reads: rows are the encoder's tokens. */
  crossSite(component: Component, h: Tensor): Tensor {
    return this.run.site(this.layer, component, h, this.run.cross?.tokens);
  }

  /** True where nothing happens at a site, so that what leads to it may be fused with what follows. */
  passes(component: Component): boolean {
    return this.run.passes(this.layer, component);
  }

  /** A layer's product, with its epilogue in one op; with patches: the product, the patches, then the epilogue. */
  linear(projection: string, layer: Linear, x: Tensor, epilogue: LinearEpilogue = {}): Tensor {
    const patches = this.run.patchesOf(this.layer, projection);
    if (patches.length === 0) return layer.forward(x, epilogue);
    let y = layer.forward(x);
    for (const patch of patches) y = patch.apply(y, x, this.rows, layer);
    return epilogue.activation || epilogue.residual ? finish(y, null, epilogue) : y;
  }

  /**
   * The products of several layers with one x; a single product where their weights are neighbours and none is patched.
   */
  project(projections: readonly string[], layers: readonly Linear[], x: Tensor): Tensor[] {
    const patched = projections.some(name => this.run.patchesOf(this.layer, name).length > 0);
    if (patched || layers.some(layer => layer.constructor !== Linear))
      return layers.map((layer, i) => this.linear(projections[i], layer, x));
    return project(x, layers);
  }

  /** x [N, heads * D] rotated by position, where the block has rotary embeddings: [N, heads, D]. */
  rotate(x: Tensor, heads: number): Tensor {
    const dim = x.shape[1] / heads;
    if (!this.rotary) return x.reshape([x.shape[0], heads, dim]);
    const { cos, sin } = this.rotary;
    const [batch, length] = [x.shape[0] / cos.shape[1], cos.shape[1]];
    return rope(x.reshape([batch, length, heads, dim]), cos, sin).reshape([x.shape[0], heads, dim]);
  }

  /** Self-attention of q [N, H, D] over k and v [N, KV, D], the cache's in front of them: [N, H * D]. */
  attend(q: Tensor, k: Tensor, v: Tensor, options: AttendOptions = {}): Tensor {
    const { tokens, cache } = this.run;
    const byHead = (y: Tensor): Tensor => tokens.spread(y).permute([0, 2, 1, 3]);
    let [keys, values] = [byHead(k), byHead(v)];
    if (cache) ({ keys, values } = cache.extend(this.layer, keys, values));
    const prefix = this.run.prefixOf(this.layer);
    if (prefix) {
      const rows = (t: Tensor): Tensor => t.expand([keys.shape[0], ...t.shape.slice(1)]);
      keys = concat([rows(prefix.keys), keys], 2);
      values = concat([rows(prefix.values), values], 2);
    }
    const { causal, window, ...scoring } = options;
    const placed = tokens.seen(
      { ...(causal === undefined ? {} : { causal }), ...(window === undefined ? {} : { window }) },
      prefix?.keys.shape[2] ?? 0,
    );
    return this.joined(attention(byHead(q), keys, values, { ...scoring, ...placed, bias: this.bias }));
  }

  /** Attention of q [N, H, D] over an encoder's k and v [M, KV, D]: [N, H * D]. */
  attendAcross(q: Tensor, k: Tensor, v: Tensor, options: AttendOptions = {}): Tensor {
    const { cross } = this.run;
    if (!cross) throw new Error(`layer ${this.layer}: cross attention, and no encoder states were given`);
    const byHead = (rows: TokenRows, y: Tensor): Tensor => rows.spread(y).permute([0, 2, 1, 3]);
    return this.joined(
      attention(byHead(this.rows, q), byHead(cross.tokens, k), byHead(cross.tokens, v), {
        ...options,
        bounds: cross.tokens.bounds,
      }),
    );
  }

  /** Heads [B, H, T, D] as packed rows, [n, H * D]. */
  private joined(attended: Tensor): Tensor {
    const [batch, heads, length, dim] = attended.shape;
    return this.rows.gather(attended.permute([0, 2, 1, 3]).reshape([batch, length, heads * dim]));
  }

  /** What a recurrence of this block has kept of the tokens before, [B, ..] each; null before the first. */
  get states(): readonly Tensor[] | null {
    return this.run.cache?.states(this.layer) ?? null;
  }

  /** Keeps a recurrence's states after the tokens of this pass, where later passes go on from them. */
  keepStates(states: readonly Tensor[]): void {
    this.run.cache?.keepStates(this.layer, states);
  }

  /**
   * From here on only the rows that are still wanted: in the last block those whose outputs somebody reads, else all.
   * Give it all states the block goes on with.
   */
  keep(...states: Tensor[]): Tensor[] {
    const left = this.run.rowsLeft(this.layer);
    if (!left) return states;
    this.rows = left.rows;
    return states.map(state => state.takeRows(left.places));
  }
}

const wholeSite = ({ stack, layer, component }: Site): string =>
  siteName({ ...(stack === undefined ? {} : { stack }), layer, component });

function append<T>(map: Map<string, T[]>, name: string, item: T): void {
  const list = map.get(name);
  if (list) list.push(item);
  else map.set(name, [item]);
}
