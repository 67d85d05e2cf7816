// A model of two stacks: an encoder that sees all of its input, and a decoder with a language-model head that reads it.
// Sites of both can be edited; those of the encoder reach the decoder. Generation is in generation/generateSeq2Seq.ts.

import { scope } from '../autograd/scope.js';
import { isRecording } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import { checkLabels } from '../io/tokenIds.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { linear, type Linear } from '../nn/linear.js';
import type { Module } from '../nn/module.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Seq2SeqConfig, SideConfig } from './configSeq2Seq.js';
import { contextNote } from './config.js';
import { noToken, type Embeddings } from './embeddings.js';
import type { Generated, Prompt } from './generation/generate.js';
import { generateSeq2Seq, type Seq2SeqGenerateOptions } from './generation/generateSeq2Seq.js';
import { noGenerationConfig, type GenerationConfig } from './generationConfig.js';
import {
  checkInputs,
  checkPositions,
  checkRows,
  Model,
  type ForwardOptions,
  type ForwardOutput,
  type Loss,
  type LossOptions,
} from './model.js';
import { Run, type CrossStates } from './run.js';
import type { Site, StackSites } from './sites.js';
import type { Stack } from './stack.js';
import { Tokens } from './tokens.js';

/**
 * Ids, shape, mask and positions are the encoder's, `cache` and `logitsAt` the decoder's. Edits, patches and `collect`
 * are of either: their sites say which.
 */
export interface Seq2SeqOptions extends Partial<Omit<ForwardOptions, 'from'>> {
  /** What a model that hears is given in place of ids: [B, mels, T]. */
  readonly inputFeatures?: Tensor;
  /** Row-major [B, T]; `loss` makes them of its labels. */
  readonly decoderInputIds?: Int32Array;
  readonly decoderShape?: Shape;
  /** [B, past + T]; default all ones. */
  readonly decoderAttentionMask?: Int32Array;
  readonly decoderPositions?: Int32Array;
  /** What `encode` gave, or an earlier forward: the encoder does not run again. */
  readonly encoded?: CrossStates;
}

/** The encoder's part of a forward. */
export interface Encoded extends CrossStates {
  /** Its states as [B, T, width], with zeros at padding. */
  readonly lastHiddenState: Tensor;
  readonly hiddenStates: readonly Tensor[];
  readonly collected: ReadonlyMap<string, Tensor>;
}

/** `hiddenStates` are the decoder's. */
export interface Seq2SeqOutput extends ForwardOutput {
  readonly encoded: CrossStates;
  /** Those of the encoder, where it ran. */
  readonly encoderHiddenStates: readonly Tensor[];
  readonly encoderLastHiddenState: Tensor | null;
}

/** What turns features into an encoder's rows. */
export interface Stem extends Module {
  /** [B, T] of the rows it makes. @throws RangeError naming what is wrong with the features */
  shapeOf(features: Tensor | undefined): Shape;
  /** [B, T, width] */
  forward(features: Tensor): Tensor;
}

export interface Seq2SeqParts {
  readonly encoder: Stack;
  readonly decoder: Stack;
  /** Null where the head is the table of words. */
  readonly lmHead: Linear | null;
  /** [1, vocabulary], added to logits. */
  readonly logitsBias?: Tensor | null;
  readonly stem?: Stem | null;
}

export class Seq2SeqLM extends Model {
  readonly config: Seq2SeqConfig;
  readonly parts: Seq2SeqParts;
  /** What the model's files say about generation. */
  readonly generation: GenerationConfig;

  constructor(config: Seq2SeqConfig, parts: Seq2SeqParts, name = 'model', generation = noGenerationConfig) {
    super(name);
    this.config = config;
    this.parts = parts;
    this.generation = generation;
  }

  /** Each tensor once, though stacks share the table of words. */
  override *namedParameters(): Generator<[string, Tensor]> {
    const { encoder, decoder, lmHead, logitsBias, stem } = this.parts;
    const seen = new Set<Tensor>();
    const all = function* (): Generator<[string, Tensor]> {
      if (stem) yield* stem.namedParameters();
      yield* encoder.namedParameters();
      yield* decoder.namedParameters();
      if (lmHead) yield* lmHead.namedParameters('lm_head.');
      if (logitsBias) yield ['final_logits_bias', logitsBias];
    };
    for (const [name, tensor] of all()) if (!seen.has(tensor) && seen.add(tensor)) yield [name, tensor];
  }

