// The arguments of one torch call under torch's names, given to an op of ours in the kinds it takes. What ours has no
// counterpart for throws NotOurs: such samples are counted and left out.

import type { Tensor, TensorLike } from '../../src/tensor/tensor.js';
import { Stored, type Value } from './samples.js';

export class NotOurs extends Error {}

export class Arguments {
  readonly #values = new Map<string, Value>();
  /** Puts a stored tensor on the device; the same one each time. */
  readonly #place: (stored: Stored) => Tensor;

  constructor(
    names: readonly string[],
    args: readonly Value[],
    kwargs: Readonly<Record<string, Value>>,
    place: (stored: Stored) => Tensor,
  ) {
    this.#place = place;
    args.forEach((value, i) => this.#values.set(names[i] ?? `argument ${i}`, value));
    for (const [name, value] of Object.entries(kwargs)) this.#values.set(name, value);
    for (const [name, value] of this.#values)
      if (!names.includes(name) && value !== null) throw new NotOurs(`no counterpart of ${name}`);
  }

  has(name: string): boolean {
    return (this.#values.get(name) ?? null) !== null;
  }

  raw(name: string): Value {
    return this.#values.get(name) ?? null;
  }

  tensor(name = 'input'): Tensor {
    const value = this.raw(name);
    if (!(value instanceof Stored)) throw new NotOurs(`${name} is no tensor`);
    return this.#place(value);
  }

  tensors(name: string): Tensor[] {
    const value = this.raw(name);
    if (!Array.isArray(value)) throw new NotOurs(`${name} is no list`);
    return (value as readonly Value[]).map(v => {
      if (!(v instanceof Stored)) throw new NotOurs(`${name} is no list of tensors`);
      return this.#place(v);
    });
  }

  /** A tensor or a number. */
  operand(name = 'other'): TensorLike {
    return this.raw(name) instanceof Stored ? this.tensor(name) : this.number(name);
  }

  number(name: string, otherwise?: number): number {
    const value = this.raw(name) ?? otherwise;
    if (typeof value !== 'number') throw new NotOurs(`${name} is no number`);
    return value;
  }

  flag(name: string, otherwise = false): boolean {
    return Boolean(this.raw(name) ?? otherwise);
  }

  text(name: string, otherwise: string): string {
    return String(this.raw(name) ?? otherwise);
  }

  /** A list of numbers, or one that stands for a list of one; undefined where none was given. */
  numbers(name: string): number[] | undefined {
    const value = this.raw(name);
    if (value === null) return undefined;
    if (typeof value === 'number') return [value];
    if (!Array.isArray(value) || value.some(v => typeof v !== 'number'))
      throw new NotOurs(`${name} is no list of numbers`);
    return [...(value as number[])];
  }

  /** The entries of an integer tensor. */
  indices(name: string): Int32Array {
    const value = this.raw(name);
    if (!(value instanceof Stored) || value.dtype !== 'i32') throw new NotOurs(`${name} is no tensor of integers`);
    return value.data as Int32Array;
  }
}
