// JSON from untrusted bytes: UTF-8, one object at the top, no key twice in one object (JSON.parse alone keeps the last
// one silently). What the fields mean is the business of the formats.

import { FormatError } from './errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Strict UTF-8 text of `bytes`; a byte order mark stays in the text. `what` names the part of the file in the
 * FormatError.
 */
export function decodeUtf8(bytes: Uint8Array, sourceName: string, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(sourceName, `${what} is not valid UTF-8`, { cause });
  }
}

/** The object that `bytes` spell. FormatError for bad UTF-8, bad JSON, anything but an object, a key given twice. */
export function parseJsonObject(bytes: Uint8Array, sourceName: string, what: string): JsonObject {
  const text = decodeUtf8(bytes, sourceName, what);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(
      sourceName,
      `${what} is not valid JSON (${cause instanceof Error ? cause.message : String(cause)})`,
      { cause },
    );
  }
  if (!isJsonObject(value))
    throw new FormatError(sourceName, `${what} must be a JSON object, it starts with ${text.trim().slice(0, 20)}`);
  const twice = findDuplicateKey(text);
  if (twice !== undefined)
    throw new FormatError(sourceName, `${what} has the key '${twice.slice(0, 80)}' twice in one object`);
  return value;
}

/**
 * The first number in a list under one of `keys`, at this depth of lists and objects, that is spelled as a fraction
 * (`2.0`, `2e0`, `-0`); JSON.parse gives whole numbers for those. `text` is known to be valid JSON.
 */
export function findFraction(
  text: string,
  keys: readonly string[],
  depth: number,
): { key: string; number: string } | undefined {
  // For each open list or object, the key it stands under.
  const open: string[] = [];
  let key = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
      key = JSON.parse(text.slice(start, i + 1)) as string;
    } else if (char === '{' || char === '[') {
      open.push(char === '[' ? key : '');
      key = '';
    } else if (char === '}' || char === ']') open.pop();
    else if (char === '-' || (char >= '0' && char <= '9')) {
      const start = i;
      while (/[-+.\deE]/.test(text[i + 1] ?? '')) i++;
      const number = text.slice(start, i + 1);
      const list = open[open.length - 1] ?? '';
      if (open.length === depth && keys.includes(list) && /[.eE]|^-0$/.test(number)) return { key: list, number };
    }
  }
  return undefined;
}

/** The first key that one object of `text` has twice. `text` is known to be valid JSON. */
function findDuplicateKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = [];
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '{') open.push(new Set());
    else if (char === '[') open.push(undefined);
    else if (char === '}' || char === ']') open.pop();
    else if (char === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
      let next = i + 1;
      while (text[next] === ' ' || text[next] === '\n' || text[next] === '\r' || text[next] === '\t') next++;
      if (text[next] !== ':') continue;
      const raw = text.slice(start, i + 1);
      const key = raw.includes('\\') ? (JSON.parse(raw) as string) : raw.slice(1, -1);
      const keys = open[open.length - 1];
      if (keys?.has(key)) return key;
      keys?.add(key);
    }
  }
  return undefined;
}
