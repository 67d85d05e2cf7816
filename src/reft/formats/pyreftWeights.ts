// pyreft's names of kinds, activations and weights, and how the weights go into an intervention and come out of it.
// pyreft's classes are named otherwise than the paper's kinds: its Nodireft is direft here, its Direft
// direftOrthogonal. Files and folders are pyreftFolder.ts's work.

import { noGrad } from '../../autograd/tape.js';
import { create } from '../../tensor/create.js';
import { hostBackend } from '../../devices.js';
import type { Tensor } from '../../tensor/tensor.js';
import { orthonormalityError } from '../../nn/hostMatrices.js';
import { torchHouseholder } from '../../nn/orthogonal/torchHouseholder.js';
import type { EditActivation } from '../editOp.js';
import type { Intervention } from '../intervention.js';
import type { kinds } from '../kinds.js';

/** How far the R of a file may be off for torch's map to go on from it: rounding of f32, after long training too. */
const followedDeviation = 1e-4;

/** The kinds that pyreft has. */
export type PyreftKind = keyof typeof kinds;

/** Numbers on the host, row-major. */
export interface HostArray {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/**
 * Weights of one intervention. R is `rotate_layer` [d, r] (its transpose), or `original` and `base` of torch's
 * parametrization.
 */
export type PyreftWeights = ReadonlyMap<string, HostArray>;

export const rotation = {
  original: 'rotate_layer.parametrizations.weight.original',
  base: 'rotate_layer.base',
  transposed: 'rotate_layer',
} as const;

const kindNames: Readonly<Record<string, PyreftKind>> = {
  loreft: 'loreft',
  noreft: 'noreft',
  consreft: 'consreft',
  lobireft: 'lobireft',
  direft: 'direftOrthogonal',
  nodireft: 'direft',
};

/** pyreft's class of a kind. */
export const pyreftClasses: Readonly<Record<PyreftKind, string>> = {
  loreft: 'LoreftIntervention',
  noreft: 'NoreftIntervention',
  consreft: 'ConsreftIntervention',
  lobireft: 'LobireftIntervention',
  direftOrthogonal: 'DireftIntervention',
  direft: 'NodireftIntervention',
};

/**
 * Our name of a kind, from pyreft's ("nodireft") or from its class ("<class
 * 'pyreft.interventions.NodireftIntervention'>"); null for another.
 */
export function kindOfPyreft(pyreftName: string): PyreftKind | null {
  const inClass = /\b(\w+)Intervention'?>?$/.exec(pyreftName)?.[1];
  const name = (inClass ?? pyreftName).toLowerCase();
  return Object.hasOwn(kindNames, name) ? kindNames[name] : null;
}

/** Our parameter for each of pyreft's; null marks one that its formula does not use. */
export const parameterNames: Readonly<Record<PyreftKind, Readonly<Record<string, string | null>>>> = {
  loreft: { 'learned_source.weight': 'W', 'learned_source.bias': 'b' },
  direftOrthogonal: { 'learned_source.weight': 'W', 'learned_source.bias': 'b' },
  direft: {
    'learned_source.weight': 'W1',
    'learned_source.bias': 'b',
    'proj_layer.weight': 'W2',
    'proj_layer.bias': null,
  },
  noreft: {
    'learned_source.weight': 'W1',
    'learned_source.bias': 'b',
    'proj_layer.weight': 'W2',
    'proj_layer.bias': 'b2',
  },
  consreft: { learned_source: 's' },
  lobireft: { learned_source: 's' },
};

const activations: Readonly<Record<string, EditActivation>> = {
  linear: 'linear',
  gelu: 'gelu',
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
  tanh: 'tanh',
  sigmoid: 'sigmoid',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
};

/** Our name of transformers' activation, null for one that is not known. */
export const activationOfTransformers = (name: string | null | undefined): EditActivation | null =>
  activations[name ?? 'linear'] ?? null;

/** Rank and biases as the weights have them. @throws RangeError when they belong to no kind */
export function formOf(
  kind: PyreftKind,
  weights: PyreftWeights,
  where: string,
): { rank: number; bias: boolean | 'inner' } {
  const known = new Set<string>([...Object.keys(parameterNames[kind]), ...Object.values(rotation)]);
  for (const name of weights.keys())
    if (!known.has(name)) throw new RangeError(`${where}: ${kind} has no weights '${name}'`);
  const rank = weights.get('learned_source.weight')?.shape[0] ?? weights.get('learned_source')?.shape[0];
  if (!rank) throw new RangeError(`${where}: has no learned_source`);
  const inner = weights.has('learned_source.bias') || weights.has('learned_source');
  return { rank, bias: !inner ? false : kind === 'noreft' && !weights.has('proj_layer.bias') ? 'inner' : true };
}

/**
 * Puts pyreft's weights into an intervention of that form. @throws RangeError naming what is missing or of another
 * shape
 */
export function setPyreftWeights(intervention: Intervention, weights: PyreftWeights, where: string): void {
  const kind = intervention.kind.name as PyreftKind;
  const own = intervention.parameters();
  const [like] = Object.values(own);
  const backend = hostBackend(like.backend);
  const host = ({ shape, data }: HostArray): Tensor => create.from(data, shape, { dtype: 'f64', backend });
  for (const [name, parameter] of Object.entries(parameterNames[kind])) {
    if (parameter === null || !own[parameter]) continue;
    const given = weights.get(name);
    if (!given) throw new RangeError(`${where}: has no weights '${name}'`);
    intervention.set(parameter, host(given));
  }
  if (!own.R) return;
  const [original, base, transposed] = [rotation.original, rotation.base, rotation.transposed].map(name =>
    weights.get(name),
  );
  if (original && base) {
    const R = noGrad(() => torchHouseholder.rotation({ original: host(original), base: host(base) }).contiguous());
    if (intervention.parameterSet.map === torchHouseholder) followTorch(intervention, { original, base }, R, where);
    else intervention.set('R', R);
  } else if (transposed) intervention.set('R', host(transposed).transpose().contiguous());
  else
    throw new RangeError(
      `${where}: has neither '${rotation.transposed}' nor '${rotation.original}' with '${rotation.base}'`,
    );
}

/** Takes torch's own numbers as they are: with a base of ours the same R would take other steps from the second on. */
function followTorch(
  intervention: Intervention,
  given: Readonly<Record<'original' | 'base', HostArray>>,
  R: Tensor,
  where: string,
): void {
  const { R: own } = intervention.parameters();
  if (R.shape.join() !== own.shape.join()) {
    throw new RangeError(`${where}: R is [${R.shape.join(',')}], expected [${own.shape.join(',')}]`);
  }
  const off = orthonormalityError(R.dataSync(), R.shape).error;
  if (!(off <= followedDeviation)) {
    throw new RangeError(
      `${where}: R has left the orthonormal matrices (max |R R^T - I| is ${off.toPrecision(2)}), ` +
        "so torch's map cannot go on from it; with another one it can",
    );
  }
  const target = { dtype: own.dtype as 'f32' | 'f64', backend: own.backend };
  const tensorOf = ({ shape, data }: HostArray): Tensor => create.from(data, shape, target);
  intervention.parameterSet.setRotationParameters('R', {
    original: tensorOf(given.original).requireGrad(),
    base: tensorOf(given.base),
  });
}

/** An intervention's weights by pyreft's names, as its class's state dict holds them. */
export async function pyreftWeightsOf(
  intervention: Intervention,
  own: Readonly<Record<string, Tensor>>,
): Promise<Map<string, HostArray>> {
  const kind = intervention.kind.name as PyreftKind;
  const { rank, width } = intervention.size;
  const read = async (t: Tensor): Promise<HostArray> => ({ shape: t.shape, data: Float64Array.from(await t.data()) });
  const result = new Map<string, HostArray>();
  for (const [name, parameter] of Object.entries(parameterNames[kind])) {
    if (parameter && own[parameter]) result.set(name, await read(own[parameter]));
    // A bias that is left out here is part of pyreft's class all the same; only proj_layer's may be absent, with
    // add_bias=False.
    else if (name === 'learned_source.bias' || kind === 'direft')
      result.set(name, { shape: [rank], data: new Float64Array(rank) });
  }
  if (!own.R) return result;
  const R = await read(own.R);
  if (kind === 'loreft') {
    const data = new Float64Array(width * rank);
    for (let i = 0; i < rank; i++) for (let k = 0; k < width; k++) data[k * rank + i] = R.data[i * width + k];
    result.set(rotation.transposed, { shape: [width, rank], data });
    return result;
  }
  if (intervention.parameterSet.map === torchHouseholder) {
    const { original, base } = intervention.parameterSet.rotationParameters.get('R') as Record<string, Tensor>;
    return result.set(rotation.original, await read(original)).set(rotation.base, await read(base));
  }
  const host = hostBackend(own.R.backend);
  const {
    parameters: { original, base },
  } = torchHouseholder.initial(create.from(R.data, R.shape, { dtype: 'f64', backend: host }));
  result.set(rotation.original, await read(original)).set(rotation.base, await read(base));
  return result;
}
