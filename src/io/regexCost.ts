// How long a regular expression of somebody else may take. An engine that backtracks tries every way to read a text
// before it gives up; here it is counted how that number grows with the text. The expression is a graph
// (regexParse.ts), in which two ways to read the same text round one circle make it exponential, and circles one behind
// the other that can read the same text make it a power (Weber and Seidl 1991, "On the degree of ambiguity of finite
// automata"). Places after which the whole may end are left out, for there nothing is ever given up.

import { RegexTooLarge, regexGraph, type RegexGraph } from './regexParse.js';

/** More steps of the search than any expression in use takes. */
const mostSteps = 300_000;

const known = new Map<string, number>();

/**
 * The power of a text's length with which the steps of finding all matches grow at most: 1 for most expressions, 2
 * where each place of the text may be read to its end in vain, Infinity where it is exponential.
 * @throws RegexTooLarge for an expression that is too large to say
 */
export function regexPower(expression: RegExp): number {
  const key = `${expression.flags} ${expression.source}`;
  let power = known.get(key);
  if (power === undefined) {
    const graph = regexGraph(expression);
    const looks = Math.max(0, ...graph.looks.map(look => lookPower(look, expression.flags)));
    power = new Search(graph, expression.flags, true).degree() + 1 + looks;
    if (known.size > 500) known.clear();
    known.set(key, power);
  }
  return power;
}

/** What a look adds: nothing where it reads a bounded number of characters. */
function lookPower(graph: RegexGraph, flags: string): number {
  const inner = Math.max(0, ...graph.looks.map(look => lookPower(look, flags)));
  const search = new Search(graph, flags, false);
  return search.hasCircle ? search.degree() + 1 + inner : inner;
}

/** What is wrong with an expression of somebody else, or null. */
export function regexFault(expression: RegExp): string | null {
  try {
    if (regexPower(expression) < Infinity) return null;
    return 'could take exponential time: a repeated part can be read in two ways, as in (a|a)* or (a+)+';
  } catch (error) {
    if (error instanceof RegexTooLarge || error instanceof SyntaxError) return error.message;
    throw error;
  }
}

class Search {
  /** True where anything is repeated without bound. */
  readonly hasCircle: boolean;
  private readonly places: readonly number[];
  private readonly follow: readonly ReadonlyMap<number, number>[];
  /** For each place, which of the kinds of characters that the expression tells apart it reads, a bit each. */
  private readonly reads: readonly bigint[];
  /** The strongly connected component of each place, -1 for places on no circle. */
  private readonly component: readonly number[];
  private readonly reach: readonly ReadonlySet<number>[];
  private steps = 0;

  /** With `scans` the match may begin anywhere, so that the start is a circle of its own. */
  constructor(graph: RegexGraph, flags: string, scans: boolean) {
    const all = graph.follow.map(next => new Map(next));
    if (scans) all[0].set(0, 1);
    const reach = reachable(all);
    // What is looked ahead for left places behind that nothing leads to.
    const used = all.map((_, place) => place).filter(place => place === 0 || reach[0].has(place));
    this.hasCircle = used.some(place => reach[place].has(place));
    this.places = used.filter(place => place === 0 || !graph.ends.has(place));
    const left = new Set(this.places);
    this.follow = all.map((next, place) => new Map(left.has(place) ? [...next].filter(([to]) => left.has(to)) : []));
    this.reach = reachable(this.follow);
    this.component = this.places.reduce<number[]>(
      (components, place) => {
        const reached = this.reach[place];
        components[place] = reached.has(place)
          ? Math.min(...[...reached].filter(other => this.reach[other].has(place)))
          : -1;
        return components;
      },
      all.map(() => -1),
    );
    this.reads = readsOf(graph.atoms, flags);
  }

  /** How many circles that can read one text stand behind one another, less one. */
  degree(): number {
    const circles = [...new Set(this.component)].filter(c => c >= 0);
    const membersOf = new Map(circles.map(c => [c, this.places.filter(p => this.component[p] === c)]));
    if (circles.some(c => this.isAmbiguous(membersOf.get(c) as number[]))) return Infinity;
    const longest = new Map<number, number>();
    const from = (c: number): number => {
      const before = longest.get(c);
      if (before !== undefined) return before;
      longest.set(c, 0);
      const next = circles.filter(
        d => d !== c && this.reach[c].has(d) && this.meet(membersOf.get(c) as number[], membersOf.get(d) as number[]),
      );
      const length = Math.max(0, ...next.map(d => 1 + from(d)));
      longest.set(c, length);
      return length;
    };
    return Math.max(0, ...circles.map(from));
  }

  /** Whether one text can be read in two ways round a circle. */
  private isAmbiguous(members: readonly number[]): boolean {
    const inside = new Set(members);
    if (members.some(p => [...this.follow[p]].some(([to, ways]) => inside.has(to) && ways > 1))) return true;
    const size = this.follow.length;
    const next = (pair: number): number[] => {
      const [a, b] = [Math.floor(pair / size), pair % size];
      return this.pairs(a, b)
        .filter(([x, y]) => inside.has(x) && inside.has(y))
        .map(([x, y]) => x * size + y);
    };
    const seen = new Map<number, number[]>();
    const waiting = members.map(p => p * size + p);
    for (let pair = waiting.pop(); pair !== undefined; pair = waiting.pop()) {
      if (seen.has(pair)) continue;
      seen.set(pair, next(pair));
      waiting.push(...(seen.get(pair) as number[]));
    }
    // Two ways that parted must be able to meet again.
    const back = new Map<number, number[]>();
    for (const [pair, to] of seen) for (const other of to) back.set(other, [...(back.get(other) ?? []), pair]);
    const returning = new Set<number>();
    const queue = members.map(p => p * size + p);
    for (let pair = queue.pop(); pair !== undefined; pair = queue.pop()) {
      if (returning.has(pair)) continue;
      returning.add(pair);
      queue.push(...(back.get(pair) ?? []));
    }
    return [...seen.keys()].some(pair => Math.floor(pair / size) !== pair % size && returning.has(pair));
  }

