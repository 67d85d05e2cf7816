// The orthogonal maps of many parameter sets at once. Thirty layers with two edits each would otherwise evaluate sixty
// small maps a step, each a few dozen operations on small matrices; of one shape they are stacked and evaluated
// together, with the same results.

import { shouldRecord } from '../autograd/tape.js';
import { stack } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import type { ParameterSet } from './parameterSet.js';

/** R by parameter name for each set, for one forward pass while training. Sets that are not here evaluate their own. */
export type SharedRotations = ReadonlyMap<ParameterSet, Readonly<Record<string, Tensor>>>;

interface Part {
  readonly set: ParameterSet;
  readonly name: string;
  readonly parameters: Readonly<Record<string, Tensor>>;
}

/** Evaluates the maps of sets that are about to be used: a gradient then reaches each as if it were alone. */
export function sharedRotations(sets: readonly ParameterSet[]): SharedRotations {
  const groups = new Map<string, Part[]>();
  for (const set of sets) {
    for (const [name, parameters] of set.rotationParameters) {
      if (!set.map.batched || !shouldRecord(Object.values(parameters))) continue;
      const key = [
        set.map.name,
        ...Object.entries(parameters).map(([part, t]) => `${part} ${t.shape.join('x')} ${t.requiresGrad}`),
      ].join(', ');
      groups.set(key, [...(groups.get(key) ?? []), { set, name, parameters }]);
    }
  }
  const result = new Map<ParameterSet, Record<string, Tensor>>();
  for (const group of groups.values()) {
    if (group.length < 2) continue;
    const partNames = Object.keys(group[0].parameters);
    const together = group[0].set.map.rotation(
      Object.fromEntries(partNames.map(part => [part, stack(group.map(p => p.parameters[part]))])),
    );
    group.forEach(({ set, name }, k) => {
      result.set(set, { ...result.get(set), [name]: together.select(0, k) });
    });
  }
  return result;
}
