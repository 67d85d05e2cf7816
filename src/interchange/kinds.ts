// The kinds of interchange intervention, each as its parameters and what it makes of rows h of the run and rows s of a
// source. Features that are swapped are coordinates, rows of R, principal components or an autoencoder's latents. Names
// are pyvene's, in camelCase. Sources: Geiger et al. 2024 (arXiv 2303.02536, DAS), Wu et al. 2023 (arXiv 2305.08809,
// boundless DAS), pyvene models/interventions.py.

import { relu } from '../autograd/elementwise.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';

/** What decides the shapes of a kind's parameters. */
export interface InterchangeSizes {
  /** d, the width of the hidden states. */
  readonly width: number;
  /** r, for kinds of low rank and principal components. */
  readonly rank: number;
  /** n, an autoencoder's latents. */
  readonly latents: number;
}

type Side = keyof InterchangeSizes | 1;

export interface InterchangeParameterSpec {
  readonly name: string;
  readonly shape: readonly Side[];
  /**
   * Orthonormal rows kept so by a map, the first rows of the identity, uniform in +-1/sqrt(d), or a number everywhere.
   */
  readonly start: 'orthogonal' | 'identity' | 'linear' | number;
  readonly trained: boolean;
}

/** One use of a kind: all rows are [m, d]. */
export interface InterchangeCall {
  readonly base: Tensor;
  /** Null for kinds without a source. */
  readonly source: Tensor | null;
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** Which features take part, bool [1 or m, features]; null: all. */
  readonly chosen: Tensor | null;
  readonly temperature: number;
  /** Noise alone: rows of standard normals [m, d], and their factor. */
  readonly noise: Tensor | null;
  readonly noiseLevel: number;
  /** Autoencoders alone: what they do not reconstruct stays. */
  readonly keepError: boolean;
}

export interface InterchangeKind {
  readonly name: string;
  readonly formula: string;
  /** Whether it reads a source. */
  readonly needsSource: boolean;
  readonly parameters: readonly InterchangeParameterSpec[];
  /** What subspaces and `interchangeDim` count. */
  readonly features: keyof InterchangeSizes;
  /** The new rows. */
  apply(call: InterchangeCall): Tensor;
  /** Rows [m, d] as features [m, features]. */
  encode(h: Tensor, parameters: Readonly<Record<string, Tensor>>): Tensor;
  /** How much of each feature is swapped, [features] from 0 to 1, where that is learned. */
  softMask?(parameters: Readonly<Record<string, Tensor>>, temperature: number): Tensor;
  /** What a penalty makes small: the share of the features that is swapped, one element. */
  sparsity?(parameters: Readonly<Record<string, Tensor>>, temperature: number): Tensor;
  /** From where to where the temperature goes in training, unless told, for a width. */
  readonly annealing?: (width: number) => readonly [number, number];
  /** Bounds a parameter is put back into after a step: outside of them it would have no gradient to return by. */
  readonly bounds?: { readonly name: string; readonly range: readonly [number, number] };
}

const orthogonal = (rows: Side): InterchangeParameterSpec => ({
  name: 'R',
  shape: [rows, 'width'],
  start: 'orthogonal',
  trained: true,
});

/** The learned boundary lies within, as in pyvene. */
const boundaryRange = [1e-3, 1] as const;

/**
 * base + (w * (R s - R h)) R: for any weights w, what R does not see stays as it is, and s = h changes nothing, bit for
 * bit.
 */
function swapIn(base: Tensor, source: Tensor, R: Tensor, ...weights: (Tensor | null)[]): Tensor {
  let difference = source.sub(base).matmulT(R);
  for (const w of weights) if (w) difference = difference.mul(w.dtype === 'bool' ? w.to(difference.dtype) : w);
  return base.add(difference.matmul(R));
}

const pick = (chosen: Tensor | null, source: Tensor, base: Tensor): Tensor =>
  chosen ? chosen.where(source, base) : source;

/** Zero where not chosen. */
const only = (chosen: Tensor | null, x: Tensor): Tensor => (chosen ? chosen.where(x, 0) : x);

