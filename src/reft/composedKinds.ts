// Edits beyond the paper, as compositions of ordinary ops: a learned gate, a bank of edits mixed by the state, a small
// network in the subspace. They are made by the same means as a user's own edit (defineEdit.ts).

import type { Tensor } from '../tensor/tensor.js';
import { editActivations, type EditActivation } from './editOp.js';
import {
  startAtR,
  type ComposedKind,
  type EditContext,
  type EditOptions,
  type EditSize,
  type IdentityStart,
  type ParameterSpec,
  type ParameterStart,
} from './kinds.js';

/** A parameter as a definition gives it, `orthogonal([rank, width])`. */
export interface ParameterDefinition {
  readonly shape: readonly number[];
  readonly start: ParameterStart;
  /** Left out by the configuration's `bias: false`, or by 'inner' if it is 'outer'; the edit is then given zeros. */
  readonly bias?: 'inner' | 'outer';
}

type Start = (shape: readonly number[], options?: { bias?: 'inner' | 'outer' }) => ParameterDefinition;
const start =
  (name: ParameterStart): Start =>
  (shape, options = {}) => ({ shape, start: name, ...options });

/**
 * How parameters may start. `orthogonal` [k, n] with k at most n: orthonormal rows, kept so by the configuration's
 * orthogonal map and never decayed; `linear`: uniform in +-1/sqrt(width); `unit`: uniform in [0, 1).
 */
export const starts = {
  orthogonal: start('orthogonal'),
  linear: start('linear'),
  unit: start('unit'),
  zeros: start('zeros'),
  ones: start('ones'),
};

export interface EditDefinition<P extends string = string, O extends EditOptions = EditOptions> {
  /** What configurations and files call it. */
  readonly name: string;
  /** For lists and adapter cards. */
  readonly formula?: string;
  /** Options of its own with their defaults; a configuration sets them by `kindOptions`. */
  readonly options?: O;
  /** Where the configuration names none. Default linear. */
  readonly activation?: EditActivation;
  /** The trained tensors, for hidden states of `width` numbers. */
  parameters(
    size: EditSize & { readonly options: O },
    starts: typeof import('./composedKinds.js').starts,
  ): Readonly<Record<P, ParameterDefinition>>;
  /**
   * The edited rows [m, width] of the rows h [m, width]: any composition of ops. Each row must depend on itself alone.
   */
  apply(h: Tensor, parameters: Readonly<Record<P, Tensor>>, context: EditContext & { readonly options: O }): Tensor;
  /** What `identityStart` puts in place of starting values, or null with an activation that cannot. */
  identity?(activation: EditActivation): IdentityStart | null;
}

const nameRule = /^[A-Za-z][A-Za-z0-9_]*$/;

/** A kind from its definition. @throws RangeError naming what is wrong with it */
export function composedKind<P extends string, O extends EditOptions = EditOptions>(
  definition: EditDefinition<P, O>,
): ComposedKind {
  const { name, activation = 'linear', options = {} as O } = definition;
  if (!nameRule.test(name))
    throw new RangeError(`edit '${name}': a name is letters, digits and underscores, starting with a letter`);
  if (!editActivations.includes(activation))
    throw new RangeError(
      `edit '${name}': activation '${activation as string}' is not known; known: ${editActivations.join(', ')}`,
    );
  return {
    name,
    activation,
    options,
    formula: definition.formula ?? `h' = ${name}(h)`,
    identity: a => definition.identity?.(a) ?? null,
    specs(size): ParameterSpec[] {
      const given: [string, ParameterDefinition][] = Object.entries(
        definition.parameters(size as EditSize & { options: O }, starts),
      );
      return given.map(([parameter, p]) => ({ name: parameter, ...p })).map(spec => checked(name, spec));
    },
    apply: (h, p, context) => definition.apply(h, p as Record<P, Tensor>, context as EditContext & { options: O }),
  };
}

