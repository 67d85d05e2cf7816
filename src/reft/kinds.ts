// The kinds of intervention, each as its parameters and its place in the one edit op (editOp.ts). Names follow the paper
// (arXiv 2404.03592, section 3): `direft` is h + W2^T (W1 h + b), which pyreft calls NodireftIntervention.

import type { Tensor } from '../tensor/tensor.js';
import type { EditBank } from './editOp.js';

/** How one parameter starts: orthonormal rows, uniform in +-1/sqrt(d), or uniform in [0, 1). */
export type ParameterStart = 'orthogonal' | 'linear' | 'unit';

export interface ParameterSpec {
  readonly name: string;
  /** 'matrix' is [r, d], 'vector' is [r]. */
  readonly shape: 'matrix' | 'vector';
  readonly start: ParameterStart;
  /** Left out when the intervention has no biases. */
  readonly bias?: boolean;
}

export interface EditKind {
  readonly name: string;
  readonly formula: string;
  /** In the order they are listed and saved; R is kept orthonormal by a parametrization. */
  readonly parameters: readonly ParameterSpec[];
  /** Where the parameters stand in the edit op; tensors are [r, d] and [r]. */
  place(p: Readonly<Record<string, Tensor>>): Omit<EditBank, 'activation'>;
}

const R: ParameterSpec = { name: 'R', shape: 'matrix', start: 'orthogonal' };
const matrix = (name: string): ParameterSpec => ({ name, shape: 'matrix', start: 'linear' });
const vector = (name: string, start: ParameterStart = 'linear'): ParameterSpec => ({ name, shape: 'vector', start, bias: start === 'linear' });

export const kinds = {
  loreft: {
    name: 'loreft', formula: "h' = h + R^T (act(W h + b) - R h)", parameters: [R, matrix('W'), vector('b')],
    place: p => ({ A: p.W, b: p.b, C: p.R, P: p.R }),
  },
  direft: {
    name: 'direft', formula: "h' = h + W2^T act(W1 h + b)", parameters: [matrix('W1'), vector('b'), matrix('W2')],
    place: p => ({ A: p.W1, b: p.b, P: p.W2 }),
  },
  direftOrthogonal: {
    name: 'direftOrthogonal', formula: "h' = h + R^T act(W h + b)", parameters: [R, matrix('W'), vector('b')],
    place: p => ({ A: p.W, b: p.b, P: p.R }),
  },
  noreft: {
    name: 'noreft', formula: "h' = h + W2^T (act(W1 h + b) - (W2 h + b2))", parameters: [matrix('W1'), vector('b'), matrix('W2'), vector('b2')],
    place: p => ({ A: p.W1, b: p.b, C: p.W2, e: p.b2, P: p.W2 }),
  },
  consreft: {
    name: 'consreft', formula: "h' = h + R^T (s - R h)", parameters: [R, vector('s', 'unit')],
    place: p => ({ b: p.s, C: p.R, P: p.R }),
  },
  lobireft: {
    name: 'lobireft', formula: "h' = h + R^T s", parameters: [R, vector('s', 'unit')],
    place: p => ({ b: p.s, P: p.R }),
  },
} as const satisfies Record<string, EditKind>;

export type KindName = keyof typeof kinds;

export function kindByName(name: string): EditKind {
  const found = (kinds as Record<string, EditKind>)[name];
  if (!found || !Object.hasOwn(kinds, name)) throw new RangeError(`intervention '${name}' is not known; known: ${Object.keys(kinds).join(', ')}`);
  return found;
}
