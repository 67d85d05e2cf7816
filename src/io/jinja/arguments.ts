// Arguments of functions, methods and filters: by position or by name, checked as Python checks them.

import { TemplateError } from './errors.js';
import { itemsOf, none, numberOf, truth, typeName, type Given, type Value } from './values.js';

/** Reads the arguments of one call. */
export class Reader {
  private readonly name: string;
  private readonly given: Given;
  private readonly names: readonly string[];

  /**
   * @param names the parameters in their order; those from `required` on may be left out
   * @throws TemplateError for too many, unknown or missing arguments
   */
  constructor(name: string, given: Given, names: readonly string[] = [], required = 0) {
    this.name = name;
    this.given = given;
    this.names = names;
    const { positional, named } = given;
    if (positional.length > names.length)
      throw this.error(`takes at most ${names.length} arguments (${positional.length} given)`);
    for (const key of named.keys()) {
      const place = names.indexOf(key);
      if (place < 0) throw this.error(`got an unexpected keyword argument '${key}'`);
      if (place < positional.length) throw this.error(`got multiple values for argument '${key}'`);
    }
    for (const needed of names.slice(0, required))
      if (this.value(needed) === undefined) throw this.error(`missing a required argument: '${needed}'`);
  }

  /** undefined where it is not given. */
  value(name: string): Value | undefined {
    return this.given.positional[this.names.indexOf(name)] ?? this.given.named.get(name);
  }

  /** undefined also for None. */
  some(name: string): Value | undefined {
    const value = this.value(name);
    return value === none ? undefined : value;
  }

  has(name: string): boolean {
    return this.value(name) !== undefined;
  }

  /** A str. @throws TemplateError for anything else */
  text(name: string): string;
  text<T>(name: string, otherwise: T): string | T;
  text<T>(name: string, otherwise?: T): string | T | undefined {
    const value = this.value(name);
    if (value === undefined) return otherwise;
    if (typeof value !== 'string') throw this.error(`argument '${name}' must be str, not ${typeName(value)}`);
    return value;
  }

  /** A str or None. */
  optionalText(name: string): string | null {
    return this.some(name) === undefined ? null : this.text(name);
  }

  /** An int as a number, None as the default. */
  whole(name: string, otherwise: number): number {
    const value = this.some(name);
    return value === undefined ? otherwise : wholeNumber(value);
  }

  flag(name: string, otherwise: boolean): boolean {
    const value = this.value(name);
    return value === undefined ? otherwise : truth(value);
  }

  items(name: string): Value[] {
    return itemsOf(this.value(name) ?? none);
  }

  error(message: string): TemplateError {
    return new TemplateError(`${this.name}() ${message}`);
  }
}

/** An index or a width. @throws TemplateError for what is no int */
export function wholeNumber(value: Value): number {
  const number = numberOf(value);
  if (typeof number !== 'bigint')
    throw new TemplateError(`'${typeName(value)}' object cannot be interpreted as an integer`);
  return Number(number);
}
