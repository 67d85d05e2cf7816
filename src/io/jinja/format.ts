// Python's two ways to put values into a text: `'%s' % value` and `'{}'.format(value)`.

import { reserve } from './budget.js';
import { lastCodePoint, pointLength, points, pointSlice } from './characters.js';
import { TemplateError } from './errors.js';
import { floatDigits, grouped, integerDigits, integerPrefix } from './formatNumber.js';
import { repr, textOf } from './text.js';
import { Dict, numberOf, Tuple, typeName, type Given, type Value } from './values.js';

const conversion = /%(?:\(([^)]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+)?)?[hlL]?([^])?/g;

/** `format % given`. */
export function formatPercent(format: string, given: Value): string {
  const values = given instanceof Tuple ? [...given.items] : [given];
  let next = 0;
  const take = (): Value => {
    if (next >= values.length) throw new TemplateError('not enough arguments for format string');
    return values[next++]!;
  };
  let length = 0;
  const text = format.replace(conversion, (whole, ...groups) => {
    const [key, flags = '', width, places, type] = groups as (string | undefined)[];
    if (type === '%') return '%';
    if (type === undefined) throw new TemplateError('incomplete format');
    const wide = width === '*' ? numberTaken(take()) : Number(width ?? 0);
    const dot = whole.includes('.', (key?.length ?? -2) + 3);
    const precision = places === '*' ? numberTaken(take()) : dot ? Number(places ?? 0) : undefined;
    const value = key === undefined ? take() : named(given, key);
    const left = flags.includes('-') || wide < 0;
    const made = converted(value, type, flags, precision);
    reserve('%', (length += Math.max(Math.abs(wide), made.text.length)));
    return pad(
      made.sign,
      made.text,
      Math.abs(wide),
      left ? '<' : flags.includes('0') && made.numeric ? '=' : '>',
      flags.includes('0') && made.numeric && !left ? '0' : ' ',
    );
  });
  if (next < values.length && !(given instanceof Dict))
    throw new TemplateError('not all arguments converted during string formatting');
  return text;
}

function named(given: Value, key: string): Value {
  if (!(given instanceof Dict)) throw new TemplateError('format requires a mapping');
  const value = given.get(key);
  if (value === undefined) throw new TemplateError(`KeyError: '${key}'`);
  return value;
}

function numberTaken(value: Value): number {
  if (typeof value !== 'bigint') throw new TemplateError('* wants int');
  return Number(value);
}

interface Converted {
  readonly sign: string;
  readonly text: string;
  readonly numeric: boolean;
}

function converted(value: Value, type: string, flags: string, precision: number | undefined): Converted {
  const alternate = flags.includes('#');
  const signOf = (negative: boolean): string =>
    negative ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
  if (type === 's' || type === 'r' || type === 'a') {
    const text = type === 's' ? textOf(value) : type === 'r' ? repr(value) : asciiRepr(value);
    return { sign: '', text: precision === undefined ? text : pointSlice(text, 0, precision), numeric: false };
  }
  const number = numberOf(value);
  if (type === 'c') {
    if (typeof value === 'string' && pointLength(value) === 1) return { sign: '', text: value, numeric: false };
    if (typeof number !== 'bigint') throw new TemplateError('%c requires int or char');
    return { sign: '', text: characterOf(number), numeric: false };
  }
  if ('diuoxX'.includes(type)) {
    if (number === undefined || (typeof number === 'number' && 'oxX'.includes(type))) {
      throw new TemplateError(
        `%${type} format: ${'oxX'.includes(type) ? 'an integer' : 'a real number'} is required, not ${typeName(value)}`,
      );
    }
    const whole = typeof number === 'bigint' ? number : toInteger(number);
    return {
      sign: signOf(whole < 0n) + integerPrefix({ type, alternate }),
      text: integerDigits(whole, type).padStart(precision ?? 0, '0'),
      numeric: true,
    };
  }
  if (!'eEfFgG'.includes(type)) throw new TemplateError(`unsupported format character '${type}'`);
  if (number === undefined) throw new TemplateError(`must be real number, not ${typeName(value)}`);
  const x = Number(number);
  reserve('%', precision ?? 0);
  return {
    sign: signOf(x < 0 || Object.is(x, -0)),
    text: floatDigits(x, { type, alternate, precision }),
    numeric: true,
  };
}

function characterOf(code: bigint): string {
  if (code < 0n || code > lastCodePoint) throw new TemplateError('%c arg not in range(0x110000)');
  return String.fromCodePoint(Number(code));
}

function toInteger(value: number): bigint {
  if (!Number.isFinite(value))
    throw new TemplateError(`cannot convert float ${Number.isNaN(value) ? 'NaN' : 'infinity'} to integer`);
  return BigInt(Math.trunc(value));
}

function asciiRepr(value: Value): string {
  return repr(value).replace(/[^\p{ASCII}]/gu, char => {
    const code = char.codePointAt(0)!;
    return code < 0x100
      ? `\\x${code.toString(16)}`
      : code < 0x10000
        ? `\\u${code.toString(16).padStart(4, '0')}`
        : `\\U${code.toString(16).padStart(8, '0')}`;
  });
}

