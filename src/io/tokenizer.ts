// The tokenizer a model is used with: text to ids and back, special tokens, stop tokens and the chat template.
// How text becomes ids is tokenizerPipeline.ts; what differs between file formats (tokenizer.json, GGUF metadata,
// llama2.c vocabularies, SentencePiece models) becomes one TokenizerSpec by tokenizerJson.ts, tokenizerGguf.ts,
// tokenizerLlama2c.ts and tokenizerSentencePiece.ts.

import { findAnswer } from './chatAnswer.js';
import { renderLiteral } from './chatLiteral.js';
import { ChatTemplate, plainChatTemplate } from './chatTemplate.js';
import type { ChatMessage } from './chatTemplate.js';
import type { Rendered } from './jinja/render.js';
import { FormatError } from './errors.js';
import { checkIds, shownValue } from './tokenIds.js';
import { AddedTokens } from './tokenizerAdded.js';
import { cleanedUp } from './tokenizerCleanUp.js';
import { TokenizerPipeline, type Literal, type TokenizerJson } from './tokenizerPipeline.js';
import { aroundOf, type Template, type Templates } from './tokenizerTemplates.js';

/** All a Tokenizer is made of, whatever file it came from. Tokens are named by their text. */
export interface TokenizerSpec {
  /** The file it came from, for errors. */
  source: string;
  json: TokenizerJson;
  bosToken?: string | undefined;
  eosToken?: string | undefined;
  padToken?: string | undefined;
  unkToken?: string | undefined;
  /** Whether bos and eos are put around a text, whatever the post-processor says. Default: as it says. */
  addBosToken?: boolean | undefined;
  addEosToken?: boolean | undefined;
  /** Special tokens in a text are text, unless `encode` says otherwise. Default false. */
  splitSpecialTokens?: boolean | undefined;
  /** The ids generation stops at where the model's files list them; otherwise eos and the known ends of a turn. */
  stopTokenIds?: readonly number[] | undefined;
  /** A further token that ends a generation, named by the file. */
  endOfTurnToken?: string | undefined;
  /** Ids whose text another, lower id has already: they decode, and are never encoded to. */
  duplicates?: ReadonlyMap<number, string> | undefined;
  chatTemplate?: string | undefined;
  cleanUpTokenizationSpaces?: boolean | undefined;
}

export interface EncodeOptions {
  /** Add the special tokens the tokenizer writes around a text (BOS for most LLaMAs). Default true. */
  addSpecialTokens?: boolean;
  /** The text continues an earlier one: no space is put in front by SentencePiece-like tokenizers. Default false. */
  continuation?: boolean;
  /** What looks like a special token is text like any other. Default: as the tokenizer's files say, false mostly. */
  splitSpecialTokens?: boolean;
}

/** Ids, and for each the type of its token. */
export interface TypedIds {
  ids: number[];
  tokenTypeIds: number[];
}

export interface DecodeOptions {
  /** Leave special tokens out of the text. Default false. */
  skipSpecialTokens?: boolean;
}

export interface ChatTemplateOptions {
  /** End with the opening of an assistant's turn. Default false. */
  addGenerationPrompt?: boolean;
  /** Further variables of the template (tools, enable_thinking, ...). */
  variables?: Record<string, unknown>;
}

export interface ChatOptions extends ChatTemplateOptions {
  /** A system message to put in front. */
  system?: string | undefined;
  /** False lets messages hold special tokens. Default true. */
  splitSpecialTokens?: boolean;
}

/**
 * Special tokens that end a turn; a model whose files list no stop tokens stops at eos and at those of these it has.
 */
const turnEnds = [
  '<|im_end|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|end|>',
  '<end_of_turn>',
  '<|endoftext|>',
  '<|end_of_text|>',
];

export class Tokenizer {
  /** The file it came from. */
  readonly source: string;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly unkTokenId: number | undefined;
  /** The pad token, else eos, else 0: padding is masked, so that any valid id serves. */
  readonly padTokenId: number;
  /** One more than the largest id. A model's embedding may have more rows. */
  readonly vocabSize: number;
  /** The ids that end a generation: generation_config's list, else eos and the vocabulary's ends of turn. */
  readonly stopTokenIds: readonly number[];
  /** The Jinja source of the model's chat template; undefined where it has none and `plainChatTemplate` is used. */
  readonly chatTemplate: string | undefined;

