// The edit op, h' = h + c P^T u with u = act(A h + b) - (C h + e) on the edited rows, and its VJP, for every activation
// (formulas: reft/editOp.ts). Forward is two dispatches, backward four (five where the activation bends): a number for
// each edited row and rank, everything as wide as a hidden state, and the sums over rows. The kernels' text is in
// editWgsl.ts.

import { contiguousStrides, sizeOf } from '../../../tensor/shape.js';
import type { FusedKernel, View } from '../../backend.js';
import { withTemporary, type KernelContext } from '../context.js';
import { held, holdWords, Params } from '../params.js';
import { activationCode, activations } from './editActivations.js';
import {
  aloneColumns,
  editKernel,
  liftBody,
  productsBody,
  rankBlock,
  rowsAtOnce,
  stripe,
  sumColumns,
  sumsBody,
  workgroupSize,
  type Body,
  type EditStructure,
  type Lifted,
  type Summed,
  type Term,
} from './editWgsl.js';
import { placeOf, record, type Element, type Place } from './places.js';

/** The highest rank: coefficients of a row lie in memory of the invocation. */
const mostRanks = 256;

interface Operand {
  readonly view: View;
  readonly element: Element;
  readonly write?: boolean;
}
type Operands = Readonly<Record<string, Operand | null>>;

/** One dispatch: operands by their names in the body, and a list of numbers that travels with the call. */
interface Pass {
  readonly label: string;
  /** What the body depends on beside the structure and which operands there are. */
  readonly key: string;
  readonly operands: Operands;
  readonly list: Int32Array;
  readonly groups: number;
  body(): Body;
}

const contiguous = ({ shape, strides }: View): boolean =>
  contiguousStrides(shape).every((step, d) => step === strides[d] || shape[d] === 1);
const present = <T>(list: readonly (T | null | false)[]): T[] => list.filter((x): x is T => x !== null && x !== false);

/** For each row of h its place among the edited ones, or -1. */
function placesOf(indices: Int32Array, rows: number): Int32Array {
  const places = new Int32Array(rows).fill(-1);
  indices.forEach((row, i) => (places[row] = i));
  return places;
}