  get stacks(): readonly StackSites[] {
    return [this.parts.encoder.sites, this.parts.decoder.sites];
  }
  /** An edit of the encoder changes what stands before it, too. */
  get causal(): boolean {
    return this.config.encoder.causal;
  }
  private get embeddings(): Embeddings {
    return this.parts.decoder.embeddings as Embeddings;
  }
  get backend(): Backend {
    return this.embeddings.backend;
  }
  get dtype(): 'f32' | 'f64' {
    return this.embeddings.weight.dtype as 'f32' | 'f64';
  }

  /** Runs the encoder alone. */
  encode(options: Seq2SeqOptions): Encoded {
    this.checkSites(options);
    const { stem, encoder } = this.parts;
    const { inputIds, inputFeatures } = options;
    if (stem) {
      if (inputIds) throw new RangeError(`inputIds: ${this.name} reads inputFeatures`);
      const shape = stem.shapeOf(inputFeatures);
      return this.encodeRows(options, shape, tokens => tokens.gather(stem.forward(inputFeatures as Tensor)));
    }
    if (inputFeatures) throw new RangeError(`inputFeatures: ${this.name} reads inputIds`);
    const shape = options.shape as Shape;
    checkInputs('inputIds', inputIds as Int32Array, shape, this.config.vocabSize);
    const embeddings = encoder.embeddings as Embeddings;
    return this.encodeRows(options, shape, (tokens, positions) =>
      embeddings.forward(tokens.of(inputIds as Int32Array), tokens.of(positions)),
    );
  }

  private encodeRows(
    options: Seq2SeqOptions,
    shape: Shape,
    embed: (tokens: Tokens, positions: Int32Array) => Tensor,
  ): Encoded {
    const { encoder } = this.parts;
    const { attentionMask, recompute, hiddenStates } = options;
    const tokens = Tokens.of(shape, attentionMask, undefined, this.backend);
    const positions = options.positions ?? tokens.defaultPositions();
    checkRange(positions, shape, this.config.encoder);
    const run = this.run(options, encoder.sites, { tokens });
    const pass = { run, positions, embed: () => embed(tokens, positions), recompute, hiddenStates };
    const output = encoder.forward(pass);
    const { states } = output;
    const lastHiddenState = tokens.spread(states);
    return { states, tokens, lastHiddenState, hiddenStates: output.hiddenStates, collected: run.collected };
  }

  private run(
    { edits = [], patches = [], collect, onSite }: Seq2SeqOptions,
    sites: StackSites,
    rest: { readonly tokens: Tokens; readonly cross?: CrossStates; readonly cache?: Seq2SeqOptions['cache'] },
  ): Run {
    return new Run({ sites, backend: this.backend, patches: [...edits, ...patches], collect, onSite, ...rest });
  }

  forward(options: Seq2SeqOptions): Seq2SeqOutput {
    const { decoderInputIds: ids, decoderShape: shape, cache, logitsAt, hiddenStates, recompute } = options;
    const { config } = this;
    if ('from' in options) throw new RangeError('from: a model of two stacks starts with its inputs');
    if (!ids || !shape) throw new TypeError('decoderInputIds and decoderShape: expected ids [B, T], see decoderInputs');
    const isStart = config.decoderStartTokenId === noToken;
    checkInputs('decoderInputIds', isStart ? ids.map(id => (id === noToken ? 0 : id)) : ids, shape, config.vocabSize);
    if (recompute && cache && !cache.shared && isRecording())
      throw new RangeError('recompute: not while a cache is written to; give no cache, or run it without gradients');
    if (logitsAt) checkRows(logitsAt, ids.length);
    this.checkSites(options);
    const ran = options.encoded ? null : this.encode(options);
    const encoded = options.encoded ?? (ran as Encoded);
    if (encoded.tokens.shape[0] !== shape[0])
      throw new RangeError(`decoderShape: ${formatShape(shape)}, but the encoder has ${encoded.tokens.shape[0]} rows`);
    const tokens = Tokens.of(shape, options.decoderAttentionMask, cache, this.backend);
    const positions = options.decoderPositions ?? tokens.defaultPositions();
    checkRange(positions, shape, config);
    const { decoder } = this.parts;
    const run = this.run(options, decoder.sites, { tokens, cross: encoded, cache });
    const embed = (): Tensor => this.embeddings.forward(tokens.of(ids), tokens.of(positions));
    const output = decoder.forward({ run, positions, embed, recompute, hiddenStates, wanted: logitsAt });
    cache?.advance(shape[1]);
    const logits = scope(() => {
      const computed = this.head(output.states);
      return logitsAt ? computed : tokens.spread(computed);
    });
    return {
      logits,
      hiddenStates: output.hiddenStates,
      encoderHiddenStates: ran?.hiddenStates ?? [],
      encoderLastHiddenState: ran?.lastHiddenState ?? null,
      collected: new Map([...(ran?.collected ?? []), ...run.collected]),
      encoded,
    };
  }

