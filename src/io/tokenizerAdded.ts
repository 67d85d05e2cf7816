// Added tokens: texts that are found in a text before anything else is split, and stand for one id. As Hugging Face's
// tokenizers find them: the leftmost, of those the longest.

import { whiteSpace, wordCharacter } from './tokenizerUnicode.js';

/** One entry of `added_tokens`. */
export interface AddedTokenJson {
  id: number;
  content: string;
  /** A control token: no text of a user's should be one. */
  special?: boolean;
  /** Found in the normalized text, by its normalized content. Default: unless it is special. */
  normalized?: boolean;
  /** Takes the white space before it, or behind it, along. */
  lstrip?: boolean;
  rstrip?: boolean;
  /** Only where no letter, digit or mark is directly before or behind it. */
  single_word?: boolean;
}

/** A part of a text: an added token, or what stands between them. `start` is its place. */
export interface Section {
  readonly start: number;
  readonly text: string;
  readonly token: AddedTokenJson | undefined;
}

const endsInWord = new RegExp(`${wordCharacter}$`, 'u');
const startsInWord = new RegExp(`^${wordCharacter}`, 'u');
const isSpace = new RegExp(`^${whiteSpace}$`, 'u');

const isWithinWord = (text: string, start: number, end: number): boolean =>
  endsInWord.test(text.slice(Math.max(0, start - 2), start)) || startsInWord.test(text.slice(end, end + 2));

export class AddedTokens {
  /** By their first UTF-16 unit, the longest first. */
  private readonly byStart = new Map<string, { content: string; token: AddedTokenJson }[]>();

  /** @param tokens with the text by which each is looked for; of two with one text the later counts */
  constructor(tokens: readonly { content: string; token: AddedTokenJson }[]) {
    for (const entry of new Map(tokens.map(t => [t.content, t])).values()) {
      if (entry.content === '') continue;
      const list = this.byStart.get(entry.content[0]) ?? [];
      list.push(entry);
      this.byStart.set(entry.content[0], list);
    }
    for (const list of this.byStart.values()) list.sort((a, b) => b.content.length - a.content.length);
  }

  /**
   * The text in sections.
   * @param mayBe whether a token may stand at a place; one that may not is not looked for there
   */
  split(text: string, mayBe: (token: AddedTokenJson, start: number, end: number) => boolean): Section[] {
    const sections: Section[] = [];
    let done = 0;
    for (const { token, start: from, end: to } of this.matches(text, mayBe)) {
      if (token.single_word && isWithinWord(text, from, to)) continue;
      let [start, end] = [from, to];
      if (token.lstrip) while (start > done && isSpace.test(text[start - 1])) start--;
      if (token.rstrip) while (end < text.length && isSpace.test(text[end])) end++;
      if (start > done) sections.push({ start: done, text: text.slice(done, start), token: undefined });
      sections.push({ start, text: text.slice(start, end), token });
      done = end;
    }
    if (done < text.length) sections.push({ start: done, text: text.slice(done), token: undefined });
    return sections;
  }

  /** Where these tokens stand in a text, whatever is behind or before them. None overlap. */
  *matches(
    text: string,
    mayBe: (token: AddedTokenJson, start: number, end: number) => boolean = () => true,
  ): Generator<{ token: AddedTokenJson; start: number; end: number }> {
    if (this.byStart.size === 0) return;
    for (let start = 0; start < text.length;) {
      const match = this.byStart
        .get(text[start])
        ?.find(({ content, token }) => text.startsWith(content, start) && mayBe(token, start, start + content.length));
      const end = start + (match?.content.length ?? 1);
      if (match) yield { token: match.token, start, end };
      start = end;
    }
  }
}
