// Many rows of one slot are matrix products (editProducts.ts); here is the rest, row by row.
// The edit op: h' = h + c P^T (A h + b - (C h + e)) on the edited rows, and its VJP, for the linear activation. Four
// ranks are handled in one pass over d, then single ones; code is compiled for which of A, b, C, e are present. What is
// called u is A h + b - (C h + e).

import * as e from '../../../../tensor/expr.js';
import type { Expr } from '../../../../tensor/expr.js';
import type { FusedKernel, View } from '../../../backend.js';
import {
  load,
  ModuleBuilder,
  op,
  type FunctionBuilder,
  type Local,
  type Value,
  type WasmFunction,
} from '../emit/assembler.js';
import { isShared, type WasmContext } from '../context.js';
import type { Gemm } from '../products/gemm.js';
import { add, hold, LaneMath, mul, splat, sub } from '../emit/lanes.js';
import { createEditProducts } from './editProducts.js';
import { loadFields, writeFields } from './fields.js';
import { denseFloats, denseIntegers, emitPass } from './rowFunction.js';

/** Which optional operands there are. */
interface Present {
  readonly A: boolean;
  readonly b: boolean;
  readonly C: boolean;
  readonly e: boolean;
}

/**
 * Addresses and sizes of a call, in the order in which they lie in scratch memory. The gradients are read by the VJP
 * only.
 */
const fields = [
  'indices',
  'slots',
  'rows',
  'ranks',
  'width',
  'h',
  'A',
  'b',
  'C',
  'e',
  'P',
  'scale',
  'u',
  'output',
  'g',
  'dA',
  'db',
  'dC',
  'de',
  'dP',
] as const;
type Field = (typeof fields)[number];
type Fields = Readonly<Record<Field, Local>>;

const matrices = ['A', 'C', 'P', 'dA', 'dC', 'dP'] as const;
const biases = ['b', 'e', 'db', 'de'] as const;

interface RankBlock {
  /** Ranks in this block. */
  readonly size: number;
  /** Addresses of the rows of a matrix, one for each rank. */
  readonly rowsOf: (name: (typeof matrices)[number]) => readonly Local[];
  /** Address of this block's first number of a bias, and of u. */
  readonly biasAt: Readonly<Record<(typeof biases)[number] | 'u', Local>>;
}

interface EditedRow {
  readonly f: FunctionBuilder;
  readonly math: LaneMath;
  readonly field: Fields;
  readonly h: Local;
  readonly g: Local;
  readonly output: Local;
  /** c of this row, in every lane. */
  readonly scale: Local;
  readonly eachBlock: (body: (block: RankBlock) => void) => void;
}

/** Adds a function of one descriptor that runs `body` for every edited row. */
function addForEachRow(m: ModuleBuilder, name: string, relaxed: boolean, body: (row: EditedRow) => void): void {
  const f = m.function(name, { params: ['i32'], results: [] });
  const math = new LaneMath(f, relaxed);
  const [descriptor] = f.params;
  const field = loadFields(f, descriptor, fields);
  const [i, slot, place, rowBytes, bankBytes, biasBytes, h, g, output, u] = f.localArray('i32', 10);
  const scale = f.local('v128');
  f.set(rowBytes, op('i32.mul', field.width, 4));
  f.set(bankBytes, op('i32.mul', rowBytes, field.ranks));
  f.set(biasBytes, op('i32.mul', field.ranks, 4));
  f.loop(i, field.rows, 1, () => {
    const entry = (list: Local): Value => load('i32.load', op('i32.add', list, op('i32.mul', i, 4)));
    f.set(slot, entry(field.slots));
    f.set(place, op('i32.mul', entry(field.indices), rowBytes));
    f.set(h, op('i32.add', field.h, place));
    f.set(g, op('i32.add', field.g, place));
    f.set(output, op('i32.add', field.output, place));
    f.set(scale, load('v128.load32_splat', op('i32.add', field.scale, op('i32.mul', i, 4))));
    f.set(u, op('i32.add', field.u, op('i32.mul', i, biasBytes)));
    body({
      f,
      math,
      field,
      h,
      g,
      output,
      scale,
      eachBlock(run) {
        const rank = f.local('i32');
        const limit = f.local('i32');
        f.set(rank, 0);
        for (const size of [4, 1]) {
          f.set(limit, op('i32.and', field.ranks, -size));
          f.loop(rank, limit, size, () => {
            const matrixOffset = f.local('i32');
            f.set(matrixOffset, op('i32.add', op('i32.mul', slot, bankBytes), op('i32.mul', rank, rowBytes)));
            const biasOffset = f.local('i32');
            f.set(biasOffset, op('i32.add', op('i32.mul', slot, biasBytes), op('i32.mul', rank, 4)));
            const plus = (base: Value, offset: Value): Local => {
              const local = f.local('i32');
              f.set(local, op('i32.add', base, offset));
              return local;
            };
            const biasAt = {
              ...Object.fromEntries(biases.map(key => [key, plus(field[key], biasOffset)])),
              u: plus(u, op('i32.mul', rank, 4)),
            };
            run({
              size,
              biasAt: biasAt as RankBlock['biasAt'],
              rowsOf: key =>
                Array.from({ length: size }, (_, j) =>
                  plus(field[key], op('i32.add', matrixOffset, op('i32.mul', rowBytes, j))),
                ),
            });
          });
        }
      },
    });
  });
}

