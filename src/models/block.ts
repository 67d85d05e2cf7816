// The one transformer block: attention (and attention to an encoder) and a feed-forward around a residual stream. What
// differs between families is data: which norms stand where, biases, how heads are cut out of a product, positions,
// multipliers. The layers are held by role; a family says what its checkpoints call each (`RoleNames`).

import { finish, type Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Tensor } from '../tensor/tensor.js';
import type { StackConfig } from './config.js';
import type { BlockRun } from './run.js';

/** A norm, whatever its kind. */
export interface Norm extends Module {
  forward(x: Tensor): Tensor;
}

/**
 * The layers of a block. A norm that a family does not have is absent. `...Norm` stands before a part, `...PostNorm` on
 * what the part adds, `...SumNorm` on the residual stream after the sum. `qkv` and `gateUp` are fused layers.
 */
export interface BlockParts {
  readonly attentionNorm?: Norm;
  readonly q?: Linear;
  readonly k?: Linear;
  readonly v?: Linear;
  readonly qkv?: Linear;
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  readonly o?: Linear;
  readonly attentionPostNorm?: Norm;
  readonly attentionSumNorm?: Norm;
  readonly crossNorm?: Norm;
  readonly crossQ?: Linear;
  readonly crossK?: Linear;
  readonly crossV?: Linear;
  readonly crossO?: Linear;
  readonly crossSumNorm?: Norm;
  readonly mlpNorm?: Norm;
  readonly gate?: Linear;
  readonly up?: Linear;
  readonly gateUp?: Linear;
  readonly down: Linear;
  readonly mlpPostNorm?: Norm;
  readonly mlpSumNorm?: Norm;
}
export type Role = keyof BlockParts;

/** What a checkpoint calls each layer, behind the number of the block: `self_attn.q_proj`. */
export type RoleNames = Partial<Readonly<Record<Role, string>>>;

/**
 * Tokens up to which one product for gate and up together is faster than the activation within the second. Measured.
 */
const fewTokens = 32;

export class TransformerBlock extends Module {
  readonly parts: BlockParts;
  readonly names: RoleNames;
  readonly #config: StackConfig;
  /** The site of what mixes tokens: the states it reads. */
  protected readonly mixerInput: 'attention_input' | 'mixer_input' = 'attention_input';

  constructor(config: StackConfig, parts: BlockParts, names: RoleNames) {
    super();
    this.#config = config;
    this.parts = parts;
    this.names = names;
  }

  override *namedParameters(prefix = ''): Generator<[string, Tensor]> {
    for (const role of Object.keys(this.parts) as Role[]) {
      const part = this.parts[role];
      if (part) yield* part.namedParameters(`${prefix}${this.nameOf(role)}.`);
    }
  }

  private nameOf(role: Role): string {
    return this.names[role] ?? role;
  }

  private get<R extends Role>(role: R): NonNullable<BlockParts[R]> {
    const part = this.parts[role];
    if (!part) throw new Error(`the block has no layer '${role}'`);
    return part;
  }

  /** x [N, hidden] to [N, hidden], or to the rows that are still wanted of the last block. */
  forward(x: Tensor, run: BlockRun): Tensor {
    const { parallel } = this.#config;
    const { attentionNorm, attentionSumNorm, mlpNorm, mlpSumNorm } = this.parts;
    let h = run.site('block_input', x);
    const a = run.site(this.mixerInput, attentionNorm ? attentionNorm.forward(h) : h);
    if (parallel) {
      const heads = this.attention(a, run);
      const shared = mlpNorm ? null : a;
      const [left, residual, normed] = run.keep(heads, h, shared ?? h);
      const sum = this.added('attention_output', 'o', left, residual, run);
      const m = run.site('mlp_input', mlpNorm ? mlpNorm.forward(normed) : normed);
      return run.site('block_output', this.added('mlp_output', 'down', this.activate(m, run), sum, run));
    }
    h = this.mixed(a, h, run);
    h = run.site('block_middle', attentionSumNorm ? attentionSumNorm.forward(h) : h);
    if (this.parts.crossQ) h = this.crossAttention(h, run);
    const m = run.site('mlp_input', mlpNorm ? mlpNorm.forward(h) : h);
    h = this.added('mlp_output', 'down', this.activate(m, run), h, run);
    return run.site('block_output', mlpSumNorm ? mlpSumNorm.forward(h) : h);
  }

  /** The residual stream h plus what attention makes of the states a; blocks that mix tokens otherwise say how. */
  protected mixed(a: Tensor, h: Tensor, run: BlockRun): Tensor {
    const [heads, residual] = run.keep(this.attention(a, run), h);
    return this.added('attention_output', 'o', heads, residual, run);
  }

  /**
   * The residual plus what a layer makes of x, norm and multiplier included. Where no edit stands at the site and
   * nobody looks, the residual is added within the product.
   */
  private added(
    component: 'attention_output' | 'cross_attention_output' | 'mlp_output',
    role: 'o' | 'crossO' | 'down',
    x: Tensor,
    residual: Tensor,
    run: BlockRun,
  ): Tensor {
    const { attentionPostNorm, mlpPostNorm } = this.parts;
    const { residualScale } = this.#config;
    const norm = role === 'o' ? attentionPostNorm : role === 'down' ? mlpPostNorm : undefined;
    const name = this.nameOf(role);
    if (!norm && residualScale === 1 && run.passes(component))
      return run.site(component, run.linear(name, this.get(role), x, { residual }));
    let y = run.linear(name, this.get(role), x);
    if (norm) y = norm.forward(y);
    if (residualScale !== 1) y = y.mul(residualScale);
    return residual.add(run.site(component, y));
  }

