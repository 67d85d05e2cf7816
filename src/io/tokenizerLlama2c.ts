// Tokenizers from llama2.c vocabularies (tok512.bin, tokenizer.bin): the pieces and scores of a SentencePiece model.
// Only that format; the model file of llama2.c is read elsewhere.

import { FormatError } from './errors.js';
import { Tokenizer } from './tokenizer.js';
import { scoredPiecesToJson } from './tokenizerPieces.js';

export interface Llama2cVocabulary {
  /** Text of each id: 0 unknown, 1 BOS, 2 EOS, 3 to 258 the raw bytes; a space is written as a space. */
  pieces: string[];
  scores: number[];
}

/**
 * Reads a llama2.c vocabulary file: int32 longest length, then for each piece f32 score, int32 length, bytes
 * (karpathy/llama2.c, tokenizer.py, `export`). Little-endian.
 * @throws FormatError for a file that ends within a piece or whose lengths or texts make no sense
 */
export function parseLlama2cVocabulary(bytes: Uint8Array, source: string): Llama2cVocabulary {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 4) throw new FormatError(source, `expected a llama2.c vocabulary, got ${bytes.length} bytes`);
  const longest = view.getInt32(0, true);
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const pieces: string[] = [];
  const scores: number[] = [];
  let offset = 4;
  while (offset < bytes.length) {
    const id = pieces.length;
    if (offset + 8 > bytes.length) throw new FormatError(source, `ends within the header of piece ${id}`);
    const score = view.getFloat32(offset, true);
    const length = view.getInt32(offset + 4, true);
    offset += 8;
    if (length < 0 || length > longest || offset + length > bytes.length) {
      throw new FormatError(
        source,
        `piece ${id}: expected a length up to ${longest} that the file holds, got ${length}`,
      );
    }
    if (!Number.isFinite(score)) throw new FormatError(source, `piece ${id}: score is ${score}`);
    try {
      pieces.push(decoder.decode(bytes.subarray(offset, offset + length)));
    } catch (error) {
      throw new FormatError(source, `piece ${id} is not UTF-8`, { cause: error });
    }
    scores.push(score);
    offset += length;
  }
  return { pieces, scores };
}

/**
 * The tokenizer of a llama2.c vocabulary. As llama2.c's `encode`: BOS and a space in front of a text, characters that
 * are no piece fall back to their bytes, then the best-scoring neighbours merge.
 * @throws FormatError for a vocabulary without the three special pieces and the 256 byte pieces
 */
export function tokenizerFromLlama2c({ pieces, scores }: Llama2cVocabulary, source = 'llama2.c vocabulary'): Tokenizer {
  if (pieces.length < 259 || pieces[3] !== '<0x00>' || pieces[258] !== '<0xFF>') {
    throw new FormatError(source, `expected <unk>, BOS, EOS and 256 byte pieces first, got ${pieces.length} pieces`);
  }
  if (scores.length !== pieces.length)
    throw new FormatError(source, `${pieces.length} pieces and ${scores.length} scores`);
  // The exported texts of BOS and EOS carry newlines, so that no text has them.
  const named = ['<unk>', '<s>', '</s>', ...pieces.slice(3)];
  const json = scoredPiecesToJson({
    source,
    pieces: named,
    scores,
    space: ' ',
    addPrefixSpace: true,
    unkToken: '<unk>',
    added: [0, 1, 2].map(id => ({ id, content: named[id]!, special: true })),
    mayMerge: id => id > 258,
  });
  return new Tokenizer({
    source,
    bosToken: '<s>',
    eosToken: '</s>',
    unkToken: '<unk>',
    json: {
      ...json,
      post_processor: {
        type: 'TemplateProcessing',
        single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      },
    },
  });
}
