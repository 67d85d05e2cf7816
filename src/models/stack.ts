// A stack of blocks between embeddings and a final norm: what all transformers are made of. Its forward pass takes
// packed states [N, width] from block to block, each in a scope of its own; heads and tasks are elsewhere.

import { recompute } from '../autograd/recompute.js';
import { scope } from '../autograd/scope.js';
import { Module } from '../nn/module.js';
import { ropeTables, type RopeFrequencies } from '../nn/rope.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Norm } from './block.js';
import { frequenciesOf, type RopeSettings, type StackConfig } from './config.js';
import type { Embeddings } from './embeddings.js';
import type { BlockRun, Rotary, Run } from './run.js';
import type { StackSites } from './sites.js';
import type { Tokens } from './tokens.js';

/** A block of any kind: [N, width] to [N, width], written with a run. */
export interface Block extends Module {
  forward(x: Tensor, run: BlockRun): Tensor;
}

/** The bias [1, H, T, S] that every layer of a stack adds to its scores, by where queries and keys lie. */
export interface PositionBias extends Module {
  forward(tokens: Tokens): Tensor;
}

/** What a checkpoint calls the parts of a stack. */
export interface StackNames {
  /** What stands before the number of a block: `model.layers`. */
  readonly blocks: string;
  readonly norm?: string;
  /** Of a language model, whose own it is. */
  readonly head?: string;
}

/** What differs between passes over one stack. */
export interface StackPass {
  readonly run: Run;
  /** [B, T] */
  readonly positions: Int32Array;
  /** The packed embeddings [N, width] of the pass. */
  readonly embed: () => Tensor;
  /** Start here: the input (default) or the not yet edited output of block `layer`, or embeddings, [B, T, width]. */
  readonly from?: StackStart | undefined;
  readonly recompute?: boolean | undefined;
  /** Also the input of every block and the output of the last one (as a rule after the final norm), [B, T, width]. */
  readonly hiddenStates?: boolean | undefined;
  /** Tokens b * T + t whose final states are wanted; default all. */
  readonly wanted?: Int32Array | undefined;
}

export interface StackStart {
  readonly layer: number;
  readonly hiddenStates: Tensor;
  readonly component?: 'embeddings' | 'block_input' | 'block_output';
}

export interface StackOutput {
  /** After the final norm: packed [N, width], or [n, width] for n wanted tokens. */
  readonly states: Tensor;
  /** [B, T, width] each. */
  readonly hiddenStates: readonly Tensor[];
}

export class Stack extends Module {
  readonly embeddings: Embeddings | null;
  readonly blocks: readonly Block[];
  readonly norm: Norm | null;
  readonly names: StackNames;
  readonly sites: StackSites;
  /** What is kept of a sequence is a state after its last token: it cannot be cut at an earlier one. */
  readonly recurrent: boolean;
  readonly #config: Pick<StackConfig, 'ropes' | 'ropeDivisors' | 'headDim'>;
  readonly #frequencies = new Map<RopeSettings, RopeFrequencies>();
  readonly positionBias: PositionBias | null;
  /** The last of the hidden states is that before the final norm, as transformers has it in some families. */
  readonly #lastBeforeNorm: boolean;

  constructor(parts: {
    readonly embeddings: Embeddings | null;
    readonly blocks: readonly Block[];
    readonly norm: Norm | null;
    readonly names: StackNames;
    readonly sites: StackSites;
    readonly recurrent?: boolean;
    readonly config: Pick<StackConfig, 'ropes' | 'ropeDivisors' | 'headDim'>;
    readonly positionBias?: PositionBias | null;
    readonly lastBeforeNorm?: boolean;
  }) {
    super();
    this.embeddings = parts.embeddings;
    this.blocks = parts.blocks;
    this.norm = parts.norm;
    this.names = parts.names;
    this.sites = parts.sites;
    this.recurrent = parts.recurrent ?? false;
    this.positionBias = parts.positionBias ?? null;
    this.#config = parts.config;
    this.#lastBeforeNorm = parts.lastBeforeNorm === true;
    for (const settings of new Set(parts.config.ropes))
      if (settings) this.#frequencies.set(settings, frequenciesOf(settings, parts.config));
  }

  /** By the checkpoint's whole names. */
  override *namedParameters(): Generator<[string, Tensor]> {
    if (this.embeddings) yield* this.embeddings.namedParameters();
    if (this.positionBias) yield* this.positionBias.namedParameters();
    const { blocks, norm } = this.names;
    for (const [i, block] of this.blocks.entries()) yield* block.namedParameters(`${blocks}.${i}.`);
    if (this.norm) yield* this.norm.namedParameters(`${norm ?? 'norm'}.`);
  }

