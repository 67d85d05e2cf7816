// Text from ids that arrive one at a time, as generation makes them: only whole characters come out.
// Knows nothing of generation or of stop tokens.

import type { DecodeOptions, Tokenizer } from './tokenizer.js';

/**
 * Turns ids into text as they come. A character whose bytes are spread over several tokens is held back until it is whole;
 * the pieces together are what `decode` makes of all the ids.
 */
export class TextStreamer {
  private readonly tokenizer: Tokenizer;
  private readonly options: DecodeOptions;
  /** The ids of the last piece, as context, then those whose text has not come out yet. */
  private window: number[] = [];
  /** How many ids of the window are context, and their text. */
  private context = 0;
  private shown = '';

  constructor(tokenizer: Tokenizer, options: DecodeOptions = { skipSpecialTokens: true }) {
    this.tokenizer = tokenizer;
    this.options = options;
  }

  /** The text this id completes; empty while a character is incomplete. @throws RangeError for an id outside the vocabulary */
  push(id: number): string {
    const window = [...this.window, id];
    const text = this.tokenizer.decode(window, this.options);
    this.window = window;
    if (text.endsWith('\uFFFD') || text.length <= this.shown.length) return '';
    const piece = text.slice(this.shown.length);
    this.window = window.slice(this.context);
    this.context = this.window.length;
    this.shown = this.tokenizer.decode(this.window, this.options);
    return piece;
  }

  /** What was held back, with U+FFFD for bytes that make no character. The streamer is empty afterwards. */
  end(): string {
    const piece = this.tokenizer.decode(this.window, this.options).slice(this.shown.length);
    this.window = [];
    this.context = 0;
    this.shown = '';
    return piece;
  }
}
