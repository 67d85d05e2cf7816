// Options that nobody knows are refused by name, with the ones that look alike: a misspelt option would else be ignored
// in silence.

import { nearNames } from './io/nearNames.js';

/** Every key of an options type. The compiler sees to it that none is missing and none is too many. */
export type OptionKeys<T> = Readonly<Record<keyof Required<T>, true>>;

/** @throws TypeError where `options` is no object, RangeError naming a key that is not among `known` */
export function checkOptionKeys(what: string, options: unknown, known: Readonly<Record<string, true>>): void {
  if (options === null || typeof options !== 'object' || Array.isArray(options)) {
    throw new TypeError(
      `${what}: expected an object of options, got ${options === null ? 'null' : Array.isArray(options) ? 'an array' : typeof options}`,
    );
  }
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(known, key)) continue;
    const near = nearNames(key, Object.keys(known), 1)[0];
    throw new RangeError(`${what}: there is no option ${JSON.stringify(key)}${near ? `; did you mean ${near}?` : ''}`);
  }
}
