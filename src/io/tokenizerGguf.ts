// Tokenizers from the metadata of a GGUF file: byte-level BPE ("gpt2"), SentencePiece with scores ("llama") and
// WordPiece ("bert"). Takes the metadata as plain values; reading GGUF files is gguf.ts's work. Keys and meanings:
// ggml's docs/gguf.md and llama.cpp's src/llama-vocab.cpp.

import { FormatError } from './errors.js';
import { Tokenizer } from './tokenizer.js';
import type { AddedTokenJson } from './tokenizerAdded.js';
import { bertTemplates, bertTokens, wordPieceJson, wordPieceOf } from './tokenizerGgufBert.js';
import type { Component } from './tokenizerParts.js';
import { scoredPiecesToJson } from './tokenizerPieces.js';
import type { TokenizerJson } from './tokenizerPipeline.js';
import { gpt2Pattern } from './tokenizerSplits.js';

/** Metadata by its dotted name. Arrays are plain or typed arrays; numbers may be bigints. */
export type GgufMetadata = Readonly<Record<string, unknown>>;

/** `tokenizer.ggml.token_type`. */
const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

interface PreTokenizer {
  /** Patterns cut out one after the other. */
  patterns: string[];
  /** A word that is a token is taken whole. */
  ignoreMerges?: boolean;
  /** Whether BOS is added where the metadata does not say. */
  addBos?: boolean;
  /**
   * Texts are put into Unicode's form NFC first. llama.cpp does not; Qwen2's own tokenizer does, with which it was
   * trained, so that a GGUF gives the ids of the folder it was made from.
   */
  composes?: boolean;
}

const wordsAndPunctuation = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const singleDigits: PreTokenizer = { patterns: ['\\p{N}', gpt2Pattern] };
const gpt2: PreTokenizer = { patterns: [gpt2Pattern] };
const llama3: PreTokenizer = { patterns: [wordsAndPunctuation('\\p{N}{1,3}')], ignoreMerges: true, addBos: true };
const qwen2: PreTokenizer = { patterns: [wordsAndPunctuation('\\p{N}')], composes: true };
const qwen2Words: PreTokenizer = { patterns: qwen2.patterns };

/** `tokenizer.ggml.pre`, as llama.cpp's table of them. */
const preTokenizers = new Map<string, PreTokenizer>([
  ['smollm', singleDigits],
  ['starcoder', singleDigits],
  ['refact', singleDigits],
  ['command-r', singleDigits],
  ['codeshell', singleDigits],
  ['gpt-2', gpt2],
  ['mpt', gpt2],
  ['olmo', gpt2],
  ['llama-bpe', llama3],
  ['llama3', llama3],
  ['llama-v3', llama3],
  ['falcon3', llama3],
  ['qwen2', qwen2],
  ['deepseek-r1-qwen', qwen2Words],
  ['megrez', qwen2Words],
  ['default', { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Pattern, '\\p{N}+', '[0-9][0-9][0-9]'] }],
]);

/**
 * The tokenizer a GGUF file describes.
 * @param metadata its key-value pairs
 * @param source the file, for errors
 * @throws FormatError for keys that are missing or of the wrong type, and for tokenizers this library does not know
 */
