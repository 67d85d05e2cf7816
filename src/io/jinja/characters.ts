// Python's view of characters: a text is a sequence of code points, and white space is Unicode's (JavaScript adds
// U+FEFF and lacks U+001C to U+001F).

export const lastCodePoint = 0x10ffff;

/** Python's white space, as a class of a regular expression. */
export const space = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const leading = new RegExp(`^${space}+`);
const isSpaceText = new RegExp(`^${space}$`);
/** Surrogates: without them code points are code units. */
const beyond = /[\ud800-\udfff]/;

export const isSpace = (char: string): boolean => isSpaceText.test(char);
export const points = (text: string): string[] => (beyond.test(text) ? Array.from(text) : text.split(''));
export const pointLength = (text: string): number => (beyond.test(text) ? Array.from(text).length : text.length);

/** Characters `from` to `to` of a text, which are counted in code points. */
export const pointSlice = (text: string, from: number, to = Infinity): string =>
  beyond.test(text) ? Array.from(text).slice(from, to).join('') : text.slice(from, to);

export function lstrip(text: string, chars: string | null = null): string {
  if (chars === null) return text.replace(leading, '');
  const strip = new Set(points(chars));
  let start = 0;
  for (const char of text) {
    if (!strip.has(char)) break;
    start += char.length;
  }
  return text.slice(start);
}

/** From the end step by step: a regular expression would look at every space of the text. */
export function rstrip(text: string, chars: string | null = null): string {
  const strip = chars === null ? undefined : new Set(points(chars));
  let end = text.length;
  while (end > 0) {
    const pair = end > 1 && /[\udc00-\udfff]/.test(text[end - 1]!) && /[\ud800-\udbff]/.test(text[end - 2]!);
    const char = text.slice(pair ? end - 2 : end - 1, end);
    if (strip ? !strip.has(char) : !isSpace(char)) break;
    end -= char.length;
  }
  return text.slice(0, end);
}

export const strip = (text: string, chars: string | null = null): string => lstrip(rstrip(text, chars), chars);

/** The first letter as a capital, the others small. */
export function capitalize(text: string): string {
  const [first = '', ...rest] = points(text);
  return titleOf(first) + rest.join('').toLowerCase();
}

/** Letters that begin a word with a form of their own ("ǆ" is "ǅ"); "ß" is "Ss", "ŉ" is "ʼN". */
export function titleOf(letter: string): string {
  const upper = letter.toUpperCase();
  if (letter >= 'Ǆ' && letter <= 'ǌ') return letter <= 'ǆ' ? 'ǅ' : letter <= 'ǉ' ? 'ǈ' : 'ǋ';
  if (letter >= 'Ǳ' && letter <= 'ǳ') return 'ǲ';
  const [first = '', ...rest] = points(upper);
  return first + (isCased(first) ? rest.join('').toLowerCase() : rest.join(''));
}

/** Python's str.title: each letter behind one that has no case is a capital. */
export function titleCase(text: string): string {
  let out = '';
  let inWord = false;
  for (const char of text) {
    out += inWord ? lowerOf(char, out, text) : titleOf(char);
    inWord = isCased(char);
  }
  return out;
}

/** Letters that are not small become so, the others capitals. */
export function swapCase(text: string): string {
  let out = '';
  for (const char of text) out += char === char.toLowerCase() ? char.toUpperCase() : lowerOf(char, out, text);
  return out;
}

/**
 * A sigma at the end of a word is another letter. `done` is what stands before it in the result, as long as in the text
 * but for rare letters.
 */
function lowerOf(char: string, done: string, text: string): string {
  if (char !== 'Σ') return char.toLowerCase();
  const final =
    /\p{Cased}\p{Case_Ignorable}*$/u.test(done.slice(-20)) &&
    !/^\p{Case_Ignorable}*\p{Cased}/u.test(text.slice(done.length + 1, done.length + 20));
  return final ? 'ς' : 'σ';
}

export const isCased = (char: string): boolean => /\p{Cased}/u.test(char);
