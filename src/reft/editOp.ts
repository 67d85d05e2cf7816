// The one edit op. Every kind of intervention is h' = h + c P^T (act(A h + b) - (C h + e)) on the edited rows only,
// with its matrices in a bank [slots, r, d] and a slot for each edited row; absent matrices are zero (Wu et al. 2024,
// section 3; the kinds are in kinds.ts). Cost: O(edited rows x r x d); rows that are not edited are copied.

import * as elementwise from '../autograd/elementwise.js';
import { composedVjp, defineFused, runFused, type FusedCall, type FusedDefinition } from '../autograd/fused.js';
import { create } from '../tensor/create.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

/** Activations by the number kernels know them by: the order may only grow. */
export const editActivations = ['linear', 'gelu', 'relu', 'silu', 'tanh', 'sigmoid', 'gelu_tanh'] as const;
export type EditActivation = (typeof editActivations)[number];

export const activate: Readonly<Record<EditActivation, (x: Tensor) => Tensor>> = {
  linear: x => x,
  gelu: elementwise.gelu,
  relu: elementwise.relu,
  silu: elementwise.silu,
  tanh: elementwise.tanh,
  sigmoid: elementwise.sigmoid,
  gelu_tanh: elementwise.geluTanh,
};

/** Matrices [slots, r, d] and biases [slots, r]; what is absent is zero. */
export interface EditBank {
  readonly A?: Tensor | null;
  readonly b?: Tensor | null;
  readonly C?: Tensor | null;
  readonly e?: Tensor | null;
  readonly P: Tensor;
  readonly activation?: EditActivation;
}

export interface EditRows {
  /** Rows of h that are edited, distinct. */
  readonly indices: Int32Array;
  /** The bank's slot for each of them. */
  readonly slots: Int32Array;
  /** c for each of them, [m]; default 1. */
  readonly scale?: Tensor;
  /** Which of the r coordinates of each row move, [m, r] of 0 and 1; default all. */
  readonly mask?: Tensor;
}

/** Something done to what is added to the edited rows, or to the rows: dropout. */
export type Change = (delta: Tensor, rows: Tensor) => Tensor;

/** x [m, d] times the transpose of each row's matrix in bank [s, r, d]: [m, r]. */
function project(x: Tensor, bank: Tensor, slots: Int32Array): Tensor {
  const [s, r, d] = bank.shape;
  if (s === 1) return x.matmulT(bank.reshape([r, d]));
  return bank.takeRows(slots).matmul(x.unsqueeze(-1)).squeeze(-1);
}

/** u [m, r] times each row's matrix: [m, d]. */
function lift(u: Tensor, bank: Tensor, slots: Int32Array): Tensor {
  const [s, r, d] = bank.shape;
  if (s === 1) return u.matmul(bank.reshape([r, d]));
  return u.unsqueeze(1).matmul(bank.takeRows(slots)).squeeze(1);
}

const rowsOf = (bias: Tensor, slots: Int32Array): Tensor => (bias.shape[0] === 1 ? bias : bias.takeRows(slots));

/** P^T (act(A h + b) - (C h + e)) for the given rows [m, d]: what is added to them, but for the scale. */
function difference(
  x: Tensor,
  [A, b, C, e, P]: readonly (Tensor | null)[],
  activation: EditActivation,
  slots: Int32Array,
  mask?: Tensor,
): Tensor {
  let u: Tensor | null = A ? project(x, A, slots) : null;
  if (b) u = u ? u.add(rowsOf(b, slots)) : rowsOf(b, slots);
  if (u) u = activate[activation](u);
  if (C) u = u ? u.sub(project(x, C, slots)) : project(x, C, slots).neg();
  if (e) u = u ? u.sub(rowsOf(e, slots)) : rowsOf(e, slots).neg();
  if (!u) throw new ShapeError('edit: all of A, b, C and e are absent');
  if (u.shape[0] !== x.shape[0]) u = u.expand([x.shape[0], u.shape[1]]);
  return lift(mask ? u.mul(mask) : u, P as Tensor, slots);
}

const scaledBy = (delta: Tensor, scale: Tensor | null | undefined): Tensor =>
  scale ? delta.mul(scale.unsqueeze(1)) : delta;

function composeEdit({ inputs, attributes, indices, lists }: FusedCall): Tensor {
  const [h, , ...matrices] = inputs;
  const rows = indices as Int32Array;
  const delta = difference(
    (h as Tensor).takeRows(rows),
    matrices,
    editActivations[attributes.activation],
    lists?.slots as Int32Array,
  );
  return (h as Tensor).add(scaledBy(delta, matrices[5]).scatterAddRows(rows, (h as Tensor).shape[0]));
}

