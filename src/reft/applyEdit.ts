// One edit on the hidden states of a batch: its parameters, which rows, how much of it, dropout. The kinds of the paper
// go through the edit op, the others through their own composition; both are told apart here and nowhere else.

import { dropout } from '../autograd/elementwise.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { activate, edit, editRowsBy, editWith, type Change, type EditActivation, type EditBank } from './editOp.js';
import { allSpecs, isPlaced, type EditKind, type EditSize } from './kinds.js';

/**
 * What dropout makes zero while training: what the edit adds, or the whole edited state (as pyreft does: the residual
 * stream with it).
 */
export const dropoutTargets = ['difference', 'state'] as const;
export type DropoutTarget = (typeof dropoutTargets)[number];

export interface EditSettings {
  readonly kind: EditKind;
  readonly size: EditSize;
  readonly activation: EditActivation;
  /** By name, as they are: R materialised, [r, d]. A bias that is left out is absent. */
  readonly parameters: Readonly<Record<string, Tensor>>;
}

export interface EditedRows {
  /** Rows of h that are edited, distinct. */
  readonly indices: Int32Array;
  /** c for each of them, [m]; default 1. */
  readonly scale?: Tensor;
  /** Which coordinates of the subspace move in each of them, [m, r] of 0 and 1; default all. */
  readonly mask?: Tensor;
  /** While training. */
  readonly dropout?: { readonly p: number; readonly on: DropoutTarget; readonly seed: number; readonly stream: number };
  /** What the node says about itself in the graph. */
  readonly meta?: Readonly<Record<string, unknown>>;
}

/** The bank of one slot for the edit op: matrices [1, r, d], vectors [1, r]. Only kinds of the paper have one. */
export function bankOf({ kind, parameters, activation }: EditSettings): EditBank {
  if (!isPlaced(kind)) throw new Error(`${kind.name} is a composition of its own and has no place in the edit op`);
  const placed = kind.place(parameters);
  const lead = (t: Tensor | null | undefined): Tensor | null => (t ? t.unsqueeze(0) : null);
  return {
    A: lead(placed.A),
    b: lead(placed.b),
    C: lead(placed.C),
    e: lead(placed.e),
    P: lead(placed.P) as Tensor,
    activation,
  };
}

/** h [.., d] with the given rows edited: h + c (edited - h). */
export function applyEdit(
  h: Tensor,
  settings: EditSettings,
  { indices, scale, mask, dropout: drop, meta }: EditedRows,
): Tensor {
  const { kind, size, activation } = settings;
  const rows = {
    indices,
    slots: new Int32Array(indices.length),
    ...(scale ? { scale } : {}),
    ...(mask ? { mask } : {}),
  };
  const change = drop && drop.p > 0 ? dropping(drop) : undefined;
  if (isPlaced(kind)) {
    if (mask && !kind.parameters.some(p => p.name === 'R'))
      throw new RangeError(`subspaces: ${kind.name} has no R whose rows they could be`);
    const bank = bankOf(settings);
    return change ? editWith(h, bank, rows, change) : edit(h, bank, rows, meta);
  }
  let masked = false;
  const context = {
    ...size,
    activation: activate[activation],
    subspace(coordinates: Tensor): Tensor {
      masked = true;
      if (!mask) return coordinates;
      return coordinates.mul(mask.reshape([indices.length, ...coordinates.shape.slice(1, -1).map(() => 1), size.rank]));
    },
  };
  return editRowsBy(
    h,
    rows,
    x => {
      const y = kind.apply(x, withZeros(settings, x), context);
      if (mask && !masked) throw new RangeError(`subspaces: ${kind.name} does not apply them (context.subspace)`);
      return y;
    },
    change,
  );
}

/** A composed edit need not know which biases are left out. */
function withZeros({ kind, size, parameters }: EditSettings, { dtype, backend }: Tensor): Record<string, Tensor> {
  const absent = allSpecs(kind, size).filter(spec => !parameters[spec.name]);
  return {
    ...parameters,
    ...Object.fromEntries(absent.map(spec => [spec.name, create.zeros(spec.shape, { dtype, backend })])),
  };
}

const dropping = ({ p, on, seed, stream }: NonNullable<EditedRows['dropout']>): Change =>
  on === 'difference'
    ? delta => dropout(delta, p, seed, stream)
    : (delta, x) => dropout(x.add(delta), p, seed, stream).sub(x);
