// The variable `loop` of a for block.

import { TemplateError } from './errors.js';
import { Callable, equals, Undefined, type Given, type Value } from './values.js';

/** Where a loop is. */
export interface Place {
  index: number;
  readonly items: readonly Value[];
  readonly depth: number;
}

/** @param recurse what a call of a recursive loop does; undefined for others */
export function loopVariable(place: Place, recurse: ((given: Given) => Value) | undefined): Callable {
  let last: readonly Value[] | undefined;
  const whole = (n: number): bigint => BigInt(n);
  const attributes: Readonly<Record<string, () => Value>> = {
    index: () => whole(place.index + 1),
    index0: () => whole(place.index),
    revindex: () => whole(place.items.length - place.index),
    revindex0: () => whole(place.items.length - place.index - 1),
    first: () => place.index === 0,
    last: () => place.index === place.items.length - 1,
    length: () => whole(place.items.length),
    depth: () => whole(place.depth),
    depth0: () => whole(place.depth - 1),
    previtem: () => place.items[place.index - 1] ?? new Undefined('there is no previous item'),
    nextitem: () => place.items[place.index + 1] ?? new Undefined('there is no next item'),
    cycle: () =>
      new Callable('cycle', ({ positional }) => {
        if (positional.length === 0) throw new TemplateError('no items for cycling given');
        return positional[place.index % positional.length]!;
      }),
    changed: () =>
      new Callable('changed', ({ positional }) => {
        const same = last?.length === positional.length && positional.every((value, i) => equals(value, last![i]!));
        last = positional;
        return !same;
      }),
  };
  const call =
    recurse ??
    (() => {
      throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.");
    });
  return new Callable('loop', call, name => (Object.hasOwn(attributes, name) ? attributes[name]!() : undefined));
}
