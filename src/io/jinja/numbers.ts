// Numbers that filters make of values: int, float, round.

import { TemplateError } from './errors.js';
import { strip } from './characters.js';
import { fixed } from './formatNumber.js';
import { numberOf, typeName, Undefined, type Value } from './values.js';

const underscored = (digits: string): string => `${digits}(?:_?${digits})*`;
const decimal = new RegExp(
  `^[-+]?(?:${underscored('\\d')}\\.?(?:${underscored('\\d')})?|\\.${underscored('\\d')})(?:e[-+]?${underscored('\\d')})?$`,
  'i',
);

/** Python's float() of a text, undefined where it is none. */
export function parseFloatText(text: string): number | undefined {
  const trimmed = strip(text);
  const [, sign, word] = /^([-+]?)(inf|infinity|nan)$/i.exec(trimmed) ?? [];
  if (word !== undefined) return (sign === '-' ? -1 : 1) * (word.toLowerCase() === 'nan' ? NaN : Infinity);
  return decimal.test(trimmed) ? Number(trimmed.replaceAll('_', '')) : undefined;
}

/** Python's int() of a text, undefined where it is none. */
export function parseIntText(text: string, base: number): bigint | undefined {
  const [, sign = '', body = ''] = /^([-+]?)([^]*)$/.exec(strip(text).toLowerCase())!;
  const prefixes: Readonly<Record<number, string>> = { 2: '0b', 8: '0o', 16: '0x' };
  const prefixed = Object.entries(prefixes).find(([, prefix]) => body.startsWith(prefix));
  const used = base === 0 ? Number(prefixed?.[0] ?? 10) : base;
  const digits = body.startsWith(prefixes[used] ?? '-') ? body.slice(2).replace(/^_/, '') : body;
  if (!/^[\da-z]+(?:_[\da-z]+)*$/.test(digits)) return undefined;
  let value = 0n;
  for (const char of digits.replaceAll('_', '')) {
    const digit = parseInt(char, 36);
    if (digit >= used) return undefined;
    value = value * BigInt(used) + BigInt(digit);
  }
  return sign === '-' ? -value : value;
}

/** The filter `int`. */
export function toInt(value: Value, otherwise: Value, base: number): Value {
  if (value instanceof Undefined) value.fail();
  if (typeof value === 'string' && value.length > 4300) return otherwise;
  const read = typeof value === 'string' ? (parseIntText(value, base) ?? parseFloatText(value)) : numberOf(value);
  if (typeof read !== 'number') return read ?? otherwise;
  if (!Number.isFinite(read)) {
    if (typeof value !== 'string' && !Number.isNaN(read))
      throw new TemplateError('cannot convert float infinity to integer');
    return otherwise;
  }
  return BigInt(Math.trunc(read));
}

/** The filter `float`. */
export function toFloat(value: Value, otherwise: Value): Value {
  if (value instanceof Undefined) value.fail();
  const read = typeof value === 'string' ? parseFloatText(value) : numberOf(value);
  return read === undefined ? otherwise : Number(read);
}

/** The filter `round`. */
export function round(value: Value, precision: number, method: string): Value {
  if (!['common', 'ceil', 'floor'].includes(method)) throw new TemplateError('method must be common, ceil or floor');
  const number = numberOf(value);
  if (number === undefined) throw new TemplateError(`type ${typeName(value)} doesn't define __round__ method`);
  const scale = 10 ** precision;
  // An int in between, so that there is no -0.
  if (method !== 'common') return (Math[method as 'ceil'](Number(number) * scale) + 0) / scale;
  if (typeof number === 'bigint') return precision >= 0 ? number : roundedInt(number, -precision);
  if (precision < 0) return Math.sign(number) * Number(roundedInt(BigInt(Math.round(Math.abs(number))), -precision));
  const text = fixed(Math.abs(number), precision);
  return number < 0 || Object.is(number, -0) ? -Number(text) : Number(text);
}

/** Halves to the even number. */
function roundedInt(value: bigint, places: number): bigint {
  const unit = 10n ** BigInt(places);
  const rest = ((value % unit) + unit) % unit;
  const down = value - rest;
  const up = rest * 2n > unit || (rest * 2n === unit && (down / unit) % 2n !== 0n);
  return up ? down + unit : down;
}
