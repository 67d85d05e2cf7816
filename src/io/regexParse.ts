// A JavaScript regular expression as a graph: which character may be read after which. Each character of the expression
// is a place; `follow` says how many ways lead from one place to the next without reading anything. What such a graph
// says of the time a match may take is in regexCost.ts. Backtracking, laziness and what groups capture do not matter
// here.

/** A graph of places; place 0 stands for the start. */
export interface RegexGraph {
  /** The text of what each place reads: a character, an escape or a class. Null reads any character. */
  readonly atoms: readonly (string | null)[];
  /** Ways from a place to those that may be read next. */
  readonly follow: readonly ReadonlyMap<number, number>[];
  /** Places after which the whole may end whatever comes next. */
  readonly ends: ReadonlySet<number>;
  /** Graphs of what is looked ahead or behind for. */
  readonly looks: readonly RegexGraph[];
}

/** What could not be turned into a graph, for errors. */
export class RegexTooLarge extends Error {
  override readonly name = 'RegexTooLarge';
}

/** Characters of an expression, and places of its graph: the longest in use have some 2,000 and 60. */
const mostCharacters = 10_000;
const mostPlaces = 250;
/** Terms read, copies too, and groups within one another. */
const mostTerms = 10_000;
const mostDepth = 100;
/** Repeats are written out this often; more of them count as any number. */
const writtenOut = 4;

/** A part of the expression: where it may begin and end, whether it may be empty, for certain or on a condition. */
interface Part {
  readonly first: readonly number[];
  readonly last: readonly number[];
  /** Places after which it may end whatever comes next. */
  readonly sure: readonly number[];
  readonly empty: boolean;
  readonly surelyEmpty: boolean;
}

const nothing: Part = { first: [], last: [], sure: [], empty: true, surelyEmpty: true };

/** @throws RegexTooLarge for one that is too large to look at */
export function regexGraph({ source, flags }: RegExp): RegexGraph {
  if (source.length > mostCharacters) {
    throw new RegexTooLarge(`has ${source.length} characters, at most ${mostCharacters} are allowed`);
  }
  return new Reader(source, flags).graph();
}

class Reader {
  private at = 0;
  private terms = 0;
  private depth = 0;
  private readonly atoms: (string | null)[] = [null];
  private readonly follow: Map<number, number>[] = [new Map<number, number>()];
  private readonly looks: RegexGraph[] = [];
  private readonly source: string;
  private readonly flags: string;

  constructor(source: string, flags: string) {
    this.source = source;
    this.flags = flags;
  }

  graph(): RegexGraph {
    const whole = this.alternatives();
    if (this.at < this.source.length) throw new RegexTooLarge(`cannot be read from character ${this.at} on`);
    this.connect([0], whole.first);
    const { atoms, follow, looks } = this;
    return { atoms, follow, ends: new Set([...whole.sure, ...(whole.surelyEmpty ? [0] : [])]), looks };
  }

  private alternatives(): Part {
    const parts = [this.sequence()];
    while (this.take('|')) parts.push(this.sequence());
    return {
      first: parts.flatMap(p => p.first),
      last: parts.flatMap(p => p.last),
      sure: parts.flatMap(p => p.sure),
      empty: parts.some(p => p.empty),
      surelyEmpty: parts.some(p => p.surelyEmpty),
    };
  }

  private sequence(): Part {
    let whole = nothing;
    while (this.at < this.source.length && !'|)'.includes(this.source[this.at]))
      whole = this.joined(whole, this.repeated());
    return whole;
  }

  private joined(a: Part, b: Part): Part {
    this.connect(a.last, b.first);
    return {
      first: a.empty ? [...a.first, ...b.first] : a.first,
      last: b.empty ? [...a.last, ...b.last] : b.last,
      sure: b.surelyEmpty ? [...a.sure, ...b.sure] : b.sure,
      empty: a.empty && b.empty,
      surelyEmpty: a.surelyEmpty && b.surelyEmpty,
    };
  }

  private connect(from: readonly number[], to: readonly number[]): void {
    for (const a of from) for (const b of to) this.follow[a].set(b, (this.follow[a].get(b) ?? 0) + 1);
  }

  /** A term and how often it stands. */
  private repeated(): Part {
    const begin = this.at;
    const term = this.term();
    const end = this.at;
    const [least, most] = this.quantifier();
    if (most === 0) return nothing;
    // Copies of the term are read from its text again.
    const after = this.at;
    const copy = (): Part => {
      this.at = begin;
      const again = this.term();
      this.at = after;
      return again;
    };
    const optional = (part: Part): Part => ({ ...part, empty: true, surelyEmpty: true });
    const looped = (part: Part): Part => {
      this.connect(part.last, part.first);
      return part;
    };
    if (end === after) return term;
    const copies = Math.min(least, writtenOut);
    // A term that may be empty, and has to stand many times, can leave out any of them: more ways than any power.
    if (term.empty && least > writtenOut) return looped(looped(term));
    let whole = least === 0 ? nothing : term;
    for (let i = 1; i < copies; i++) whole = this.joined(whole, copy());
    const rest = most - least;
    if (least > writtenOut || rest > writtenOut)
      return this.joined(whole, optional(looped(least === 0 ? term : copy())));
    for (let i = 0; i < rest; i++) whole = this.joined(whole, optional(i === 0 && least === 0 ? term : copy()));
    return whole;
  }

