// BERT's vocabularies as GGUF files have them (tokenizer.ggml.model "bert"): the start of a word is marked, where
// Hugging Face marks its continuation. Source: llama.cpp's convert_hf_to_gguf.py (BertModel) and llama-vocab.cpp (WPM).

import type { AddedTokenJson } from './tokenizerAdded.js';
import type { Component } from './tokenizerParts.js';
import type { TokenizerJson } from './tokenizerPipeline.js';

const wordStart = '▁';
const continuation = '##';

/** The tokens that stand around texts, where the file names no others. */
export const bertTokens = { bos: '[CLS]', sep: '[SEP]', unknown: '[UNK]', padding: '[PAD]' } as const;

/**
 * A token as Hugging Face writes it: "▁play" is "play", and "ing" is "##ing".
 * @param isText whether it is a piece of text; special tokens stay as they are, those of older files by their brackets
 */
export function wordPieceOf(token: string, isText: boolean): string {
  if (!isText || /^\[.*\]$/su.test(token)) return token;
  // The mark alone is the character, behind others.
  return token.startsWith(wordStart) && token !== wordStart ? token.slice(wordStart.length) : continuation + token;
}

/** The parts of a tokenizer.json of these pieces, written as Hugging Face does. */
export function wordPieceJson(
  ids: ReadonlyMap<string, number>,
  added: AddedTokenJson[],
  unkToken: string,
): Omit<TokenizerJson, 'post_processor'> {
  const special = new Set(added.map(token => token.content));
  // Capitals are of a model that tells them apart: no text in lower case would ever reach them. Those beyond A to Z say
  // nothing: all vocabularies have ℝ, which has no small one.
  const isCased = [...ids.keys()].some(
    token => !special.has(token) && !/^\[.*\]$/su.test(token) && /[A-Z]/.test(token),
  );
  return {
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: !isCased,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    model: {
      type: 'WordPiece',
      vocab: Object.assign(Object.create(null) as Record<string, number>, Object.fromEntries(ids)),
      unk_token: unkToken,
      continuing_subword_prefix: continuation,
      max_input_chars_per_word: 100,
    },
    decoder: { type: 'WordPiece', prefix: continuation, cleanup: true },
    added_tokens: added,
  };
}

/** What BERT writes around a text and around two. */
export function bertTemplates(cls: string | undefined, sep: string | undefined): Component {
  const special = (id: string | undefined, type_id: number): object[] =>
    id === undefined ? [] : [{ SpecialToken: { id, type_id } }];
  const text = (id: 'A' | 'B', type_id: number): object => ({ Sequence: { id, type_id } });
  const single = [...special(cls, 0), text('A', 0), ...special(sep, 0)];
  return { type: 'TemplateProcessing', single, pair: [...single, text('B', 1), ...special(sep, 1)] };
}
