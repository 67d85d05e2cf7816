// A decoder with a language-model head: forward with patches, a cache and chosen logits; the loss at labelled
// positions; generation. Blocks are in block.ts, the pass over them in stack.ts, families in families/, loading in
// auto.ts.

import { scope } from '../autograd/scope.js';
import { isRecording } from '../autograd/tape.js';
import type { Backend } from '../backends/backend.js';
import { checkLabels } from '../io/tokenIds.js';
import { crossEntropy } from '../nn/crossEntropy.js';
import { linear, type Linear } from '../nn/linear.js';
import { formatShape, type Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { contextNote, type DecoderConfig } from './config.js';
import type { Embeddings } from './embeddings.js';
import { generate, type Generated, type GenerateOptions, type Prompt } from './generation/generate.js';
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
import { Run } from './run.js';
import type { ModelSites } from './sites.js';
import type { Stack } from './stack.js';
import { Tokens } from './tokens.js';

export type { ForwardOptions, ForwardOutput } from './model.js';

export class CausalLM extends Model {
  readonly decoder: Stack;
  /** Null where the head is the table of embeddings. */
  readonly lmHead: Linear | null;
  /** What the model's files say about generation. */
  readonly generation: GenerationConfig;
  readonly #config: DecoderConfig;

  constructor(
    config: DecoderConfig,
    parts: { decoder: Stack; lmHead: Linear | null },
    name = 'model',
    generation = noGenerationConfig,
  ) {
    super(name);
    this.decoder = parts.decoder;
    this.lmHead = parts.lmHead;
    this.generation = generation;
    this.#config = config;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.decoder.namedParameters();
    if (this.lmHead) yield* this.lmHead.namedParameters(`${this.decoder.names.head ?? 'lm_head'}.`);
  }

  get config(): DecoderConfig {
    return this.#config;
  }
  get stacks(): ModelSites {
    return this.decoder.sites;
  }
  get causal(): boolean {
    return this.#config.causal;
  }
  override get keepsPrefixes(): boolean {
    return this.causal && !this.decoder.recurrent;
  }
  private get embeddings(): Embeddings {
    return this.decoder.embeddings as Embeddings;
  }
  get backend(): Backend {
    return this.embeddings.backend;
  }
  get dtype(): 'f32' | 'f64' {
    return this.embeddings.weight.dtype as 'f32' | 'f64';
  }

  forward(options: ForwardOptions): ForwardOutput {
    const { inputIds, shape, cache, logitsAt, hiddenStates, from, recompute } = options;
    const { config, backend } = this;
    checkInputs('inputIds', inputIds, shape, config.vocabSize);
    const tokens = Tokens.of(shape, options.attentionMask, cache, backend);
    const positions = options.positions ?? tokens.defaultPositions();
    checkPositions(positions, shape, config.maxPositions, contextNote(config));
    if (recompute && cache && !cache.shared && isRecording()) {
      throw new RangeError('recompute: not while a cache is written to; give no cache, or run it without gradients');
    }
    this.checkSites(options);
    if (logitsAt) checkRows(logitsAt, inputIds.length);
    const { edits = [], patches = [], collect, onSite } = options;
    const run = new Run({
      sites: this.decoder.sites,
      tokens,
      backend,
      cache,
      patches: [...edits, ...patches],
      collect,
      onSite,
    });
    const embed = (): Tensor => this.embed(options, tokens, positions);
    const pass = { run, positions, embed, from, recompute, hiddenStates, wanted: logitsAt };
    const output = this.decoder.forward(pass);
    cache?.advance(shape[1]);
    const logits = scope(() => {
      const computed = this.head(output.states);
      return logitsAt ? computed : tokens.spread(computed);
    });
    return { logits, hiddenStates: output.hiddenStates, collected: run.collected };
  }

  /** The packed first states of a pass, [N, hidden]. */
  protected embed({ inputIds }: ForwardOptions, tokens: Tokens, positions: Int32Array): Tensor {
    return this.embeddings.forward(tokens.of(inputIds), tokens.of(positions));
  }

  /** Normed hidden states [n, hidden] to logits [n, vocabulary]. */
  private head(x: Tensor): Tensor {
    const { logitsScale, logitsSoftcap } = this.#config;
    let logits = this.lmHead ? this.lmHead.forward(x) : linear(x, this.embeddings.weight);
    if (logitsScale !== 1) logits = logits.mul(logitsScale);
    return logitsSoftcap === null ? logits : logits.div(logitsSoftcap).tanh().mul(logitsSoftcap);
  }

  /**
   * Mean cross-entropy over the labels [B, T] that are not negative, the label at t judging the prediction at t - 1 (as
   * transformers does); only those logits are computed. `labelled` counts them.
   */
  loss(options: LossOptions, labels: Int32Array): Loss {
    const { rows, targets } = labelledRows(labels, options.shape);
    return {
      loss: scope(() => crossEntropy(this.forward({ ...options, logitsAt: rows }).logits, targets).mean()),
      labelled: rows.length,
    };
  }

  /** The tokens that end a generation: those of the model's own files, and those that tokenizers and prompts name. */
  endTokenIds(...sources: readonly ({ readonly stopTokenIds?: readonly number[] } | undefined)[]): number[] {
    return [
      ...new Set([
        ...this.config.eosTokenIds,
        ...this.generation.eosTokenIds,
        ...sources.flatMap(source => source?.stopTokenIds ?? []),
      ]),
    ];
  }

  /** Continues prompts; see GenerateOptions. */
  generate(prompts: Prompt | readonly Prompt[], options: GenerateOptions = {}): Promise<Generated[]> {
    return generate(this, prompts, options);
  }
}

/** Rows whose prediction has a label, and the labels. */
export function labelledRows(labels: Int32Array, shape: Shape): { rows: Int32Array; targets: Int32Array } {
  checkLabels('labels', labels);
  const [batch, length] = shape;
  if (labels.length !== batch * length)
    throw new RangeError(`labels: expected ${batch * length} for ${formatShape(shape)}, got ${labels.length}`);
  const rows: number[] = [];
  const targets: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let t = 1; t < length; t++) {
      const label = labels[b * length + t];
      if (label < 0) continue;
      rows.push(b * length + t - 1);
      targets.push(label);
    }
  }
  if (rows.length === 0) throw new RangeError('labels: no position has a label');
  return { rows: Int32Array.from(rows), targets: Int32Array.from(targets) };
}