  private quantifier(): readonly [number, number] {
    const rest = this.source.slice(this.at, this.at + 40);
    const [text, mark, least, comma, most] = /^(?:([*+?])|\{(\d+)(,?)(\d*)\})\??/.exec(rest) ?? [''];
    this.at += text.length;
    if (text === '') return [1, 1];
    if (mark) return mark === '*' ? [0, Infinity] : mark === '+' ? [1, Infinity] : [0, 1];
    return [Number(least), comma ? (most ? Number(most) : Infinity) : Number(least)];
  }

  private term(): Part {
    const { source } = this;
    if (++this.terms > mostTerms) throw new RegexTooLarge('repeats too much within repeats');
    if (this.take('(')) return this.group();
    const condition = /^(?:[\^$]|\\[bB])/.exec(source.slice(this.at, this.at + 2));
    if (condition) {
      this.at += condition[0].length;
      return { ...nothing, surelyEmpty: false };
    }
    const begin = this.at;
    if (source[begin] === '[') {
      this.skipClass();
      return this.place(source.slice(begin, this.at));
    }
    if (source[begin] !== '\\') {
      this.at += String.fromCodePoint(source.codePointAt(begin) as number).length;
      return this.place(source.slice(begin, this.at));
    }
    const rest = source.slice(begin, begin + 200);
    const escape = /^\\(?:([1-9]\d*|k<[^>]*>)|[pPu]\{[^}]*\}|u[\dA-Fa-f]{4}|x[\dA-Fa-f]{2}|c[A-Za-z]|[^])/u.exec(rest);
    if (!escape) throw new RegexTooLarge('ends in the middle of an escape');
    this.at += escape[0].length;
    if (escape[1] === undefined) return this.place(escape[0]);
    // A text read before may be any text.
    const any = this.place(null);
    this.connect(any.last, any.first);
    return { ...any, empty: true, surelyEmpty: false, sure: [] };
  }

  private group(): Part {
    const [opening, look] = /^\?(?:(=|!|<=|<!)|[a-z-]*:|<[^>]+>)/.exec(this.source.slice(this.at, this.at + 300)) ?? [
      '',
    ];
    this.at += opening.length;
    if (look === undefined) {
      const modifiers = /^\?([a-z-]+):/.exec(opening)?.[1] ?? '';
      const inside = this.inner();
      // Only 'i' says what a place reads.
      if (modifiers === '') return inside;
      for (const place of this.placesOf(inside)) this.atoms[place] = `(?${modifiers}:${this.atoms[place]})`;
      return inside;
    }
    const begin = this.at;
    this.inner();
    const end = this.at - 1;
    // Places that were read on the way lead nowhere; the look has a graph of its own.
    this.looks.push(new Reader(this.source.slice(begin, end), this.flags).graph());
    return { ...nothing, surelyEmpty: false };
  }

  /** What stands in a group, to behind its end. */
  private inner(): Part {
    if (++this.depth > mostDepth) throw new RegexTooLarge(`has groups ${mostDepth} deep within one another`);
    const part = this.alternatives();
    this.depth--;
    if (!this.take(')')) throw new RegexTooLarge('has a group that does not end');
    return part;
  }

  /** Places from the first one of a part on, which are all that were made since. */
  private placesOf(part: Part): number[] {
    const from = Math.min(...part.first);
    return this.atoms.flatMap((atom, place) => (place >= from && atom !== null ? [place] : []));
  }

  private place(atom: string | null): Part {
    if (this.atoms.length > mostPlaces)
      throw new RegexTooLarge(`has more than ${mostPlaces} places that read a character`);
    const place = [this.atoms.push(atom) - 1];
    this.follow.push(new Map());
    return { first: place, last: place, sure: place, empty: false, surelyEmpty: false };
  }

  /** To behind a class, which holds others where the flag v stands. */
  private skipClass(): void {
    let depth = 0;
    for (; this.at < this.source.length; this.at++) {
      const character = this.source[this.at];
      if (character === '\\') this.at++;
      else if (character === '[' && (depth === 0 || this.flags.includes('v'))) depth++;
      else if (character === ']' && --depth === 0) break;
    }
    this.at++;
  }

  private take(character: string): boolean {
    if (this.source[this.at] !== character) return false;
    this.at++;
    return true;
  }
}
