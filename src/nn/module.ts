// What every layer is: plain data. A module's fields are tensors, modules and lists of modules; its parameters are
// found by walking them, named as in the checkpoint (camelCase fields become snake_case: `qProj` is `q_proj`). No
// registry, no hooks, no training flag: what is trained is which tensors require gradients.

import { Tensor } from '../tensor/tensor.js';

export abstract class Module {
  /** Every parameter with its checkpoint name, in field order. */
  *namedParameters(prefix = ''): Generator<[string, Tensor]> {
    for (const [field, value] of Object.entries(this)) yield* parametersIn(value, prefix + this.parameterName(field));
  }

  /** Name of a field in the checkpoint. */
  protected parameterName(field: string): string {
    return snakeCase(field);
  }

  parameters(): Tensor[] {
    return [...this.namedParameters()].map(([, t]) => t);
  }
}

function* parametersIn(value: unknown, name: string): Generator<[string, Tensor]> {
  if (value instanceof Tensor) yield [name, value];
  else if (value instanceof Module) yield* value.namedParameters(`${name}.`);
  else if (Array.isArray(value)) for (const [i, item] of value.entries()) yield* parametersIn(item, `${name}.${i}`);
}

export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`);
}