export function tokenizerFromGGUF(metadata: GgufMetadata, source = 'GGUF'): Tokenizer {
  const read = new MetadataReader(metadata, source);
  const kind = read.string('tokenizer.ggml.model');
  const stored = read.strings('tokenizer.ggml.tokens');
  const types =
    read.numbers('tokenizer.ggml.token_type', stored.length) ??
    new Array<number>(stored.length).fill(tokenTypes.normal);
  const isText = (id: number): boolean => types[id] !== tokenTypes.unknown && types[id] !== tokenTypes.control;
  const tokens = kind === 'bert' ? stored.map((token, id) => wordPieceOf(token, isText(id))) : stored;
  const tokenAt = (key: string): string | undefined => {
    // -1 (or 4294967295) and other ids that no token has say that there is none.
    const id = read.integer(key);
    return id === undefined ? undefined : tokens[id];
  };
  let bosToken = tokenAt('tokenizer.ggml.bos_token_id');
  const eosToken = tokenAt('tokenizer.ggml.eos_token_id');
  let unkToken = tokenAt('tokenizer.ggml.unknown_token_id');
  let padToken = tokenAt('tokenizer.ggml.padding_token_id');
  const addedTypes: readonly number[] = [tokenTypes.unknown, tokenTypes.control, tokenTypes.userDefined];
  const added: AddedTokenJson[] = [];
  const duplicates = new Map<number, string>();
  const firstIds = new Map<string, number>();
  tokens.forEach((content, id) => {
    if (firstIds.has(content)) duplicates.set(id, content);
    else firstIds.set(content, id);
    if (content !== '' && !duplicates.has(id) && addedTypes.includes(types[id]!)) {
      added.push({ id, content, special: types[id] !== tokenTypes.userDefined, normalized: false });
    }
  });

  let json: Omit<TokenizerJson, 'post_processor'>;
  let addBosByDefault: boolean;
  let sepToken: string | undefined;
  if (kind === 'gpt2') {
    const pre = read.optionalString('tokenizer.ggml.pre') ?? 'default';
    const preTokenizer = preTokenizers.get(pre);
    if (preTokenizer === undefined) {
      throw new FormatError(
        source,
        `tokenizer.ggml.pre: pre-tokenizer "${pre}" is not known; known are ${[...preTokenizers.keys()].join(', ')}`,
      );
    }
    json = byteLevelJson(
      firstIds,
      read.strings('tokenizer.ggml.merges'),
      added,
      preTokenizer,
      read.boolean('tokenizer.ggml.add_space_prefix') ?? false,
      source,
    );
    addBosByDefault = preTokenizer.addBos ?? false;
  } else if (kind === 'llama') {
    const scores = read.numbers('tokenizer.ggml.scores', tokens.length);
    if (scores === undefined)
      throw new FormatError(source, 'tokenizer.ggml.scores: expected a score for each token, found none');
    const mergeable: readonly number[] = [tokenTypes.normal, tokenTypes.userDefined, tokenTypes.unused];
    json = scoredPiecesToJson({
      source,
      pieces: tokens,
      scores,
      space: '▁',
      unkToken: unkToken ?? tokens[types.indexOf(tokenTypes.unknown)],
      added,
      addPrefixSpace: read.boolean('tokenizer.ggml.add_space_prefix') ?? true,
      mayMerge: id => mergeable.includes(types[id]!),
    });
    addBosByDefault = true;
  } else if (kind === 'bert') {
    const known = (token: string): string | undefined => (firstIds.has(token) ? token : undefined);
    bosToken ??= tokenAt('tokenizer.ggml.cls_token_id') ?? known(bertTokens.bos);
    // The format's own spelling.
    sepToken = tokenAt('tokenizer.ggml.seperator_token_id') ?? eosToken ?? known(bertTokens.sep);
    unkToken ??= known(bertTokens.unknown);
    padToken ??= known(bertTokens.padding);
    if (unkToken === undefined)
      throw new FormatError(
        source,
        'tokenizer.ggml.unknown_token_id: expected the unknown token of "bert", found none',
      );
    for (const content of [bosToken, sepToken, unkToken, padToken]) {
      if (content === undefined || added.some(token => token.content === content)) continue;
      added.push({ id: firstIds.get(content)!, content, special: true, normalized: false });
    }
    json = wordPieceJson(firstIds, added, unkToken);
    addBosByDefault = true;
  } else {
    throw new FormatError(
      source,
      `tokenizer.ggml.model: "${kind}" is not supported; supported are gpt2 (byte-level BPE), llama (SentencePiece) and bert (WordPiece)`,
    );
  }

  const around = {
    front: (read.boolean('tokenizer.ggml.add_bos_token') ?? addBosByDefault) ? bosToken : undefined,
    behind: (read.boolean('tokenizer.ggml.add_eos_token') ?? false) ? eosToken : undefined,
  };
  const addsSep = read.boolean('tokenizer.ggml.add_sep_token') ?? kind === 'bert';
  const post_processor =
    kind === 'bert'
      ? bertTemplates(around.front, addsSep ? sepToken : around.behind)
      : specialTokensAround(around.front, around.behind);
  return new Tokenizer({
    source,
    json: { ...json, post_processor },
    bosToken,
    eosToken,
    unkToken,
    padToken,
    endOfTurnToken: tokenAt('tokenizer.ggml.eot_token_id'),
    duplicates,
    chatTemplate: read.optionalString('tokenizer.chat_template'),
  });
}