/** A block's row of A - C as expressions, with argument `first` the first of its inputs; -C alone and A alone too. */
function differenceRows(present: Present, size: number, first: number): Expr[] {
  return Array.from({ length: size }, (_, j) => {
    const a = present.A ? e.arg(first + j) : null;
    const c = present.C ? e.arg(first + j + (present.A ? size : 0)) : null;
    return a && c ? e.sub(a, c) : (a ?? e.neg(c!));
  });
}

const differenceInputs = (present: Present, block: RankBlock): Local[] => [
  ...(present.A ? block.rowsOf('A') : []),
  ...(present.C ? block.rowsOf('C') : []),
];

const ranksOf = <T>(size: number, value: (j: number) => T): T[] => Array.from({ length: size }, (_, j) => value(j));
const lane = (at: Local, j: number): Value => load('v128.load32_splat', at, 4 * j);

/** u and h'. The output already holds h. */
function addForward(m: ModuleBuilder, relaxed: boolean, present: Present): void {
  addForEachRow(m, 'edit', relaxed, ({ f, math, field, h, output, scale, eachBlock }) => {
    eachBlock(block => {
      const { size, biasAt } = block;
      const inner =
        present.A || present.C
          ? emitPass(math, field.width, {
              inputs: [h, ...differenceInputs(present, block)],
              sum: differenceRows(present, size, 1).map(row => e.mul(row, e.arg(0))),
            })
          : ranksOf(size, () => f.local('v128'));
      inner.forEach((total, j) => {
        if (!present.A && !present.C) f.set(total, splat(0)); // a local keeps its value from row to row
        if (present.b) f.set(total, add(total, lane(biasAt.b, j)));
        if (present.e) f.set(total, sub(total, lane(biasAt.e, j)));
        f.storeLane('v128.store32_lane', 0, biasAt.u, total, 4 * j);
      });
      const delta = ranksOf(size, j => e.mul(e.arg(1 + j), e.uniform(j))).reduce((x, y) => e.add(x, y));
      emitPass(math, field.width, {
        inputs: [output, ...block.rowsOf('P')],
        uniforms: inner.map(total => hold(f, mul(total, scale))),
        write: [[output, e.add(e.arg(0), delta)]],
      });
    });
  });
}

/**
 * With s = c P g: dh = g + A^T s - C^T s, dA += s h^T, db += s, dC -= s h^T, de -= s, dP += c u g^T. The output already
 * holds g.
 */
function addVjp(m: ModuleBuilder, relaxed: boolean, present: Present): void {
  addForEachRow(m, 'editVjp', relaxed, ({ f, math, field, h, g, output, scale, eachBlock }) => {
    eachBlock(block => {
      const { size, biasAt } = block;
      const products = emitPass(math, field.width, {
        inputs: [g, ...block.rowsOf('P')],
        sum: ranksOf(size, j => e.mul(e.arg(0), e.arg(1 + j))),
      });
      const s = products.map(total => hold(f, mul(total, scale)));
      s.forEach((value, j) => {
        if (present.b) f.storeLane('v128.store32_lane', 0, biasAt.db, add(lane(biasAt.db, j), value), 4 * j);
        if (present.e) f.storeLane('v128.store32_lane', 0, biasAt.de, sub(lane(biasAt.de, j), value), 4 * j);
      });
      if (present.A || present.C) {
        const change = differenceRows(present, size, 1)
          .map((row, j) => e.mul(row, e.uniform(j)))
          .reduce((x, y) => e.add(x, y));
        emitPass(math, field.width, {
          inputs: [output, ...differenceInputs(present, block)],
          uniforms: s,
          write: [[output, e.add(e.arg(0), change)]],
        });
      }
      // Argument 0 is the vector, arguments from 1 on the gradient's rows.
      const accumulate = (
        vector: Local,
        rows: readonly Local[],
        factors: readonly Local[],
        sign: typeof e.add,
      ): void => {
        emitPass(math, field.width, {
          inputs: [vector, ...rows],
          uniforms: factors,
          write: rows.map((row, j) => [row, sign(e.arg(1 + j), e.mul(e.arg(0), e.uniform(j)))] as const),
        });
      };
      if (present.A) accumulate(h, block.rowsOf('dA'), s, e.add);
      if (present.C) accumulate(h, block.rowsOf('dC'), s, e.sub);
      accumulate(
        g,
        block.rowsOf('dP'),
        ranksOf(size, j => hold(f, mul(lane(biasAt.u, j), scale))),
        e.add,
      );
    });
  });
}

