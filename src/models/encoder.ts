// Encoders: a stack of blocks whose tokens see each other, behind an input that turns text or images into its first
// states. What is made of the last states is a head's business (heads.ts and the models beside it).

import type { Backend } from '../backends/backend.js';
import { shownValue } from '../io/tokenIds.js';
import { Module } from '../nn/module.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import type { EncoderConfig } from './configEncoder.js';
import type { Embeddings } from './embeddings.js';
import {
  checkInputs,
  checkPositions,
  Model,
  type ForwardOptions,
  type ModelOutput,
  type PassOptions,
} from './model.js';
import { Run } from './run.js';
import type { ModelSites } from './sites.js';
import type { Stack, StackStart } from './stack.js';
import { Tokens } from './tokens.js';

/** What encoders of text take. */
export interface TextOptions extends Omit<ForwardOptions, 'cache' | 'logitsAt'> {
  /** [B, T]; which of two texts a token is of, where the family has token types. Default 0. */
  readonly tokenTypeIds?: Int32Array;
}

/** What an input makes of a forward's options. */
export interface EncoderStart {
  readonly tokens: Tokens;
  /** [B, T] */
  readonly positions: Int32Array;
  /** The packed first states, [N, width]. */
  readonly embed: () => Tensor;
  readonly from?: StackStart | undefined;
}

/** Text or images as the first states of a stack. */
export interface EncoderInput<Options> extends Module {
  /** A tensor of the dtype and on the backend of all. */
  readonly weight: Tensor;
  start(options: Options): EncoderStart;
}

/** The last states of a pass: packed [N, width], or [n, width] for n tokens that were wanted. */
export interface Encoded extends ModelOutput {
  readonly states: Tensor;
  readonly tokens: Tokens;
}

/** An input and its stack. */
export class Encoder<Options extends PassOptions> extends Module {
  readonly input: EncoderInput<Options>;
  readonly stack: Stack;

  constructor(input: EncoderInput<Options>, stack: Stack) {
    super();
    this.input = input;
    this.stack = stack;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.input.namedParameters();
    yield* this.stack.namedParameters();
  }

  /** One pass; `wanted` says of which tokens b * T + t the last states are wanted, all unless it is given. */
  encode(options: Options, wanted?: (tokens: Tokens) => Int32Array): Encoded {
    const { edits = [], patches = [], collect, onSite, recompute, hiddenStates } = options;
    const { tokens, positions, embed, from } = this.input.start(options);
    const run = new Run({
      sites: this.stack.sites,
      tokens,
      backend: this.input.weight.backend,
      patches: [...edits, ...patches],
      collect,
      onSite,
    });
    const pass = { run, positions, embed, from, recompute, hiddenStates, wanted: wanted?.(tokens) };
    const output = this.stack.forward(pass);
    return { states: output.states, tokens, hiddenStates: output.hiddenStates, collected: run.collected };
  }
}

/** Ids, positions and token types of text. */
export class TextInput extends Module implements EncoderInput<TextOptions> {
  readonly embeddings: Embeddings;
  readonly #config: EncoderConfig;

  constructor(embeddings: Embeddings, config: EncoderConfig) {
    super();
    this.embeddings = embeddings;
    this.#config = config;
  }

  override *namedParameters(): Generator<[string, Tensor]> {
    yield* this.embeddings.namedParameters();
  }

  get weight(): Tensor {
    return this.embeddings.weight;
  }

  start(options: TextOptions): EncoderStart {
    const { inputIds, shape, attentionMask, tokenTypeIds, from } = options;
    const { vocabSize, maxPositions, positionsSkipPadding, padTokenId } = this.#config;
    refuseOptions(options, ['cache', 'logitsAt'], 'an encoder');
    checkInputs('inputIds', inputIds, shape, vocabSize);
    const tokens = Tokens.of(shape, attentionMask, undefined, this.weight.backend);
    const skipped = positionsSkipPadding ? padTokenId : null;
    const positions =
      options.positions ?? (skipped === null ? tokens.defaultPositions() : positionsWithout(skipped, inputIds, tokens));
    // Where positions are counted without padding, that of the padding id is -1: the row before the first.
    checkPositions(skipped === null ? positions : positions.map(p => Math.max(p, 0)), shape, maxPositions);
    const types = this.tokenTypes(tokenTypeIds, inputIds.length);
    const embed = (): Tensor =>
      this.embeddings.forward(tokens.of(inputIds), tokens.of(positions), types && tokens.of(types));
    return { tokens, positions, embed, from };
  }

