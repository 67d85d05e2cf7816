// The orthogonal maps of many edits at once. Thirty layers with two edits each would otherwise evaluate sixty small
// maps a step, each a few dozen operations on small matrices; of one shape they are stacked and evaluated together,
// with the same results.

import { shouldRecord } from '../autograd/tape.js';
import { stack } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Intervention } from './intervention.js';

/**
 * R by parameter name for each intervention, for one forward pass while training. Those that are not here evaluate
 * their own.
 */
export type SharedRotations = ReadonlyMap<Intervention, Readonly<Record<string, Tensor>>>;

interface Part {
  readonly intervention: Intervention;
  readonly name: string;
  readonly parameters: Readonly<Record<string, Tensor>>;
}

/**
 * Evaluates the maps of interventions that are about to be applied: a gradient then reaches each as if it were alone.
 */
export function sharedRotations(interventions: readonly Intervention[]): SharedRotations {
  const groups = new Map<string, Part[]>();
  for (const intervention of interventions) {
    for (const [name, parameters] of intervention.rotationStates) {
      if (!intervention.map.batched || !shouldRecord(Object.values(parameters))) continue;
      const key = [
        intervention.map.name,
        ...Object.entries(parameters).map(([own, t]) => `${own} ${t.shape.join('x')} ${t.requiresGrad}`),
      ].join(', ');
      groups.set(key, [...(groups.get(key) ?? []), { intervention, name, parameters }]);
    }
  }
  const result = new Map<Intervention, Record<string, Tensor>>();
  for (const parts of groups.values()) {
    if (parts.length < 2) continue;
    const names = Object.keys(parts[0].parameters);
    const together = parts[0].intervention.map.rotation(
      Object.fromEntries(names.map(own => [own, stack(parts.map(p => p.parameters[own]))])),
    );
    parts.forEach(({ intervention, name }, k) => {
      result.set(intervention, { ...result.get(intervention), [name]: together.select(0, k) });
    });
  }
  return result;
}
