// pyreft's weights by pyreft's names, put into our interventions. pyreft's kinds and classes are named otherwise than the paper's: its
// "nodireft" is direft here, its "direft" is direftOrthogonal.

import type { EditActivation } from '../../src/reft/editOp.js';
import { resolveConfig } from '../../src/reft/config.js';
import { Intervention } from '../../src/reft/intervention.js';
import type { KindName } from '../../src/reft/kinds.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import type { Component } from '../../src/models/sites.js';
import { create } from '../../src/tensor/create.js';
import { hostBackend } from '../../src/tensor/device.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { Unsupported } from './context.js';
import type { HostArray } from './fixture.js';

/** Weights of one intervention. R is `rotate_layer` [d, r] (its transpose), or `original` and `base` of torch's parametrization. */
export type PyreftWeights = ReadonlyMap<string, HostArray>;

export const rotation = { original: 'rotate_layer.parametrizations.weight.original', base: 'rotate_layer.base', transposed: 'rotate_layer' } as const;

const kindNames: Readonly<Record<string, KindName>> = {
  loreft: 'loreft', noreft: 'noreft', consreft: 'consreft', lobireft: 'lobireft', direft: 'direftOrthogonal', nodireft: 'direft',
};

/** Our name of a kind, from pyreft's ("nodireft") or from its class ("<class 'pyreft.interventions.NodireftIntervention'>"). */
export function kindOf(pyreftName: string): KindName {
  const inClass = /\b(\w+)Intervention'?>?$/.exec(pyreftName)?.[1];
  const name = (inClass ?? pyreftName).toLowerCase();
  if (!Object.hasOwn(kindNames, name)) throw new Unsupported(`interventions of kind '${pyreftName}' are not supported`);
  return kindNames[name];
}

/** Our parameter for each of pyreft's; null marks one that its formula does not use. */
export const parameterNames: Readonly<Record<KindName, Readonly<Record<string, string | null>>>> = {
  loreft: { 'learned_source.weight': 'W', 'learned_source.bias': 'b' },
  direftOrthogonal: { 'learned_source.weight': 'W', 'learned_source.bias': 'b' },
  direft: { 'learned_source.weight': 'W1', 'learned_source.bias': 'b', 'proj_layer.weight': 'W2', 'proj_layer.bias': null },
  noreft: { 'learned_source.weight': 'W1', 'learned_source.bias': 'b', 'proj_layer.weight': 'W2', 'proj_layer.bias': 'b2' },
  consreft: { learned_source: 's' },
  lobireft: { learned_source: 's' },
};

const activations: Readonly<Record<string, EditActivation>> = {
  linear: 'linear', gelu: 'gelu', relu: 'relu', silu: 'silu', swish: 'silu', tanh: 'tanh', sigmoid: 'sigmoid',
  gelu_new: 'gelu_tanh', gelu_pytorch_tanh: 'gelu_tanh',
};

/** Our name of transformers' activation `name`. */
export function activationOf(name: string | null | undefined): EditActivation {
  const found = activations[name ?? 'linear'];
  if (!found) throw new Unsupported(`the activation '${name}' is not supported`);
  return found;
}

export interface InterventionSpec {
  readonly kind: KindName;
  readonly layer: number;
  readonly component: Component;
  readonly activation: EditActivation;
  readonly weights: PyreftWeights;
  /** Only names interventions. */
  readonly number: number;
}

/** An intervention with the given weights; torch's orthogonal map where its parameters are given, our own where R is. */
export function buildIntervention(model: CausalLM, spec: InterventionSpec): Intervention {
  const { kind, weights, layer, component } = spec;
  const names = parameterNames[kind];
  const known = new Set<string>([...Object.keys(names), ...Object.values(rotation)]);
  for (const name of weights.keys()) if (!known.has(name)) throw new RangeError(`intervention ${spec.number}: ${kind} has no weights '${name}'`);
  const rank = weights.get('learned_source.weight')?.shape[0] ?? weights.get('learned_source')?.shape[0] ?? weights.get('proj_layer.weight')?.shape[0];
  if (!rank) throw new RangeError(`intervention ${spec.number}: has no learned_source`);
  const torch = weights.has(rotation.original);
  const { backend, dtype } = model;
  const place = ({ shape, data }: HostArray): Tensor => create.from(data, shape, { dtype, backend });
  const bias = [...weights.keys()].some(name => name.endsWith('.bias'));
  const config = resolveConfig(
    { kind, layers: [layer], rank, component, activation: spec.activation, bias, orthogonal: torch ? 'torch' : 'householder' },
    model.config,
  );
  const intervention = new Intervention({
    id: `${component}/${layer}#${spec.number}`, site: { layer, component }, side: 'both', config, width: model.widthAt(component), seed: 0, backend, dtype,
  });
  const plain = intervention.parameters();
  for (const [name, own] of Object.entries(names)) {
    const given = weights.get(name);
    if (own === null || (!given && !plain[own])) continue;
    if (given) intervention.set(own, place(given));
    else if (name === 'proj_layer.bias') {
      // addBias=False: no b2 at all, while b stays.
      intervention.set(own, create.zeros([rank], { dtype, backend }));
      plain[own].requireGrad(false);
    } else throw new RangeError(`intervention ${spec.number}: has no weights '${name}'`);
  }
  const hosted = ({ shape, data }: HostArray): Tensor => create.from(data, shape, { dtype, backend: hostBackend(backend) });
  if (plain.R) setRotation(intervention, weights, place, hosted);
  return intervention;
}

type Place = (a: HostArray) => Tensor;

function setRotation(intervention: Intervention, weights: PyreftWeights, place: Place, hosted: Place): void {
  const [original, base, transposed] = [rotation.original, rotation.base, rotation.transposed].map(name => weights.get(name));
  if (original && base) intervention.setRotationParameters({ original: place(original).requireGrad(), base: place(base) });
  else if (transposed) intervention.set('R', hosted(transposed).transpose().contiguous());
  else throw new RangeError(`${intervention.id}: has neither '${rotation.transposed}' nor '${rotation.original}' with '${rotation.base}'`);
}
