// Jinja's filters on lists and mappings.

import { Reader } from './arguments.js';
import { attributeGetter, ignoringCase } from './attributes.js';
import { spendItems } from './budget.js';
import { points } from './characters.js';
import { TemplateError } from './errors.js';
import type { Environment, Filter } from './filters.js';
import { methodOf } from './methods.js';
import { binary } from './operators.js';
import { joinTexts } from './stringMethods.js';
import { textOf } from './text.js';
import {
  compare,
  Dict,
  equals,
  Group,
  hashKey,
  itemsOf,
  Iterator,
  truth,
  Tuple,
  typeName,
  Undefined,
  type Given,
  type Value,
} from './values.js';

const keyOf = (read: Reader): ((item: Value) => Value) => {
  const attribute = attributeGetter(read.value('attribute'));
  return read.flag('case_sensitive', false) ? attribute : item => ignoringCase(attribute(item));
};

/** Items by several keys, in the order that Python's sort gives. */
function sorted(items: readonly Value[], keys: readonly ((item: Value) => Value)[], reverse: boolean): Value[] {
  spendItems(items.length);
  const keyed = items.map(item => ({ item, key: keys.map(key => key(item)) }));
  keyed.sort((a, b) => {
    for (const [i, key] of a.key.entries()) {
      const order = compare(key, b.key[i]!, '<');
      if (order !== 0) return reverse ? -order : order;
    }
    return 0;
  });
  return keyed.map(({ item }) => item);
}

function extreme(name: string, sign: number): Filter {
  return (value, given) => {
    const read = new Reader(name, given, ['case_sensitive', 'attribute']);
    const key = keyOf(read);
    const items = itemsOf(value);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty.');
    return items.reduce((best, item) => (sign * compare(key(item), key(best), sign < 0 ? '<' : '>') > 0 ? item : best));
  };
}

/** select, reject and their kin: by a test of the item, or of one of its attributes. */
function choosing(name: string, keeps: boolean, byAttribute: boolean): Filter {
  return (value, { positional, named }, environment) => {
    const rest = [...positional];
    const attribute = byAttribute ? rest.shift() : undefined;
    if (byAttribute && attribute === undefined)
      throw new TemplateError(`${name}() is missing the name of an attribute`);
    const get = attributeGetter(attribute);
    const test = rest.shift();
    const holds = (item: Value): boolean =>
      test === undefined ? truth(item) : environment.test(textOf(test), item, { positional: rest, named });
    return iterator(
      `sync_do_${name}`,
      itemsOf(value).filter(item => holds(get(item)) === keeps),
    );
  };
}

function iterator(name: string, items: Value[]): Iterator {
  spendItems(items.length);
  return new Iterator(name, items);
}

function map(value: Value, { positional, named }: Given, environment: Environment): Value {
  if (positional.length === 0 && named.has('attribute')) {
    const unknown = [...named.keys()].find(key => key !== 'attribute' && key !== 'default');
    if (unknown !== undefined) throw new TemplateError(`Unexpected keyword argument '${unknown}'`);
    return iterator('sync_do_map', itemsOf(value).map(attributeGetter(named.get('attribute'), named.get('default'))));
  }
  const [name, ...rest] = positional;
  if (name === undefined) throw new TemplateError('map requires a filter argument');
  return iterator(
    'sync_do_map',
    itemsOf(value).map(item => environment.filter(textOf(name), item, { positional: rest, named })),
  );
}

function pieces(items: readonly Value[], size: number, fill: Value | undefined): Value[][] {
  if (size < 1) throw new TemplateError('batch needs a size of at least 1');
  const out: Value[][] = [];
  for (let i = 0; i < items.length; i += size) out.push(items.slice(i, i + size));
  const last = out.at(-1);
  if (last && fill !== undefined) {
    spendItems(size);
    while (last.length < size) last.push(fill);
  }
  return out;
}

/** Columns of as equal a length as can be, the longer ones first. */
function columns(items: readonly Value[], count: number, fill: Value | undefined): Value[][] {
  if (count < 1) throw new TemplateError('integer division or modulo by zero');
  spendItems(count);
  const [each, longer] = [Math.floor(items.length / count), items.length % count];
  let next = 0;
  return Array.from({ length: count }, (_, i) => {
    const column = items.slice(next, (next += each + (i < longer ? 1 : 0)));
    return fill !== undefined && i >= longer ? [...column, fill] : column;
  });
}

