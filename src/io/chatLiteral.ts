// Text of a conversation that must stay text: what looks like a special token in a message is none, while those that
// the chat template writes are. Characters that could belong to one are marked in the messages, the template writes the
// marks along, and they are taken out of its text again.

/** Finds special tokens in a text. */
export interface SpecialTexts {
  /** The special tokens by their text. */
  readonly texts: readonly string[];
  /** Where those in a text begin. */
  startsIn(text: string): number[];
}

/** A text, and the places of characters that cannot be part of a special token. */
export interface LiteralText {
  readonly text: string;
  readonly literal: ReadonlySet<number>;
}

/** Private characters. One that neither the messages nor the template have marks the character behind it. */
const [firstMark, lastMark] = [0xe000, 0xf8ff];

/**
 * What a template writes of values whose strings may hold special tokens as text.
 * @param values what it is given: messages, tools and the like
 * @param templateText its source
 */
export function renderLiteral<T>(
  values: T,
  templateText: string,
  special: SpecialTexts,
  render: (marked: T) => string,
): LiteralText {
  const given: string[] = [templateText];
  mapStrings(values, text => {
    given.push(text);
    return text;
  });
  const mark = freeMark(given);
  const text = render(mapStrings(values, value => marked(value, mark, special)) as T);
  const parts = text.split(mark);
  const literal = new Set<number>();
  parts.reduce((length, part, i) => {
    if (i > 0) literal.add(length);
    return length + part.length;
  }, 0);
  return { text: parts.join(''), literal };
}

/**
 * Marks the first character of each special token, and an end of the text that could be a part of one together with
 * what the template writes there.
 */
function marked(text: string, mark: string, special: SpecialTexts): string {
  const places = new Set(special.startsIn(text));
  const [start, end] = [text.length - text.trimStart().length, text.trimEnd().length];
  for (const [from, to] of [
    [0, text.length],
    [start, end],
  ]) {
    if (from >= to) continue;
    const whole = text.slice(from, to);
    if (special.texts.some(token => suffixes(token).some(suffix => whole.startsWith(suffix)))) places.add(from);
    if (special.texts.some(token => prefixes(token).some(prefix => whole.endsWith(prefix)))) places.add(to - 1);
  }
  let out = '';
  let done = 0;
  for (const place of [...places].sort((a, b) => a - b)) {
    out += text.slice(done, place) + mark;
    done = place;
  }
  return out + text.slice(done);
}

const prefixes = (token: string): string[] => Array.from({ length: token.length - 1 }, (_, i) => token.slice(0, i + 1));
const suffixes = (token: string): string[] => Array.from({ length: token.length - 1 }, (_, i) => token.slice(i + 1));

function freeMark(texts: readonly string[]): string {
  for (let code = firstMark; code <= lastMark; code++) {
    const mark = String.fromCharCode(code);
    if (!texts.some(text => text.includes(mark))) return mark;
  }
  throw new RangeError('chat: the messages hold every private character from U+E000 to U+F8FF, none is left to mark');
}

/** A copy of a value with its strings changed, in lists and objects too; names of fields, roles and all else stay. */
function mapStrings(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map(item => mapStrings(item, change));
  const ofField = ([key, item]: [unknown, unknown]): [unknown, unknown] => [
    key,
    key === 'role' ? item : mapStrings(item, change),
  ];
  if (value instanceof Map) return new Map(Array.from(value as Map<unknown, unknown>, ofField));
  if (typeof value !== 'object' || value === null) return value;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(Object.entries(value).map(ofField) as [string, unknown][]);
}
