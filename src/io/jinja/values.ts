// Values as Python has them: None is `none` (undefined is what is not there), an int a bigint, a float a number, a str
// a string, a list an array; the rest are classes here.

import { JsonFloat } from '../orderedJson.js';
import { spend } from './budget.js';
import { pointLength, points } from './characters.js';
import { TemplateError } from './errors.js';

export type Value =
  | None
  | boolean
  | bigint
  | number
  | string
  | Value[]
  | Tuple
  | Dict
  | DictView
  | Range
  | Iterator
  | Undefined
  | Namespace
  | Callable;

export class None {
  readonly isNone = true;
}
export const none = new None();

/** What a function is called with. */
export interface Given {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

export class Tuple {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** One group of `groupby`: a pair whose parts are also called grouper and list. */
export class Group extends Tuple {}

/** A mapping in the order of insertion. 1, 1.0 and True are one key. */
export class Dict {
  private readonly map = new Map<string, [Value, Value]>();

  static of(entries: Iterable<readonly [Value, Value]>): Dict {
    const dict = new Dict();
    for (const [key, value] of entries) dict.set(key, value);
    return dict;
  }

  get size(): number {
    return this.map.size;
  }

  get(key: Value): Value | undefined {
    return this.map.get(hashKey(key))?.[1];
  }

  has(key: Value): boolean {
    return this.map.has(hashKey(key));
  }

  set(key: Value, value: Value): void {
    const hash = hashKey(key);
    const entry = this.map.get(hash);
    if (entry) entry[1] = value;
    else this.map.set(hash, [key, value]);
  }

  entries(): [Value, Value][] {
    return [...this.map.values()];
  }

  keys(): Value[] {
    return this.entries().map(([key]) => key);
  }
}

/** What keys(), values() and items() give. */
export class DictView {
  readonly kind: 'keys' | 'values' | 'items';
  readonly dict: Dict;
  constructor(kind: DictView['kind'], dict: Dict) {
    this.kind = kind;
    this.dict = dict;
  }

  items(): Value[] {
    return this.dict
      .entries()
      .map(([key, value]) => (this.kind === 'keys' ? key : this.kind === 'values' ? value : new Tuple([key, value])));
  }
}

export class Range {
  readonly start: number;
  readonly step: number;
  readonly stop: number;
  readonly length: number;
  constructor(start: number, stop: number, step: number) {
    this.start = start;
    this.stop = stop;
    this.step = step;
    this.length = Math.max(0, Math.ceil((stop - start) / step));
  }

  item(i: number): bigint {
    return BigInt(this.start + i * this.step);
  }
}

/** What filters give that Python computes as it goes: it can be read once and has no length. */
export class Iterator {
  readonly name: string;
  private rest: Value[];
  constructor(name: string, items: Value[]) {
    this.name = name;
    this.rest = items;
  }

  take(): Value[] {
    const items = this.rest;
    this.rest = [];
    return items;
  }

  next(): Value | undefined {
    return this.rest.shift();
  }
}

/**
 * A name or an attribute that is not there. It prints as nothing; whatever else is done with it is an error with this
 * message.
 */
export class Undefined {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }

  fail(): never {
    throw new TemplateError(this.message);
  }
}

export class Namespace {
  readonly attributes = new Map<string, Value>();
}

export class Callable {
  readonly name: string;
  readonly call: (given: Given) => Value;
  /** What a dot finds on it: `loop.index`, `cycler.next`. */
  readonly attributes: ReadonlyMap<string, Value> | ((name: string) => Value | undefined);
  constructor(name: string, call: (given: Given) => Value, attributes: Callable['attributes'] = new Map()) {
    this.name = name;
    this.call = call;
    this.attributes = attributes;
  }

  attribute(name: string): Value | undefined {
    return typeof this.attributes === 'function' ? this.attributes(name) : this.attributes.get(name);
  }
}

/** What Python calls a value's type. */
export function typeName(value: Value): string {
  if (value === none) return 'NoneType';
  switch (typeof value) {
    case 'boolean':
      return 'bool';
    case 'bigint':
      return 'int';
    case 'number':
      return 'float';
    case 'string':
      return 'str';
  }
  if (Array.isArray(value)) return 'list';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof Dict) return 'dict';
  if (value instanceof DictView) return `dict_${value.kind}`;
  if (value instanceof Range) return 'range';
  if (value instanceof Iterator) return 'generator';
  if (value instanceof Undefined) return 'Undefined';
  return value instanceof Namespace ? 'Namespace' : 'function';
}

/** A JavaScript value, or one from `parseJson`, as Python's. */
export function toValue(value: unknown): Value {
  switch (typeof value) {
    case 'number':
      return Number.isInteger(value) ? BigInt(value) : value;
    case 'string':
    case 'boolean':
    case 'bigint':
      return value;
    case 'undefined':
      return none;
    case 'function':
      return new Callable(value.name, ({ positional }) =>
        toValue((value as (...given: unknown[]) => unknown)(...positional)),
      );
    case 'object':
      break;
    case 'symbol':
      throw new TypeError('a symbol cannot be given to a chat template');
  }
  if (value === null) return none;
  if (value instanceof JsonFloat) return value.value;
  if (Array.isArray(value)) return value.map(toValue);
  if (value instanceof Callable) return value;
  const entries = value instanceof Map ? [...(value as Map<string, unknown>)] : Object.entries(value as object);
  return Dict.of(entries.filter(([, item]) => item !== undefined).map(([key, item]) => [key, toValue(item)]));
}

