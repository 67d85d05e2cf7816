// Numbers as Python's format specifications write them.

import { floatText } from './text.js';

/** What stands between % or : and the letter. */
export interface NumberForm {
  readonly alternate: boolean;
  readonly precision: number | undefined;
  readonly type: string;
}

/** The digits of a float without its sign: types e, f, g, %, n and none. */
export function floatDigits(value: number, { type, precision, alternate }: NumberForm): string {
  const x = Math.abs(value);
  const upper = type === type.toUpperCase() && type !== '' && type !== '%';
  if (!Number.isFinite(x)) return withCase(Number.isNaN(x) ? 'nan' : 'inf', upper);
  const places = precision ?? 6;
  switch (type.toLowerCase()) {
    case 'f':
      return pointed(fixed(x, places), alternate);
    case '%':
      return `${pointed(fixed(x * 100, places), alternate)}%`;
    case 'e':
      return withCase(exponential(x, places, alternate), upper);
    case '': {
      if (precision === undefined) return floatText(x);
      // There is always a digit behind the point, which counts.
      const digits = Math.max(1, precision);
      const text = general(x, digits, alternate, digits - 1);
      return /^\d+$/.test(text) ? `${text}.0` : text;
    }
    default:
      return withCase(general(x, Math.max(1, places), alternate, Math.max(1, places)), upper);
  }
}

const withCase = (text: string, upper: boolean): string => (upper ? text.toUpperCase() : text);
const pointed = (text: string, alternate: boolean): string => (alternate && !text.includes('.') ? `${text}.` : text);

function exponential(x: number, places: number, alternate: boolean): string {
  const [digits = '', power = '0'] = x.toExponential(Math.min(100, places)).split('e');
  const size = Math.abs(Number(power));
  return `${pointed(digits, alternate)}e${Number(power) < 0 ? '-' : '+'}${String(size).padStart(2, '0')}`;
}

function general(x: number, digits: number, alternate: boolean, significant: number): string {
  const power = Number(x.toExponential(Math.min(100, digits - 1)).split('e')[1]);
  const inPlace = power >= -4 && power < significant;
  const text = inPlace ? fixed(x, digits - 1 - power) : exponential(x, digits - 1, alternate);
  if (alternate) return pointed(text, true);
  const [mantissa = '', rest] = text.split('e');
  const short = mantissa.includes('.') ? mantissa.replace(/\.?0+$/, '') : mantissa;
  return rest === undefined ? short : `${short}e${rest}`;
}

/** Like toFixed, but that halves go to the even digit, and that large numbers keep all their digits. */
export function fixed(x: number, places: number): string {
  const shown = Math.min(100, Math.max(0, places));
  if (x >= 1e21) return `${BigInt(x)}${shown > 0 ? `.${'0'.repeat(shown)}` : ''}`;
  const text = x.toFixed(shown);
  if (shown === 100) return text;
  const all = x.toFixed(100);
  const behind = all.slice(all.indexOf('.') + 1 + shown);
  if (!/^50*$/.test(behind)) return text;
  const down = shown === 0 ? all.slice(0, all.indexOf('.')) : all.slice(0, all.indexOf('.') + 1 + shown);
  return Number(down.at(-1)) % 2 === 0 ? down : text;
}

const bases: Readonly<Record<string, number>> = { b: 2, o: 8, x: 16, X: 16 };

/** The digits of an int without its sign: types d, b, o, x, X and none. */
export function integerDigits(value: bigint, type: string): string {
  const digits = (value < 0n ? -value : value).toString(bases[type] ?? 10);
  return type === 'X' ? digits.toUpperCase() : digits;
}

/** What stands between sign and digits, and before the zeros that fill a width. */
export const integerPrefix = ({ type, alternate }: Pick<NumberForm, 'type' | 'alternate'>): string =>
  alternate && bases[type] !== undefined ? `0${type}` : '';

/** Digits in groups of three (or four, of the other bases), with zeros before them up to a width. */
export function grouped(digits: string, separator: string, size: number, width: number): string {
  // Hexadecimal digits come in fours, and an "e" among them is no exponent.
  const place = size === 3 ? digits.search(/[.e%]/) : -1;
  const [whole, rest] = place < 0 ? [digits, ''] : [digits.slice(0, place), digits.slice(place)];
  const missing = width - rest.length;
  // Of the characters behind the first, one in size + 1 is a separator. Where one would come first, so does a zero.
  const filled = whole.padStart(missing - Math.floor((missing - 1) / (size + 1)), '0');
  return filled.replace(new RegExp(`(?!^)(?=(?:[\\da-fA-F]{${size}})+$)`, 'g'), separator) + rest;
}
