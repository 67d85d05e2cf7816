// The filter `tojson` as transformers sets it: Python's json.dumps with its separators, escapes and order of keys.

import { assemble } from './budget.js';
import { TemplateError } from './errors.js';
import { floatText } from './text.js';
import { compare, Dict, none, Tuple, typeName, Undefined, type Value } from './values.js';

export interface JsonOptions {
  readonly ensureAscii: boolean;
  /** What one level is indented by; null for one line. */
  readonly indent: string | null;
  readonly separators: readonly [item: string, key: string];
  readonly sortKeys: boolean;
}

/** @throws TemplateError for what JSON has no form for; RenderLimitError for what would be too long */
export function toJson(value: Value, options: JsonOptions): string {
  return assemble('tojson', out => {
    write(value, '\n', options, out);
  });
}

function write(value: Value, line: string, options: JsonOptions, out: (text: string) => void): void {
  if (Array.isArray(value) || value instanceof Tuple) {
    const items = Array.isArray(value) ? value : value.items;
    writeAll('[', ']', items, line, options, out, (item, inner) => {
      write(item, inner, options, out);
    });
  } else if (value instanceof Dict) {
    const entries = value.entries();
    if (options.sortKeys) entries.sort(([a], [b]) => compare(a, b, '<'));
    writeAll('{', '}', entries, line, options, out, ([key, item], inner) => {
      out(quoted(keyText(key), options.ensureAscii) + options.separators[1]);
      write(item, inner, options, out);
    });
  } else out(scalar(value, options.ensureAscii));
}

function writeAll<T>(
  open: string,
  close: string,
  items: readonly T[],
  line: string,
  options: JsonOptions,
  out: (text: string) => void,
  writeItem: (item: T, inner: string) => void,
): void {
  if (items.length === 0) {
    out(open + close);
    return;
  }
  const inner = options.indent === null ? line : line + options.indent;
  const breaks = options.indent === null ? '' : inner;
  items.forEach((item, i) => {
    out((i === 0 ? open : options.separators[0]) + breaks);
    writeItem(item, inner);
  });
  out(options.indent === null ? close : line + close);
}

function scalar(value: Value, ensureAscii: boolean): string {
  if (value === none) return 'null';
  switch (typeof value) {
    case 'boolean':
    case 'bigint':
      return String(value);
    case 'number':
      return jsonFloat(value);
    case 'string':
      return quoted(value, ensureAscii);
  }
  if (value instanceof Undefined) throw new TemplateError('Object of type Undefined is not JSON serializable');
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
}

const jsonFloat = (value: number): string =>
  Number.isFinite(value) ? floatText(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';

function keyText(key: Value): string {
  if (typeof key === 'string') return key;
  if (key === none || typeof key === 'boolean' || typeof key === 'bigint' || typeof key === 'number')
    return scalar(key, false);
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

/** Built of characters: a literal may not name control characters. */
const escaped = new RegExp(`[\\\\"${'\u0000'}-${'\u001f'}]`, 'g');

/** JSON.stringify escapes as json.dumps does, but for lone surrogates, which Python leaves. */
function quoted(text: string, ensureAscii: boolean): string {
  const body = text.replace(escaped, char => JSON.stringify(char).slice(1, -1));
  return `"${ensureAscii ? body.replace(/[\u007f-\uffff]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`) : body}"`;
}