  private readonly pipeline: TokenizerPipeline;
  private readonly special: ReadonlyMap<string, number>;
  private readonly specialTexts: Record<string, string>;
  private readonly cleanUp: boolean;
  private readonly splitSpecialTokens: boolean;
  private parsedTemplate: ChatTemplate | undefined;
  private readonly templates: Templates;
  /** The ids in front of a text. */
  private readonly startIds: readonly number[];
  private readonly missingEos: string | undefined;

  /** @throws FormatError when the spec cannot make a tokenizer, naming its source */
  constructor(spec: TokenizerSpec) {
    this.source = spec.source;
    this.cleanUp = spec.cleanUpTokenizationSpaces ?? false;
    this.splitSpecialTokens = spec.splitSpecialTokens ?? false;
    try {
      this.pipeline = new TokenizerPipeline(spec.json);
    } catch (error) {
      const { message } = error as Error;
      throw new FormatError(spec.source, `cannot be used as a tokenizer: ${message}`, { cause: error });
    }
    this.pipeline.addDuplicates(spec.duplicates ?? new Map());
    this.vocabSize = this.pipeline.size;
    if (this.vocabSize === 0) throw new FormatError(spec.source, 'has an empty vocabulary');

    // A token that is named and not there can neither be written nor generated, so that it counts as absent.
    const idOf = (text: string | undefined): number | undefined =>
      text === undefined ? undefined : this.pipeline.idOf(text);
    this.bosTokenId = idOf(spec.bosToken);
    this.eosTokenId = idOf(spec.eosToken);
    this.unkTokenId = idOf(spec.unkToken);
    this.padTokenId = idOf(spec.padToken) ?? this.eosTokenId ?? 0;
    this.missingEos = this.eosTokenId === undefined ? spec.eosToken : undefined;
    this.templates = this.templatesBy(spec);
    this.startIds = aroundOf(this.templates.single).before;
    const special = spec.json.added_tokens.filter(token => token.special);
    this.special = new Map(special.map(token => [token.content, token.id]));
    this.stopTokenIds = this.findStopTokens(spec, idOf(spec.endOfTurnToken));
    this.chatTemplate = spec.chatTemplate;
    this.specialTexts = {
      bos_token: spec.bosToken ?? '',
      eos_token: spec.eosToken ?? '',
      pad_token: spec.padToken ?? '',
      unk_token: spec.unkToken ?? '',
    };
  }

  /** The ids of a text. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    return this.write('encode', this.templates.single, [text], options).ids;
  }

  /** The ids of a text, and the type of each token, which few models tell apart in a single text. */
  encodeTyped(text: string, options: EncodeOptions = {}): TypedIds {
    return this.write('encodeTyped', this.templates.single, [text], options);
  }

  /**
   * The ids of two texts in one sequence, as a model that compares them takes them (a question and a passage), and the
   * type of each token: BERT's segments, 0 and 1.
   * @throws Error where the tokenizer's files say nothing of pairs
   */
  encodePair(first: string, second: string, options: Omit<EncodeOptions, 'continuation'> = {}): TypedIds {
    const { pair } = this.templates;
    if (typeof pair === 'string') throw new Error(`${this.source}: encodePair: ${pair}`);
    return this.write('encodePair', pair, [first, second], options);
  }

  /**
   * The ids a sequence starts with: the special tokens this tokenizer puts in front (BOS or nothing), then the text.
   * Nothing is put behind. Training and generation both start their prompts with it.
   */
  encodePrompt(text: string): number[] {
    return [...this.startIds, ...this.encode(text, { addSpecialTokens: false })];
  }

