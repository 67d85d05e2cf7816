// A frozen model of two stacks with a set of interventions, each on the tokens of its own stack: forward, loss,
// gradients and generation with edits in place. The whole of an encoder's input is its prompt; a decoder's is its start
// token, and what it writes are new tokens.

import type { CausalLM } from '../models/causalLM.js';
import type { Generated, Prompt, StepLayout } from '../models/generation/generate.js';
import type { Seq2SeqEdits, Seq2SeqGenerateOptions, StepLayouts } from '../models/generation/generateSeq2Seq.js';
import type { Loss } from '../models/model.js';
import type { SiteEdit } from '../models/patch.js';
import type { Seq2SeqLM, Seq2SeqOptions, Seq2SeqOutput } from '../models/seq2seqLM.js';
import { rowsStackOf, type Site } from '../models/sites.js';
import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { resolveConfig, type ReftConfig } from './config.js';
import type { TrainingMode } from '../adapt/adapter.js';
import type { SequenceLayout } from './layout.js';
import { layoutOf, ReftModel } from './reftModel.js';

/** Where tokens lie in each stack, by its name. */
export type StackLayouts = Readonly<Record<string, SequenceLayout>>;

export class Seq2SeqReft implements Seq2SeqEdits {
  readonly base: Seq2SeqLM;
  /** The interventions: what is trained, its summary, switches. */
  readonly set: ReftModel;

  constructor(base: Seq2SeqLM, configs: readonly ReftConfig[]) {
    this.base = base;
    // A set asks its base for sites and sizes; forward passes are made here.
    this.set = new ReftModel(
      base as unknown as CausalLM,
      configs.map(config => resolveConfig(config, base.stacks)),
    );
  }

  /** Where the tokens of a forward lie. `decoderIds`: what the decoder is given, for positions that depend on ids. */
  layoutsOf(options: Seq2SeqOptions): StackLayouts {
    const { stem } = this.base.parts;
    const whole = (shape: Shape, mask: Int32Array | undefined, lengths: number[] | null, ids?: Int32Array) => {
      const all = mask ?? new Int32Array(shape[0] * shape[1]).fill(1);
      const real = Array.from({ length: shape[0] }, (_, b) =>
        all.subarray(b * shape[1], (b + 1) * shape[1]).reduce((n, m) => n + m, 0),
      );
      return layoutOf(all, shape, lengths ?? real, ids);
    };
    const shape = stem ? stem.shapeOf(options.inputFeatures) : options.shape;
    const { decoderShape, decoderAttentionMask, decoderInputIds } = options;
    if (!shape || !decoderShape) throw new TypeError('expected the shapes of both stacks: shape and decoderShape');
    return {
      encoder: whole(shape, options.attentionMask, null, stem ? undefined : options.inputIds),
      decoder: whole(decoderShape, decoderAttentionMask, new Array<number>(decoderShape[0]).fill(1), decoderInputIds),
    };
  }

  /** The edits of windows of tokens; those of a stack without a window are left out. */
  edits(layouts: StackLayouts, training?: TrainingMode): SiteEdit[] {
    return Object.entries(layouts).flatMap(([stack, layout]) => this.set.edits({ ...layout, stack }, training));
  }

  private editsOf(options: Seq2SeqOptions, layouts: StackLayouts, training?: TrainingMode): SiteEdit[] {
    const { stacks } = this.base;
    for (const { id, site } of this.set.interventions) {
      const stack = rowsStackOf(site, stacks);
      if (stack === undefined || !(stack in layouts))
        throw new RangeError(
          `${id}: expected a layout of the tokens of '${stack}', got ${Object.keys(layouts).join()}`,
        );
    }
    return [...(options.edits ?? []), ...this.edits(layouts, training)];
  }

  forward(options: Seq2SeqOptions, layouts = this.layoutsOf(options), training?: TrainingMode): Seq2SeqOutput {
    return this.base.forward({ ...options, edits: this.editsOf(options, layouts, training) });
  }

  loss(
    options: Seq2SeqOptions,
    labels: Int32Array,
    layouts = this.layoutsOf(this.withInputs(options, labels)),
    training?: TrainingMode,
  ): Loss {
    return this.base.loss({ ...options, edits: this.editsOf(options, layouts, training) }, labels);
  }

  gradients(
    options: Seq2SeqOptions,
    labels: Int32Array,
    sites: readonly (Site | string)[],
    layouts = this.layoutsOf(this.withInputs(options, labels)),
  ): { loss: Tensor; gradients: Map<string, Tensor> } {
    return this.base.gradients({ ...options, edits: this.editsOf(options, layouts) }, labels, sites);
  }

  private withInputs(options: Seq2SeqOptions, labels: Int32Array): Seq2SeqOptions {
    const { decoderInputIds, decoderShape } = options;
    return decoderInputIds || !decoderShape
      ? options
      : { ...options, ...this.base.decoderInputs(labels, decoderShape) };
  }

  /** The edits of a step of generation: those of the encoder where it runs. */
  editsFor(steps: StepLayouts): SiteEdit[] {
    const layouts = Object.entries(steps).map(([stack, { phase: _, ...layout }]: [string, StepLayout]) => [
      stack,
      layout,
    ]);
    return this.edits(Object.fromEntries(layouts) as StackLayouts);
  }

  generate(
    inputs: Prompt | readonly Prompt[] | Tensor,
    options: Omit<Seq2SeqGenerateOptions, 'edits'> = {},
  ): Promise<Generated[]> {
    return this.base.generate(inputs, { tokenizer: this.set.tokenizer, ...options, edits: this });
  }
}

/** Puts a set of edits on a frozen model of two stacks: `getSeq2SeqReft(model, { stack: 'encoder', layers: [3] })`. */
export const getSeq2SeqReft = (base: Seq2SeqLM, config: ReftConfig | readonly ReftConfig[]): Seq2SeqReft =>
  new Seq2SeqReft(base, Array.isArray(config) ? (config as readonly ReftConfig[]) : [config as ReftConfig]);
