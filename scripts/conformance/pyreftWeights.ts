// pyreft's weights put into our interventions, as the fixtures hold them. Names are known by src/reft/formats.

import type { Model } from '../../src/models/model.js';
import type { Component } from '../../src/models/sites.js';
import { resolveConfig } from '../../src/reft/config.js';
import type { EditActivation } from '../../src/reft/editOp.js';
import {
  activationOfTransformers,
  formOf,
  kindOfPyreft,
  rotation,
  setPyreftWeights,
  type HostArray,
  type PyreftKind,
  type PyreftWeights,
} from '../../src/reft/formats/pyreftWeights.js';
import { Intervention } from '../../src/reft/intervention.js';
import { create } from '../../src/tensor/create.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { Unsupported } from './context.js';

/**
 * Our name of a kind, from pyreft's ("nodireft") or from its class ("<class
 * 'pyreft.interventions.NodireftIntervention'>").
 */
export function kindOf(pyreftName: string): PyreftKind {
  const found = kindOfPyreft(pyreftName);
  if (!found) throw new Unsupported(`interventions of kind '${pyreftName}' are not supported`);
  return found;
}

/** Our name of transformers' activation `name`. */
export function activationOf(name: string | null | undefined): EditActivation {
  const found = activationOfTransformers(name);
  if (!found) throw new Unsupported(`the activation '${name}' is not supported`);
  return found;
}

export interface InterventionSpec {
  readonly kind: PyreftKind;
  readonly layer: number;
  readonly component: Component;
  readonly activation: EditActivation;
  readonly weights: PyreftWeights;
  /** Only names interventions. */
  readonly number: number;
}

/**
 * An intervention with the given weights; torch's orthogonal map where its parameters are given, our own where R is.
 */
export function buildIntervention(model: Model, spec: InterventionSpec): Intervention {
  const { kind, weights, layer, component, number } = spec;
  const where = `intervention ${number}`;
  const orthogonal = weights.has(rotation.original) ? 'torchHouseholder' : 'householder';
  const { backend, dtype } = model;
  const config = resolveConfig(
    { kind, layers: [layer], component, activation: spec.activation, orthogonal, ...formOf(kind, weights, where) },
    model.stacks,
  );
  const intervention = new Intervention({
    id: `${component}/${layer}#${number}`,
    site: { layer, component },
    side: 'both',
    config,
    width: model.widthAt(component),
    number,
    backend,
    dtype,
  });
  setPyreftWeights(intervention, weights, where);
  const [original, base] = [weights.get(rotation.original), weights.get(rotation.base)];
  if (original && base) {
    // As given, not as R gives it: what a run does next depends on them.
    const place = ({ shape, data }: HostArray): Tensor => create.from(data, shape, { dtype, backend });
    intervention.parameterSet.setRotationParameters('R', {
      original: place(original).requireGrad(),
      base: place(base),
    });
  }
  return intervention;
}
