// What every chat template can call: Jinja's own functions, and those that transformers adds.

import { Reader, wholeNumber } from './arguments.js';
import { checkRange } from './budget.js';
import { TemplateError } from './errors.js';
import { strftime } from './strftime.js';
import { textOf } from './text.js';
import { Callable, Dict, itemsOf, Namespace, none, Range, typeName, type Given, type Value } from './values.js';

const own = (name: string, call: (given: Given) => Value): [string, Value] => [name, new Callable(name, call)];

export const globals: ReadonlyMap<string, Value> = new Map([
  own('range', range),
  own('dict', dictOf),
  own('namespace', given => {
    const made = new Namespace();
    for (const [key, value] of dictOf(given).entries()) made.attributes.set(textOf(key), value);
    return made;
  }),
  own('cycler', cycler),
  own('joiner', joiner),
  own('raise_exception', given => {
    throw new TemplateError(textOf(new Reader('raise_exception', given, ['message'], 1).value('message')!));
  }),
  own('strftime_now', given => strftime(new Date(), new Reader('strftime_now', given, ['format'], 1).text('format'))),
]);

function range({ positional, named }: Given): Value {
  if (named.size > 0) throw new TemplateError('range() takes no keyword arguments');
  if (positional.length < 1 || positional.length > 3)
    throw new TemplateError(`range expected 1 to 3 arguments, got ${positional.length}`);
  const numbers = positional.map(wholeNumber);
  const [start, stop] = numbers.length === 1 ? [0, numbers[0]!] : [numbers[0]!, numbers[1]!];
  const step = numbers[2] ?? 1;
  if (step === 0) throw new TemplateError('range() arg 3 must not be zero');
  const made = new Range(start, stop, step);
  checkRange(made.length);
  return made;
}

function dictOf({ positional, named }: Given): Dict {
  const [first] = positional;
  if (positional.length > 1) throw new TemplateError(`dict expected at most 1 argument, got ${positional.length}`);
  const pairs =
    first === undefined
      ? []
      : first instanceof Dict
        ? first.entries()
        : itemsOf(first).map(pair => {
            const items = itemsOf(pair);
            if (items.length !== 2)
              throw new TemplateError(`dictionary update sequence element has length ${items.length}; 2 is required`);
            return items as [Value, Value];
          });
  return Dict.of([...pairs, ...named]);
}

function cycler({ positional }: Given): Value {
  if (positional.length === 0) throw new TemplateError('at least one item has to be provided');
  let place = 0;
  const current = (): Value => positional[place]!;
  const methods: Readonly<Record<string, Value>> = {
    next: new Callable('next', () => {
      const value = current();
      place = (place + 1) % positional.length;
      return value;
    }),
    reset: new Callable('reset', () => {
      place = 0;
      return none;
    }),
  };
  return new Callable(
    'cycler',
    () => {
      throw new TemplateError("'Cycler' object is not callable");
    },
    name => (name === 'current' ? current() : methods[name]),
  );
}

function joiner(given: Given): Value {
  const separator = new Reader('joiner', given, ['sep']).value('sep') ?? ', ';
  let used = false;
  return new Callable('joiner', () => {
    const value = used ? separator : '';
    used = true;
    return value;
  });
}

/** @throws TemplateError for what cannot be called */
export function callableOf(value: Value): Callable {
  if (!(value instanceof Callable)) throw new TemplateError(`'${typeName(value)}' object is not callable`);
  return value;
}
