// A frozen model together with edits that depend on where tokens lie: what a trained set, a mixture of sets and a
// composition have in common. Which edits those are is decided by the classes that extend this one.

import type { TrainingMode } from '../adapt/adapter.js';
import type { Tokenizer } from '../io/tokenizer.js';
import type { CausalLM } from '../models/causalLM.js';
import type { Model } from '../models/model.js';
import type { SiteEdit } from '../models/patch.js';
import {
  promptList,
  type Generated,
  type GenerateOptions,
  type GenerationEdits,
  type Prompt,
  type StepLayout,
} from '../models/generation/generate.js';
import type { Site } from '../models/sites.js';
import type { Tensor } from '../tensor/tensor.js';
import type { SequenceLayout } from './layout.js';
import type { RowOptionsFor } from './rowOptions.js';

/** What generation takes; what differs from row to row is the prompts' rows'. */
export interface EditedGenerateOptions extends Omit<GenerateOptions, 'edits'> {
  /** How much of an edit acts on each prompt and its answer, and which rows of its R. */
  readonly rows?: RowOptionsFor;
}

/** What a model's forward and loss take and give. */
type OptionsOf<Base extends Model> = Omit<Parameters<Base['forward']>[0], 'edits'>;
type LossOptionsOf<Base extends Model> = Omit<Parameters<Base['loss']>[0], 'edits'>;
type LabelsOf<Base extends Model> = Parameters<Base['loss']>[1];

export abstract class EditedModel<Base extends Model = CausalLM> implements GenerationEdits {
  abstract readonly base: Base;
  /**
   * Needed by positions that look at the text of a prompt; a trainer with a tokenizer sets it. Its ends of a turn stop
   * a generation.
   */
  tokenizer: Tokenizer | undefined;

  /** The edits of a window of tokens, as values for the base's forward. */
  abstract edits(layout: SequenceLayout, training?: TrainingMode, rows?: RowOptionsFor): SiteEdit[];

  /** The same for one forward pass alone, which may share work among edits. */
  protected editsOnce(layout: SequenceLayout, training?: TrainingMode, rows?: RowOptionsFor): SiteEdit[] {
    return this.edits(layout, training, rows);
  }

  /** Forward with edits; `layout` says where prompts lie (see `layoutOf`), `rows` what differs from row to row. */
  forward(
    options: OptionsOf<Base>,
    layout: SequenceLayout,
    training?: TrainingMode,
    rows?: RowOptionsFor,
  ): ReturnType<Base['forward']> {
    const given = { ...options, edits: this.editsOnce(layout, training, rows) };
    return this.base.forward(given) as ReturnType<Base['forward']>;
  }

  /** The base's mean loss over what is labelled, with edits. */
  loss(
    options: LossOptionsOf<Base>,
    labels: LabelsOf<Base>,
    layout: SequenceLayout,
    training?: TrainingMode,
    rows?: RowOptionsFor,
  ): { loss: Tensor; labelled: number } {
    return this.base.loss({ ...options, edits: this.editsOnce(layout, training, rows) }, labels);
  }

  /** The loss's gradient at sites (any of their names), each [B, T, width], after the edits that stand there. */
  gradients(
    options: LossOptionsOf<Base>,
    labels: LabelsOf<Base>,
    layout: SequenceLayout,
    sites: readonly (Site | string)[],
    rows?: RowOptionsFor,
  ): { loss: Tensor; gradients: Map<string, Tensor> } {
    return this.base.gradients({ ...options, edits: this.edits(layout, undefined, rows) }, labels, sites);
  }

  /** The edits of a step of generation. */
  editsFor(step: StepLayout, rows?: RowOptionsFor): SiteEdit[] {
    const { phase: _, ...layout } = step;
    return this.edits(layout, undefined, rows);
  }

  /** Continues prompts with edits. @throws RangeError for `rows` that do not fit the prompts */
  generate(
    prompts: Prompt | readonly Prompt[],
    { rows, ...options }: EditedGenerateOptions = {},
  ): Promise<Generated[]> {
    const base: Model & Partial<Pick<CausalLM, 'generate'>> = this.base;
    if (!base.generate) throw new RangeError(`${base.name}: only a language model generates`);
    const rowCount = promptList(prompts).length;
    return base.generate(prompts, {
      tokenizer: this.tokenizer,
      ...options,
      edits: { editsFor: step => this.editsFor({ ...step, rowCount }, rows) },
    });
  }
}
