// Jinja's filters on texts and numbers, and the table of all.

import { Reader } from './arguments.js';
import { made, reserve } from './budget.js';
import { capitalize, pointLength, points, pointSlice, space, strip } from './characters.js';
import { TemplateError } from './errors.js';
import { formatPercent } from './format.js';
import { fixed } from './formatNumber.js';
import { round, toFloat, toInt } from './numbers.js';
import { sequenceFilters } from './sequenceFilters.js';
import { joinTexts, lines, replaceText, stringMethods } from './stringMethods.js';
import { textOf } from './text.js';
import { toJson } from './tojson.js';
import {
  Dict,
  itemsOf,
  lengthOf,
  numberOf,
  truth,
  Tuple,
  typeName,
  Undefined,
  type Given,
  type Value,
} from './values.js';

/** What filters need of the interpreter: to call others by name. */
export interface Environment {
  filter(name: string, value: Value, given: Given): Value;
  test(name: string, value: Value, given: Given): boolean;
}

export type Filter = (value: Value, given: Given, environment: Environment) => Value;

const onText =
  (name: string, filter: (text: string) => Value): Filter =>
  (value, given) => {
    new Reader(name, given);
    return filter(textOf(value));
  };

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&#39;',
  '"': '&#34;',
};
const escape = onText('escape', text => made(text.replace(/[&<>'"]/g, char => escapes[char]!)));
const length: Filter = (value, given) => {
  new Reader('length', given);
  const count = lengthOf(value);
  if (count === undefined) throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
  return BigInt(count);
};
const orDefault: Filter = (value, given) => {
  const read = new Reader('default', given, ['default_value', 'boolean']);
  const absent = value instanceof Undefined || (read.flag('boolean', false) && !truth(value));
  return absent ? (read.value('default_value') ?? '') : value;
};
/** Those whose Python is known and that no chat template has been seen to use. */
const unsupported = ['pprint', 'random', 'striptags', 'urlize', 'wordwrap', 'xmlattr'];

const textFilters: Readonly<Record<string, Filter>> = {
  upper: onText('upper', text => text.toUpperCase()),
  lower: onText('lower', text => text.toLowerCase()),
  capitalize: onText('capitalize', capitalize),
  title: onText('title', text =>
    text
      .split(new RegExp(`([-({[<]|${space})`))
      .map(piece => {
        const [first = '', ...rest] = points(piece);
        return first.toUpperCase() + rest.join('').toLowerCase();
      })
      .join(''),
  ),
  string: onText('string', text => text),
  safe: onText('safe', text => text),
  e: escape,
  escape,
  forceescape: escape,
  trim: (value, given) => strip(textOf(value), new Reader('trim', given, ['chars']).optionalText('chars')),
  replace: (value, given) => {
    const read = new Reader('replace', given, ['old', 'new', 'count'], 2);
    return replaceText(textOf(value), textOf(read.value('old')!), textOf(read.value('new')!), read.whole('count', -1));
  },
  center: (value, given) =>
    stringMethods['center']!(textOf(value), {
      positional: [BigInt(new Reader('center', given, ['width']).whole('width', 80))],
      named: new Map(),
    }),
  indent: (value, given) => indent(value, new Reader('indent', given, ['width', 'first', 'blank'])),
  truncate: (value, given) =>
    truncate(textOnly(value), new Reader('truncate', given, ['length', 'killwords', 'end', 'leeway'])),
  wordcount: onText('wordcount', text => BigInt(text.match(/[\p{L}\p{N}\p{M}_]+/gu)?.length ?? 0)),
  urlencode: (value, given) => {
    new Reader('urlencode', given);
    if (typeof value === 'string' || numberOf(value) !== undefined) return made(quoteUrl(textOf(value), true));
    const pairs = value instanceof Dict ? value.entries() : itemsOf(value).map(itemsOf);
    return made(pairs.map(pair => pair.map(part => quoteUrl(textOf(part!), false)).join('=')).join('&'));
  },
  format: (value, { positional, named }) => {
    if (positional.length > 0 && named.size > 0)
      throw new TemplateError("can't handle positional and keyword arguments at the same time");
    return made(formatPercent(textOf(value), named.size > 0 ? Dict.of(named) : new Tuple(positional)));
  },
  tojson: (value, given) => {
    const read = new Reader('tojson', given, ['ensure_ascii', 'indent', 'separators', 'sort_keys']);
    const width = read.some('indent');
    const indented =
      width === undefined ? null : typeof width === 'string' ? width : spaces('tojson', read.whole('indent', 0));
    const separators = read.some('separators');
    const [item, key] =
      separators === undefined ? [indented === null ? ', ' : ',', ': '] : itemsOf(separators).map(textOf);
    if (item === undefined || key === undefined) throw read.error('expects two separators');
    return toJson(value, {
      ensureAscii: read.flag('ensure_ascii', false),
      indent: indented,
      separators: [item, key],
      sortKeys: read.flag('sort_keys', false),
    });
  },
};

const otherFilters: Readonly<Record<string, Filter>> = {
  count: length,
  length,
  d: orDefault,
  default: orDefault,
  abs: (value, given) => {
    new Reader('abs', given);
    const number = numberOf(value);
    if (number === undefined) throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`);
    return typeof number === 'bigint' ? (number < 0n ? -number : number) : Math.abs(number);
  },
  int: (value, given) => {
    const read = new Reader('int', given, ['default', 'base']);
    return toInt(value, read.value('default') ?? 0n, read.whole('base', 10));
  },
  float: (value, given) => toFloat(value, new Reader('float', given, ['default']).value('default') ?? 0),
  round: (value, given) => {
    const read = new Reader('round', given, ['precision', 'method']);
    return round(value, read.whole('precision', 0), read.text('method', 'common'));
  },
  filesizeformat: (value, given) =>
    fileSize(toFloat(value, 0) as number, new Reader('filesizeformat', given, ['binary']).flag('binary', false)),
};

/** All filters by name. */
export const filters: Readonly<Record<string, Filter>> = { ...textFilters, ...otherFilters, ...sequenceFilters };

/** @throws TemplateError for a filter that is not there */
export function filterNamed(name: string): Filter {
  if (unsupported.includes(name)) throw new TemplateError(`the filter '${name}' is not supported`);
  if (!Object.hasOwn(filters, name)) throw new TemplateError(`No filter named '${name}'.`);
  return filters[name]!;
}

function spaces(what: string, width: number): string {
  reserve(what, width);
  return ' '.repeat(Math.max(0, width));
}

function textOnly(value: Value): string {
  if (typeof value !== 'string') throw new TemplateError(`expected a str, got '${typeName(value)}'`);
  return value;
}

function indent(value: Value, read: Reader): string {
  if (typeof value !== 'string')
    throw new TemplateError(`unsupported operand type(s) for +=: '${typeName(value)}' and 'str'`);
  const width = read.value('width') ?? 4n;
  const [first, ...rest] = lines(`${value}\n`, false);
  const indention = typeof width === 'string' ? width : read.whole('width', 4);
  const size = typeof indention === 'string' ? indention.length : Math.max(0, indention);
  reserve('indent', value.length + size * (rest.length + 1));
  const by = typeof indention === 'string' ? indention : ' '.repeat(size);
  const blank = read.flag('blank', false);
  return joinTexts(
    [
      (read.flag('first', false) ? by : '') + (first ?? ''),
      ...rest.map(line => (blank || line !== '' ? by : '') + line),
    ],
    '\n',
  );
}

function truncate(text: string, read: Reader): string {
  const most = read.whole('length', 255);
  const end = read.text('end', '...');
  if (pointLength(text) <= most + read.whole('leeway', 5)) return text;
  const cut = pointSlice(text, 0, Math.max(0, most - pointLength(end)));
  const space = cut.lastIndexOf(' ');
  return (read.flag('killwords', false) || space < 0 ? cut : cut.slice(0, space)) + end;
}

const quoteUrl = (text: string, keepSlash: boolean): string => {
  const quoted = encodeURIComponent(text.replace(/[\ud800-\udfff]/gu, '\ufffd')).replace(
    /[!'()*]/g,
    char => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return keepSlash ? quoted.replaceAll('%2F', '/') : quoted.replaceAll('%20', '+');
};

function fileSize(bytes: number, binary: boolean): string {
  const base = binary ? 1024 : 1000;
  if (bytes === 1) return '1 Byte';
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  const prefixes = binary
    ? ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB']
    : ['kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'];
  const power = prefixes.findIndex((_, i) => bytes < base ** (i + 2));
  const i = power < 0 ? prefixes.length - 1 : power;
  return `${fixed(bytes / base ** (i + 1), 1)} ${prefixes[i]!}`;
}
