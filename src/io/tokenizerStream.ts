// Text from ids that arrive one at a time, as generation makes them. Knows nothing of generation or of stop tokens.

import type { DecodeOptions, Tokenizer } from './tokenizer.js';

/**
 * Turns ids into text as they come. What a later id could change is held back (a character whose bytes are spread over
 * several tokens, a space that decoding may take away), so that the pieces together are what `decode` makes of all ids.
 */
export class TextStreamer {
  private readonly start: () => ReturnType<Tokenizer['decoding']>;
  private decoding: ReturnType<Tokenizer['decoding']>;

  constructor(tokenizer: Tokenizer, options: DecodeOptions = { skipSpecialTokens: true }) {
    this.start = () => tokenizer.decoding(options);
    this.decoding = this.start();
  }

  /** The text this id decides; often empty. @throws RangeError for an id outside the vocabulary */
  push(id: number): string {
    return this.decoding.push(id);
  }

  /** What was held back, with U+FFFD for bytes that make no character. The streamer begins anew afterwards. */
  end(): string {
    const text = this.decoding.end();
    this.decoding = this.start();
    return text;
  }
}
