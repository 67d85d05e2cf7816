// `clean_up_tokenization_spaces`: spaces before punctuation and English contractions go from a decoded text, as in
// transformers. Text comes in parts; what a later part could still change is held back.

/** In this order, each over the whole text. */
const replacements: readonly (readonly [string, string])[] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];
/** What may follow the space that a replacement begins with. */
const followers: ReadonlySet<string> = new Set(replacements.flatMap(([from]) => Array.from(from)));
/** The longest text that becomes one replacement: " n ' t" loses two spaces on the way to "n't". */
const longest = 6;

const clean = (text: string): string => replacements.reduce((t, [from, to]) => t.replaceAll(from, () => to), text);

export function cleanedUp(): { push(part: string): string; end(): string } {
  let held = '';
  return {
    push(part) {
      held += part;
      let cut = held.length;
      while (cut > 0 && !isSafeCut(held, cut)) cut--;
      const text = clean(held.slice(0, cut));
      held = held.slice(cut);
      return text;
    },
    end() {
      const text = clean(held);
      held = '';
      return text;
    },
  };
}

/**
 * Whether no replacement takes characters from both sides: none reaches over what cannot follow a space, or so far from
 * the last space.
 */
function isSafeCut(text: string, cut: number): boolean {
  if (cut < text.length && !followers.has(text[cut])) return true;
  return !text.slice(Math.max(0, cut - longest + 1), cut).includes(' ');
}
