// One forward pass's circumstances: token positions, padding, the key/value cache, and what happens at sites. A model names its sites as
// data; edits are values given to `forward`, applied where they stand. There are no hooks: nothing outlives the call.

import { site } from '../autograd/grad.js';
import type { ropeFrequencies} from '../nn/rope.js';
import { ropeTables } from '../nn/rope.js';
import type { Backend } from '../backends/backend.js';
import { create } from '../tensor/create.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { KVCache } from './cache.js';

/** Where an edit, a probe or a patch may stand, in the order a block passes them. All are [B, T, width]. */
export const components = [
  'block_input', 'attention_input', 'attention_value_output', 'attention_output', 'mlp_input', 'mlp_activation', 'mlp_output', 'block_output',
] as const;
export type Component = (typeof components)[number];

export interface Site {
  readonly layer: number;
  readonly component: Component;
}

/** An edit resolved for one batch. */
export interface SiteEdit {
  readonly site: Site;
  /** The edited hidden states, of the same shape [B, T, width]. */
  apply(hiddenStates: Tensor): Tensor;
}

export const siteName = ({ layer, component }: Site): string => `${component}/${layer}`;

export interface Padding {
  /** First real key and one past the last, for each row. */
  readonly keyStart: Int32Array;
  readonly keyEnd: Int32Array;
}

/** The run of ones in each row of a mask [B, S]; anything but one run is refused. */
export function paddingOf(mask: Int32Array, shape: Shape): Padding {
  const [batch, length] = shape;
  if (mask.length !== batch * length) throw new RangeError(`attentionMask: expected ${batch * length} entries for ${formatShape(shape)}, got ${mask.length}`);
  const keyStart = new Int32Array(batch);
  const keyEnd = new Int32Array(batch);
  for (let b = 0; b < batch; b++) {
    const row = mask.subarray(b * length, (b + 1) * length);
    const first = row.indexOf(1);
    keyStart[b] = first < 0 ? 0 : first;
    keyEnd[b] = first < 0 ? 0 : row.lastIndexOf(1) + 1;
    if (first >= 0 && row.subarray(keyStart[b], keyEnd[b]).some(m => m !== 1)) {
      throw new RangeError(`attentionMask: row ${b} is not one run of ones; padding goes on the left, the right, or both`);
    }
  }
  return { keyStart, keyEnd };
}

export class ForwardContext {
  readonly batch: number;
  readonly length: number;
  readonly padding: Padding;
  /** Tokens in the cache before this call. */
  readonly past: number;
  readonly cache: KVCache | undefined;
  private readonly edits = new Map<string, SiteEdit[]>();
  private readonly collected: Map<string, Tensor> | undefined;
  private readonly wanted: ReadonlySet<string>;

  constructor(options: {
    shape: Shape; padding: Padding; past: number; cache?: KVCache; edits?: readonly SiteEdit[]; collect?: readonly Site[];
  }) {
    [this.batch, this.length] = options.shape;
    this.padding = options.padding;
    this.past = options.past;
    this.cache = options.cache;
    for (const edit of options.edits ?? []) {
      const name = siteName(edit.site);
      const list = this.edits.get(name);
      if (list) list.push(edit);
      else this.edits.set(name, [edit]);
    }
    this.wanted = new Set(options.collect?.map(siteName));
    this.collected = this.wanted.size > 0 ? new Map() : undefined;
  }

  /** Passes the hidden states of a site on: edited, collected, with a name for gradients. */
  site(layer: number, component: Component, hiddenStates: Tensor): Tensor {
    const name = siteName({ layer, component });
    let h = hiddenStates;
    for (const edit of this.edits.get(name) ?? []) h = edit.apply(h);
    h = site(name, h);
    if (this.wanted.has(name)) this.collected?.set(name, h);
    return h;
  }

  get collection(): ReadonlyMap<string, Tensor> {
    return this.collected ?? new Map<string, Tensor>();
  }
}

/** cos and sin [B|1, T, D/2] at the given positions: one row where all rows of the batch agree. */
export function rotaryTables(
  positions: Int32Array, shape: Shape, frequencies: ReturnType<typeof ropeFrequencies>, dtype: 'f32' | 'f64', backend: Backend,
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

