// Python's str() and repr() of values.

import { assemble, made } from './budget.js';
import { Callable, Dict, DictView, Iterator, Namespace, none, Range, Tuple, Undefined, type Value } from './values.js';

/** Python's str(). */
export function textOf(value: Value): string {
  if (typeof value === 'string') return value;
  return value instanceof Undefined ? '' : repr(value, 'string');
}

/** Python's repr(). `what` makes it, for the error of a text that is too long. */
export function repr(value: Value, what = 'repr'): string {
  return (
    scalar(value) ??
    assemble(what, out => {
      write(value, out);
    })
  );
}

/** undefined for what holds other values. */
function scalar(value: Value): string | undefined {
  if (value === none) return 'None';
  switch (typeof value) {
    case 'boolean':
      return value ? 'True' : 'False';
    case 'bigint':
      return String(value);
    case 'number':
      return floatText(value);
    case 'string':
      return quoted(value);
  }
  if (value instanceof Range) return `range(${value.start}, ${value.stop}${value.step === 1 ? '' : `, ${value.step}`})`;
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Iterator) return `<generator object ${value.name}>`;
  return value instanceof Callable ? `<function ${value.name}>` : undefined;
}

function write(value: Value, out: (piece: string) => void): void {
  const text = scalar(value);
  if (text !== undefined) out(text);
  else if (Array.isArray(value)) writeAll('[', value, ']', out);
  else if (value instanceof Tuple) writeAll('(', value.items, value.items.length === 1 ? ',)' : ')', out);
  else if (value instanceof DictView) writeAll(`dict_${value.kind}([`, value.items(), '])', out);
  else if (value instanceof Dict) writeMapping('{', value, '}', out);
  else if (value instanceof Namespace) writeMapping('<Namespace {', Dict.of(value.attributes), '}>', out);
}

function writeAll(open: string, items: readonly Value[], close: string, out: (piece: string) => void): void {
  out(open);
  items.forEach((item, i) => {
    if (i > 0) out(', ');
    write(item, out);
  });
  out(close);
}

function writeMapping(open: string, dict: Dict, close: string, out: (piece: string) => void): void {
  out(open);
  dict.entries().forEach(([key, value], i) => {
    if (i > 0) out(', ');
    write(key, out);
    out(': ');
    write(value, out);
  });
  out(close);
}

/** The shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const [digits = '', exponent = '0'] = value.toExponential().split('e');
  const power = Number(exponent);
  if (power < -4 || power >= 16) return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
  if (power < 0) return value.toFixed(Math.max(1, digits.replace(/[-.]/g, '').length - 1 - power));
  const text = String(value);
  return text.includes('.') ? text : `${text}.0`;
}

const namedEscapes: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.replace(/[\\\n\r\t'"]|[\p{C}\p{Z}]/gu, char => {
    if (char === ' ' || ((char === "'" || char === '"') && char !== quote)) return char;
    if (char === quote) return `\\${char}`;
    const named = namedEscapes[char];
    if (named !== undefined) return named;
    const code = char.codePointAt(0)!;
    const hex = code.toString(16);
    return code < 0x100
      ? `\\x${hex.padStart(2, '0')}`
      : code < 0x10000
        ? `\\u${hex.padStart(4, '0')}`
        : `\\U${hex.padStart(8, '0')}`;
  });
  return made(`${quote}${body}${quote}`);
}