export function truth(value: Value): boolean {
  if (value === none || value instanceof Undefined) return false;
  if (typeof value === 'object') return lengthOf(value) !== 0;
  return typeof value === 'bigint' ? value !== 0n : value !== 0 && value !== '' && value !== false;
}

/** undefined for what has no length. */
export function lengthOf(value: Value): number | undefined {
  if (typeof value === 'string') return pointLength(value);
  if (Array.isArray(value)) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof DictView) return value.dict.size;
  if (value instanceof Range) return value.length;
  return value instanceof Undefined ? 0 : undefined;
}

/** The items of what can be iterated over, in a new array; undefined for anything else. */
export function iterate(value: Value): Value[] | undefined {
  if (typeof value === 'string') return points(value);
  if (Array.isArray(value)) return [...value];
  if (value instanceof Tuple) return [...value.items];
  if (value instanceof Dict) return value.keys();
  if (value instanceof DictView) return value.items();
  if (value instanceof Range) return Array.from({ length: value.length }, (_, i) => value.item(i));
  if (value instanceof Iterator) return value.take();
  return value instanceof Undefined ? [] : undefined;
}

/** @throws TemplateError for what cannot be iterated over */
export function itemsOf(value: Value): Value[] {
  const items = iterate(value);
  if (!items) throw new TemplateError(`'${typeName(value)}' object is not iterable`);
  return items;
}

/** A text that is the same for equal keys. @throws TemplateError for what cannot be a key */
export function hashKey(value: Value): string {
  if (typeof value === 'string') return `s${value}`;
  if (typeof value === 'boolean') return value ? 'n1' : 'n0';
  if (typeof value === 'bigint') return `n${value}`;
  if (typeof value === 'number') return Number.isInteger(value) ? `n${BigInt(value)}` : `n${value}`;
  if (value === none) return 'none';
  if (value instanceof Tuple) return `t${value.items.map(item => JSON.stringify(hashKey(item))).join()}`;
  if (value instanceof Undefined) return 'undefined';
  if (Array.isArray(value) || value instanceof Dict) throw new TemplateError(`unhashable type: '${typeName(value)}'`);
  return `o${identityOf(value)}`;
}

const identities = new WeakMap<object, number>();
let lastIdentity = 0;
function identityOf(value: object): number {
  let identity = identities.get(value);
  if (identity === undefined) identities.set(value, (identity = ++lastIdentity));
  return identity;
}

const isNumber = (value: Value): value is bigint | number | boolean =>
  typeof value === 'bigint' || typeof value === 'number' || typeof value === 'boolean';
/** A bool as the int it is. */
export const plainNumber = (value: bigint | number | boolean): bigint | number =>
  typeof value === 'boolean' ? BigInt(value) : value;
/** The number in a value, undefined for any other. */
export const numberOf = (value: Value): bigint | number | undefined =>
  isNumber(value) ? plainNumber(value) : undefined;

/** Ints and floats are compared by their value. */
const sameNumber = (x: bigint | number, y: bigint | number): boolean => x <= y && x >= y;

export function equals(a: Value, b: Value): boolean {
  spend(1);
  if (a === b) return !Number.isNaN(a);
  if (isNumber(a) && isNumber(b)) return sameNumber(plainNumber(a), plainNumber(b));
  if (a instanceof Tuple && b instanceof Tuple) return sameItems(a.items, b.items);
  if (Array.isArray(a) && Array.isArray(b)) return sameItems(a, b);
  if (a instanceof Dict && b instanceof Dict) {
    return (
      a.size === b.size &&
      a.entries().every(([key, value]) => {
        const other = b.get(key);
        return other !== undefined && (value === other || equals(value, other));
      })
    );
  }
  if (a instanceof Range && b instanceof Range) return sameItems(itemsOf(a), itemsOf(b));
  return a instanceof Undefined && b instanceof Undefined;
}

function sameItems(a: readonly Value[], b: readonly Value[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i] || equals(item, b[i]!));
}

/** -1, 0, 1, or NaN where a NaN is compared. @throws TemplateError for values that have no order, in Python's words */
export function compare(a: Value, b: Value, operator: string): number {
  spend(1);
  if (isNumber(a) && isNumber(b)) {
    const [x, y] = [plainNumber(a), plainNumber(b)];
    return x < y ? -1 : x > y ? 1 : sameNumber(x, y) ? 0 : NaN;
  }
  if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b);
  const [left, right] = [a instanceof Tuple ? a.items : a, b instanceof Tuple ? b.items : b];
  if (Array.isArray(left) && Array.isArray(right) && a instanceof Tuple === b instanceof Tuple) {
    for (let i = 0; i < Math.min(left.length, right.length); i++) {
      const [x, y] = [left[i] as Value, right[i] as Value];
      if (x !== y && !equals(x, y)) return compare(x, y, operator);
    }
    return Math.sign(left.length - right.length);
  }
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  throw new TemplateError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** By code points; JavaScript compares code units, which puts what lies beyond U+FFFF before U+E000. */
function compareTexts(a: string, b: string): number {
  spend(Math.min(a.length, b.length));
  if (a === b) return 0;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  if (i >= a.length || i >= b.length) return Math.sign(a.length - b.length);
  const order = (unit: number): number => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);
  return order(a.charCodeAt(i)) < order(b.charCodeAt(i)) ? -1 : 1;
}
