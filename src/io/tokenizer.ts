// The tokenizer a model is used with: text to ids and back, special tokens, stop tokens and the chat template.
// It wraps @huggingface/tokenizers; what differs between file formats (tokenizer.json, GGUF metadata, llama2.c vocabularies)
// is turned into one TokenizerSpec by tokenizerJson.ts, tokenizerGguf.ts and tokenizerLlama2c.ts and may not leak in here.

import { Tokenizer as LibraryClass } from '@huggingface/tokenizers';
import { findAnswer } from './chatAnswer.js';
import { ChatTemplate, plainChatTemplate } from './chatTemplate.js';
import type { ChatMessage } from './chatTemplate.js';
import { FormatError } from './errors.js';
import { checkIds, shownValue } from './tokenIds.js';

/** What is used of the library's tokenizer. Spelt out, because its type files do not resolve under NodeNext. */
interface LibraryTokenizer {
  model: { vocab: (string | undefined)[] };
  readonly decoder: unknown;
  readonly post_processor: ((tokens: string[], pair: null, addSpecialTokens: boolean) => { tokens: string[] }) | null;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}
const LibraryTokenizer = LibraryClass as unknown as new (json: object, config: object) => LibraryTokenizer;

/** A component of a tokenizer.json: `type` and whatever that type needs. */
export type Component = { type: string } & Record<string, unknown>;

/** One entry of `added_tokens`: a token found in the text before anything else is split. */
export interface AddedTokenJson {
  id: number;
  content: string;
  special?: boolean;
  normalized?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
  single_word?: boolean;
}

/** The parts of a tokenizer.json, checked. */
export interface TokenizerJson {
  normalizer: Component | null;
  pre_tokenizer: Component | null;
  model: Record<string, unknown>;
  post_processor: Component | null;
  decoder: Component | null;
  added_tokens: AddedTokenJson[];
}

/** All a Tokenizer is made of, whatever file it came from. Tokens are named by their text. */
export interface TokenizerSpec {
  /** The file it came from, for errors. */
  source: string;
  json: TokenizerJson;
  bosToken?: string | undefined;
  eosToken?: string | undefined;
  padToken?: string | undefined;
  unkToken?: string | undefined;
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

/** Special tokens that end a turn; a model whose files list no stop tokens stops at eos and at those of these it has. */
const turnEnds = ['<|im_end|>', '<|eot_id|>', '<|eom_id|>', '<|end|>', '<end_of_turn>', '<|endoftext|>', '<|end_of_text|>'];

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

  private readonly library: LibraryTokenizer;
  private readonly continuing: LibraryTokenizer;
  private readonly special: ReadonlyMap<string, number>;
  private readonly specialTexts: Record<string, string>;
  private readonly cleanUp: boolean;
  private parsedTemplate: ChatTemplate | undefined;
  private readonly startIds: readonly number[];

