// Which part of a prompt's text each of its tokens stands for, so that positions can be found in the text. Special tokens count as text.

import type { Tokenizer } from '../io/tokenizer.js';
import { TextStreamer } from '../io/tokenizerStream.js';

export interface TokenSpans {
  readonly text: string;
  /** Token t is text[starts[t] .. ends[t]); tokens that share one character all have all of it. */
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

const known = new WeakMap<Tokenizer, Map<string, TokenSpans>>();
const mostKept = 1024;

export function tokenSpans(ids: Int32Array, tokenizer: Tokenizer): TokenSpans {
  let kept = known.get(tokenizer);
  if (!kept) known.set(tokenizer, (kept = new Map()));
  const key = ids.join();
  const found = kept.get(key);
  if (found) return found;
  const streamer = new TextStreamer(tokenizer, { skipSpecialTokens: false });
  const [starts, ends]: [number[], number[]] = [[], []];
  let text = '';
  let open = 0;
  const close = (piece: string): void => {
    for (; open < starts.length; open++) ends[open] = text.length + piece.length;
    text += piece;
  };
  for (const id of ids) {
    starts.push(text.length);
    const piece = streamer.push(id);
    if (piece !== '') close(piece);
  }
  close(streamer.end());
  const spans = { text, starts, ends };
  if (kept.size >= mostKept) kept.clear();
  kept.set(key, spans);
  return spans;
}
