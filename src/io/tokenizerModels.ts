// Models: the ids of one piece of a text. BPE and WordPiece are the library's; Unigram is in tokenizerUnigram.ts.

import { BPE, WordPiece, type LibraryModel } from './tokenizerLibrary.js';
import { Unigram } from './tokenizerUnigram.js';

/** The vocabulary of a tokenizer, and how a piece becomes tokens of it. */
export interface TokenModel {
  /** Tokens by id; there may be holes. */
  readonly vocab: (string | undefined)[];
  readonly unknownId: number | undefined;
  idOf(token: string): number | undefined;
  /** @throws Error for a piece of which a part is no token, where the model has no token for what it does not know */
  encode(piece: string): number[];
}

/**
 * The `model` of a tokenizer.json, whose vocabulary and merges were checked.
 * @throws Error for settings that are not supported
 */
export function tokenModelOf(config: Record<string, unknown>): TokenModel {
  const { type = olderType(config) } = config;
  switch (type) {
    case 'BPE':
      refuse(config, 'continuing_subword_prefix', ['']);
      refuse(config, 'dropout', [0]);
      return withoutUnknown(config, fromLibrary(new BPE(config), config['fuse_unk'] === true));
    case 'WordPiece':
      return fromLibrary(new WordPiece(config), false);
    case 'Unigram':
      return new Unigram(config);
    case 'WordLevel':
      return wordLevel(config);
    default:
      throw new Error(
        `model: type ${JSON.stringify(type)} is not supported; supported are BPE, WordPiece, Unigram, WordLevel`,
      );
  }
}

/** Files of old versions do not say what their model is. */
function olderType(config: Record<string, unknown>): string {
  if (Array.isArray(config['vocab'])) return 'Unigram';
  if ('merges' in config) return 'BPE';
  return 'continuing_subword_prefix' in config ? 'WordPiece' : 'WordLevel';
}

function refuse(config: Record<string, unknown>, key: string, neutral: readonly unknown[]): void {
  const value = config[key] ?? undefined;
  if (value === undefined || neutral.includes(value)) return;
  throw new Error(`model.${key}: ${JSON.stringify(value)} is not supported`);
}

function fromLibrary(model: LibraryModel, fusesUnknown: boolean): TokenModel {
  const unknown = model.unk_token_id;
  return {
    vocab: model.vocab,
    unknownId: unknown,
    idOf: token => model.tokens_to_ids.get(token),
    encode(piece) {
      const ids = model.encode([piece]).map(token => model.tokens_to_ids.get(token) ?? noToken(piece));
      return fusesUnknown ? ids.filter((id, i) => !(id === unknown && i > 0 && ids[i - 1] === unknown)) : ids;
    },
  };
}

/** Without an unknown token, characters that are no token are left out before others are merged, not after. */
function withoutUnknown(config: Record<string, unknown>, model: TokenModel): TokenModel {
  if (model.unknownId !== undefined || config['byte_fallback'] === true || config['end_of_word_suffix']) return model;
  const isToken = (character: string): boolean => model.idOf(character) !== undefined;
  return { ...model, encode: piece => model.encode(Array.from(piece).filter(isToken).join('')) };
}

function wordLevel(config: Record<string, unknown>): TokenModel {
  const ids = new Map(Object.entries(config['vocab'] as Record<string, number>));
  const vocab: (string | undefined)[] = [];
  for (const [token, id] of ids) vocab[id] = token;
  const unknownId = ids.get(config['unk_token'] as string);
  const encode = (piece: string): number[] => [ids.get(piece) ?? unknownId ?? noToken(piece)];
  return { vocab, unknownId, idOf: token => ids.get(token), encode };
}

export function noToken(piece: string): never {
  throw new Error(`no token for a part of ${JSON.stringify(piece.slice(0, 60))}, and no unknown token`);
}
