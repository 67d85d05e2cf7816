// Which part of a prompt's text each of its tokens stands for, so that positions can be found in the text. Special
// tokens count as text.

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
  const options = { skipSpecialTokens: false };
  const streamer = new TextStreamer(tokenizer, options);
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
  refine(text, starts, ends, count => tokenizer.decode(ids.subarray(0, count), options));
  const spans = { text, starts, ends };
  if (kept.size >= mostKept) kept.clear();
  kept.set(key, spans);
  return spans;
}

/**
 * Tokens whose text came in one piece of several characters, because a decoder held it back: the text of the tokens up
 * to one of them ends its part, where the whole text begins with it.
 */
function refine(text: string, starts: number[], ends: number[], textOf: (count: number) => string): void {
  for (let first = 0; first < starts.length;) {
    let behind = first + 1;
    while (behind < starts.length && starts[behind] === starts[first]) behind++;
    const end = ends[first];
    if (behind - first > 1 && end - starts[first] > characterLength(text, starts[first])) {
      let open = first;
      for (let t = first; t < behind - 1; t++) {
        const before = textOf(t + 1);
        if (before.length <= starts[open] || before.length > end || !text.startsWith(before)) continue;
        ends.fill(before.length, open, t + 1);
        starts.fill(before.length, t + 1, behind);
        open = t + 1;
      }
    }
    first = behind;
  }
}

const characterLength = (text: string, place: number): number => ((text.codePointAt(place) ?? 0) > 0xffff ? 2 : 1);
