// One forward pass's circumstances: token positions, padding, the key/value cache, and what happens at sites. A model
// names its sites as data; edits are values given to `forward`, applied where they stand. There are no hooks: nothing
// outlives the call.

import { isWantedSite, site } from '../autograd/grad.js';
import { attentionBounds, type AttentionBounds } from '../nn/attention.js';
import { ropeTables, type RopeFrequencies } from '../nn/rope.js';
import type { Backend } from '../backends/backend.js';
import { shownValue } from '../io/tokenIds.js';
import { create } from '../tensor/create.js';
import { concat } from '../tensor/layout.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { KVCache } from './cache.js';
import { gatherReal, spreadReal, type RealTokens } from './realTokens.js';
import { blockComponents, siteName, type Component, type Site } from './sites.js';

export { components, siteName, type Component, type Site } from './sites.js';

/** An edit resolved for one batch. */
export interface SiteEdit {
  readonly site: Site;
  /** The edited hidden states, of the same shape [B, T, width]; of a site that is one head, that head's. */
  apply(hiddenStates: Tensor): Tensor;
  /**
   * The same on the real tokens alone, [1, N, width]; `places` has the number among them of each row b * T + t, -1 for
   * padding. Where it is absent, `apply` is given [B, T, width] with zeros at padding.
   */
  applyToReal?(hiddenStates: Tensor, places: Int32Array): Tensor;
  /**
   * Rows b * T + t that it edits, where each is edited by itself: `applyToReal` may then be asked for some of them, the
   * others having no place.
   */
  readonly rows?: Int32Array;
  /** What a drawing or a list of the graph says of it. */
  readonly about?: EditDescription;
}

/** An edit as a node of the graph. */
export interface EditDescription {
  /** Unique among the edits of a forward. */
  readonly id: string;
  readonly kind: string;
  readonly rank?: number;
  readonly positions?: string;
  readonly scale?: number;
  /** Shapes of what it holds, by name. */
  readonly parameters?: Readonly<Record<string, Shape>>;
  /** Rows b * T + t that it edits in this forward; absent: all. */
  readonly rows?: readonly number[];
}

export interface Padding {
  /** First real key and one past the last, for each row. */
  readonly keyStart: Int32Array;
  readonly keyEnd: Int32Array;
}

/** The run of ones in each row of a mask [B, S]; anything but one run is refused. */
export function paddingOf(mask: Int32Array, shape: Shape): Padding {
  const [batch, length] = shape;
  if (!ArrayBuffer.isView(mask)) throw new TypeError(`attentionMask: expected an Int32Array, got ${shownValue(mask)}`);
  if (mask.length !== batch * length)
    throw new RangeError(
      `attentionMask: expected ${batch * length} entries for ${formatShape(shape)}, got ${mask.length}`,
    );
  const keyStart = new Int32Array(batch);
  const keyEnd = new Int32Array(batch);
  for (let b = 0; b < batch; b++) {
    const row = mask.subarray(b * length, (b + 1) * length);
    const odd = row.find(m => m !== 0 && m !== 1);
    if (odd !== undefined) throw new RangeError(`attentionMask: row ${b} has ${odd}, expected ones and zeros`);
    const first = row.indexOf(1);
    keyStart[b] = first < 0 ? 0 : first;
    keyEnd[b] = first < 0 ? 0 : row.lastIndexOf(1) + 1;
    if (first >= 0 && row.subarray(keyStart[b], keyEnd[b]).some(m => m !== 1)) {
      throw new RangeError(
        `attentionMask: row ${b} is not one run of ones; padding goes on the left, the right, or both`,
      );
    }
  }
  return { keyStart, keyEnd };
}

/** Sites after the attention of the last block. */
const lateComponents: readonly Component[] = [
  'attention_output',
  'block_middle',
  'mlp_input',
  'mlp_activation',
  'mlp_output',
  'block_output',
  'final_norm',
];

export class ForwardContext {
  readonly batch: number;
  readonly length: number;
  readonly padding: Padding;
  /** What attention in every layer needs to know of it. */
  readonly bounds: AttentionBounds;
  /** Tokens in the cache before this call. */
  readonly past: number;
  readonly cache: KVCache | undefined;
  /** Where hidden states are those of real tokens alone, [1, N, width] in place of [B, T, width]. */
  readonly real: RealTokens | null;
  /**
   * What is left of the last block's tokens after its attention: the place of each row b * T + t, -1 for those left
   * out.
   */
  private narrowed: { readonly layer: number; readonly places: Int32Array } | undefined;
  private readonly edits = new Map<string, SiteEdit[]>();
  private readonly collected: Map<string, Tensor> | undefined;
  private readonly wanted = new Map<string, Site[]>();
  private readonly headDim: number;
  private readonly onSite: ((site: Site, hiddenStates: Tensor, edits: readonly SiteEdit[]) => void) | undefined;

  constructor(options: {
    shape: Shape;
    padding: Padding;
    past: number;
    headDim: number;
    backend: Backend;
    cache?: KVCache;
    real?: RealTokens | null;
    edits?: readonly SiteEdit[];
    collect?: readonly Site[];
    /** Told of every site as it is passed, after its edits. */
    onSite?: (site: Site, hiddenStates: Tensor, edits: readonly SiteEdit[]) => void;
  }) {
    [this.batch, this.length] = options.shape;
    this.padding = options.padding;
    this.bounds = attentionBounds(options.padding.keyStart, options.padding.keyEnd, options.backend);
    this.past = options.past;
    this.cache = options.cache;
    this.real = options.real ?? null;
    this.headDim = options.headDim;
    this.onSite = options.onSite;
    const add = <T>(map: Map<string, T[]>, { layer, component }: Site, item: T): void => {
      const name = siteName({ layer, component });
      const list = map.get(name);
      if (list) list.push(item);
      else map.set(name, [item]);
    };
    for (const edit of options.edits ?? []) add(this.edits, edit.site, edit);
    for (const wanted of options.collect ?? []) add(this.wanted, wanted, wanted);
    this.collected = this.wanted.size > 0 ? new Map() : undefined;
  }