export function registerEdit(fused: Map<string, FusedKernel>, context: KernelContext): void {
  const { settings } = context;
  const together = settings.reduce === 'workgroup';

  /** What all passes of a call share; null where the call is not taken. */
  function callOf(h: View, P: View, indices: Int32Array, others: readonly View[]) {
    const [slotCount, ranks, d] = P.shape;
    const floats = [h, P, ...others];
    if (indices.length === 0 || sizeOf(h.shape) === 0 || ranks > mostRanks || settings.storageBuffers < 8) return null;
    if (!floats.every(v => v.dtype === 'f32' && contiguous(v) && placeOf(context, v, 'f32'))) return null;
    const inFours = d % 4 === 0 && floats.every(v => v.shape[v.shape.length - 1] !== d || v.offset % 4 === 0);
    const unit = inFours ? ('vec4' as const) : ('f32' as const);
    const structure: EditStructure = { unit, together, oneSlot: slotCount === 1 };
    const width = inFours ? d / 4 : d;
    const blocks = Math.ceil(ranks / rankBlock);
    const sizes = { members: indices.length, ranks, width, rows: sizeOf(h.shape) / d, slotCount };
    const wide: Element = inFours ? 'vec4<f32>' : 'f32';
    const bits: Element = inFours ? 'vec4<u32>' : 'u32';
    /** Invocations by row and rank, by row and column, by slot, rank and column, as workgroups. */
    const groups = {
      products: together
        ? sizes.members * blocks
        : Math.ceil((Math.ceil(sizes.members / rowsAtOnce(structure)) * blocks) / workgroupSize.alone),
      lift: together
        ? Math.ceil((sizes.rows * width) / workgroupSize.apart)
        : Math.ceil(
            (Math.ceil(sizes.rows / rowsAtOnce(structure, ranks)) * Math.ceil(width / stripe)) / workgroupSize.alone,
          ),
      sums: together
        ? slotCount * blocks * Math.ceil(width / sumColumns)
        : Math.ceil((slotCount * blocks * Math.ceil(width / aloneColumns)) / workgroupSize.alone),
    };
    return { structure, sizes, blocks, wide, bits, groups };
  }
  type Call = NonNullable<ReturnType<typeof callOf>>;

  function run({ structure, sizes }: Call, { label, key, operands, list, groups, body }: Pass): void {
    const given = Object.entries(operands).filter((entry): entry is [string, Operand] => entry[1] !== null);
    const places = given.map(([, { view, element, write = false }]) => placeOf(context, view, element, write) as Place);
    const params = new Params();
    const listAt = params.add(0);
    const names = [
      ['listAt', listAt],
      ...Object.entries(sizes).map(([name, value]) => [name, params.add(value)]),
      ...given.map(([name], k) => [`${name}At`, params.add(places[k].offset)]),
    ] as [string, number][];
    const source = (): string => {
      const declarations = [
        ...given.map(([name, { element, write }]) => ({ name, element, access: write ? 'read_write' : 'read' })),
        { name: 'list', element: 'i32', access: 'read' },
      ];
      return editKernel(
        declarations
          .map(
            ({ name, element, access }, k) =>
              `@group(0) @binding(${k + 1}) var<storage, ${access}> ${name}: array<${element}>;`,
          )
          .join('\n'),
        `${holdWords(params.words.length)}\n  ${names.map(([name, at]) => `let ${name} = ${held(at)};`).join(' ')}`,
        body(),
      );
    };
    const { unit, oneSlot } = structure;
    const described = [key, unit, together, oneSlot, ...given.map(([name]) => name)].join();
    record(context, {
      label,
      structure: described,
      places,
      params,
      groups,
      upload: { data: list, at: listAt },
      source,
    });
  }

  const slotsOf = ({ structure }: Call, slots: View): Operand | null =>
    structure.oneSlot ? null : { view: slots, element: 'i32' };
  const operand = (view: View | null, element: Element, write = false): Operand | null =>
    view && { view, element, write };

  fused.set('edit', ({ inputs, outputs: [result, u], attributes, indices }) => {
    const [h, slots, A, b, C, e, P, scale] = inputs;
    const activation = activations[attributes.activation];
    if (!activation || !indices || !h || !slots || !P || !scale || slots.dtype !== 'i32' || !contiguous(slots))
      return false;
    const call = callOf(h, P, indices, [...present([A, b, C, e, scale]), result, u]);
    if (!call) return false;
    const { structure, sizes, wide, bits, groups } = call;
    const ofA: Term | null = A && { name: 'A' };
    const ofC: Term | null = C && { name: 'C', minus: true };
    // Where the activation does nothing, A h - C h is one product.
    const linear = attributes.activation === 0;
    const sums = (linear ? [present([ofA, ofC])] : [present([ofA]), present([ofC])]).filter(terms => terms.length > 0);
    const inside = present([A && 'sum0', b && 'b[bAt + matrix]']).join(' + ');
    const moved = linear
      ? present([(A ?? C) && 'sum0', b && 'b[bAt + matrix]'])
      : present([inside !== '' && `activate(${inside})`, C && (A ? 'sum1' : 'sum0')]);
    run(call, {
      label: 'edit',
      key: `u${attributes.activation}`,
      list: indices,
      groups: groups.products,
      operands: {
        h: (A ?? C) ? operand(h, wide) : null,
        A: operand(A, wide),
        b: operand(b, 'f32'),
        C: operand(C, wide),
        e: operand(e, 'f32'),
        slots: slotsOf(call, slots),
        u: operand(u, 'f32', true),
      },
      body: () => ({
        ...productsBody(
          structure,
          'h',
          sums,
          `u[uAt + i * ranks + j] = ${moved.join(' + ') || '0.0'}${e ? ' - e[eAt + matrix]' : ''};`,
        ),
        functions: activation.functions,
        code: activationCode(activation),
      }),
    });
    const lifted: Lifted = { name: 'P', coefficient: (i, j) => `scale[scaleAt + ${i}] * u[uAt + ${i} * ranks + ${j}]` };
    run(call, {
      label: 'edit',
      key: `h${sizes.ranks}`,
      list: placesOf(indices, sizes.rows),
      groups: groups.lift,
      operands: {
        h: operand(h, bits),
        P: operand(P, wide),
        u: operand(u, 'f32'),
        scale: operand(scale, 'f32'),
        slots: slotsOf(call, slots),
        result: operand(result, bits, true),
      },
      body: () => liftBody(structure, 'h', 'result', [lifted], sizes.ranks),
    });
    return true;
  });

  fused.set('edit.vjp', ({ inputs, outputs, attributes, indices }) => {
    const [h, slots, A, b, C, e, P, scale, u, g] = inputs;
    const activation = activations[attributes.activation];
    if (
      !activation ||
      !indices ||
      !h ||
      !slots ||
      !P ||
      !scale ||
      !u ||
      !g ||
      slots.dtype !== 'i32' ||
      !contiguous(slots)
    )
      return false;
    const call = callOf(h, P, indices, [...present([A, b, C, e, scale]), u, g, ...outputs]);
    if (!call) return false;
    const { structure, sizes, blocks, wide, bits, groups } = call;
    let taken = 1;
    const take = (view: View | null): View | null => (view ? outputs[taken++] : null);
    const [dh, dA, db, dC, de, dP] = [outputs[0], take(A), take(b), take(C), take(e), take(P)];
    const bends = attributes.activation !== 0 && (A ?? b) !== null;
    const list = indices;
    // Of every row and rank the gradient of u, c u, and the gradient of A h + b where that is another.
    const shape = [bends ? 3 : 2, sizes.members, rankBlock * blocks];
    if (4 * sizeOf(shape) > settings.bindingBytes) return false;
    withTemporary(context, shape, 'f32', numbers => {
      const place = (kind: number, i: string, j: string): string =>
        `numbers[numbersAt + (${kind}u * members + ${i}) * ${rankBlock}u * blocks + ${j}]`;
      const [ofU, ofRow, ofInside] = [0, 1, bends ? 2 : 0];
      run(call, {
        label: 'edit.vjp',
        key: 'du',
        list,
        groups: groups.products,
        operands: {
          g: operand(g, wide),
          P: operand(P, wide),
          scale: operand(scale, 'f32'),
          u: operand(u, 'f32'),
          slots: slotsOf(call, slots),
          numbers: operand(numbers, 'f32', true),
        },
        body: () =>
          productsBody(
            structure,
            'g',
            [[{ name: 'P' }]],
            `let c_ = scale[scaleAt + i];
    ${place(ofU, 'i', 'j')} = c_ * sum0; ${place(ofRow, 'i', 'j')} = c_ * u[uAt + i * ranks + j];`,
          ),
      });
      if (bends) {
        const inside = present([A && 'sum0', b && 'b[bAt + matrix]']).join(' + ');
        run(call, {
          label: 'edit.vjp',
          key: `dz${attributes.activation}`,
          list,
          groups: groups.products,
          operands: {
            h: A && operand(h, wide),
            A: operand(A, wide),
            b: operand(b, 'f32'),
            slots: slotsOf(call, slots),
            numbers: operand(numbers, 'f32', true),
          },
          body: () => ({
            ...productsBody(
              structure,
              'h',
              A ? [[{ name: 'A' }]] : [],
              `${place(ofInside, 'i', 'j')} = ${place(ofU, 'i', 'j')} * slope(${inside});`,
            ),
            functions: activation.functions,
            code: activationCode(activation),
          }),
        });
      }
      const ranksOf =
        (kind: number) =>
        (i: string, j: string): string =>
          `numbers[numbersAt + (${kind}u * members + ${i}) * ((ranks + ${rankBlock - 1}u) / ${rankBlock}u * ${rankBlock}u) + ${j}]`;
      const lifted = present<Lifted>([
        A && { name: 'A', coefficient: ranksOf(ofInside) },
        C && { name: 'C', minus: true, coefficient: ranksOf(ofU) },
      ]);
      run(call, {
        label: 'edit.vjp',
        key: `dh${sizes.ranks}${bends}`,
        list: placesOf(indices, sizes.rows),
        groups: groups.lift,
        operands: {
          g: operand(g, bits),
          A: operand(A, wide),
          C: operand(C, wide),
          slots: lifted.length > 0 ? slotsOf(call, slots) : null,
          numbers: lifted.length > 0 ? operand(numbers, 'f32') : null,
          dh: operand(dh, bits, true),
        },
        body: () => liftBody(structure, 'g', 'dh', lifted, sizes.ranks),
      });
      const from = (kind: number): string => `coefficientsAt + ${kind}u * members * blocks`;
      const insides: Summed = {
        from: from(ofInside),
        matrices: present([dA && { name: 'dA' }]),
        biases: present([db && { name: 'db' }]),
      };
      const outsides: Summed = {
        from: from(ofU),
        matrices: present([dC && { name: 'dC', minus: true }]),
        biases: present([de && { name: 'de', minus: true }]),
      };
      const both: Summed = {
        from: from(ofU),
        matrices: [...insides.matrices, ...outsides.matrices],
        biases: [...insides.biases, ...outsides.biases],
      };
      const used = (s: Summed): boolean => s.matrices.length + s.biases.length > 0;
      const sums = (
        x: string,
        of: View,
        summed: readonly Summed[],
        written: Readonly<Record<string, View | null>>,
      ): void => {
        run(call, {
          label: 'edit.vjp',
          key: `sum${x}${bends}`,
          list,
          groups: groups.sums,
          operands: {
            [x]: summed.some(s => s.matrices.length > 0) ? operand(of, wide) : null,
            coefficients: operand(numbers, 'vec4<f32>'),
            slots: slotsOf(call, slots),
            ...Object.fromEntries(
              Object.entries(written).map(([name, view]) => [
                name,
                operand(view, view?.shape.length === 3 ? wide : 'f32', true),
              ]),
            ),
          },
          body: () => sumsBody(structure, x, summed),
        });
      };
      const parameters = bends ? [insides, outsides].filter(used) : [both];
      sums('h', h, parameters, { dA, dC, db, de });
      sums('g', g, [{ from: from(ofRow), matrices: [{ name: 'dP' }], biases: [] }], { dP });
    });
    return true;
  });
}