export const sequenceFilters: Readonly<Record<string, Filter>> = {
  attr: (value, given) => {
    const name = new Reader('attr', given, ['name'], 1).text('name');
    return methodOf(value, name) ?? new Undefined(`'${typeName(value)} object' has no attribute '${name}'`);
  },
  batch: (value, given) => {
    const read = new Reader('batch', given, ['linecount', 'fill_with'], 1);
    return iterator('do_batch', pieces(itemsOf(value), read.whole('linecount', 1), read.some('fill_with')));
  },
  slice: (value, given) => {
    const read = new Reader('slice', given, ['slices', 'fill_with'], 1);
    return iterator('sync_do_slice', columns(itemsOf(value), read.whole('slices', 1), read.some('fill_with')));
  },
  first: value => itemsOf(value)[0] ?? new Undefined('No first item, sequence was empty.'),
  last: value => {
    if (value instanceof Iterator) throw new TemplateError("'generator' object is not reversible");
    return itemsOf(value).at(-1) ?? new Undefined('No last item, sequence was empty.');
  },
  list: (value, given) => {
    new Reader('list', given);
    const items = itemsOf(value);
    spendItems(items.length);
    return items;
  },
  items: value => {
    if (value instanceof Undefined) return iterator('do_items', []);
    if (!(value instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.');
    return iterator(
      'do_items',
      value.entries().map(pair => new Tuple(pair)),
    );
  },
  join: (value, given) => {
    const read = new Reader('join', given, ['d', 'attribute']);
    return joinTexts(
      itemsOf(value)
        .map(attributeGetter(read.value('attribute')))
        .map(textOf),
      textOf(read.value('d') ?? ''),
    );
  },
  reverse: value =>
    typeof value === 'string' ? points(value).reverse().join('') : iterator('reversed', itemsOf(value).reverse()),
  sort: (value, given) => {
    const read = new Reader('sort', given, ['reverse', 'case_sensitive', 'attribute']);
    const attribute = read.value('attribute');
    const paths = typeof attribute === 'string' ? attribute.split(',') : [attribute];
    const sensitive = read.flag('case_sensitive', false);
    const keys = paths.map(path => {
      const get = attributeGetter(path);
      return sensitive ? get : (item: Value) => ignoringCase(get(item));
    });
    return sorted(itemsOf(value), keys, read.flag('reverse', false));
  },
  dictsort: (value, given) => {
    const read = new Reader('dictsort', given, ['case_sensitive', 'by', 'reverse']);
    const place = ['key', 'value'].indexOf(read.text('by', 'key'));
    if (place < 0) throw new TemplateError('You can only sort by either "key" or "value"');
    if (!(value instanceof Dict)) throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
    const part = (pair: Value): Value => (pair as Tuple).items[place]!;
    const key = read.flag('case_sensitive', false) ? part : (pair: Value) => ignoringCase(part(pair));
    return sorted(
      value.entries().map(pair => new Tuple(pair)),
      [key],
      read.flag('reverse', false),
    );
  },
  groupby: (value, given) => {
    const read = new Reader('groupby', given, ['attribute', 'default', 'case_sensitive'], 1);
    const get = attributeGetter(read.value('attribute'), read.value('default'));
    const key = read.flag('case_sensitive', false) ? get : (item: Value) => ignoringCase(get(item));
    const groups: { key: Value; items: Value[] }[] = [];
    for (const item of sorted(itemsOf(value), [key], false)) {
      const last = groups.at(-1);
      if (last && equals(last.key, key(item))) last.items.push(item);
      else groups.push({ key: key(item), items: [item] });
    }
    return groups.map(group => new Group([get(group.items[0]!), group.items]));
  },
  unique: (value, given) => {
    const key = keyOf(new Reader('unique', given, ['case_sensitive', 'attribute']));
    const seen = new Set<string>();
    return iterator(
      'sync_do_unique',
      itemsOf(value).filter(item => {
        const hash = hashKey(key(item));
        return !seen.has(hash) && seen.add(hash);
      }),
    );
  },
  sum: (value, given) => {
    const read = new Reader('sum', given, ['attribute', 'start']);
    return itemsOf(value)
      .map(attributeGetter(read.value('attribute')))
      .reduce((sum, item) => binary('+', sum, item), read.value('start') ?? 0n);
  },
  min: extreme('min', -1),
  max: extreme('max', 1),
  map,
  select: choosing('select', true, false),
  reject: choosing('reject', false, false),
  selectattr: choosing('selectattr', true, true),
  rejectattr: choosing('rejectattr', false, true),
};
