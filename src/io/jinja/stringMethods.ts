// The methods of str.

import { Reader } from './arguments.js';
import { made, reserve, spendItems } from './budget.js';
import {
  capitalize,
  isCased,
  isSpace,
  lstrip,
  pointLength,
  points,
  pointSlice,
  rstrip,
  strip,
  swapCase,
  titleCase,
  titleOf,
} from './characters.js';
import { TemplateError } from './errors.js';
import { Tuple, typeName, type Given, type Value } from './values.js';

type Method = (text: string, given: Given) => Value;
const plain =
  (name: string, method: (text: string) => Value): Method =>
  (text, given) => {
    new Reader(name, given);
    return method(text);
  };
const stripping =
  (name: string, method: (text: string, chars: string | null) => string): Method =>
  (text, given) =>
    method(text, new Reader(name, given, ['chars']).optionalText('chars'));
/** Whether there are characters and all are of a kind. */
const every = (name: string, kind: RegExp): Method =>
  plain(name, text => text !== '' && points(text).every(char => kind.test(char)));

/** By its name, as a method or as the filter of the same name. */
export const stringMethods: Readonly<Record<string, Method>> = {
  upper: plain('upper', text => text.toUpperCase()),
  lower: plain('lower', text => text.toLowerCase()),
  casefold: plain('casefold', text => text.toUpperCase().toLowerCase().replaceAll('ς', 'σ')),
  capitalize: plain('capitalize', capitalize),
  title: plain('title', titleCase),
  swapcase: plain('swapcase', swapCase),
  strip: stripping('strip', strip),
  lstrip: stripping('lstrip', lstrip),
  rstrip: stripping('rstrip', rstrip),
  startswith: (text, given) => bordering('startswith', text, given, (part, affix) => part.startsWith(affix)),
  endswith: (text, given) => bordering('endswith', text, given, (part, affix) => part.endsWith(affix)),
  removeprefix: (text, given) => {
    const prefix = new Reader('removeprefix', given, ['prefix'], 1).text('prefix');
    return text.startsWith(prefix) ? text.slice(prefix.length) : text;
  },
  removesuffix: (text, given) => {
    const suffix = new Reader('removesuffix', given, ['suffix'], 1).text('suffix');
    return suffix !== '' && text.endsWith(suffix) ? text.slice(0, -suffix.length) : text;
  },
  replace: (text, given) => {
    const read = new Reader('replace', given, ['old', 'new', 'count'], 2);
    return replaceText(text, read.text('old'), read.text('new'), read.whole('count', -1));
  },
  split: (text, given) => parts('split', text, given),
  rsplit: (text, given) => parts('rsplit', text, given),
  splitlines: (text, given) => lines(text, new Reader('splitlines', given, ['keepends']).flag('keepends', false)),
  partition: (text, given) => {
    const sep = separator('partition', given);
    const at = text.indexOf(sep);
    return at < 0 ? new Tuple([text, '', '']) : new Tuple([text.slice(0, at), sep, text.slice(at + sep.length)]);
  },
  rpartition: (text, given) => {
    const sep = separator('rpartition', given);
    const at = text.lastIndexOf(sep);
    return at < 0 ? new Tuple(['', '', text]) : new Tuple([text.slice(0, at), sep, text.slice(at + sep.length)]);
  },
  join: (text, given) => {
    const items = new Reader('join', given, ['iterable'], 1).items('iterable');
    items.forEach((item, i) => {
      if (typeof item !== 'string')
        throw new TemplateError(`sequence item ${i}: expected str instance, ${typeName(item)} found`);
    });
    return joinTexts(items as string[], text);
  },
  find: (text, given) => BigInt(search('find', text, given, false)),
  rfind: (text, given) => BigInt(search('rfind', text, given, true)),
  index: (text, given) => found(search('index', text, given, false)),
  rindex: (text, given) => found(search('rindex', text, given, true)),
  count: (text, given) => {
    const read = new Reader('count', given, ['sub', 'start', 'end'], 1);
    const [part, sub] = [windowOf(text, read), read.text('sub')];
    if (part === null) return 0n;
    return BigInt(sub === '' ? pointLength(part) + 1 : part.split(sub).length - 1);
  },
  center: (text, given) =>
    padded('center', text, given, (missing, width) => Math.floor(missing / 2) + (missing % 2 && width % 2 ? 1 : 0)),
  ljust: (text, given) => padded('ljust', text, given, () => 0),
  rjust: (text, given) => padded('rjust', text, given, missing => missing),
  zfill: (text, given) => {
    const width = new Reader('zfill', given, ['width'], 1).whole('width', 0);
    reserve('zfill', width);
    const [sign, digits] = /^[-+]/.test(text) ? [text[0]!, text.slice(1)] : ['', text];
    return sign + '0'.repeat(Math.max(0, width - pointLength(text))) + digits;
  },
  expandtabs: (text, given) => expandTabs(text, new Reader('expandtabs', given, ['tabsize']).whole('tabsize', 8)),
  isalpha: every('isalpha', /^\p{L}$/u),
  isdigit: every('isdigit', /^[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨]$/u),
  isdecimal: every('isdecimal', /^\p{Nd}$/u),
  isnumeric: every('isnumeric', /^\p{N}$/u),
  isalnum: every('isalnum', /^[\p{L}\p{N}]$/u),
  isspace: plain('isspace', text => text !== '' && points(text).every(isSpace)),
  isascii: plain('isascii', text => /^\p{ASCII}*$/u.test(text)),
  isidentifier: plain('isidentifier', text => /^[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}]*$/u.test(text)),
  isprintable: plain('isprintable', text => !/[\p{C}\p{Z}]/u.test(text.replaceAll(' ', ''))),
  isupper: plain('isupper', text => points(text).some(isCased) && text === text.toUpperCase()),
  islower: plain('islower', text => points(text).some(isCased) && text === text.toLowerCase()),
  istitle: plain(
    'istitle',
    text =>
      points(text).some(isCased) &&
      text === titleCase(text) &&
      points(text).every(char => char === titleOf(char) || char === char.toLowerCase()),
  ),
};

