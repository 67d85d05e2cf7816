// SentencePiece BPE vocabularies (pieces with scores, no merge list) as the parts of a tokenizer.json.
// Shared by GGUF's "llama" tokenizers and llama2.c's; knows neither format.

import { FormatError } from './errors.js';
import type { AddedTokenJson } from './tokenizerAdded.js';
import type { Component } from './tokenizerParts.js';
import type { TokenizerJson } from './tokenizerPipeline.js';

export interface ScoredPieces {
  /** The file they came from, for errors. */
  source: string;
  /** Text of each id. Raw bytes are written `<0x0A>`. */
  pieces: readonly string[];
  /** Score of each id: of two possible merges the higher score goes first. */
  scores: readonly number[];
  /** How a space is written in a piece: U+2581 or a space itself. */
  space: '▁' | ' ';
  /** Whether a text gets a space in front. */
  addPrefixSpace: boolean;
  /** The tokens found in a text before anything is split. They are no part of merges. */
  added: readonly AddedTokenJson[];
  unkToken?: string | undefined;
  /** Ids whose piece may be the result or a part of a merge; control, unknown and byte pieces may not. */
  mayMerge: (id: number) => boolean;
}

/** Longer pieces are refused: finding the merges of one takes the square of its length. */
const maxPieceLength = 1024;

/**
 * The tokenizer.json of a scored vocabulary: BPE with byte fallback, whose merges are all pairs of pieces that make a
 * piece, best score first, as `LlamaConverter` of transformers derives them (convert_slow_tokenizer.py,
 * generate_merges).
 */
export function scoredPiecesToJson(vocabulary: ScoredPieces): Omit<TokenizerJson, 'post_processor'> {
  const { pieces, space, addPrefixSpace, added, unkToken } = vocabulary;
  const vocab: Record<string, number> = Object.create(null) as Record<string, number>;
  pieces.forEach((piece, id) => {
    vocab[piece] ??= id;
  });
  const hasBytes = Array.from({ length: 256 }, (_, byte) => bytePiece(byte)).every(piece => piece in vocab);
  const normalizers = [
    ...(addPrefixSpace ? [{ type: 'Prepend', prepend: space }] : []),
    ...(space === ' ' ? [] : [{ type: 'Replace', pattern: { String: ' ' }, content: space }]),
  ];
  return {
    normalizer: { type: 'Sequence', normalizers },
    pre_tokenizer: null,
    model: {
      type: 'BPE',
      vocab,
      merges: mergesOf(vocabulary),
      unk_token: unkToken,
      fuse_unk: true,
      byte_fallback: hasBytes,
    },
    decoder: piecesDecoder(space, addPrefixSpace),
    added_tokens: added.map(token => ({ normalized: false, ...token })),
  };
}

/** What decodes pieces: spaces, raw bytes, and the space that was put in front of the text. */
export function piecesDecoder(space: string, addPrefixSpace: boolean): Component {
  const decoders = [
    ...(space === ' ' ? [] : [{ type: 'Replace', pattern: { String: space }, content: ' ' }]),
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    ...(addPrefixSpace ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
  ];
  return { type: 'Sequence', decoders };
}

/** The piece of one raw byte: `<0x0A>` for a newline. */
export function bytePiece(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

function mergesOf({ source, pieces, scores, mayMerge }: ScoredPieces): [string, string][] {
  const ids = new Map<string, number>();
  pieces.forEach((piece, id) => {
    if (mayMerge(id) && !ids.has(piece)) ids.set(piece, id);
  });
  const merges: { left: string; right: string; score: number; lengths: [number, number] }[] = [];
  for (const [piece, id] of ids) {
    if (piece.length > maxPieceLength)
      throw new FormatError(source, `token ${id} has ${piece.length} characters, at most ${maxPieceLength}`);
    const characters = Array.from(piece);
    const pairs: typeof merges = [];
    let left = '';
    for (let cut = 1; cut < characters.length; cut++) {
      left += characters[cut - 1]!;
      const right = piece.slice(left.length);
      if (ids.has(left) && ids.has(right))
        pairs.push({ left, right, score: scores[id]!, lengths: [cut, characters.length - cut] });
    }
    pairs.sort((a, b) => ids.get(a.left)! - ids.get(b.left)! || ids.get(a.right)! - ids.get(b.right)!);
    merges.push(...pairs);
  }
  merges.sort((a, b) => b.score - a.score || b.lengths[0] - a.lengths[0] || b.lengths[1] - a.lengths[1]);
  return merges.map(({ left, right }) => [left, right]);
}
