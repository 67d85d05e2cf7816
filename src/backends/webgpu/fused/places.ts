// Operands as fused kernels with a binding for each bind them, and the dispatch of such a kernel. What is computed is
// the kernels' business.

import type { View } from '../../backend.js';
import type { KernelContext } from '../context.js';
import { bind, grid, operandOf } from '../operands.js';
import type { Params } from '../params.js';
import type { Binding } from '../queue.js';

/** What one element of a binding is. */
export type Element = 'f32' | 'i32' | 'u32' | 'vec2<f32>' | 'vec4<f32>' | 'vec4<u32>';

/** Words of an element. */
export const unitOf = (element: Element): number =>
  element.startsWith('vec4') ? 4 : element.startsWith('vec2') ? 2 : 1;

export interface Place {
  readonly binding: Binding;
  /** Elements before the operand's first. */
  readonly offset: number;
}

/**
 * Where a view lies in a binding of such elements, which its offset must be a whole number of; undefined if it is more
 * than may be bound.
 */
export function placeOf({ settings }: KernelContext, view: View, element: Element, write = false): Place | undefined {
  const axes = view.shape.map((size, d) => ({ size, reduced: false, steps: [view.strides[d]] }));
  const limit = settings.bindingBytes - (settings.bindingBytes % 16);
  const bound = bind({ axes, operands: [operandOf(view, 'u', write)] }, limit);
  return bound && { binding: bound.bindings[0], offset: bound.offsets[0] / unitOf(element) };
}

export interface Recorded {
  readonly label: string;
  /** What, beside the bindings' access, the text depends on. */
  readonly structure: string;
  readonly places: readonly Place[];
  /** In the order in which the text reads them. */
  readonly params: Params;
  readonly groups: number;
  readonly upload?: { readonly data: Int32Array; readonly at: number };
  source(): string;
}

export function record(
  { queue }: KernelContext,
  { label, structure, places, params, groups, upload, source }: Recorded,
): void {
  const bindings = places.map(p => p.binding);
  const access = [...bindings.map(b => b.write), ...(upload ? [false] : [])];
  const pipeline = queue.pipeline(label, structure, access, params.words.length, source);
  queue.dispatch({ pipeline, bindings, params: params.words, groups: grid(groups), ...(upload ? { upload } : {}) });
}
