// How long a text becomes that a filter or a method of a chat template is about to make. Most make little more than
// they are given; those here take a width, a separator or a replacement of any length, and are measured first.

/** A value of the template library, as far as it is looked at here. */
export interface Value { readonly type: string; readonly value: unknown }

/** What is called: on what, and with which arguments. */
export interface Call {
  readonly name: string;
  readonly operand: Value;
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

/** Characters of an item of a list, counted like text. */
export const itemCharacters = 64;

/** Characters of what a call makes, or a number above `most` where it is more than that. */
type Measure = (call: Call, most: number) => number;

const asJson: Measure = ({ operand, named }, most) => {
  const indent = numberOf(named.get('indent')) ?? 0;
  const separators = named.get('separators')?.value;
  const separator = Array.isArray(separators) ? Math.max(...(separators as Value[]).map(textLength)) : 2;
  return jsonLength(operand, { indent, separator, ascii: named.get('ensure_ascii')?.value === true, most }, 0);
};

const measures: Readonly<Record<string, Measure>> = {
  tojson: asJson,
  string: (call, most) => (typeof call.operand.value === 'string' ? call.operand.value.length : asJson(call, most)),
  indent: ({ operand, positional, named }) => {
    const text = textOf(operand);
    const width = numberOf(positional[0] ?? named.get('width')) ?? 4;
    return text.length + Math.max(0, width) * (1 + occurrences(text, '\n'));
  },
  join: ({ operand, positional, named }) => {
    const separator = textLength(positional[0] ?? named.get('separator'));
    if (!Array.isArray(operand.value)) return textOf(operand).length * (1 + separator);
    return (operand.value as Value[]).reduce((sum, item) => sum + textLength(item) + separator, 0);
  },
  replace: ({ operand, positional }) => {
    const text = textOf(operand);
    return text.length + occurrences(text, textOf(positional[0])) * textLength(positional[1]);
  },
  split: ({ operand, positional }) => {
    const text = textOf(operand);
    const separator = textOf(positional[0]);
    return itemCharacters * (separator === '' ? text.length / 2 : occurrences(text, separator));
  },
};

/** Whether a filter or method of this name can make far more than it is given. */
export const canGrow = (name: string): boolean => Object.hasOwn(measures, name);

/** Whether a call makes more than `most` characters. */
export const growsBeyond = (call: Call, most: number): boolean => measures[call.name](call, most) > most;

const textOf = (value: Value | undefined): string => (typeof value?.value === 'string' ? value.value : '');
const textLength = (value: Value | undefined): number => textOf(value).length;
const numberOf = (value: Value | undefined): number | undefined =>
  (typeof value?.value === 'number' ? value.value : undefined);

/** How often `part` occurs in `text`, without overlap; an empty one between all characters. */
function occurrences(text: string, part: string): number {
  if (part === '') return text.length + 1;
  let count = 0;
  for (let found = text.indexOf(part); found >= 0; found = text.indexOf(part, found + part.length)) count++;
  return count;
}

interface JsonForm {
  readonly indent: number;
  readonly separator: number;
  readonly ascii: boolean;
  readonly most: number;
}

/** Characters of a value as JSON. Stops counting above `most`, for a list that holds itself many times over. */
function jsonLength({ value }: Value, form: JsonForm, depth: number): number {
  if (typeof value === 'string') return jsonTextLength(value, form.ascii);
  if (!Array.isArray(value) && !(value instanceof Map)) return 4;
  let length = 2;
  const line = form.separator + (form.indent > 0 ? 1 + form.indent * (depth + 1) : 0);
  for (const [key, item] of value.entries() as Iterable<[number | string, Value]>) {
    length += line + jsonLength(item, form, depth + 1);
    if (typeof key === 'string') length += jsonTextLength(key, form.ascii) + form.separator;
    if (length > form.most) break;
  }
  return length;
}

function jsonTextLength(text: string, ascii: boolean): number {
  let length = 2;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    length += code < 0x20 || (ascii && code >= 0x7f) ? 6 : code === 0x22 || code === 0x5c ? 2 : 1;
  }
  return length;
}