  private head(x: Tensor): Tensor {
    const { lmHead, logitsBias } = this.parts;
    const { logitsScale } = this.config;
    let logits = lmHead ? lmHead.forward(x) : linear(x, this.embeddings.weight);
    if (logitsScale !== 1) logits = logits.mul(logitsScale);
    return logitsBias ? logits.add(logitsBias) : logits;
  }

  /** The decoder's input for labels [B, T]: the start token and the labels before; those below 0 are padding. */
  decoderInputs(labels: Int32Array, shape: Shape): { decoderInputIds: Int32Array; decoderShape: Shape } {
    checkLabels('labels', labels, this.config.vocabSize);
    const [batch, length] = shape;
    if (labels.length !== batch * length)
      throw new RangeError(`labels: expected ${batch * length} for ${formatShape(shape)}, got ${labels.length}`);
    const { decoderStartTokenId, padTokenId } = this.config;
    const ids = labels.map((_, i) => (i % length === 0 ? decoderStartTokenId : labels[i - 1]));
    const padded = ids.map((id, i) => (id < 0 && i % length > 0 ? (padTokenId ?? 0) : id));
    return { decoderInputIds: padded, decoderShape: shape };
  }

  /**
   * Mean cross-entropy over the labels [B, T] (of `decoderShape`) that are not negative, each judging the prediction at
   * its own place; the decoder's input is made of them unless it is given.
   */
  loss(options: Seq2SeqOptions, labels: Int32Array): Loss {
    const { decoderInputIds, decoderShape } = options;
    if (!decoderShape) throw new TypeError('decoderShape: expected the shape [B, T] of the labels');
    const inputs = this.decoderInputs(labels, decoderShape);
    const rows = Int32Array.from(labels.keys()).filter(i => labels[i] >= 0);
    if (rows.length === 0) throw new RangeError('labels: no position has a label');
    const given = { ...options, ...(decoderInputIds ? {} : inputs), logitsAt: rows };
    return {
      loss: scope(() =>
        crossEntropy(
          this.forward(given).logits,
          rows.map(i => labels[i]),
        ).mean(),
      ),
      labelled: rows.length,
    };
  }

  override gradients(
    options: Seq2SeqOptions,
    labels: Int32Array,
    sites: readonly (Site | string)[],
  ): { loss: Tensor; gradients: Map<string, Tensor> } {
    return super.gradients(options as LossOptions, labels, sites);
  }

  /** The tokens that end a generation: those of the model's own files, and those that tokenizers and prompts name. */
  endTokenIds(...sources: readonly ({ readonly stopTokenIds?: readonly number[] } | undefined)[]): number[] {
    const named = sources.flatMap(source => source?.stopTokenIds ?? []);
    return [...new Set([...this.config.eosTokenIds, ...this.generation.eosTokenIds, ...named])];
  }

  /** What the decoder makes of each input; see Seq2SeqGenerateOptions. Models that hear take features [B, mels, T]. */
  generate(inputs: Prompt | readonly Prompt[] | Tensor, options: Seq2SeqGenerateOptions = {}): Promise<Generated[]> {
    return generateSeq2Seq(this, inputs, options);
  }
}

function checkRange(positions: Int32Array, shape: Shape, config: SideConfig): void {
  checkPositions(positions, shape, config.maxPositions, contextNote(config));
}
