// Activation functions by Hugging Face's names: of tensors, and as expressions for what computes them on the way.

import * as elementwise from '../autograd/elementwise.js';
import { mul, tanh, type Expr } from '../tensor/expr.js';
import type { Tensor } from '../tensor/tensor.js';

const { siluOf, sigmoidOf, geluOf, geluTanhOf, reluOf, unary } = elementwise;
/** CLIP's stand-in for gelu (Hendrycks and Gimpel 2016). */
const quickGeluOf = (x: Expr): Expr => mul(x, sigmoidOf(mul(1.702, x)));
const identity = (x: Expr): Expr => x;
const expressions: Readonly<Record<string, (x: Expr) => Expr>> = Object.assign(Object.create(null), {
  silu: siluOf,
  swish: siluOf,
  gelu: geluOf,
  gelu_python: geluOf,
  gelu_new: geluTanhOf,
  gelu_fast: geluTanhOf, // writes sqrt(2 / pi) as 0.7978845608, which in f32 is the same
  gelu_pytorch_tanh: geluTanhOf,
  quick_gelu: quickGeluOf,
  relu: reluOf,
  sigmoid: sigmoidOf,
  tanh,
  linear: identity,
});

/** Of tensors, by Hugging Face's names. */
export const activations: Readonly<Record<string, (x: Tensor) => Tensor>> = Object.assign(
  Object.create(null),
  Object.fromEntries(
    Object.entries(expressions).map(([name, f]) => [name, f === identity ? (x: Tensor) => x : unary(name, f)]),
  ),
);

function named<T>(table: Readonly<Record<string, T>>, name: string): T {
  const found = table[name];
  if (!found) throw new RangeError(`activation '${name}' is not known; known: ${Object.keys(table).join(', ')}`);
  return found;
}

/** By name; an unknown one is refused, saying which are known. */
export const activationNamed = (name: string): ((x: Tensor) => Tensor) => named(activations, name);

/** The same as an expression of a float. */
export const activationOf = (name: string): ((x: Expr) => Expr) => named(expressions, name);
