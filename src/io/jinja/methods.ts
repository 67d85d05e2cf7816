// Methods of values. Those that change a value are out of reach, as in transformers' sandbox.

import { Reader, wholeNumber } from './arguments.js';
import { TemplateError } from './errors.js';
import { formatBraces } from './format.js';
import { attributeOf, itemOf } from './operators.js';
import { stringMethods } from './stringMethods.js';
import {
  Callable,
  Dict,
  DictView,
  equals,
  itemsOf,
  Iterator,
  none,
  Tuple,
  typeName,
  type Given,
  type Value,
} from './values.js';

const changing: Readonly<Record<string, readonly string[]>> = {
  list: ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort'],
  dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'],
};

/** A method of a value, bound to it; undefined where there is none of this name. */
export function methodOf(target: Value, name: string): Value | undefined {
  const method = unbound(target, name);
  if (method) return new Callable(name, method);
  const type = typeName(target);
  if (!changing[type]?.includes(name)) return undefined;
  return new Callable(name, () => {
    throw new TemplateError(`access to attribute '${name}' of '${type}' object is unsafe.`);
  });
}

function unbound(target: Value, name: string): ((given: Given) => Value) | undefined {
  if (typeof target === 'string') {
    if (name === 'format') return given => formatBraces(target, given, { attribute: attributeOf, item: itemOf });
    if (name === 'format_map') {
      return given => {
        const mapping = new Reader(name, given, ['mapping'], 1).value('mapping')!;
        if (!(mapping instanceof Dict)) throw new TemplateError('format_map() takes a mapping');
        const named = mapping.entries().map(([key, value]) => [String(key as string), value] as const);
        return formatBraces(
          target,
          { positional: [], named: new Map(named) },
          { attribute: attributeOf, item: itemOf },
        );
      };
    }
    const method = Object.hasOwn(stringMethods, name) ? stringMethods[name] : undefined;
    return method && (given => method(target, given));
  }
  if (target instanceof Dict) return dictMethod(target, name);
  if (Array.isArray(target) || target instanceof Tuple) return sequenceMethod(target, name);
  if (typeof target === 'bigint' && name === 'bit_length')
    return () => BigInt(target === 0n ? 0 : (target < 0n ? -target : target).toString(2).length);
  if (typeof target === 'number' && name === 'is_integer') return () => Number.isInteger(target);
  if (target instanceof Iterator && name === '__next__') return () => target.next() ?? none;
  return undefined;
}

function dictMethod(dict: Dict, name: string): ((given: Given) => Value) | undefined {
  switch (name) {
    case 'keys':
    case 'values':
    case 'items':
      return given => {
        new Reader(name, given);
        return new DictView(name, dict);
      };
    case 'get':
      return given => {
        const read = new Reader(name, given, ['key', 'default'], 1);
        return dict.get(read.value('key')!) ?? read.value('default') ?? none;
      };
    case 'copy':
      return () => Dict.of(dict.entries());
    default:
      return undefined;
  }
}

function sequenceMethod(target: Value[] | Tuple, name: string): ((given: Given) => Value) | undefined {
  const items = itemsOf(target);
  switch (name) {
    case 'count':
      return given => {
        const value = new Reader(name, given, ['value'], 1).value('value')!;
        return BigInt(items.filter(item => item === value || equals(item, value)).length);
      };
    case 'index':
      return given => {
        const read = new Reader(name, given, ['value', 'start', 'stop'], 1);
        const value = read.value('value')!;
        const start = read.has('start') ? wholeNumber(read.value('start')!) : 0;
        const at = items.findIndex(
          (item, i) => i >= (start < 0 ? start + items.length : start) && (item === value || equals(item, value)),
        );
        if (at < 0) throw new TemplateError(`the value is not in the ${typeName(target)}`);
        return BigInt(at);
      };
    case 'copy':
      return Array.isArray(target) ? () => [...target] : undefined;
    default:
      return undefined;
  }
}