const sourceOf = ({ source }: InterchangeCall): Tensor => source as Tensor;
const coordinates = (h: Tensor): Tensor => h;
const rotated = (h: Tensor, { R }: Readonly<Record<string, Tensor>>): Tensor => h.matmulT(R);

const maskOf = (mask: Tensor, temperature: number): Tensor => mask.div(temperature).sigmoid();

function boundaryMask({ R, interventionBoundaries }: Readonly<Record<string, Tensor>>, temperature: number): Tensor {
  const [d] = R.shape;
  const i = create.arange(0, d, { dtype: R.dtype, backend: R.backend });
  const end = interventionBoundaries.clamp(...boundaryRange).mul(d);
  return i.div(temperature).sigmoid().mul(end.sub(i).div(temperature).sigmoid());
}

const rotatedKind = (name: string, rows: 'width' | 'rank'): InterchangeKind => ({
  name,
  formula: "h' = h + R^T (R s - R h)",
  needsSource: true,
  parameters: [orthogonal(rows)],
  features: rows,
  apply: call => swapIn(call.base, sourceOf(call), call.parameters.R, call.chosen),
  encode: rotated,
});

/**
 * Latents of a sparse autoencoder; `threshold` makes it a JumpReLU one (Rajamanoharan et al. 2024, arXiv 2407.14435).
 */
function latentsOf(h: Tensor, { encoder, encoderBias, threshold }: Readonly<Record<string, Tensor>>): Tensor {
  const before = h.matmulT(encoder).add(encoderBias);
  return threshold ? before.gt(threshold).where(relu(before), 0) : relu(before);
}

const autoencoderKind = (name: string, formula: string, jump: boolean): InterchangeKind => ({
  name,
  formula,
  needsSource: true,
  features: 'latents',
  parameters: [
    { name: 'encoder', shape: ['latents', 'width'], start: 'linear', trained: true },
    { name: 'encoderBias', shape: ['latents'], start: 0, trained: true },
    { name: 'decoder', shape: ['latents', 'width'], start: 'linear', trained: true },
    { name: 'decoderBias', shape: ['width'], start: 0, trained: true },
    ...(jump ? [{ name: 'threshold', shape: ['latents'], start: 0, trained: false } as const] : []),
  ],
  apply(call) {
    const { base, parameters, chosen, keepError } = call;
    const [z, from] = [latentsOf(base, parameters), latentsOf(sourceOf(call), parameters)];
    const mixed = pick(chosen, from, z);
    if (keepError) return base.add(mixed.sub(z).matmul(parameters.decoder));
    return mixed.matmul(parameters.decoder).add(parameters.decoderBias);
  },
  encode: latentsOf,
});