/** Byte-level BPE. `merges` are "left right" pairs, best first, in GPT-2's byte alphabet. */
function byteLevelJson(
  ids: ReadonlyMap<string, number>,
  merges: readonly string[],
  added: AddedTokenJson[],
  pre: PreTokenizer,
  addPrefixSpace: boolean,
  source: string,
): Omit<TokenizerJson, 'post_processor'> {
  const vocab: Record<string, number> = Object.create(null) as Record<string, number>;
  for (const [token, id] of ids) vocab[token] = id;
  const pairs = merges.map((merge, i): [string, string] => {
    const cut = merge.indexOf(' ', 1);
    const [left, right] = [merge.slice(0, cut), merge.slice(cut + 1)];
    if (cut < 1 || right === '' || !ids.has(left + right)) {
      throw new FormatError(
        source,
        `tokenizer.ggml.merges[${i}]: expected two tokens whose union is one, got ${JSON.stringify(merge.slice(0, 60))}`,
      );
    }
    return [left, right];
  });
  const pretokenizers: Component[] = pre.patterns.map(split);
  const normalizers: Component[] = [
    ...(pre.composes ? [{ type: 'NFC' }] : []),
    ...(addPrefixSpace ? [{ type: 'Prepend', prepend: ' ' }] : []),
  ];
  return {
    normalizer: normalizers.length > 0 ? { type: 'Sequence', normalizers } : null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [...pretokenizers, { type: 'ByteLevel', add_prefix_space: false, use_regex: false }],
    },
    model: { type: 'BPE', vocab, merges: pairs, ignore_merges: pre.ignoreMerges ?? false },
    decoder: { type: 'ByteLevel' },
    added_tokens: added,
  };
}

/** A pre-tokenizer that cuts out the matches of a pattern and keeps what stands between them. */
function split(pattern: string): Component {
  return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
}

function specialTokensAround(front: string | undefined, behind: string | undefined): Component | null {
  if (front === undefined && behind === undefined) return null;
  const special = (id: string | undefined): object[] =>
    id === undefined ? [] : [{ SpecialToken: { id, type_id: 0 } }];
  return {
    type: 'TemplateProcessing',
    single: [...special(front), { Sequence: { id: 'A', type_id: 0 } }, ...special(behind)],
  };
}

/** Metadata values with their types checked. */
class MetadataReader {
  private readonly metadata: GgufMetadata;
  private readonly source: string;

  constructor(metadata: GgufMetadata, source: string) {
    this.metadata = metadata;
    this.source = source;
  }

  optionalString(key: string): string | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === 'string') return value;
    return this.fail(key, 'a string', value);
  }

  string(key: string): string {
    return this.optionalString(key) ?? this.fail(key, 'a string', undefined);
  }

  boolean(key: string): boolean | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === 'boolean') return value;
    return this.fail(key, 'true or false', value);
  }

  /** A whole number. */
  integer(key: string): number | undefined {
    const value = this.value(key);
    if (value === undefined) return undefined;
    const number = typeof value === 'bigint' ? Number(value) : value;
    if (typeof number === 'number' && Number.isInteger(number)) return number;
    return this.fail(key, 'a whole number', value);
  }

  strings(key: string): string[] {
    const value = this.value(key);
    if (Array.isArray(value) && value.length > 0 && value.every((entry): entry is string => typeof entry === 'string'))
      return value;
    return this.fail(key, 'a list of strings', value);
  }

  /** A list of `length` numbers. */
  numbers(key: string, length: number): number[] | undefined {
    const value = this.value(key);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) && !(ArrayBuffer.isView(value) && !(value instanceof DataView)))
      return this.fail(key, 'a list of numbers', value);
    const list = Array.from(value as ArrayLike<unknown>, entry => (typeof entry === 'bigint' ? Number(entry) : entry));
    if (list.length !== length)
      throw new FormatError(this.source, `${key}: expected ${length} entries, one a token, got ${list.length}`);
    const bad = list.find(entry => typeof entry !== 'number' || !Number.isFinite(entry));
    return bad === undefined ? (list as number[]) : this.fail(key, 'finite numbers', bad);
  }

  private value(key: string): unknown {
    return Object.hasOwn(this.metadata, key) ? (this.metadata[key] ?? undefined) : undefined;
  }

  private fail(key: string, expected: string, came: unknown): never {
    const what =
      came === undefined
        ? 'nothing'
        : Array.isArray(came)
          ? `a list of ${came.length}`
          : `${typeof came} ${String(came).slice(0, 40)}`;
    throw new FormatError(this.source, `${key}: expected ${expected}, got ${what}`);
  }
}