  /** @throws FormatError when the spec cannot make a tokenizer, naming its source */
  constructor(spec: TokenizerSpec) {
    this.source = spec.source;
    this.cleanUp = spec.cleanUpTokenizationSpaces ?? false;
    try {
      const config = { clean_up_tokenization_spaces: this.cleanUp, eos_token: spec.eosToken };
      this.library = new LibraryTokenizer(spec.json, config);
      keepByteOrderMarks(this.library.decoder);
      this.startIds = this.findStart();
      this.continuing = withoutPrefixSpace(spec.json, config, this.library);
    } catch (error) {
      if (error instanceof FormatError) throw error;
      throw new FormatError(spec.source, `cannot be used as a tokenizer: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    }
    const { vocab } = this.library.model;
    for (const [id, text] of spec.duplicates ?? []) vocab[id] = text;
    this.vocabSize = vocab.length;
    if (this.vocabSize === 0) throw new FormatError(spec.source, 'has an empty vocabulary');

    const idOf = (name: string, text: string | undefined): number | undefined => {
      if (text === undefined) return undefined;
      const id = this.library.token_to_id(text);
      if (id === undefined) throw new FormatError(spec.source, `${name} token ${JSON.stringify(text)} is not in the vocabulary`);
      return id;
    };
    this.bosTokenId = idOf('bos', spec.bosToken);
    this.eosTokenId = idOf('eos', spec.eosToken);
    this.unkTokenId = idOf('unk', spec.unkToken);
    this.padTokenId = idOf('pad', spec.padToken) ?? this.eosTokenId ?? 0;
    this.special = new Map(spec.json.added_tokens.filter(token => token.special).map(token => [token.content, token.id]));
    this.stopTokenIds = this.findStopTokens(spec, idOf('end of turn', spec.endOfTurnToken));
    this.chatTemplate = spec.chatTemplate;
    this.specialTexts = {
      bos_token: spec.bosToken ?? '',
      eos_token: spec.eosToken ?? '',
      pad_token: spec.padToken ?? '',
      unk_token: spec.unkToken ?? '',
    };
  }

  /** The ids of a text. */
  encode(text: string, { addSpecialTokens = true, continuation = false }: EncodeOptions = {}): number[] {
    if (typeof text !== 'string') throw new TypeError(`${this.source}: encode: expected a text, got ${shownValue(text)}`);
    const ids = (continuation ? this.continuing : this.library).encode(text, { add_special_tokens: addSpecialTokens }).ids;
    return ids.map(id => id ?? this.noToken(text));
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
  decode(ids: ArrayLike<number>, { skipSpecialTokens = false }: DecodeOptions = {}): string {
    checkIds(`${this.source}: decode`, ids);
    const list = Array.from(ids);
    for (const id of list) {
      if (this.library.id_to_token(id) === undefined) {
        throw new RangeError(`${this.source}: decode: id ${id} is not in the vocabulary (0 to ${this.vocabSize - 1})`);
      }
    }
    if (list.length === 0) return '';
    return this.library.decode(list, { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: this.cleanUp });
  }

  /** The id of a token by its text as the vocabulary writes it, undefined where there is none. */
  tokenToId(token: string): number | undefined {
    return this.library.token_to_id(token);
  }

  /** The text of a token as the vocabulary writes it ("Ġthe", "▁the", "<0x0A>"), undefined for an id outside it. */
  idToToken(id: number): string | undefined {
    return this.library.id_to_token(id);
  }

  /** The text of a conversation by the model's chat template, or by `plainChatTemplate` where it has none. */
  applyChatTemplate(messages: readonly ChatMessage[], { addGenerationPrompt = false, variables = {} }: ChatTemplateOptions = {}): string {
    // As transformers has it, tools and documents that are not given are None, not undefined.
    const given = { tools: null, documents: null, ...variables };
    return this.template().render({ ...this.specialTexts, ...given, messages, add_generation_prompt: addGenerationPrompt });
  }

  /** Of these names, the first that the chat template does not have anywhere, so that what is given under it would be lost. */
  notInTemplate(names: readonly string[]): string | undefined {
    return names.find(name => !this.template().names(name));
  }

  /**
   * A prompt for a chat model, up to the opening of the assistant's answer: its text, its ids, and the tokens that end the answer.
   * A model's own template writes all special tokens, so that none are added to the ids; the plain one writes none, so that
   * the ids start as the tokenizer starts every text.
   * @param input one user message, or a whole conversation
   * @param options.system a system message to put in front
   */
  chat(
    input: string | readonly ChatMessage[],
    { system, ...options }: ChatTemplateOptions & { system?: string | undefined } = {},
  ): { text: string; ids: number[]; stopTokenIds: readonly number[] } {
    const messages: ChatMessage[] = typeof input === 'string' ? [{ role: 'user', content: input }] : [...input];
    if (system !== undefined) messages.unshift({ role: 'system', content: system });
    const text = this.applyChatTemplate(messages, { addGenerationPrompt: true, ...options });
    const ids = this.chatTemplate === undefined ? this.encodePrompt(text) : this.encode(text, { addSpecialTokens: false });
    return { text, ids, stopTokenIds: this.stopTokenIds };
  }

  /**
   * What a chat model writes for an answer: the text from the end of `chat(before)` on, and the token that ends it.
   * The text is the template's own, up to the special token that the template puts behind an answer; eos ends it where it puts none.
   * @param before the turns before the answer
   * @param answer its text, or the assistant's whole turn with its tool calls and other fields
   * @throws Error when neither the template nor the tokenizer has an end token, or the template leaves the answer out
   */
  chatAnswer(
    before: readonly ChatMessage[], answer: string | ChatMessage, { variables = {} }: Pick<ChatTemplateOptions, 'variables'> = {},
  ): { text: string; endTokenId: number } {
    const special = new Map(this.special);
    for (const id of this.stopTokenIds) special.set(this.idToToken(id) ?? '', id);
    special.delete('');
    const turn = typeof answer === 'string' ? { role: 'assistant', content: answer } : answer;
    const { text, endTokenId = this.requireEos() } = findAnswer({
      render: (messages, addGenerationPrompt) => this.applyChatTemplate(messages, { addGenerationPrompt, variables }), special, stopTokenIds: this.stopTokenIds,
    }, before, turn);
    return { text, endTokenId };
  }

  /** How many of these first ids are special tokens that every sequence starts with, bos among them. */
  startLength(ids: readonly number[]): number {
    const starts = (id: number): boolean => this.startIds.includes(id) || id === this.bosTokenId;
    const other = ids.findIndex(id => !starts(id));
    return other < 0 ? ids.length : other;
  }

  /** The eos id. @throws Error where the tokenizer has none */
  requireEos(): number {
    if (this.eosTokenId === undefined) throw new Error(`${this.source}: has no end-of-sequence token`);
    return this.eosTokenId;
  }

  private template(): ChatTemplate {
    return (this.parsedTemplate ??= new ChatTemplate(this.chatTemplate ?? plainChatTemplate, this.source));
  }

  private noToken(text: string): never {
    throw new Error(`${this.source}: no token for a part of ${JSON.stringify(text.slice(0, 60))}, and no unknown token`);
  }

  /** The ids the post-processor writes in front of a text. */
  private findStart(): number[] {
    const text = '\0text';
    const { tokens } = this.library.post_processor?.([text], null, true) ?? { tokens: [text] };
    if (!tokens.includes(text)) throw new Error('post_processor: leaves the text out');
    return tokens.slice(0, tokens.indexOf(text)).map(token => {
      const id = this.library.token_to_id(token);
      if (id === undefined) throw new Error(`post_processor: ${JSON.stringify(token)} is not in the vocabulary`);
      return id;
    });
  }

  private findStopTokens(spec: TokenizerSpec, endOfTurn: number | undefined): number[] {
    const listed = spec.stopTokenIds ?? turnEnds.map(token => this.special.get(token));
    return [...new Set([this.eosTokenId, endOfTurn, ...listed])].filter(id => id !== undefined);
  }
}

/** The library's byte fallback drops U+FEFF from the text it decodes; a TextDecoder that keeps it takes the place of its own. */
function keepByteOrderMarks(decoder: unknown): void {
  type Part = { text_decoder?: TextDecoder; decoders?: Part[] } | null;
  const whole = decoder as Part;
  for (const part of [whole, ...(whole?.decoders ?? [])]) {
    if (part?.text_decoder?.ignoreBOM === false) part.text_decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  }
}

/** The same tokenizer, sharing its vocabulary, for text that continues another: no space is put in front. */
function withoutPrefixSpace(json: TokenizerJson, config: object, library: LibraryTokenizer): LibraryTokenizer {
  const normalizer = dropPrefixSpace(json.normalizer);
  const preTokenizer = dropPrefixSpace(json.pre_tokenizer);
  if (normalizer === json.normalizer && preTokenizer === json.pre_tokenizer) return library;
  const empty = { type: 'BPE', vocab: {}, merges: [] };
  const continuing = new LibraryTokenizer({ ...json, normalizer, pre_tokenizer: preTokenizer, model: empty }, config);
  continuing.model = library.model;
  return continuing;
}

/** A component without its part that puts a space in front; the component itself where it has no such part. */
function dropPrefixSpace(component: Component | null): Component | null {
  if (component === null) return null;
  switch (component.type) {
    case 'Prepend':
      return null;
    case 'Metaspace':
      return { ...component, prepend_scheme: 'never', add_prefix_space: false };
    case 'ByteLevel':
      return component['add_prefix_space'] === true ? { ...component, add_prefix_space: false } : component;
    case 'Sequence': {
      const key = 'normalizers' in component ? 'normalizers' : 'pretokenizers';
      const parts = component[key] as Component[];
      const kept = parts.map(dropPrefixSpace);
      return kept.every((part, i) => part === parts[i]) ? component : { ...component, [key]: kept.filter(part => part !== null) };
    }
    default:
      return component;
  }
}
