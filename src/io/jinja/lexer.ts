// Jinja source becomes tokens, with the white space rules that transformers sets (trim_blocks, lstrip_blocks) and
// Python's string literals.

import { lastCodePoint, rstrip, space } from './characters.js';
import { TemplateSyntaxError } from './errors.js';

/** `data` is text outside of tags; an operator's type is itself. */
export interface Token {
  readonly type:
    | 'data'
    | 'name'
    | 'string'
    | 'integer'
    | 'float'
    | 'operator'
    | 'block_begin'
    | 'block_end'
    | 'variable_begin'
    | 'variable_end'
    | 'end';
  readonly value: string;
  readonly line: number;
}

const operators = [
  '//',
  '**',
  '==',
  '!=',
  '>=',
  '<=',
  '+',
  '-',
  '/',
  '*',
  '%',
  '~',
  '[',
  ']',
  '(',
  ')',
  '{',
  '}',
  '>',
  '<',
  '=',
  '.',
  ':',
  '|',
  ',',
  ';',
];
const closing: Readonly<Record<string, string>> = { '{': '}', '(': ')', '[': ']' };
const ends = {
  block: new RegExp(`\\+%\\}|-%\\}${space}*|%\\}\\n?`, 'y'),
  variable: new RegExp(`-\\}\\}${space}*|\\}\\}`, 'y'),
};
const opening = new RegExp(`\\{%([-+]?)${space}*raw${space}*(?:-%\\}${space}*|%\\})|\\{([%{#])([-+]?)`, 'g');
const rawEnd = new RegExp(`\\{%([-+]?)${space}*endraw${space}*(?:\\+%\\}|-%\\}${space}*|%\\}\\n?)`, 'g');
const commentEnd = new RegExp(`\\+#\\}|-#\\}${space}*|#\\}\\n?`, 'g');
const spaces = new RegExp(`${space}+`, 'y');
const float = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const name = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}_]*/uy;
const string = /'(?:[^'\\]|\\[^])*'|"(?:[^"\\]|\\[^])*"/y;

/** @throws TemplateSyntaxError */
export function tokenize(template: string): Token[] {
  return new Lexer(template).tokens();
}

class Lexer {
  private readonly source: string;
  private readonly out: Token[] = [];
  private position = 0;
  /** Whether what stands before the position ends a line, so that white space up to a tag can go. */
  private lineStarts = true;

  constructor(template: string) {
    const source = template.replace(/\r\n?/g, '\n');
    this.source = source.endsWith('\n') ? source.slice(0, -1) : source;
  }

  tokens(): Token[] {
    while (this.position < this.source.length) {
      opening.lastIndex = this.position;
      const found = opening.exec(this.source);
      if (!found) {
        this.push('data', this.source.slice(this.position));
        break;
      }
      const [whole, rawSign, kind, sign] = found;
      const text = this.source.slice(this.position, found.index);
      this.text(text, rawSign ?? sign ?? '', kind === '{');
      this.moveTo(found.index + whole.length);
      if (kind === undefined) this.raw();
      else if (kind === '#') this.comment();
      else this.tag(kind === '%' ? 'block' : 'variable');
    }
    this.push('end', '');
    return this.out;
  }

  /** Text before a tag, whose sign and kind decide what of its white space stays. */
  private text(text: string, sign: string, beforeVariable: boolean): void {
    let kept = text;
    if (sign === '-') kept = rstrip(text);
    else if (sign !== '+' && !beforeVariable) {
      const line = text.lastIndexOf('\n') + 1;
      if ((line > 0 || this.lineStarts) && rstrip(text.slice(line)) === '') kept = text.slice(0, line);
    }
    if (kept !== '') this.push('data', kept);
  }

  private raw(): void {
    rawEnd.lastIndex = this.position;
    const end = rawEnd.exec(this.source);
    if (!end) throw this.error('Missing end of raw directive');
    this.text(this.source.slice(this.position, end.index), end[1]!, false);
    this.moveTo(end.index + end[0].length);
  }

  private comment(): void {
    commentEnd.lastIndex = this.position;
    const end = commentEnd.exec(this.source);
    if (!end) throw this.error('Missing end of comment tag');
    this.moveTo(end.index + end[0].length);
  }

  private tag(kind: 'block' | 'variable'): void {
    this.push(`${kind}_begin`, '');
    const open: string[] = [];
    for (;;) {
      this.skip(spaces);
      if (this.position >= this.source.length) throw this.error('unexpected end of template');
      if (open.length === 0) {
        const end = this.match(ends[kind]);
        if (end !== undefined) {
          this.push(`${kind}_end`, '');
          this.moveTo(this.position + end.length);
          return;
        }
      }
      this.expressionToken(open);
    }
  }

  private expressionToken(open: string[]): void {
    for (const [type, pattern] of [
      ['float', float],
      ['integer', integer],
      ['name', name],
      ['string', string],
    ] as const) {
      const value = this.match(pattern);
      if (value === undefined) continue;
      this.push(type, type === 'string' ? this.unescape(value.slice(1, -1)) : value);
      this.moveTo(this.position + value.length);
      return;
    }
    const operator = operators.find(text => this.source.startsWith(text, this.position));
    if (operator === undefined) throw this.error(`unexpected char ${JSON.stringify(this.source[this.position])}`);
    if (closing[operator]) open.push(closing[operator]);
    else if ('})]'.includes(operator)) {
      const expected = open.pop();
      if (expected !== operator)
        throw this.error(`unexpected '${operator}'${expected === undefined ? '' : `, expected '${expected}'`}`);
    }
    this.push('operator', operator);
    this.moveTo(this.position + operator.length);
  }

  /** A string literal's text: Python's escapes. One that is none keeps its backslash. */
  private unescape(text: string): string {
    return text.replace(
      /\\(?:\n|([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([^]))/g,
      (whole, octal?: string, ...more) => {
        const [x, u, long, char] = more as (string | undefined)[];
        if (octal !== undefined) return String.fromCharCode(parseInt(octal, 8));
        const hex = x ?? u ?? long;
        if (hex !== undefined && parseInt(hex, 16) > lastCodePoint) throw this.error('illegal Unicode character');
        if (hex !== undefined) return String.fromCodePoint(parseInt(hex, 16));
        if ('xuUN'.includes(whole[1]!)) throw this.error(`a \\${whole[1]!} escape that cannot be read`);
        return char === undefined ? '' : (escapes[char] ?? whole);
      },
    );
  }

  private match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.position;
    return pattern.exec(this.source)?.[0];
  }

  private skip(pattern: RegExp): void {
    this.moveTo(this.position + (this.match(pattern)?.length ?? 0));
  }

  private moveTo(position: number): void {
    if (position > this.position) this.lineStarts = this.source[position - 1] === '\n';
    this.position = position;
  }

  private push(type: Token['type'], value: string): void {
    this.out.push({ type, value, line: this.position });
  }

  private error(message: string): TemplateSyntaxError {
    return new TemplateSyntaxError(message, this.source, this.position);
  }
}

const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
  '\\': '\\',
  "'": "'",
  '"': '"',
};
