// Jinja's tests, what stands behind `is`.

import { Reader } from './arguments.js';
import { TemplateError } from './errors.js';
import { filters, type Environment } from './filters.js';
import { binary, compares } from './operators.js';
import { stringMethods } from './stringMethods.js';
import { textOf } from './text.js';
import type { ComparisonOperator } from './nodes.js';
import {
  Callable,
  Dict,
  equals,
  iterate,
  Iterator,
  none,
  Range,
  Tuple,
  Undefined,
  type Given,
  type Value,
} from './values.js';

type Test = (value: Value, given: Given, environment: Environment) => boolean;

const alone =
  (test: (value: Value) => boolean): Test =>
  (value, given) => {
    new Reader('test', given);
    return test(value);
  };
const comparing =
  (operator: ComparisonOperator): Test =>
  (value, given) =>
    compares(operator, value, new Reader('test', given, ['other'], 1).value('other')!);
const modulo = (value: Value, by: Value): Value => binary('%', value, by);
const textTest = (method: string): Test =>
  alone(value => stringMethods[method]!(textOf(value), { positional: [], named: new Map() }) as boolean);
const eq = comparing('=='),
  ne = comparing('!='),
  gt = comparing('>'),
  ge = comparing('>='),
  lt = comparing('<'),
  le = comparing('<=');

const tests: Readonly<Record<string, Test>> = {
  defined: alone(value => !(value instanceof Undefined)),
  undefined: alone(value => value instanceof Undefined),
  none: alone(value => value === none),
  boolean: alone(value => typeof value === 'boolean'),
  true: alone(value => value === true),
  false: alone(value => value === false),
  integer: alone(value => typeof value === 'bigint'),
  float: alone(value => typeof value === 'number'),
  number: alone(value => ['bigint', 'number', 'boolean'].includes(typeof value)),
  string: alone(value => typeof value === 'string'),
  mapping: alone(value => value instanceof Dict),
  sequence: alone(
    value =>
      typeof value === 'string' ||
      Array.isArray(value) ||
      [Tuple, Dict, Range, Undefined].some(kind => value instanceof kind),
  ),
  iterable: alone(value => value instanceof Iterator || iterate(value) !== undefined),
  callable: alone(value => value instanceof Callable || value instanceof Undefined),
  escaped: alone(() => false),
  odd: alone(value => equals(modulo(value, 2n), 1n)),
  even: alone(value => equals(modulo(value, 2n), 0n)),
  divisibleby: (value, given) => equals(modulo(value, new Reader('divisibleby', given, ['num'], 1).value('num')!), 0n),
  lower: textTest('islower'),
  upper: textTest('isupper'),
  sameas: (value, given) => value === new Reader('sameas', given, ['other'], 1).value('other'),
  in: comparing('in'),
  filter: alone(value => Object.hasOwn(filters, textOf(value))),
  test: alone(value => Object.hasOwn(tests, textOf(value))),
  eq,
  equalto: eq,
  '==': eq,
  ne,
  '!=': ne,
  gt,
  greaterthan: gt,
  '>': gt,
  ge,
  '>=': ge,
  lt,
  lessthan: lt,
  '<': lt,
  le,
  '<=': le,
};

/** @throws TemplateError for a test that is not there */
export function testNamed(name: string): Test {
  if (!Object.hasOwn(tests, name)) throw new TemplateError(`No test named '${name}'.`);
  return tests[name]!;
}