export const interchangeKinds = {
  vanilla: {
    name: 'vanilla',
    formula: "h' = s",
    needsSource: true,
    parameters: [],
    features: 'width',
    apply: call => pick(call.chosen, sourceOf(call), call.base),
    encode: coordinates,
  },
  rotatedSpace: rotatedKind('rotatedSpace', 'width'),
  lowRankRotatedSpace: rotatedKind('lowRankRotatedSpace', 'rank'),
  boundlessRotatedSpace: {
    name: 'boundlessRotatedSpace',
    formula: "h' = R^T ((1 - m) R h + m R s), m_i = sigmoid(i / T) sigmoid((c d - i) / T)",
    needsSource: true,
    parameters: [orthogonal('width'), { name: 'interventionBoundaries', shape: [1], start: 0.5, trained: true }],
    features: 'width',
    apply: call =>
      swapIn(
        call.base,
        sourceOf(call),
        call.parameters.R,
        boundaryMask(call.parameters, call.temperature),
        call.chosen,
      ),
    encode: rotated,
    softMask: boundaryMask,
    sparsity: ({ interventionBoundaries }) => interventionBoundaries.clamp(...boundaryRange).sum(),
    // 50 is for thousands of dimensions: with fewer, a mask that soft would tell none of them apart.
    annealing: width => [Math.min(50, width / 10), 0.1],
    bounds: { name: 'interventionBoundaries', range: boundaryRange },
  },
  sigmoidMask: {
    name: 'sigmoidMask',
    formula: "h' = (1 - m) h + m s, m = sigmoid(mask / T)",
    needsSource: true,
    parameters: [{ name: 'mask', shape: ['width'], start: 0, trained: true }],
    features: 'width',
    apply(call) {
      const difference = sourceOf(call).sub(call.base).mul(maskOf(call.parameters.mask, call.temperature));
      return call.base.add(only(call.chosen, difference));
    },
    encode: coordinates,
    softMask: ({ mask }, temperature) => maskOf(mask, temperature),
    sparsity: ({ mask }, temperature) => maskOf(mask, temperature).mean(),
    annealing: () => [1, 0.01],
  },
  sigmoidMaskRotatedSpace: {
    name: 'sigmoidMaskRotatedSpace',
    formula: "h' = R^T ((1 - m) R h + m R s), m = sigmoid(mask / T)",
    needsSource: true,
    parameters: [orthogonal('width'), { name: 'mask', shape: ['width'], start: 0, trained: true }],
    features: 'width',
    apply: call =>
      swapIn(call.base, sourceOf(call), call.parameters.R, maskOf(call.parameters.mask, call.temperature), call.chosen),
    encode: rotated,
    softMask: ({ mask }, temperature) => maskOf(mask, temperature),
    sparsity: ({ mask }, temperature) => maskOf(mask, temperature).mean(),
    annealing: () => [1, 0.01],
  },
  pcaRotatedSpace: {
    name: 'pcaRotatedSpace',
    formula: "h' = h + std C^T (C (s - h) / std)",
    needsSource: true,
    features: 'rank',
    parameters: [
      { name: 'components', shape: ['rank', 'width'], start: 'identity', trained: false },
      { name: 'mean', shape: ['width'], start: 0, trained: false },
      { name: 'std', shape: ['width'], start: 1, trained: false },
    ],
    apply(call) {
      const {
        base,
        parameters: { components, std },
        chosen,
      } = call;
      const difference = sourceOf(call).sub(base).div(std).matmulT(components);
      return base.add(only(chosen, difference).matmul(components).mul(std));
    },
    encode: (h, { components, mean, std }) => h.sub(mean).div(std).matmulT(components),
  },
  addition: {
    name: 'addition',
    formula: "h' = h + s",
    needsSource: true,
    parameters: [],
    features: 'width',
    apply: call => call.base.add(only(call.chosen, sourceOf(call))),
    encode: coordinates,
  },
  subtraction: {
    name: 'subtraction',
    formula: "h' = h - s",
    needsSource: true,
    parameters: [],
    features: 'width',
    apply: call => call.base.sub(only(call.chosen, sourceOf(call))),
    encode: coordinates,
  },
  zero: {
    name: 'zero',
    formula: "h' = 0",
    needsSource: false,
    parameters: [],
    features: 'width',
    apply: ({ base, chosen }) => (chosen ? chosen.where(0, base) : base.mul(0)),
    encode: coordinates,
  },
  noise: {
    name: 'noise',
    formula: "h' = h + level * normal",
    needsSource: false,
    parameters: [],
    features: 'width',
    apply: ({ base, chosen, noise, noiseLevel }) => base.add(only(chosen, (noise as Tensor).mul(noiseLevel))),
    encode: coordinates,
  },
  collect: {
    name: 'collect',
    formula: "h' = h, and h is given back",
    needsSource: false,
    parameters: [],
    features: 'width',
    apply: ({ base }) => base,
    encode: coordinates,
  },
  autoencoder: autoencoderKind('autoencoder', "h' = h + D^T (z_s - z_h), z = relu(E h + e)", false),
  jumpReluAutoencoder: autoencoderKind(
    'jumpReluAutoencoder',
    "h' = h + D^T (z_s - z_h), z = relu(E h + e) where that exceeds the threshold",
    true,
  ),
} as const satisfies Record<string, InterchangeKind>;

export type InterchangeKindName = keyof typeof interchangeKinds;

export function interchangeKindByName(name: string): InterchangeKind {
  if (!Object.hasOwn(interchangeKinds, name)) {
    throw new RangeError(`interchange '${name}' is not known; known: ${Object.keys(interchangeKinds).join(', ')}`);
  }
  return interchangeKinds[name as InterchangeKindName];
}
