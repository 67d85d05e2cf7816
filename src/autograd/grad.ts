// Gradients as functions: valueAndGrad on top of the tape, second order, and gradients at named places inside a model.

import { holdIntermediates } from '../tensor/storage.js';
import type { Tensor } from '../tensor/tensor.js';
import { enableGrad, gradientsOf } from './tape.js';

/** A tensor, or tensors by name or in a list. */
export type Params = Tensor | readonly Tensor[] | Readonly<Record<string, Tensor>>;

type GradsOf<P> = P extends Tensor ? Tensor : { [K in keyof P]: Tensor };

const leavesOf = (params: Params): Tensor[] => ('storage' in params ? [params as Tensor] : Object.values(params));

function mapParams(params: Params, f: (t: Tensor) => Tensor): Params {
  if ('storage' in params) return f(params as Tensor);
  if (Array.isArray(params)) return (params as Tensor[]).map(f);
  return Object.fromEntries(Object.entries(params as Record<string, Tensor>).map(([k, t]) => [k, f(t)]));
}

export interface ValueAndGradOptions {
  /** Also the gradients at these named places (see `site`). */
  at?: readonly string[];
  /** Gradients that can be differentiated again. */
  createGraph?: boolean;
}

/**
 * `valueAndGrad(f)(params)` gives f's value (one element) and its gradient for every tensor in `params`, in the same
 * arrangement. A tensor f does not depend on gets zeros. With `at`, `sites` holds the gradients at those places
 * (several when a place is passed more than once).
 */
export function valueAndGrad<P extends Params>(
  f: (params: P) => Tensor,
  options: ValueAndGradOptions = {},
): (params: P) => { value: Tensor; gradients: GradsOf<P>; sites: Record<string, Tensor[]> } {
  return params =>
    enableGrad(() => {
      // With createGraph the graph must reach the caller's tensors; else fresh leaves keep the caller's out of it.
      const own = options.createGraph ? params : (mapParams(params, t => t.detach().requireGrad()) as P);
      const frame: SiteFrame = { wanted: new Set(options.at), found: new Map() };
      const run = (): { value: Tensor; gradients: GradsOf<P>; sites: Record<string, Tensor[]> } => {
        const value = withSites(frame, () => f(own));
        for (const name of frame.wanted)
          if (!frame.found.has(name)) throw new Error(`valueAndGrad: nothing passed the site '${name}'`);
        const leaves = leavesOf(own);
        const taps = [...frame.found].flatMap(([name, tensors]) => tensors.map(t => ({ name, t })));
        const all = value.needsGrad
          ? gradientsOf(value, [...leaves, ...taps.map(x => x.t)], { createGraph: options.createGraph ?? false })
          : [];
        const gradientAt = (i: number, like: Tensor): Tensor => all[i] ?? like.detach().mul(0);
        const sites: Record<string, Tensor[]> = {};
        taps.forEach(({ name, t }, i) => (sites[name] ??= []).push(gradientAt(leaves.length + i, t)));
        let next = 0;
        return {
          value: options.createGraph ? value : value.detach(),
          gradients: mapParams(own, t => gradientAt(next++, t)) as GradsOf<P>,
          sites,
        };
      };
      return options.createGraph ? holdIntermediates(run) : run();
    });
}

/** `grad(f)(params)`: the gradients alone. */
export function grad<P extends Params>(
  f: (params: P) => Tensor,
  options: ValueAndGradOptions = {},
): (params: P) => GradsOf<P> {
  const both = valueAndGrad(f, options);
  return params => both(params).gradients;
}

interface SiteFrame {
  wanted: Set<string>;
  found: Map<string, Tensor[]>;
}

let frames: SiteFrame[] = [];
let refusing: string | null = null;

/**
 * While `body` runs, a place whose gradient is asked for is an error that names `what`: its tensor would not be the one
 * of the backward pass.
 */
export function refusingSites<T>(what: string, body: () => T): T {
  const before = refusing;
  refusing = what;
  try {
    return body();
  } finally {
    refusing = before;
  }
}

function withSites<T>(frame: SiteFrame, body: () => T): T {
  const before = frames;
  frames = [...frames, frame];
  try {
    return body();
  } finally {
    frames = before;
  }
}

/** True while gradients at this place are asked for. */
export const isWantedSite = (name: string): boolean => frames.some(frame => frame.wanted.has(name));

/**
 * Names a place in a computation, so that `valueAndGrad(..., { at })` can give the gradient there. Passes the tensor
 * on.
 */
export function site(name: string, tensor: Tensor): Tensor {
  let result = tensor;
  for (const frame of frames) {
    if (!frame.wanted.has(name)) continue;
    if (refusing)
      throw new Error(
        `${refusing}: the gradient at '${name}' is asked for, which lies inside; its values are not kept`,
      );
    // What reaches no trained leaf is not on the tape: a leaf here puts the rest of the computation on it.
    if (!result.needsGrad) result = result.detach().requireGrad();
    const list = frame.found.get(name);
    if (list) list.push(result);
    else frame.found.set(name, [result]);
  }
  return result;
}