  /**
   * The text of ids.
   * @throws RangeError for an id outside the vocabulary
   */
  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    checkIds(`${this.source}: decode`, ids);
    const decoding = this.decoding(options);
    let text = '';
    for (const id of Array.from(ids)) text += decoding.push(id);
    return text + decoding.end();
  }

  /** Decodes ids one at a time: what comes out, put together, is what `decode` makes of all of them. */
  decoding({ skipSpecialTokens = false }: DecodeOptions = {}): { push(id: number): string; end(): string } {
    const decoding = this.pipeline.decoding(skipSpecialTokens);
    const clean = this.cleanUp ? cleanedUp() : undefined;
    const cleaned = (text: string): string => clean?.push(text) ?? text;
    return {
      push: id => {
        if (this.pipeline.tokenOf(id) === undefined) {
          const most = this.vocabSize - 1;
          throw new RangeError(`${this.source}: decode: id ${id} is not in the vocabulary (0 to ${most})`);
        }
        return cleaned(decoding.push(id).join(''));
      },
      end: () => cleaned(decoding.end().join('')) + (clean?.end() ?? ''),
    };
  }

  /** The id of a token by its text as the vocabulary writes it, undefined where there is none. */
  tokenToId(token: string): number | undefined {
    return this.pipeline.idOf(token);
  }

  /** The text of a token as the vocabulary writes it ("Ġthe", "▁the", "<0x0A>"), undefined for an id outside it. */
  idToToken(id: number): string | undefined {
    return this.pipeline.tokenOf(id);
  }

  /** The text of a conversation by the model's chat template, or by `plainChatTemplate` where it has none. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    { addGenerationPrompt = false, variables = {} }: ChatTemplateOptions = {},
  ): string {
    return this.template().render(this.templateVariables(messages, addGenerationPrompt, variables));
  }

  /**
   * Of these names, the first that the chat template does not have anywhere, so that what is given under it would be
   * lost.
   */
  notInTemplate(names: readonly string[]): string | undefined {
    return names.find(name => !this.template().names(name));
  }

  /**
   * A prompt for a chat model, up to the opening of the assistant's answer: its text, its ids, and the tokens that end
   * the answer. A model's own template writes all special tokens, so that none are added to the ids; the plain one
   * writes none, so that the ids start as the tokenizer starts every text.
   * @param input one user message, or a whole conversation
   *
   * What looks like a special token in a message, a tool or another variable is text, so that nobody who is quoted
   * there can end a turn or open one; only the template writes special tokens.
   */
  chat(
    input: string | readonly ChatMessage[],
    { system, splitSpecialTokens = true, variables = {}, ...options }: ChatOptions = {},
  ): { text: string; ids: number[]; stopTokenIds: readonly number[] } {
    const messages: ChatMessage[] = typeof input === 'string' ? [{ role: 'user', content: input }] : [...input];
    if (system !== undefined) messages.unshift({ role: 'system', content: system });
    const render = (given: { messages: ChatMessage[]; variables: Record<string, unknown> }): string =>
      this.applyChatTemplate(given.messages, { addGenerationPrompt: true, ...options, variables: given.variables });
    const { text, literal } = splitSpecialTokens
      ? renderLiteral({ messages, variables }, this.chatTemplate ?? plainChatTemplate, this.specialTokens(), render)
      : { text: render({ messages, variables }), literal: new Set<number>() };
    const start = this.chatTemplate === undefined ? this.startIds : [];
    return { text, ids: [...start, ...this.encodeText(text, false, literal)], stopTokenIds: this.stopTokenIds };
  }

  /**
   * What a chat model writes for an answer: the text from the end of `chat(before)` on, and the token that ends it.
   * The text is the template's own, up to the special token that the template puts behind an answer; eos ends it where
   * it puts none. The lead before it, empty for most templates, is what one with `generation` blocks does not mark as
   * the assistant's.
   * @param before the turns before the answer
   * @param answer its text, or the assistant's whole turn with its tool calls and other fields
   * @throws Error when neither the template nor the tokenizer has an end token, or the template leaves the answer out
   */
  chatAnswer(
    before: readonly ChatMessage[],
    answer: string | ChatMessage,
    { variables = {} }: Pick<ChatTemplateOptions, 'variables'> = {},
  ): { lead: string; text: string; endTokenId: number } {
    const special = new Map(this.special);
    for (const id of this.stopTokenIds) special.set(this.idToToken(id) ?? '', id);
    special.delete('');
    const turn = typeof answer === 'string' ? { role: 'assistant', content: answer } : answer;
    const render = (messages: readonly ChatMessage[], addGenerationPrompt: boolean): Rendered =>
      this.template().renderMarked(this.templateVariables(messages, addGenerationPrompt, variables));
    const {
      lead,
      text,
      endTokenId = this.requireEos(),
    } = findAnswer({ render, special, stopTokenIds: this.stopTokenIds }, before, turn);
    return { lead, text, endTokenId };
  }

  /** How many of these first ids are special tokens that every sequence starts with, bos among them. */
  startLength(ids: readonly number[]): number {
    const starts = (id: number): boolean => this.startIds.includes(id) || id === this.bosTokenId;
    const other = ids.findIndex(id => !starts(id));
    return other < 0 ? ids.length : other;
  }

  /** The eos id. @throws Error where the tokenizer has none */
  requireEos(): number {
    if (this.eosTokenId !== undefined) return this.eosTokenId;
    const named = this.missingEos === undefined ? '' : `: ${JSON.stringify(this.missingEos)} is not in the vocabulary`;
    throw new Error(`${this.source}: has no end-of-sequence token${named}`);
  }

  private specialTokens(): { texts: string[]; startsIn: (text: string) => number[] } {
    const tokens = new AddedTokens(Array.from(this.special, ([content, id]) => ({ content, token: { id, content } })));
    const startsIn = (text: string): number[] => Array.from(tokens.matches(text), ({ start }) => start);
    return { texts: [...this.special.keys()], startsIn };
  }

  private templateVariables(
    messages: readonly ChatMessage[],
    addGenerationPrompt: boolean,
    variables: Readonly<Record<string, unknown>>,
  ): { messages: readonly ChatMessage[] } & Record<string, unknown> {
    // As transformers has it, tools and documents that are not given are None, not undefined.
    return {
      ...this.specialTexts,
      tools: null,
      documents: null,
      ...variables,
      messages,
      add_generation_prompt: addGenerationPrompt,
    };
  }

  private template(): ChatTemplate {
    return (this.parsedTemplate ??= new ChatTemplate(this.chatTemplate ?? plainChatTemplate, this.source));
  }

  private encodeText(text: string, continues: boolean, literal?: Literal): number[] {
    try {
      return this.pipeline.encode(text, { continues, ...(literal ? { literal } : {}) });
    } catch (error) {
      throw new Error(`${this.source}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Texts in their places among the special tokens. */
  private write(
    what: string,
    template: Template,
    texts: readonly string[],
    { addSpecialTokens = true, continuation = false, splitSpecialTokens = this.splitSpecialTokens }: EncodeOptions,
  ): TypedIds {
    const encoded = texts.map(text => {
      if (typeof text !== 'string')
        throw new TypeError(`${this.source}: ${what}: expected a text, got ${shownValue(text)}`);
      return this.encodeText(text, continuation, splitSpecialTokens ? 'all' : undefined);
    });
    const ids: number[] = [];
    const tokenTypeIds: number[] = [];
    for (const part of template) {
      if ('ids' in part && !addSpecialTokens) continue;
      for (const id of 'ids' in part ? part.ids : encoded[part.text]) {
        ids.push(id);
        tokenTypeIds.push(part.type);
      }
    }
    return { ids, tokenTypeIds };
  }

  /** The post-processor's templates, unless the settings say which of bos and eos stand around each text. */
  private templatesBy({ addBosToken, addEosToken }: TokenizerSpec): Templates {
    const { templates } = this.pipeline;
    if (addBosToken === undefined && addEosToken === undefined) return templates;
    const { before, behind } = aroundOf(templates.single);
    const special = (name: string, add: boolean | undefined, id: number | undefined, otherwise: number[]): number[] => {
      if (add === undefined) return otherwise;
      if (add && id === undefined) throw new FormatError(this.source, `add_${name}_token: there is no ${name} token`);
      return add ? [id as number] : [];
    };
    const bos = special('bos', addBosToken, this.bosTokenId, before);
    const eos = special('eos', addEosToken, this.eosTokenId, behind);
    const around = (text: 0 | 1): Template => [
      { ids: bos, type: text },
      { text, type: text },
      { ids: eos, type: text },
    ];
    return { single: around(0), pair: [...around(0), ...around(1)] };
  }

  private findStopTokens(spec: TokenizerSpec, endOfTurn: number | undefined): number[] {
    const listed = spec.stopTokenIds ?? turnEnds.map(token => this.special.get(token));
    return [...new Set([this.eosTokenId, endOfTurn, ...listed])].filter(id => id !== undefined);
  }
}