  forward(pass: StackPass): StackOutput {
    const { run, from, wanted } = pass;
    const { tokens } = run;
    const last = this.blocks.length - 1;
    // Where nobody sees it, the last block computes only tokens that are wanted, if that spares a noticeable share.
    const narrows = wanted && !pass.hiddenStates && 4 * wanted.length <= 3 * tokens.count;
    const narrowed = narrows === true && run.narrow(last, wanted);
    const bias = this.positionBias?.forward(tokens) ?? null;
    const hiddenStates: Tensor[] = [];
    let first = from?.layer ?? 0;
    let h = from ? tokens.gather(from.hiddenStates) : pass.embed();
    const rotaries = this.rotaries(pass, h.dtype as 'f32' | 'f64');
    if (!from || from.component === 'embeddings') h = run.site(0, 'embeddings', h);
    if (from?.component === 'block_output') h = run.site(first++, 'block_output', h);
    for (let layer = first; layer <= last; layer++) {
      if (pass.hiddenStates && !this.recurrent) hiddenStates.push(tokens.spread(h));
      h = this.block(layer, h, pass, rotaries[layer], bias);
      // As transformers lists them: of recurrent models the outputs of blocks, of others the inputs.
      if (pass.hiddenStates && this.recurrent) hiddenStates.push(tokens.spread(h));
    }
    return this.finished(h, pass, hiddenStates, narrowed && first <= last);
  }

  /** One block, in a scope: what neither its output nor the backward pass needs goes at once. */
  private block(
    layer: number,
    h: Tensor,
    { run, ...pass }: StackPass,
    rotary: Rotary | null,
    bias: Tensor | null,
  ): Tensor {
    const compute = (x: Tensor, ...tables: Tensor[]): Tensor =>
      this.blocks[layer].forward(x, run.block(layer, { rotary: rotary && { cos: tables[0], sin: tables[1] }, bias }));
    // What a block reads of tables, padding and an encoder is read again where the block runs again: as an input it
    // lives until then.
    const inputs = [
      h,
      ...(rotary ? [rotary.cos, rotary.sin] : []),
      ...run.tokens.bounds.tensors,
      ...(bias ? [bias] : []),
      ...(run.cross ? [run.cross.states, ...run.cross.tokens.bounds.tensors] : []),
    ];
    const again = pass.recompute && !run.isSeen(layer);
    return scope(
      () => [again ? recompute(compute, inputs) : compute(...(inputs as [Tensor])), run.collected] as const,
    )[0];
  }

  /** The final norm. That of rows which nobody asked for is left out, unless somebody looks at its site. */
  private finished(h: Tensor, pass: StackPass, hiddenStates: Tensor[], narrowed: boolean): StackOutput {
    const { run, wanted } = pass;
    const last = this.blocks.length - 1;
    const places = wanted && !narrowed ? run.tokens.placesOf(wanted) : null;
    const chosen = (x: Tensor): Tensor => (places ? x.takeRows(places) : x);
    const { norm } = this;
    const whole = pass.hiddenStates || !norm || !run.passes(last, 'final_norm');
    const all = !whole ? null : norm ? run.site(last, 'final_norm', norm.forward(h)) : h;
    if (pass.hiddenStates && all) hiddenStates.push(run.tokens.spread(this.#lastBeforeNorm ? h : all));
    return { states: all ? chosen(all) : (norm as Norm).forward(chosen(h)), hiddenStates };
  }

  /** The rotary tables of each layer; layers of one setting share theirs. */
  private rotaries({ run, positions }: StackPass, dtype: 'f32' | 'f64'): (Rotary | null)[] {
    const { tokens, backend } = run;
    const [, length] = tokens.shape;
    let same = tokens.places === null;
    for (let i = length; i < positions.length && same; i++) same = positions[i] === positions[i % length];
    const listed = same ? positions.subarray(0, length) : tokens.of(positions);
    const made = new Map<RopeSettings, Rotary>();
    return this.#config.ropes.map(settings => {
      if (!settings) return null;
      const before = made.get(settings);
      if (before) return before;
      const tables = ropeTables(this.#frequencies.get(settings) as RopeFrequencies, listed);
      const make = (data: Float32Array): Tensor =>
        create.from(data, [1, listed.length, data.length / listed.length], { dtype, backend });
      const rotary = { cos: make(tables.cos), sin: make(tables.sin) };
      made.set(settings, rotary);
      return rotary;
    });
  }
}
