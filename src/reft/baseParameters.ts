// Weights of the base that are trained beside the edits: a head, a norm. They are named as in the checkpoint, trained
// by the same trainer, and saved with the adapter. Edits alone leave the base untouched; these do not, and loading them
// changes the base they are loaded onto.

import { nearNames } from '../io/nearNames.js';
import type { Module } from '../nn/module.js';
import type { Tensor } from '../tensor/tensor.js';

/** Weights of the base that are trained, by name. */
export const trainedBaseParameters = (base: Module): [string, Tensor][] =>
  [...base.namedParameters()].filter(([, t]) => t.requiresGrad);

/**
 * Marks weights of the base as trained: `lm_head.weight`, or all of a module's, `model.norm`. Gives the names of those
 * that are now trained.
 * @throws RangeError for a name that no weight has, Error for packed weights
 */
export function trainBaseParameters(base: Module, names: readonly string[]): string[] {
  const parameters = [...base.namedParameters()];
  for (const name of names) {
    const found = parameters.filter(([own]) => own === name || own.startsWith(`${name}.`));
    if (found.length === 0)
      throw new RangeError(
        `trained weights: the base has no '${name}'${didYouMean(
          name,
          parameters.map(([own]) => own),
        )}`,
      );
    for (const [, tensor] of found) tensor.requireGrad();
  }
  return trainedBaseParameters(base).map(([name]) => name);
}

const didYouMean = (name: string, known: readonly string[]): string => {
  const near = nearNames(name, known);
  return near.length > 0 ? `; did you mean ${near.join(' or ')}?` : '';
};
