// Python's operators on values: arithmetic, membership, attributes, items and slices.

import { made, reserve, spend, spendItems } from './budget.js';
import { pointLength, points } from './characters.js';
import { TemplateError } from './errors.js';
import { formatPercent } from './format.js';
import { wholeNumber } from './arguments.js';
import { methodOf } from './methods.js';
import type { BinaryOperator, ComparisonOperator } from './nodes.js';
import {
  Callable,
  compare,
  Dict,
  DictView,
  equals,
  Group,
  itemsOf,
  lengthOf,
  Namespace,
  none,
  numberOf,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js';

/** More bits than an int could have in a conversation. */
const mostBits = 2 ** 16;

export function binary(operator: BinaryOperator, a: Value, b: Value): Value {
  for (const value of [a, b]) if (value instanceof Undefined) value.fail();
  if (operator === '%' && typeof a === 'string') return made(formatPercent(a, b));
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return arithmetic(operator, x, y);
  if (operator === '+') {
    if (typeof a === 'string' && typeof b === 'string') return made(a + b);
    if (Array.isArray(a) && Array.isArray(b)) return counted([...a, ...b]);
    if (a instanceof Tuple && b instanceof Tuple) return new Tuple(counted([...a.items, ...b.items]));
  }
  if (operator === '*') {
    const repeated = typeof y === 'bigint' ? repeat(a, y) : typeof x === 'bigint' ? repeat(b, x) : undefined;
    if (repeated !== undefined) return repeated;
  }
  throw new TemplateError(
    `unsupported operand type(s) for ${operator === '**' ? '** or pow()' : operator}: '${typeName(a)}' and '${typeName(b)}'`,
  );
}

function counted(items: Value[]): Value[] {
  spendItems(items.length);
  return items;
}

function repeat(value: Value, times: bigint): Value | undefined {
  const count = times < 0n ? 0 : Number(times);
  if (typeof value === 'string') {
    reserve('a product', value.length * count);
    return made(value.repeat(count));
  }
  const items = Array.isArray(value) ? value : value instanceof Tuple ? value.items : undefined;
  if (!items) return undefined;
  spendItems(items.length * count);
  const many = Array.from({ length: items.length * count }, (_, i) => items[i % items.length]!);
  return Array.isArray(value) ? many : new Tuple(many);
}

function arithmetic(operator: BinaryOperator, x: bigint | number, y: bigint | number): Value {
  if (typeof x === 'bigint' && typeof y === 'bigint') return integers(operator, x, y);
  return floats(operator, Number(x), Number(y));
}

const bits = (value: bigint): number => value.toString(16).length * 4;

/** Counted before it is made: powers of large numbers are larger. */
function sized(operator: string, size: number): void {
  spend(size / 8);
  if (size > mostBits) throw new TemplateError(`the result of ${operator} has more than ${mostBits} bits`);
}

function integers(operator: BinaryOperator, x: bigint, y: bigint): Value {
  switch (operator) {
    case '+':
      return x + y;
    case '-':
      return x - y;
    case '*':
      sized('*', bits(x) + bits(y));
      return x * y;
    case '**':
      if (y < 0n) return floats('**', Number(x), Number(y));
      if (x > 1n || x < -1n) sized('**', bits(x) * Number(y));
      return x ** y;
    case '/':
      if (y === 0n) throw new TemplateError('division by zero');
      return Number(x) / Number(y);
    case '//': {
      if (y === 0n) throw new TemplateError('integer division or modulo by zero');
      const quotient = x / y;
      return x % y !== 0n && x < 0n !== y < 0n ? quotient - 1n : quotient;
    }
    case '%': {
      if (y === 0n) throw new TemplateError('integer modulo by zero');
      const rest = x % y;
      return rest !== 0n && rest < 0n !== y < 0n ? rest + y : rest;
    }
  }
}

function floats(operator: BinaryOperator, x: number, y: number): number {
  switch (operator) {
    case '+':
      return x + y;
    case '-':
      return x - y;
    case '*':
      return x * y;
    case '**':
      if (x === 0 && y < 0) throw new TemplateError('0.0 cannot be raised to a negative power');
      if (x === 1) return 1;
      if (x < 0 && Number.isFinite(y) && !Number.isInteger(y))
        throw new TemplateError('complex numbers are not supported');
      return x ** y;
    case '/':
      if (y === 0) throw new TemplateError('float division by zero');
      return x / y;
    case '//':
      if (y === 0) throw new TemplateError('float floor division by zero');
      return floorDivision(x, y);
    case '%':
      if (y === 0) throw new TemplateError('float modulo');
      return modulo(x, y);
  }
}

/** By way of the rest, which is exact: x / y may round up to the next whole number. */
function floorDivision(x: number, y: number): number {
  const rest = x % y;
  const quotient = (x - rest) / y - (rest !== 0 && rest < 0 !== y < 0 ? 1 : 0);
  if (quotient === 0) return x / y < 0 || Object.is(x / y, -0) ? -0 : 0;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

/** The sign of the divisor, as in Python. */
function modulo(x: number, y: number): number {
  const rest = x % y;
  if (rest === 0) return y < 0 ? -0 : 0;
  return rest < 0 !== y < 0 ? rest + y : rest;
}

export function negative(value: Value): Value {
  if (value instanceof Undefined) value.fail();
  const number = numberOf(value);
  if (number === undefined) throw new TemplateError(`bad operand type for unary -: '${typeName(value)}'`);
  return -number;
}

export function positive(value: Value): Value {
  if (value instanceof Undefined) value.fail();
  return (
    numberOf(value) ??
    (() => {
      throw new TemplateError(`bad operand type for unary +: '${typeName(value)}'`);
    })()
  );
}

export function compares(operator: ComparisonOperator, a: Value, b: Value): boolean {
  switch (operator) {
    case '==':
      return equals(a, b);
    case '!=':
      return !equals(a, b);
    case '<':
      return compare(a, b, operator) < 0;
    case '<=':
      return compare(a, b, operator) <= 0;
    case '>':
      return compare(a, b, operator) > 0;
    case '>=':
      return compare(a, b, operator) >= 0;
    case 'in':
      return contains(b, a);
    case 'not in':
      return !contains(b, a);
  }
}

export function contains(container: Value, value: Value): boolean {
  if (typeof container === 'string') {
    if (typeof value !== 'string')
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(value)}`);
    spend(container.length);
    return container.includes(value);
  }
  if (container instanceof Dict) return container.has(value);
  if (container instanceof DictView && container.kind === 'keys') return container.dict.has(value);
  if (
    container === none ||
    numberOf(container) !== undefined ||
    container instanceof Callable ||
    container instanceof Namespace
  ) {
    throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`);
  }
  return itemsOf(container).some(item => item === value || equals(item, value));
}