/** @throws RenderLimitError for what would be too long, before it is made */
export function replaceText(text: string, old: string, replacement: string, most: number): string {
  const places = old === '' ? points(text).length + 1 : text.split(old).length - 1;
  const times = most < 0 ? places : Math.min(places, most);
  reserve('replace', text.length + times * (replacement.length - old.length));
  if (times === 0) return text;
  if (old !== '') {
    const pieces = text.split(old);
    return made(pieces.slice(0, times).join(replacement) + replacement + pieces.slice(times).join(old));
  }
  const chars = points(text);
  return made(
    chars.map((char, i) => (i < times ? replacement + char : char)).join('') +
      (times > chars.length ? replacement : ''),
  );
}

export function joinTexts(texts: readonly string[], sep: string): string {
  reserve(
    'join',
    texts.reduce((sum, text) => sum + text.length, Math.max(0, texts.length - 1) * sep.length),
  );
  return made(texts.join(sep));
}

function bordering(name: string, text: string, given: Given, test: (part: string, affix: string) => boolean): boolean {
  const read = new Reader(name, given, ['prefix', 'start', 'end'], 1);
  const affix = read.value('prefix')!;
  const affixes = affix instanceof Tuple ? affix.items : [affix];
  const part = windowOf(text, read);
  return affixes.some(one => {
    if (typeof one !== 'string') throw read.error(`first arg must be str or a tuple of str, not ${typeName(one)}`);
    return part !== null && test(part, one);
  });
}

/** text[start:end], null where start is behind the end of the text. */
function windowOf(text: string, read: Reader): string | null {
  const length = pointLength(text);
  const place = (value: number): number => Math.max(0, value < 0 ? value + length : value);
  const start = place(read.whole('start', 0));
  const end = Math.min(length, place(read.whole('end', length)));
  return start > length || start > end ? null : pointSlice(text, start, end);
}

function search(name: string, text: string, given: Given, last: boolean): number {
  const read = new Reader(name, given, ['sub', 'start', 'end'], 1);
  const part = windowOf(text, read);
  if (part === null) return -1;
  const at = last ? part.lastIndexOf(read.text('sub')) : part.indexOf(read.text('sub'));
  const start = read.whole('start', 0);
  return at < 0 ? -1 : pointLength(part.slice(0, at)) + (start < 0 ? Math.max(0, start + pointLength(text)) : start);
}