  /** What attention reads from normed states [N, hidden]: its heads' outputs side by side, [N, heads * headDim]. */
  private attention(a: Tensor, run: BlockRun): Tensor {
    const { heads, kvHeads, qkNorm, causal, windows, attentionScale, attentionSoftcap } = this.#config;
    const { qNorm, kNorm } = this.parts;
    let [q, k, v] = this.queriesKeysValues(a, run);
    q = run.site('query_output', q);
    k = run.site('key_output', k);
    v = run.site('value_output', v);
    if (qNorm && kNorm && qkNorm === 'full') [q, k] = [qNorm.forward(q), kNorm.forward(k)];
    if (qNorm && kNorm && qkNorm === 'head') [q, k] = [byHead(qNorm, q, heads), byHead(kNorm, k, kvHeads)];
    const window = windows[run.layer];
    const attended = run.attend(
      run.rotate(q, heads),
      run.rotate(k, kvHeads),
      v.reshape([v.shape[0], kvHeads, v.shape[1] / kvHeads]),
      {
        causal,
        ...(window === null ? {} : { window: causal ? window : { before: window, after: window } }),
        ...(attentionScale === null ? {} : { scale: attentionScale }),
        ...(attentionSoftcap === null ? {} : { softcap: attentionSoftcap }),
      },
    );
    return run.site('attention_value_output', attended);
  }

  private queriesKeysValues(a: Tensor, run: BlockRun): Tensor[] {
    const { heads, kvHeads, headDim, qkvOrder } = this.#config;
    const { q, k, v, qkv } = this.parts;
    if (q && k && v) return run.project([this.nameOf('q'), this.nameOf('k'), this.nameOf('v')], [q, k, v], a);
    if (!qkv) throw new Error('the block has neither q, k and v nor a fused qkv');
    const all = run.linear(this.nameOf('qkv'), qkv, a);
    if (qkvOrder === 'parts') return all.split([heads * headDim, kvHeads * headDim, kvHeads * headDim], -1);
    // Each head's q, k and v side by side.
    const apart = all.reshape([all.shape[0], heads, 3, headDim]);
    return [0, 1, 2].map(i => apart.slice(2, i, i + 1).reshape([all.shape[0], heads * headDim]));
  }

  private crossAttention(x: Tensor, run: BlockRun): Tensor {
    const { heads, attentionScale } = this.#config;
    const { crossNorm, crossSumNorm } = this.parts;
    const { cross, cache } = run;
    if (!cross) throw new Error(`layer ${run.layer}: has cross attention, and no encoder states were given`);
    const c = run.site('cross_attention_input', crossNorm ? crossNorm.forward(x) : x);
    const q = run.site('cross_query_output', run.linear(this.nameOf('crossQ'), this.get('crossQ'), c));
    const split = (y: Tensor): Tensor => y.reshape([y.shape[0], heads, y.shape[1] / heads]);
    const compute = (): { keys: Tensor; values: Tensor } => {
      const [keys, values] = run.project(
        [this.nameOf('crossK'), this.nameOf('crossV')],
        [this.get('crossK'), this.get('crossV')],
        cross.states,
      );
      return {
        keys: split(run.crossSite('cross_key_output', keys)),
        values: split(run.crossSite('cross_value_output', values)),
      };
    };
    const { keys, values } = cache ? cache.across(run.layer, compute) : compute();
    const options = attentionScale === null ? {} : { scale: attentionScale };
    const attended = run.site('cross_attention_value_output', run.attendAcross(split(q), keys, values, options));
    const h = this.added('cross_attention_output', 'crossO', attended, x, run);
    return run.site('cross_block_middle', crossSumNorm ? crossSumNorm.forward(h) : h);
  }

  /** The feed-forward up to its last layer: act(gate(x)) * up(x), or act(up(x)); [n, intermediate]. */
  private activate(m: Tensor, run: BlockRun): Tensor {
    const { activation } = this.#config;
    const { gate, up, gateUp } = this.parts;
    const [gateName, upName] = [this.nameOf('gate'), this.nameOf('up')];
    const hidden = (): Tensor => {
      if (gateUp) {
        const both = run.linear(this.nameOf('gateUp'), gateUp, m);
        const [first, second] = both.split([both.shape[1] / 2, both.shape[1] / 2], -1);
        return finish(second, null, { activation, gate: first });
      }
      if (!gate) return run.linear(upName, this.get('up'), m, { activation });
      if (m.shape[0] > fewTokens)
        return run.linear(upName, this.get('up'), m, { activation, gate: run.linear(gateName, gate, m) });
      const [first, second] = run.project([gateName, upName], [gate, this.get('up')], m);
      return finish(second, null, { activation, gate: first });
    };
    if (!up && !gateUp) throw new Error('the block has no feed-forward');
    return run.site('mlp_activation', hidden());
  }
}

/** A norm of each head by itself, [N, heads * D]. */
function byHead(norm: Norm, x: Tensor, heads: number): Tensor {
  return norm.forward(x.reshape([x.shape[0], heads, x.shape[1] / heads])).reshape(x.shape);
}
