// Every kind by its name, the built-in ones and those a user defines. A file names the kind of its edits; here it is
// found again.

import { composedKind, composedKinds, type EditDefinition } from './composedKinds.js';
import { kinds, type ComposedKind, type EditKind, type EditOptions } from './kinds.js';

const builtIn = new Map<string, EditKind>(Object.values({ ...kinds, ...composedKinds }).map(kind => [kind.name, kind]));
const defined = new Map<string, ComposedKind>();

/**
 * An edit of your own, from a composition of ops; trained, saved, loaded and listed like the built-in ones:
 *
 *     const steer = defineEdit({
 *       name: 'steer',
 *       parameters: ({ width }, { zeros }) => ({ v: zeros([width]), w: zeros([width, 1]) }),
 *       apply: (h, { v, w }) => h.add(h.matmul(w).sigmoid().mul(v)),
 *     });
 *     getReftModel(model, { kind: steer, layers: [10] });
 *
 * Before an adapter with it is loaded, the same definition must have been made. A later definition replaces an earlier
 * one of its name, for models that are made after it; built-in names are refused. @throws RangeError naming what is
 * wrong with the definition
 */
export function defineEdit<P extends string, O extends EditOptions = Readonly<Record<never, never>>>(
  definition: EditDefinition<P, O>,
): ComposedKind {
  const kind = composedKind(definition);
  if (builtIn.has(kind.name)) throw new RangeError(`edit '${kind.name}': the name is taken by a built-in kind`);
  defined.set(kind.name, kind);
  return kind;
}

/** Names of all kinds there are, the built-in ones first. */
export const kindNames = (): string[] => [...builtIn.keys(), ...defined.keys()];

/** @throws RangeError when there is none of this name */
export function kindByName(name: string): EditKind {
  const found = builtIn.get(name) ?? defined.get(name);
  if (found) return found;
  throw new RangeError(
    `intervention '${name}' is not known; known: ${kindNames().join(', ')}. An edit of your own must be defined (defineEdit) before it is used or loaded`,
  );
}

/**
 * A kind's own options with the defaults filled in. @throws RangeError naming the option that it does not have, or that
 * is of another type
 */
export function optionsOf(kind: EditKind, given: EditOptions = {}): EditOptions {
  const defaults: EditOptions = 'options' in kind ? kind.options : {};
  for (const [name, value] of Object.entries(given)) {
    const known = Object.hasOwn(defaults, name);
    if (!known)
      throw new RangeError(
        `kindOptions: ${kind.name} has no option '${name}'; it has ${Object.keys(defaults).join(', ') || 'none'}`,
      );
    const whole = typeof value !== 'number' || Number.isFinite(value);
    if (typeof value !== typeof defaults[name] || !whole)
      throw new RangeError(
        `kindOptions.${name}: expected a ${typeof defaults[name]} like ${defaults[name]}, got ${String(value)}`,
      );
  }
  return { ...defaults, ...given };
}