  /** Whether a text leads round the first circle, from it to the second, and round the second. */
  private meet(first: readonly number[], second: readonly number[]): boolean {
    return first.some(p => second.some(q => this.meetAt(p, q)));
  }

  private meetAt(p: number, q: number): boolean {
    const [home, goal] = [this.component[p], this.component[q]];
    const size = this.follow.length;
    const key = (a: number, b: number, c: number): number => (a * size + b) * size + c;
    const end = key(p, q, q);
    const seen = new Set<number>();
    const waiting: (readonly [number, number, number])[] = [[p, p, q]];
    for (let triple = waiting.pop(); triple; triple = waiting.pop()) {
      const [a, b, c] = triple;
      for (const x of this.follow[a].keys()) {
        if (this.component[x] !== home) continue;
        for (const [y, z] of this.pairs(b, c)) {
          if (this.component[z] !== goal || !(y === q || this.reach[y].has(q))) continue;
          if ((this.reads[x] & this.reads[y] & this.reads[z]) === 0n) continue;
          const next = key(x, y, z);
          if (next === end) return true;
          if (seen.has(next)) continue;
          seen.add(next);
          waiting.push([x, y, z]);
        }
      }
    }
    return false;
  }

  /** Places that can be read next from two places by one character. */
  private pairs(a: number, b: number): [number, number][] {
    const result: [number, number][] = [];
    for (const x of this.follow[a].keys()) {
      for (const y of this.follow[b].keys()) {
        if (++this.steps > mostSteps) throw new RegexTooLarge('is too intricate to say how long it may take');
        if ((this.reads[x] & this.reads[y]) !== 0n) result.push([x, y]);
      }
    }
    return result;
  }
}

function reachable(follow: readonly ReadonlyMap<number, number>[]): Set<number>[] {
  return follow.map(next => {
    const seen = new Set<number>();
    const waiting = [...next.keys()];
    for (let place = waiting.pop(); place !== undefined; place = waiting.pop()) {
      if (seen.has(place)) continue;
      seen.add(place);
      waiting.push(...follow[place].keys());
    }
    return seen;
  });
}

/**
 * One character of each kind in use: all of the first scripts, some of every block, and the others of the expression.
 */
const samples: readonly string[] = [
  ...range(0, 0x250, 1),
  ...range(0x250, 0x600, 3),
  ...range(0x600, 0x3100, 13),
  ...range(0x2000, 0x2070, 1),
  ...range(0x3000, 0x3010, 1),
  ...range(0x3100, 0xd800, 128),
  ...range(0xe000, 0x10000, 128),
  ...range(0xfe00, 0xff20, 3),
  ...range(0x10000, 0x20000, 1024),
  0x2f800,
  0xe0001,
  0x10fffd,
].map(code => String.fromCodePoint(code));

function range(from: number, to: number, step: number): number[] {
  return Array.from({ length: Math.ceil((to - from) / step) }, (_, i) => from + i * step);
}

function readsOf(atoms: readonly (string | null)[], flags: string): bigint[] {
  const own = new Set(atoms.flatMap(atom => charactersOf(atom ?? '')));
  const alphabet = [...new Set([...samples, ...own])];
  const read = new Map<string, readonly boolean[]>();
  for (const atom of new Set(atoms)) {
    if (atom === null) continue;
    const alone = new RegExp(`^(?:${atom})$`, flags.replace(/[gymd]/g, ''));
    read.set(
      atom,
      alphabet.map(character => alone.test(character)),
    );
  }
  // Characters that no place tells apart are one kind.
  const kinds = new Map<string, number>();
  const lists = [...read.values()];
  alphabet.forEach((_, i) => {
    const kind = lists.map(list => (list[i] ? '1' : '0')).join('');
    if (!kinds.has(kind)) kinds.set(kind, i);
  });
  const kept = [...kinds.values()];
  const bits = (list: readonly boolean[]): bigint =>
    kept.reduce((mask, i, bit) => (list[i] ? mask | (1n << BigInt(bit)) : mask), 0n);
  const masks = new Map([...read].map(([atom, list]) => [atom, bits(list)]));
  const every = (1n << BigInt(kept.length)) - 1n;
  return atoms.map(atom => (atom === null ? every : (masks.get(atom) as bigint)));
}

/** The characters that stand in an atom, as themselves or by their number, and those beside them. */
function charactersOf(atom: string): string[] {
  const escapes = /\\(?:u\{([\dA-Fa-f]+)\}|u([\dA-Fa-f]{4})|x([\dA-Fa-f]{2}))/g;
  const named = [...atom.matchAll(escapes)].map(m => parseInt(m[1] ?? m[2] ?? m[3], 16));
  return [...Array.from(atom, character => character.codePointAt(0) as number), ...named]
    .flatMap(code => [code - 1, code, code + 1])
    .filter(code => code >= 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff))
    .map(code => String.fromCodePoint(code));
}
