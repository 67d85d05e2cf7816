// The kinds of intervention. Those of the paper (arXiv 2404.03592, section 3) are data: parameters and their places in
// the one edit op (editOp.ts). The others are compositions of ordinary ops on the edited rows (composedKinds.ts, and a
// user's own: defineEdit.ts). Names follow the paper: `direft` is h + W2^T (W1 h + b), which pyreft calls
// NodireftIntervention.

import type { Tensor } from '../tensor/tensor.js';
import type { EditActivation, EditBank } from './editOp.js';

/** Orthonormal rows; uniform in +-1/sqrt(width); uniform in [0, 1); zeros; ones. */
export type ParameterStart = 'orthogonal' | 'linear' | 'unit' | 'zeros' | 'ones';

/**
 * Which biases there are. true: all; 'inner': those inside the activation, not noreft's b2 (pyreft's addBias=False);
 * false: none.
 */
export type BiasOption = boolean | 'inner';

export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly start: ParameterStart;
  readonly bias?: 'inner' | 'outer';
}

/**
 * What a kind's parameters may depend on: numbers of a hidden state at the site, the rank, and the kind's own options.
 */
export interface EditSize {
  readonly width: number;
  readonly rank: number;
  readonly options: EditOptions;
}

/** Numbers and flags a kind has of its own, `{ experts: 4 }`. */
export type EditOptions = Readonly<Record<string, number | boolean>>;

/** How W starts at R, for an edit that changes nothing at first. */
export type IdentityStart = Readonly<Record<string, 'zeros' | { readonly copy: string }>>;

interface KindBase {
  readonly name: string;
  readonly formula: string;
  /**
   * What `identityStart` puts in place of starting values; null where the kind, or the kind with that activation,
   * cannot start as the identity.
   */
  identity(activation: EditActivation): IdentityStart | null;
}

export interface PlacedParameter {
  readonly name: string;
  /** 'matrix' is [r, d], 'vector' is [r]. */
  readonly shape: 'matrix' | 'vector';
  readonly start: ParameterStart;
  readonly bias?: 'inner' | 'outer';
}

export interface PlacedKind extends KindBase {
  /** In the order they are listed and saved; R is kept orthonormal by a parametrization. */
  readonly parameters: readonly PlacedParameter[];
  /** Where the parameters stand in the edit op; tensors are [r, d] and [r]. */
  place(p: Readonly<Record<string, Tensor>>): Omit<EditBank, 'activation'>;
}

/** What a composed edit is told beside its parameters. */
export interface EditContext extends EditSize {
  /** The configuration's activation. */
  activation(x: Tensor): Tensor;
  /**
   * Coordinates [m, .., rank] of the edited rows with those outside each row's subspace set to 0; unchanged where no
   * subspaces are given.
   */
  subspace(coordinates: Tensor): Tensor;
}

export interface ComposedKind extends KindBase {
  /** Defaults of the kind's own options. */
  readonly options: EditOptions;
  /** The activation where the configuration names none. */
  readonly activation: EditActivation;
  specs(size: EditSize): readonly ParameterSpec[];
  /** The edited rows [m, d] of the rows h [m, d]; a bias that the configuration leaves out is zeros. */
  apply(h: Tensor, p: Readonly<Record<string, Tensor>>, context: EditContext): Tensor;
}

export type EditKind = PlacedKind | ComposedKind;

export const isPlaced = (kind: EditKind): kind is PlacedKind => 'place' in kind;

/** All parameters of a kind, whatever biases are wanted. */
export function allSpecs(kind: EditKind, size: EditSize): readonly ParameterSpec[] {
  if (!isPlaced(kind)) return kind.specs(size);
  return kind.parameters.map(p => ({ ...p, shape: p.shape === 'matrix' ? [size.rank, size.width] : [size.rank] }));
}

/** The parameters an intervention has. */
export function wantedSpecs(kind: EditKind, size: EditSize, bias: BiasOption): readonly ParameterSpec[] {
  return allSpecs(kind, size).filter(
    s => s.bias === undefined || bias === true || (bias === 'inner' && s.bias === 'inner'),
  );
}

const R: PlacedParameter = { name: 'R', shape: 'matrix', start: 'orthogonal' };
const matrix = (name: string): PlacedParameter => ({ name, shape: 'matrix', start: 'linear' });
const bias = (name: string, where: 'inner' | 'outer' = 'inner'): PlacedParameter => ({
  name,
  shape: 'vector',
  start: 'linear',
  bias: where,
});
const constant: PlacedParameter = { name: 's', shape: 'vector', start: 'unit' };

/** W = R and b = 0, which needs an activation that does nothing. */
export const startAtR = (activation: EditActivation): IdentityStart | null =>
  activation === 'linear' ? { W: { copy: 'R' }, b: 'zeros' } : null;
/** Of all activations only sigmoid(0) is not 0. */
const vanishesAtZero = (activation: EditActivation): boolean => activation !== 'sigmoid';

/** The kinds of the paper. */
export const kinds = {
  loreft: {
    name: 'loreft',
    formula: "h' = h + R^T (act(W h + b) - R h)",
    parameters: [R, matrix('W'), bias('b')],
    place: p => ({ A: p.W, b: p.b, C: p.R, P: p.R }),
    identity: startAtR,
  },
  direft: {
    name: 'direft',
    formula: "h' = h + W2^T act(W1 h + b)",
    parameters: [matrix('W1'), bias('b'), matrix('W2')],
    place: p => ({ A: p.W1, b: p.b, P: p.W2 }),
    identity: () => ({ W2: 'zeros' }),
  },
  direftOrthogonal: {
    name: 'direftOrthogonal',
    formula: "h' = h + R^T act(W h + b)",
    parameters: [R, matrix('W'), bias('b')],
    place: p => ({ A: p.W, b: p.b, P: p.R }),
    identity: activation => (vanishesAtZero(activation) ? { W: 'zeros', b: 'zeros' } : null),
  },
  noreft: {
    name: 'noreft',
    formula: "h' = h + W2^T (act(W1 h + b) - (W2 h + b2))",
    parameters: [matrix('W1'), bias('b'), matrix('W2'), bias('b2', 'outer')],
    place: p => ({ A: p.W1, b: p.b, C: p.W2, e: p.b2, P: p.W2 }),
    identity: activation => (activation === 'linear' ? { W1: { copy: 'W2' }, b: 'zeros', b2: 'zeros' } : null),
  },
  consreft: {
    name: 'consreft',
    formula: "h' = h + R^T (s - R h)",
    parameters: [R, constant],
    place: p => ({ b: p.s, C: p.R, P: p.R }),
    identity: () => null,
  },
  lobireft: {
    name: 'lobireft',
    formula: "h' = h + R^T s",
    parameters: [R, constant],
    place: p => ({ b: p.s, P: p.R }),
    identity: () => ({ s: 'zeros' }),
  },
} as const satisfies Record<string, PlacedKind>;

/** A kind of the paper, one of composedKinds.ts, or one that `defineEdit` made. */
export type KindName = keyof typeof kinds | (string & {});