  /**
   * Passes the hidden states of a site on: edited, collected, with a name for gradients. Edits apply in the order they
   * were given.
   */
  site(layer: number, component: Component, hiddenStates: Tensor): Tensor {
    const name = siteName({ layer, component });
    const edits = this.edits.get(name) ?? [];
    let h = hiddenStates;
    for (const edit of edits)
      h = edit.site.head === undefined ? this.edited(h, edit) : this.onHead(h, edit.site.head, edit);
    const wanted = this.wanted.get(name) ?? [];
    if (wanted.length === 0 && !this.onSite && !isWantedSite(name)) return h;
    const seen = site(name, this.rowsOf(h));
    for (const place of wanted) {
      this.collected?.set(
        siteName(place),
        place.head === undefined ? seen : seen.slice(-1, place.head * this.headDim, (place.head + 1) * this.headDim),
      );
    }
    this.onSite?.({ layer, component }, seen, edits);
    return this.tokensOf(seen);
  }

  /** True where nothing happens at a site: no edit, and nobody who looks. */
  passes(layer: number, component: Component): boolean {
    const name = siteName({ layer, component });
    return this.onSite === undefined && !this.edits.has(name) && !this.isLookedAt(name);
  }

  /** Collected, or its gradient asked for. */
  private isLookedAt(name: string): boolean {
    return this.wanted.has(name) || isWantedSite(name);
  }

  /** True where somebody looks at a state inside block `layer`, or at its gradient. */
  isSeen(layer: number): boolean {
    const names = blockComponents.map(component => siteName({ layer, component }));
    return this.onSite !== undefined || names.some(name => this.isLookedAt(name));
  }

  /**
   * Has the last block, `layer`, go on from attention with tokens `rows` (b * T + t) alone, if nobody looks at the
   * others there or at the final norm, and edits there can do without them; false if not. Each edit keeps some token,
   * so that its parameters have gradients as ever.
   */
  narrow(layer: number, rows: Int32Array): boolean {
    const late = lateComponents.map(component => siteName({ layer, component }));
    if (this.isSeen(layer) || late.some(name => this.isLookedAt(name))) return false;
    const edits = late.flatMap(name => this.edits.get(name) ?? []);
    const places = new Int32Array(this.batch * this.length).fill(-1);
    rows.forEach((row, i) => (places[row] = i));
    const keeps = (edit: SiteEdit): boolean =>
      edit.applyToReal !== undefined && edit.rows?.some(row => places[row] >= 0) === true;
    // The final norm's site is passed with all tokens; and a token that is asked for twice has two places.
    if (
      edits.some(edit => edit.site.component === 'final_norm' || !keeps(edit)) ||
      (edits.length > 0 && new Set(rows).size < rows.length)
    )
      return false;
    this.narrowed = { layer, places };
    return true;
  }

  /** Hidden states [B, T, ..] as the blocks compute them. */
  tokensOf(h: Tensor): Tensor {
    return this.real ? gatherReal(h, this.real) : h;
  }

  /** Hidden states of the blocks as [B, T, ..]. */
  rowsOf(h: Tensor): Tensor {
    return this.real ? spreadReal(h, this.real) : h;
  }

  private edited(h: Tensor, edit: SiteEdit): Tensor {
    const { layer, component } = edit.site;
    const late = this.narrowed?.layer === layer && lateComponents.includes(component);
    const places = late ? this.narrowed?.places : this.real?.places;
    return places && edit.applyToReal ? edit.applyToReal(h, places) : this.tokensOf(edit.apply(this.rowsOf(h)));
  }

  /** Edits one head's columns. */
  private onHead(h: Tensor, head: number, edit: SiteEdit): Tensor {
    const [from, to, width] = [head * this.headDim, (head + 1) * this.headDim, h.shape[2]];
    const parts = [h.slice(-1, 0, from), this.edited(h.slice(-1, from, to), edit), h.slice(-1, to, width)];
    return concat(
      parts.filter(part => part.shape[2] > 0),
      -1,
    );
  }

  get collection(): ReadonlyMap<string, Tensor> {
    return this.collected ?? new Map<string, Tensor>();
  }
}

/** cos and sin [B|1, T, D/2] at the given positions: one row where all rows of the batch agree. */
export function rotaryTables(
  positions: Int32Array,
  shape: Shape,
  frequencies: RopeFrequencies,
  dtype: 'f32' | 'f64',
  backend: Backend,
): { cos: Tensor; sin: Tensor } {
  const [batch, length] = shape;
  let same = true;
  for (let i = length; i < positions.length && same; i++) same = positions[i] === positions[i % length];
  const rows = same ? 1 : batch;
  const tables = ropeTables(frequencies, same ? positions.subarray(0, length) : positions);
  const half = tables.cos.length / (rows * length);
  const make = (data: Float32Array): Tensor => create.from(data, [rows, length, half], { dtype, backend });
  return { cos: make(tables.cos), sin: make(tables.sin) };
}
