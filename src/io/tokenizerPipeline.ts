// A tokenizer.json at work: text to ids through its added tokens, normalizer, pre-tokenizer and model, and ids back to
// text through its decoder. What each of them does is in a file of its own.

import { AddedTokens, type AddedTokenJson } from './tokenizerAdded.js';
import { decoderOf, type DecoderStep } from './tokenizerDecoders.js';
import { checkGrowth } from './tokenizerGrowth.js';
import { tokenModelOf, type TokenModel } from './tokenizerModels.js';
import { normalizerOf, type Normalize } from './tokenizerNormalizers.js';
import type { Component } from './tokenizerParts.js';
import { splitterOf, type Splitter } from './tokenizerSplits.js';
import { templatesOf, type Templates } from './tokenizerTemplates.js';

/** The parts of a tokenizer.json, checked. */
export interface TokenizerJson {
  normalizer: Component | null;
  pre_tokenizer: Component | null;
  model: Record<string, unknown>;
  post_processor: Component | null;
  decoder: Component | null;
  added_tokens: AddedTokenJson[];
}

/** Which characters of a text cannot be part of a special token: all, or those at these places. */
export type Literal = 'all' | ReadonlySet<number>;

export class TokenizerPipeline {
  /** What is written for one text and for two. */
  readonly templates: Templates;
  private readonly model: TokenModel;
  private readonly added: ReadonlyMap<string, AddedTokenJson>;
  private readonly addedById: ReadonlyMap<number, AddedTokenJson>;
  /** Added tokens that are found in the text as it is. */
  private readonly verbatim: AddedTokens;
  private readonly starting: Cutter;
  /** For a text that continues another: no space is put in front. */
  private readonly continuing: Cutter;
  private readonly startDecoder: () => DecoderStep;

  /** @throws Error for a part that is not known, or not as its type wants it */
  constructor(json: TokenizerJson) {
    checkGrowth('normalizer', json.normalizer);
    checkGrowth('pre_tokenizer', json.pre_tokenizer);
    checkGrowth('decoder', json.decoder);
    this.model = tokenModelOf(json.model);
    this.added = new Map(json.added_tokens.map(token => [token.content, token]));
    this.addedById = new Map(json.added_tokens.map(token => [token.id, token]));
    const inNormalized = (token: AddedTokenJson): boolean =>
      json.normalizer !== null && (token.normalized ?? !token.special);
    const verbatim = json.added_tokens.filter(token => !inNormalized(token));
    this.verbatim = new AddedTokens(verbatim.map(token => ({ content: token.content, token })));
    const normalized = json.added_tokens.filter(inNormalized);
    this.starting = cutterOf(json.normalizer, json.pre_tokenizer, normalized);
    this.continuing = cutterOf(withoutPrefixSpace(json.normalizer), withoutPrefixSpace(json.pre_tokenizer), normalized);
    this.startDecoder = decoderOf(json.decoder);
    this.templates = templatesOf(json.post_processor, token => this.idOf(token));
  }

  /** One more than the largest id. */
  get size(): number {
    return [...this.addedById.keys()].reduce((size, id) => Math.max(size, id + 1), this.model.vocab.length);
  }

  idOf(token: string): number | undefined {
    return this.added.get(token)?.id ?? this.model.idOf(token);
  }

  tokenOf(id: number): string | undefined {
    return this.addedById.get(id)?.content ?? this.model.vocab[id];
  }

  isSpecial(id: number): boolean {
    return this.addedById.get(id)?.special === true;
  }

  /** The ids of a text, without special tokens around it. */
  encode(
    text: string,
    { continues = false, literal = new Set() }: { continues?: boolean; literal?: Literal } = {},
  ): number[] {
    // A half of a surrogate pair is no character; in UTF-8 it is U+FFFD.
    const wellFormed = text.replace(/\p{Surrogate}/gu, '\uFFFD');
    const { normalize, added, split } = continues ? this.continuing : this.starting;
    const mayBe = (token: AddedTokenJson, start: number, end: number): boolean =>
      !(token.special && isLiteral(literal, start, end));
    return this.verbatim.split(wellFormed, mayBe).flatMap(section => {
      if (section.token) return [section.token.id];
      // Normalizing moves characters about: what is literal anywhere in a section is so in all of it.
      const within = isLiteral(literal, section.start, section.start + section.text.length);
      return added
        .split(normalize(section.text), token => !(token.special && within))
        .flatMap(part => {
          if (part.token) return [part.token.id];
          const first = section.start === 0 && part.start === 0;
          return split({ text: part.text, first }).flatMap(({ text: piece }) => this.encodePiece(piece, within));
        });
    });
  }

  /** What decodes ids one after the other. */
  decoding(skipsSpecial: boolean): { push(id: number): readonly string[]; end(): readonly string[] } {
    const decoder = this.startDecoder();
    return {
      push: id => (skipsSpecial && this.isSpecial(id) ? [] : decoder.push(this.tokenOf(id) as string)),
      end: () => decoder.end(),
    };
  }

  /** Tokens that decode as another, lower id does. */
  addDuplicates(duplicates: ReadonlyMap<number, string>): void {
    for (const [id, text] of duplicates) this.model.vocab[id] = text;
  }

  /** A piece that must not become a special token goes character by character where it would. */
  private encodePiece(piece: string, literal: boolean): number[] {
    const ids = this.model.encode(piece);
    const isControl = (id: number): boolean => this.isSpecial(id) && id !== this.model.unknownId;
    return literal && ids.some(isControl) ? Array.from(piece).flatMap(character => this.model.encode(character)) : ids;
  }
}

/** How a text between verbatim tokens is cut: normalized, by added tokens that are found then, into pieces. */
interface Cutter {
  readonly normalize: Normalize;
  readonly added: AddedTokens;
  readonly split: Splitter;
}

function cutterOf(
  normalizer: Component | null,
  preTokenizer: Component | null,
  added: readonly AddedTokenJson[],
): Cutter {
  const normalize = normalizerOf(normalizer);
  return {
    normalize,
    split: splitterOf(preTokenizer),
    added: new AddedTokens(added.map(token => ({ content: normalize(token.content), token }))),
  };
}

function isLiteral(literal: Literal, start: number, end: number): boolean {
  if (literal === 'all') return true;
  if (literal.size === 0) return false;
  for (let at = start; at < end; at++) if (literal.has(at)) return true;
  return false;
}

/** A component without its part that puts a space in front. */
function withoutPrefixSpace(component: Component | null): Component | null {
  switch (component?.type) {
    case 'Prepend':
      return null;
    case 'Metaspace':
      return { ...component, prepend_scheme: 'never', add_prefix_space: false };
    case 'ByteLevel':
      return { ...component, add_prefix_space: false };
    case 'Sequence': {
      const key = 'normalizers' in component ? 'normalizers' : 'pretokenizers';
      const parts = component[key] as Component[];
      return { ...component, [key]: parts.map(withoutPrefixSpace).filter(part => part !== null) };
    }
    default:
      return component;
  }
}