function found(place: number): bigint {
  if (place < 0) throw new TemplateError('substring not found');
  return BigInt(place);
}

function separator(name: string, given: Given): string {
  const sep = new Reader(name, given, ['sep'], 1).text('sep');
  if (sep === '') throw new TemplateError('empty separator');
  return sep;
}

function parts(name: 'split' | 'rsplit', text: string, given: Given): string[] {
  const read = new Reader(name, given, ['sep', 'maxsplit']);
  const sep = read.optionalText('sep');
  if (sep === '') throw new TemplateError('empty separator');
  const most = read.whole('maxsplit', -1);
  const pieces = sep === null ? words(text, most, name === 'rsplit') : limited(text, sep, most, name === 'rsplit');
  spendItems(pieces.length);
  return pieces;
}

function limited(text: string, sep: string, most: number, fromRight: boolean): string[] {
  let count = 1;
  for (let at = text.indexOf(sep); at >= 0; at = text.indexOf(sep, at + sep.length)) count++;
  reserve('split', 64 * count);
  const pieces = text.split(sep);
  if (most < 0 || pieces.length <= most + 1) return pieces;
  return fromRight
    ? [pieces.slice(0, pieces.length - most).join(sep), ...pieces.slice(pieces.length - most)]
    : [...pieces.slice(0, most), pieces.slice(most).join(sep)];
}

/** Runs of white space separate, and those at the ends do not count. */
function words(text: string, most: number, fromRight: boolean): string[] {
  const pieces: string[] = [];
  let rest = fromRight ? rstrip(text) : lstrip(text);
  while (rest !== '') {
    if (most >= 0 && pieces.length === most) {
      pieces.push(rest);
      break;
    }
    const chars = fromRight ? points(rest).reverse() : points(rest);
    if (most < 0) {
      let word = '';
      for (const char of chars) {
        if (!isSpace(char)) word += char;
        else if (word !== '') {
          pieces.push(word);
          word = '';
        }
      }
      if (word !== '') pieces.push(word);
      return fromRight ? pieces.map(piece => points(piece).reverse().join('')).reverse() : pieces;
    }
    const end = chars.findIndex(isSpace);
    const length = chars.slice(0, end < 0 ? undefined : end).join('').length;
    pieces.push(fromRight ? rest.slice(rest.length - length) : rest.slice(0, length));
    rest = fromRight ? rstrip(rest.slice(0, rest.length - length)) : lstrip(rest.slice(length));
  }
  return fromRight ? pieces.reverse() : pieces;
}

/** Built of characters: a literal may not name control characters. */
const lineEnds = new RegExp(`(\\r\\n|[\\n\\r\\v\\f${'\u001c'}-${'\u001e'}\\u0085\\u2028\\u2029])`);

/** At Python's ends of lines. */
export function lines(text: string, keepEnds: boolean): string[] {
  const pieces = text.split(lineEnds);
  const out: string[] = [];
  for (let i = 0; i < pieces.length; i += 2) out.push(pieces[i]! + (keepEnds ? (pieces[i + 1] ?? '') : ''));
  if (pieces.at(-1) === '') out.pop();
  spendItems(out.length);
  return out;
}

function padded(
  name: string,
  text: string,
  given: Given,
  onTheLeft: (missing: number, width: number) => number,
): string {
  const read = new Reader(name, given, ['width', 'fillchar'], 1);
  const width = read.whole('width', 0);
  const fill = read.text('fillchar', ' ');
  if (pointLength(fill) !== 1) throw new TemplateError('The fill character must be exactly one character long');
  reserve(name, width * fill.length);
  const missing = Math.max(0, width - pointLength(text));
  const left = onTheLeft(missing, width);
  return made(fill.repeat(left) + text + fill.repeat(missing - left));
}

function expandTabs(text: string, size: number): string {
  reserve('expandtabs', text.length + (text.split('\t').length - 1) * Math.max(0, size));
  let column = 0;
  let out = '';
  for (const char of text) {
    if (char === '\t') {
      const width = size > 0 ? size - (column % size) : 0;
      out += ' '.repeat(width);
      column += width;
    } else {
      out += char;
      column = char === '\n' || char === '\r' ? 0 : column + 1;
    }
  }
  return out;
}
