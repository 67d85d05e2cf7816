// Where names are looked up: inner blocks see what outer ones set, and what they set themselves ends with them.

import type { Value } from './values.js';

export class Scope {
  private readonly values = new Map<string, Value>();
  private readonly outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.outer = outer;
  }

  get(name: string): Value | undefined {
    return this.values.get(name) ?? this.outer?.get(name);
  }

  set(name: string, value: Value): void {
    this.values.set(name, value);
  }
}