const definition: FusedDefinition = {
  compose: composeEdit,
  outputs: ({ inputs, indices }) => {
    const [h, P] = [inputs[0] as Tensor, inputs[6] as Tensor];
    return [
      { shape: h.shape, dtype: h.dtype },
      { shape: [(indices as Int32Array).length, P.shape[1]], dtype: h.dtype },
    ];
  },
  saves: ({ inputs, outputs }) => [...inputs, outputs[1]],
  vjp(call) {
    const { inputs, outputs, gradient, needs, attributes, indices } = call;
    const [h, slots, A, b, C, e, P, scale] = inputs;
    const banks = [A, b, C, e, P];
    if (!needs[7]) {
      const specs = [h as Tensor, ...banks.filter((t): t is Tensor => t !== null)].map(t => ({
        shape: t.shape,
        dtype: t.dtype,
      }));
      const made = runFused(
        gradient.backend,
        'edit.vjp',
        [h, slots, A, b, C, e, P, scale, outputs[1], gradient.contiguous()],
        specs,
        attributes,
        indices,
      );
      if (made) {
        let next = 1;
        return [made[0], null, ...banks.map(t => (t ? made[next++] : null)), null];
      }
    }
    return composedVjp(definition, call, gradient, needs);
  },
};

const fused = defineFused('edit', definition);

function checkCall(h: Tensor, bank: EditBank, rows: EditRows): void {
  const d = h.shape[h.rank - 1];
  const [slots, r] = bank.P.shape;
  const expect = (name: string, t: Tensor | null | undefined, shape: number[]): void => {
    if (t && formatShape(t.shape) !== formatShape(shape))
      throw new ShapeError(`edit: ${name} has shape ${formatShape(t.shape)}, expected ${formatShape(shape)}`);
  };
  for (const name of ['A', 'C', 'P'] as const) expect(name, bank[name], [slots, r, d]);
  for (const name of ['b', 'e'] as const) expect(name, bank[name], [slots, r]);
  expect('mask', rows.mask, [rows.indices.length, r]);
  checkRows(h, rows, slots);
}

function checkRows(h: Tensor, rows: EditRows, slots: number): void {
  const count = h.size / h.shape[h.rank - 1];
  if (rows.scale && formatShape(rows.scale.shape) !== formatShape([rows.indices.length])) {
    throw new ShapeError(
      `edit: scale has shape ${formatShape(rows.scale.shape)}, expected ${formatShape([rows.indices.length])}`,
    );
  }
  if (rows.slots.length !== rows.indices.length)
    throw new ShapeError(`edit: ${rows.slots.length} slots for ${rows.indices.length} rows`);
  const seen = new Set<number>();
  rows.indices.forEach((row, i) => {
    if (row < 0 || row >= count)
      throw new RangeError(`edit: row ${row} is out of range, the hidden states have ${count}`);
    if (seen.has(row)) throw new RangeError(`edit: row ${row} is edited twice`);
    seen.add(row);
    if (rows.slots[i] < 0 || rows.slots[i] >= slots)
      throw new RangeError(`edit: slot ${rows.slots[i]} is out of range, the bank has ${slots}`);
  });
}

/**
 * h [.., d] with the given rows edited; h itself when there are none. `meta` is what the node says about itself in the
 * graph.
 */
export function edit(h: Tensor, bank: EditBank, rows: EditRows, meta?: Readonly<Record<string, unknown>>): Tensor {
  checkCall(h, bank, rows);
  if (rows.indices.length === 0) return h;
  if (rows.mask) return editWith(h, bank, rows);
  const flat = h.reshape([-1, h.shape[h.rank - 1]]).contiguous();
  const options = { backend: h.backend };
  const scale = (rows.scale ?? create.ones([rows.indices.length], { ...options, dtype: h.dtype })).contiguous();
  const slots = create.from(rows.slots, [rows.slots.length], { ...options, dtype: 'i32' });
  const { A = null, b = null, C = null, e = null, P } = bank;
  const banks = [A, b, C, e, P].map(t => t && t.contiguous());
  const attributes = { activation: editActivations.indexOf(bank.activation ?? 'linear') };
  return fused([flat, slots, ...banks, scale], attributes, {
    indices: rows.indices,
    lists: { slots: rows.slots },
    ...(meta ? { meta } : {}),
  }).reshape(h.shape);
}

/** The same in ordinary ops, with a change to what is added before it is scaled. */
export function editWith(h: Tensor, bank: EditBank, rows: EditRows, change?: Change): Tensor {
  checkCall(h, bank, rows);
  const { A = null, b = null, C = null, e = null, P } = bank;
  return addedTo(
    h,
    rows,
    x => difference(x, [A, b, C, e, P], bank.activation ?? 'linear', rows.slots, rows.mask),
    change,
  );
}

/** Any function of the edited rows [m, d] in place of a bank's: h + c (edited - h) on those rows. */
export function editRowsBy(h: Tensor, rows: EditRows, edited: (x: Tensor) => Tensor, change?: Change): Tensor {
  checkRows(h, rows, 1);
  return addedTo(
    h,
    rows,
    x => {
      const y = edited(x);
      if (formatShape(y.shape) !== formatShape(x.shape))
        throw new ShapeError(
          `edit: the edited rows have shape ${formatShape(y.shape)}, expected ${formatShape(x.shape)}`,
        );
      return y.sub(x);
    },
    change,
  );
}

function addedTo(
  h: Tensor,
  { indices, scale }: EditRows,
  delta: (x: Tensor) => Tensor,
  change: Change = d => d,
): Tensor {
  if (indices.length === 0) return h;
  const flat = h.reshape([-1, h.shape[h.rank - 1]]);
  const x = flat.takeRows(indices);
  return flat.add(scaledBy(change(delta(x), x), scale).scatterAddRows(indices, flat.shape[0])).reshape(h.shape);
}