/** `target.name`: a method or an attribute, else the item of that name. */
export function attributeOf(target: Value, name: string): Value {
  return memberOf(target, name) ?? itemAt(target, name) ?? missing(target, name);
}

/** `target[index]`: an item, else the attribute of that name. */
export function itemOf(target: Value, index: Value): Value {
  return (
    itemAt(target, index) ?? (typeof index === 'string' ? memberOf(target, index) : undefined) ?? missing(target, index)
  );
}

/** Attributes of Python's own objects are out of reach, as in the sandbox. */
function memberOf(target: Value, name: string): Value | undefined {
  if (target instanceof Undefined) target.fail();
  if (name.startsWith('_')) return undefined;
  if (target instanceof Namespace) return target.attributes.get(name);
  if (target instanceof Group && (name === 'grouper' || name === 'list')) return target.items[name === 'list' ? 1 : 0];
  return target instanceof Callable ? target.attribute(name) : methodOf(target, name);
}

function itemAt(target: Value, index: Value): Value | undefined {
  if (target instanceof Undefined) target.fail();
  if (target instanceof Dict) return hashable(index) ? target.get(index) : undefined;
  const place = numberOf(index);
  if (typeof place !== 'bigint') return undefined;
  const length = lengthOf(target);
  if (length === undefined || target instanceof DictView) return undefined;
  const i = Number(place) < 0 ? Number(place) + length : Number(place);
  if (i < 0 || i >= length) return undefined;
  if (typeof target === 'string') return pointLength(target) === target.length ? target[i] : points(target)[i];
  if (target instanceof Range) return target.item(i);
  return Array.isArray(target) ? target[i] : (target as Tuple).items[i];
}

const hashable = (value: Value): boolean => !(Array.isArray(value) || value instanceof Dict);

function missing(target: Value, name: Value): Undefined {
  if (typeof name !== 'string')
    return new Undefined(
      `${target === none ? 'None' : `${typeName(target)} object`} has no element ${described(name)}`,
    );
  if (target === none) return new Undefined(`'None' has no attribute ${described(name)}`);
  return new Undefined(`'${typeName(target)} object' has no attribute ${described(name)}`);
}

const described = (name: Value): string =>
  typeof name === 'string' ? `'${name}'` : typeof name === 'bigint' ? String(name) : typeName(name);

/** `target[start:stop:step]`; None for a bound that is left out. */
export function sliceOf(target: Value, [start, stop, step]: readonly Value[]): Value {
  if (target instanceof Undefined) target.fail();
  const items =
    typeof target === 'string'
      ? points(target)
      : Array.isArray(target)
        ? target
        : target instanceof Tuple
          ? target.items
          : undefined;
  if (target instanceof Range) return rangeSlice(target, bound(start), bound(stop), bound(step) ?? 1);
  if (!items) throw new TemplateError(`'${typeName(target)}' object is not subscriptable`);
  const indices = sliceIndices(items.length, bound(start), bound(stop), bound(step) ?? 1);
  spendItems(typeof target === 'string' ? 0 : indices.length);
  const chosen = indices.map(i => items[i]!);
  if (typeof target === 'string') return made((chosen as string[]).join(''));
  return Array.isArray(target) ? chosen : new Tuple(chosen);
}

const bound = (value: Value | undefined): number | undefined =>
  value === undefined || value === none ? undefined : wholeNumber(value);

function rangeSlice(range: Range, start: number | undefined, stop: number | undefined, step: number): Range {
  const [from, to] = sliceEnds(range.length, start, stop, step);
  return new Range(range.start + from * range.step, range.start + to * range.step, range.step * step);
}

function sliceIndices(length: number, start: number | undefined, stop: number | undefined, step: number): number[] {
  const [from, to] = sliceEnds(length, start, stop, step);
  const count = Math.max(0, Math.ceil((to - from) / step));
  return Array.from({ length: count }, (_, i) => from + i * step);
}

function sliceEnds(
  length: number,
  start: number | undefined,
  stop: number | undefined,
  step: number,
): [from: number, to: number] {
  if (step === 0) throw new TemplateError('slice step cannot be zero');
  const [lowest, highest] = step > 0 ? [0, length] : [-1, length - 1];
  const place = (value: number | undefined, otherwise: number): number =>
    value === undefined ? otherwise : value < 0 ? Math.max(lowest, value + length) : Math.min(highest, value);
  return step > 0 ? [place(start, 0), place(stop, length)] : [place(start, length - 1), place(stop, -1)];
}