function checked(kind: string, spec: ParameterSpec): ParameterSpec {
  const { name, shape, start: from } = spec;
  const fail = (why: string): never => {
    throw new RangeError(`edit '${kind}', parameter '${name}': ${why}`);
  };
  if (!nameRule.test(name)) fail('a name is letters, digits and underscores, starting with a letter');
  if (name === 'scale') fail('the name is taken by the trained scale');
  if (!Array.isArray(shape) || !shape.every(n => Number.isInteger(n) && n > 0))
    fail(`expected a shape of whole numbers from 1 on, got [${String(shape)}]`);
  if (!Object.hasOwn(starts, from))
    fail(`start '${String(from)}' is not known; known: ${Object.keys(starts).join(', ')}`);
  if (from === 'orthogonal' && !(shape.length === 2 && shape[0] <= shape[1]))
    fail(`orthonormal rows need a shape [k, n] with k at most n, got [${shape.join(',')}]`);
  return spec;
}

/** W h + b - R h for rows h: what loreft moves the coordinates by. */
const towards = (h: Tensor, R: Tensor, W: Tensor, b: Tensor, act: (x: Tensor) => Tensor): Tensor =>
  act(h.matmulT(W).add(b)).sub(h.matmulT(R));

/** loreft times a number from 0 to 1 that the state decides. */
export const gated = composedKind({
  name: 'gated',
  formula: "h' = h + sigmoid(g h + a) R^T (act(W h + b) - R h)",
  parameters: ({ width, rank }, { orthogonal, linear, zeros }) => ({
    R: orthogonal([rank, width]),
    W: linear([rank, width]),
    b: linear([rank], { bias: 'inner' }),
    g: zeros([1, width]),
    a: zeros([1]),
  }),
  apply(h, { R, W, b, g, a }, { activation, subspace }) {
    const gate = h.matmulT(g).add(a).sigmoid();
    return h.add(
      subspace(towards(h, R, W, b, activation))
        .mul(gate)
        .matmul(R),
    );
  },
  identity: startAtR,
});

/**
 * A bank of `experts` edits of rank r in mutually orthogonal subspaces (R [experts r, d]), mixed by softmax(G h): which
 * subspace acts, and how much, depends on the token.
 */
export const adaptive = composedKind({
  name: 'adaptive',
  formula: "h' = h + sum_k softmax(G h)_k R_k^T (act(W_k h + b_k) - R_k h)",
  options: { experts: 4 },
  parameters: ({ width, rank, options: { experts } }, { orthogonal, linear }) => ({
    R: orthogonal([experts * rank, width]),
    W: linear([experts * rank, width]),
    b: linear([experts * rank], { bias: 'inner' }),
    G: linear([experts, width]),
  }),
  apply(h, { R, W, b, G }, { activation, subspace, rank, options: { experts } }) {
    const rows = h.shape[0];
    const share = h.matmulT(G).softmax(-1).reshape([rows, experts, 1]);
    const moves = subspace(towards(h, R, W, b, activation).reshape([rows, experts, rank]));
    return h.add(
      moves
        .mul(share)
        .reshape([rows, experts * rank])
        .matmul(R),
    );
  },
  identity: startAtR,
});

/** A network with one hidden layer of `hidden` units (0: 4r) from the subspace into itself. */
export const nonlinear = composedKind({
  name: 'nonlinear',
  formula: "h' = h + R^T (V act(U R h + b) + b2)",
  options: { hidden: 0 },
  activation: 'gelu',
  parameters: ({ width, rank, options }, { orthogonal, linear }) => {
    const hidden = options.hidden || 4 * rank;
    return {
      R: orthogonal([rank, width]),
      U: linear([hidden, rank]),
      b: linear([hidden], { bias: 'inner' }),
      V: linear([rank, hidden]),
      b2: linear([rank], { bias: 'outer' }),
    };
  },
  apply(h, { R, U, b, V, b2 }, { activation, subspace }) {
    const inside = activation(h.matmulT(R).matmulT(U).add(b));
    return h.add(subspace(inside.matmulT(V).add(b2)).matmul(R));
  },
  identity: () => ({ V: 'zeros', b2: 'zeros' }),
});

/** Activation addition: one vector, the same for every state (Turner et al. 2023). Rank means nothing to it. */
export const addition = composedKind({
  name: 'addition',
  formula: "h' = h + v",
  parameters: ({ width }, { zeros }) => ({ v: zeros([width]) }),
  apply: (h, { v }) => h.add(v),
  identity: () => ({ v: 'zeros' }),
});

export const composedKinds = { gated, adaptive, nonlinear, addition } as const;
