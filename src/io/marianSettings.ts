// The configuration inside a marian model: YAML as marian writes it, `key: value` lines whose values are scalars or
// lists of scalars. Other YAML (nested maps, anchors, texts over several lines) is refused by its line.

import { FormatError } from './errors.js';
import { shorten } from './tensorFile.js';

export type MarianScalar = string | number | boolean;
export type MarianSettings = Readonly<Record<string, MarianScalar | readonly MarianScalar[]>>;

const keyLine = /^([A-Za-z][\w-]*):(?: (.*))?$/;
const listLine = /^ *- (.*)$/;

/** @throws FormatError naming the line that is not of this form */
export function parseMarianSettings(text: string, source: string): MarianSettings {
  const settings = new Map<string, MarianScalar | MarianScalar[]>();
  /** The list that lines with a dash belong to, and its key. */
  let open: { readonly key: string; readonly items: MarianScalar[] } | undefined;
  const close = (): void => {
    if (open?.items.length === 0) throw new FormatError(source, `${open.key}: expected a value, found none`);
    open = undefined;
  };
  for (const [i, untrimmed] of text.split('\n').entries()) {
    const line = untrimmed.trimEnd();
    if (line === '') continue;
    const fault = (): FormatError =>
      new FormatError(
        source,
        `line ${i + 1}: expected "key: value" or "- value", got ${JSON.stringify(shorten(line))}`,
      );
    const item = listLine.exec(line);
    if (item) {
      if (!open) throw fault();
      open.items.push(scalarOf(item[1], fault));
      continue;
    }
    close();
    const [, key, value] = keyLine.exec(line) ?? [];
    if (key === undefined) throw fault();
    if (settings.has(key)) throw new FormatError(source, `line ${i + 1}: ${key} is given twice`);
    if (value === undefined) {
      open = { key, items: [] };
      settings.set(key, open.items);
    } else settings.set(key, value.startsWith('[') ? flowList(value, fault) : scalarOf(value, fault));
  }
  close();
  return Object.fromEntries(settings);
}

/** `[a, b]`. */
function flowList(value: string, fault: () => FormatError): MarianScalar[] {
  const inside = /^\[([^[\]{}"']*)\]$/.exec(value)?.[1];
  if (inside === undefined) throw fault();
  return inside.trim() === '' ? [] : inside.split(',').map(item => scalarOf(item.trim(), fault));
}

/** What YAML takes a plain scalar for, or the text within quotation marks. */
function scalarOf(value: string, fault: () => FormatError): MarianScalar {
  const quoted = /^"([^"\\]*)"$|^'([^']*)'$/.exec(value);
  if (quoted) return quoted[1] ?? quoted[2];
  // What starts otherwise is a form of YAML that is not read here, and so is a map within a line.
  if (!/^[\w+.~/-]/.test(value) || /: | #|:$/.test(value)) throw fault();
  if (value === 'true' || value === 'false') return value === 'true';
  return /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(value) ? Number(value) : value;
}