  private tokenTypes(types: Int32Array | undefined, count: number): Int32Array | null {
    if (types === undefined) return null;
    const { tokenTypes, modelType } = this.#config;
    if (!(types instanceof Int32Array))
      throw new TypeError(`tokenTypeIds: expected an Int32Array, got ${shownValue(types)}`);
    if (types.length !== count) throw new RangeError(`tokenTypeIds: expected ${count} entries, got ${types.length}`);
    if (tokenTypes === 0) throw new RangeError(`tokenTypeIds: a ${modelType} has no token types`);
    const bad = types.find(type => type < 0 || type >= tokenTypes);
    if (bad !== undefined)
      throw new RangeError(`tokenTypeIds: expected whole numbers from 0 to ${tokenTypes - 1}, got ${bad}`);
    return types;
  }
}

/** [B, T]: how many real tokens of its row that are not the padding id come before each; -1 for the padding id. */
function positionsWithout(
  padding: number,
  ids: Int32Array,
  { shape, padding: { keyStart, keyEnd } }: Tokens,
): Int32Array {
  const [batch, length] = shape;
  const positions = new Int32Array(batch * length);
  for (let b = 0; b < batch; b++) {
    let next = 0;
    for (let t = keyStart[b]; t < keyEnd[b]; t++) {
      const token = b * length + t;
      positions[token] = ids[token] === padding ? -1 : next++;
    }
  }
  return positions;
}

/** @throws RangeError naming an option that a model of another task takes */
export function refuseOptions(options: object, names: readonly string[], who: string): void {
  for (const name of names)
    if ((options as Record<string, unknown>)[name] !== undefined)
      throw new RangeError(`${name}: ${who} does not take it`);
}

/** The first real token b * T + t of each row, which stands for its whole text. @throws RangeError for an empty row */
export function firstTokens({ shape, padding: { keyStart, keyEnd } }: Tokens): Int32Array {
  const empty = keyStart.findIndex((start, b) => start >= keyEnd[b]);
  if (empty >= 0) throw new RangeError(`attentionMask: row ${empty} has no tokens`);
  return keyStart.map((start, b) => b * shape[1] + start);
}

/** The mean of the packed states [N, width] of each row: [B, width]. @throws RangeError for an empty row */
export function meanPool(states: Tensor, tokens: Tokens): Tensor {
  const [batch, length] = tokens.shape;
  firstTokens(tokens);
  const { keyStart, keyEnd } = tokens.padding;
  const rows = tokens.tokens.map(token => Math.floor(token / length));
  const shares = Float64Array.from(rows, b => 1 / (keyEnd[b] - keyStart[b]));
  const { dtype, backend } = states;
  return states.mul(create.from(shares, [rows.length, 1], { dtype, backend })).scatterAddRows(rows, batch);
}

/** What all models over one encoder have in common. */
export abstract class EncoderModel<Options extends PassOptions, Config extends object> extends Model {
  readonly encoder: Encoder<Options>;
  readonly causal: boolean = false;
  readonly #config: Config;

  constructor(encoder: Encoder<Options>, config: Config, name: string) {
    super(name);
    this.encoder = encoder;
    this.#config = config;
  }

  get config(): Config {
    return this.#config;
  }
  get stacks(): ModelSites {
    return this.encoder.stack.sites;
  }
  get backend(): Backend {
    return this.encoder.input.weight.backend;
  }
  get dtype(): 'f32' | 'f64' {
    return this.encoder.input.weight.dtype as 'f32' | 'f64';
  }

  protected encode(options: Options, wanted?: (tokens: Tokens) => Int32Array): Encoded {
    this.checkSites(options);
    return this.encoder.encode(options, wanted);
  }
}