export function editKernels(context: WasmContext, gemm: Gemm): [string, FusedKernel][] {
  const { memory, byteOffsetOf: at } = context;
  const products = createEditProducts(context, gemm);
  /** Whether matrix products pay: one slot, and enough rows and ranks. */
  const asProducts = (P: View, rows: number): boolean => P.shape[0] === 1 && rows >= 8 && rows * P.shape[1] >= 32;
  const compiled = new Map<string, Readonly<Record<string, WasmFunction>>>();
  const codeFor = (present: Present): Readonly<Record<string, WasmFunction>> => {
    const key = JSON.stringify(present);
    let code = compiled.get(key);
    if (!code) {
      const m = new ModuleBuilder({ memory: { shared: isShared(memory) } });
      addForward(m, context.relaxed, present);
      addVjp(m, context.relaxed, present);
      compiled.set(key, (code = context.threads.link(m.bytes())));
    }
    return code;
  };
  const run = (
    name: 'edit' | 'editVjp',
    present: Present,
    indices: Int32Array,
    values: Partial<Record<Field, number>>,
  ): void => {
    const headBytes = 4 * fields.length;
    const descriptor = context.scratch(headBytes + indices.byteLength);
    const all: Partial<Record<Field, number>> = { ...values, indices: descriptor + headBytes, rows: indices.length };
    writeFields(memory, descriptor, fields, all);
    new Int32Array(memory.buffer, descriptor + headBytes, indices.length).set(indices);
    codeFor(present)[name](descriptor);
  };
  const bytesOf = (view: View): Uint8Array =>
    new Uint8Array(memory.buffer, at(view), 4 * view.shape.reduce((n, side) => n * side, 1));
  const optional = (key: Field, view: View | null): Partial<Record<Field, number>> => (view ? { [key]: at(view) } : {});

  return [
    [
      'edit',
      ({ inputs, outputs: [result, u], attributes, indices }) => {
        const [h, slots, A, b, C, e, P, scale] = inputs;
        if (attributes.activation !== 0 || !indices || !h || !slots || !P || !scale) return false;
        if (!denseIntegers(slots) || !denseFloats([h, A, b, C, e, P, scale, result, u])) return false;
        if (asProducts(P, indices.length)) {
          products.forward({ indices, h, A, b, C, e, P, scale, u }, result);
          return true;
        }
        bytesOf(result).set(bytesOf(h));
        run('edit', { A: !!A, b: !!b, C: !!C, e: !!e }, indices, {
          slots: at(slots),
          ranks: P.shape[1],
          width: P.shape[2],
          h: at(h),
          P: at(P),
          scale: at(scale),
          u: at(u),
          output: at(result),
          ...optional('A', A),
          ...optional('b', b),
          ...optional('C', C),
          ...optional('e', e),
        });
        return true;
      },
    ],
    [
      'edit.vjp',
      ({ inputs, outputs, attributes, indices }) => {
        const [h, slots, A, b, C, e, P, scale, u, g] = inputs;
        if (attributes.activation !== 0 || !indices || !h || !slots || !P || !scale || !u || !g) return false;
        if (!denseIntegers(slots) || !denseFloats([h, A, b, C, e, P, scale, u, g, ...outputs])) return false;
        const [dh, ...gradients] = outputs;
        if (asProducts(P, indices.length)) {
          const rest = [...gradients];
          const [dA, db, dC, de] = [A, b, C, e].map(view => (view ? rest.shift() : undefined));
          products.vjp({ indices, h, A, b, C, e, P, scale, u }, { g, dh, dA, db, dC, de, dP: rest[0] });
          return true;
        }
        bytesOf(dh).set(bytesOf(g));
        for (const gradient of gradients) bytesOf(gradient).fill(0);
        let next = 0;
        const places: Partial<Record<Field, number>> = {};
        for (const [key, view] of [
          ['dA', A],
          ['db', b],
          ['dC', C],
          ['de', e],
          ['dP', P],
        ] as const)
          if (view) places[key] = at(gradients[next++]);
        run('editVjp', { A: !!A, b: !!b, C: !!C, e: !!e }, indices, {
          slots: at(slots),
          ranks: P.shape[1],
          width: P.shape[2],
          h: at(h),
          P: at(P),
          scale: at(scale),
          u: at(u),
          output: at(dh),
          g: at(g),
          ...optional('A', A),
          ...optional('C', C),
          ...places,
        });
        return true;
      },
    ],
  ];
}
