// The Unigram model (Kudo 2018): of all ways to write a piece in tokens, the one whose scores add to most. Ties and
// characters that are not known go as in Hugging Face's tokenizers.

import { bytePiece } from './tokenizerPieces.js';
import { noToken, type TokenModel } from './tokenizerModels.js';

interface TrieNode {
  readonly next: Map<number, TrieNode>;
  /** The id of the token that ends here, or -1. */
  id: number;
}

/** How much less than the worst token a character is worth that is none. */
const unknownPenalty = 10;

export class Unigram implements TokenModel {
  readonly vocab: (string | undefined)[];
  readonly unknownId: number | undefined;
  private readonly scores: readonly number[];
  private readonly unknownScore: number;
  private readonly byteFallback: boolean;
  private readonly ids: Map<string, number>;
  private readonly root: TrieNode = { next: new Map(), id: -1 };

  /** @param config the `model` of a tokenizer.json, whose vocabulary was checked */
  constructor(config: Record<string, unknown>) {
    const entries = config['vocab'] as [string, number][];
    this.vocab = entries.map(([piece]) => piece);
    this.scores = entries.map(([, score]) => score);
    const unknown = config['unk_id'] ?? undefined;
    if (unknown !== undefined && !(typeof unknown === 'number' && Number.isInteger(unknown) && unknown in this.vocab)) {
      throw new Error(`model.unk_id: expected an id of the ${entries.length} tokens, got ${JSON.stringify(unknown)}`);
    }
    this.unknownId = unknown;
    this.unknownScore = this.scores.reduce((a, b) => Math.min(a, b), Infinity) - unknownPenalty;
    this.byteFallback = config['byte_fallback'] === true;
    this.ids = new Map(entries.map(([piece], id) => [piece, id]));
    for (const [piece, id] of this.ids) this.add(piece, id);
  }

  idOf(token: string): number | undefined {
    return this.ids.get(token);
  }

  encode(piece: string): number[] {
    return this.tokens(piece).flatMap(token => {
      const id = this.ids.get(token);
      if (id !== undefined) return [id];
      if (this.byteFallback) {
        const bytes = Array.from(new TextEncoder().encode(token), byte => this.ids.get(bytePiece(byte)));
        if (!bytes.includes(undefined)) return bytes as number[];
      }
      return [this.unknownId ?? noToken(piece)];
    });
  }

  /** The best way to write a piece, characters that are not known joined to one text. */
  private tokens(piece: string): string[] {
    const { starts, ids } = this.bestPath(piece);
    const tokens: string[] = [];
    let unknownEnd = -1;
    for (let end = piece.length; end > 0; end = starts[end]) {
      const start = starts[end];
      if (ids[end] !== (this.unknownId ?? -1)) {
        tokens.push(piece.slice(start, end));
        unknownEnd = -1;
      } else if (unknownEnd < 0) {
        unknownEnd = end;
        tokens.push(piece.slice(start, end));
      } else tokens[tokens.length - 1] = piece.slice(start, unknownEnd);
    }
    return tokens.reverse();
  }

  /** For each end within the piece, where the last token of the best way to it starts, and which it is. */
  private bestPath(piece: string): { starts: Int32Array; ids: Int32Array } {
    const scores = new Float64Array(piece.length + 1);
    const starts = new Int32Array(piece.length + 1).fill(-1);
    const ids = new Int32Array(piece.length + 1);
    const offer = (start: number, end: number, id: number, score: number): void => {
      const sum = scores[start] + score;
      if (starts[end] >= 0 && sum <= scores[end]) return;
      scores[end] = sum;
      starts[end] = start;
      ids[end] = id;
    };
    for (let start = 0; start < piece.length;) {
      const length = (piece.codePointAt(start) as number) > 0xffff ? 2 : 1;
      let known = false;
      let node: TrieNode | undefined = this.root;
      for (let end = start; end < piece.length;) {
        node = node.next.get(piece.charCodeAt(end++));
        if (!node) break;
        if (node.id < 0) continue;
        known ||= end - start === length;
        offer(start, end, node.id, this.scores[node.id]);
      }
      if (!known) offer(start, start + length, this.unknownId ?? -1, this.unknownScore);
      start += length;
    }
    return { starts, ids };
  }

  private add(piece: string, id: number): void {
    let node = this.root;
    for (let i = 0; i < piece.length; i++) {
      let next = node.next.get(piece.charCodeAt(i));
      if (!next) node.next.set(piece.charCodeAt(i), (next = { next: new Map(), id: -1 }));
      node = next;
    }
    if (piece !== '') node.id = id;
  }
}