function pad(sign: string, text: string, width: number, align: string, fill: string): string {
  const missing = Math.max(0, width - pointLength(sign) - pointLength(text));
  if (align === '<') return sign + text + fill.repeat(missing);
  if (align === '=') return sign + fill.repeat(missing) + text;
  if (align === '^')
    return fill.repeat(Math.floor(missing / 2)) + sign + text + fill.repeat(missing - Math.floor(missing / 2));
  return fill.repeat(missing) + sign + text;
}

/** How a field of `format` finds what it names. */
export interface Lookup {
  readonly attribute: (target: Value, name: string) => Value;
  readonly item: (target: Value, index: Value) => Value;
}

/** `text.format(...)`. */
export function formatBraces(text: string, given: Given, lookup: Lookup): string {
  let automatic = 0;
  let length = 0;
  const valueOf = (field: string): Value => {
    const [, first = '', rest = ''] = /^([^.[]*)([^]*)$/.exec(field)!;
    const name = first === '' ? String(automatic++) : first;
    let value = /^\d+$/.test(name) ? given.positional[Number(name)] : given.named.get(name);
    if (value === undefined)
      throw new TemplateError(
        /^\d+$/.test(name) ? `Replacement index ${name} out of range for positional args tuple` : `KeyError: '${name}'`,
      );
    for (const [, attribute, index] of rest.matchAll(/\.([^.[]+)|\[([^\]]+)\]/g)) {
      if (attribute !== undefined) value = lookup.attribute(value, attribute);
      else value = lookup.item(value, /^\d+$/.test(index!) ? BigInt(index!) : index!);
    }
    return value;
  };
  const fill = (template: string, depth: number): string => {
    let out = '';
    for (let i = 0; i < template.length; i++) {
      const char = template[i]!;
      if (char !== '{' && char !== '}') out += char;
      else if (template[i + 1] === char) out += template[i++]!;
      else if (char === '}') throw new TemplateError("Single '}' encountered in format string");
      else {
        const end = closingBrace(template, i);
        const [, field = '', how, spec = ''] =
          /^([^!:]*)(?:!([rsa]))?(?::([^]*))?$/.exec(template.slice(i + 1, end)) ??
          fail("expected ':' after conversion specifier");
        if (depth === 0) throw new TemplateError('Max string recursion exceeded');
        const value = valueOf(field);
        const shown = how === 'r' ? repr(value) : how === 'a' ? asciiRepr(value) : how === 's' ? textOf(value) : value;
        const piece = formatSpec(shown, fill(spec, depth - 1));
        reserve('format', (length += piece.length));
        out += piece;
        i = end;
      }
    }
    return out;
  };
  return fill(text, 2);
}

const fail = (message: string): never => {
  throw new TemplateError(message);
};

function closingBrace(text: string, open: number): number {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return i;
  }
  throw new TemplateError("expected '}' before end of string");
}

const specification = /^(?:([^])?([<>=^]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/u;

/** `format(value, spec)`. */
function formatSpec(value: Value, spec: string): string {
  if (spec === '') return textOf(value);
  const [, fillChar, align, sign = '', hash, zero, width, separator, places, type = ''] =
    specification.exec(spec) ?? fail('Invalid format specifier');
  const wide = Number(width ?? 0);
  const precision = places === undefined ? undefined : Number(places);
  reserve('format', Math.max(wide, precision ?? 0));
  const number = numberOf(value);
  if (number === undefined) {
    if (typeof value !== 'string') fail(`unsupported format string passed to ${typeName(value)}.__format__`);
    if (type !== '' && type !== 's') fail(`Unknown format code '${type}' for object of type '${typeName(value)}'`);
    const text = textOf(value);
    return pad(
      '',
      precision === undefined ? text : points(text).slice(0, precision).join(''),
      wide,
      align ?? '<',
      fillChar ?? ' ',
    );
  }
  const form = { type, alternate: hash !== undefined, precision };
  const whole = typeof number === 'bigint' && 'bcdnoxX'.includes(type);
  if (!whole && !'eEfFgGn%'.includes(type))
    fail(`Unknown format code '${type}' for object of type '${typeName(value)}'`);
  const x = Number(number);
  if (whole && type === 'c') return pad('', characterOf(number), wide, align ?? '<', fillChar ?? ' ');
  const signText = (x < 0 || Object.is(x, -0) ? '-' : sign === '-' ? '' : sign) + (whole ? integerPrefix(form) : '');
  const [side, fill] = [align ?? (zero ? '=' : '>'), fillChar ?? (zero ? '0' : ' ')];
  let digits = whole ? integerDigits(number, type) : floatDigits(x, form);
  if (separator !== undefined) {
    const size = 'boxX'.includes(type) && type !== '' ? 4 : 3;
    digits = grouped(digits, separator, size, side === '=' && fill === '0' ? wide - signText.length : 0);
  }
  return pad(signText, digits, wide, side, fill);
}
