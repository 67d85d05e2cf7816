// What is done to the elements of a product while they are near: bias, residual, activation, whatever a program says,
// row by row over the part that was just finished. The program's first argument is the product; each operand is a
// matrix of its shape with dense rows, or one row for all.

import type { Program } from '../../../../tensor/expr.js';
import { op, type FunctionBuilder, type ModuleBuilder } from '../emit/assembler.js';
import { emitPass } from '../fused/rowFunction.js';
import type { WasmView } from './gemm.js';
import { words } from './gemmUnpacked.js';
import { LaneMath } from '../emit/lanes.js';

export interface WasmEpilogue {
  readonly program: Program;
  /** [rows, columns] of the output, columns dense. */
  readonly operands: readonly WasmView[];
}

/**
 * Arguments of code with an epilogue: address and bytes from row to row of each operand, for the part that begins at
 * `row` and `column`.
 */
export const epilogueArguments = ({ operands }: WasmEpilogue, row: number, column: number): number[] =>
  operands.flatMap(({ byteOffset, strides }) => [
    byteOffset + 4 * (row * strides[0] + column * strides[1]),
    4 * strides[0],
  ]);

/** The part of it for columns from `column` on. */
export const epilogueFrom = ({ program, operands }: WasmEpilogue, column: number): WasmEpilogue => ({
  program,
  operands: operands.map(o => ({ ...o, byteOffset: o.byteOffset + 4 * column * o.strides[1] })),
});

/** Number of those arguments. */
export const epilogueWords = (program: Program): number => 2 * (program.argTypes.length - 1);

/** Adds epilogue(c, cRow, rows, columns, ...arguments): c = program(c, ...operands). */
export function addEpilogue(m: ModuleBuilder, program: Program, relaxed: boolean): FunctionBuilder {
  const f = m.function('epilogue', { params: words(4 + epilogueWords(program)), results: [] });
  const [c, cRow, rows, columns, ...operands] = f.params;
  const math = new LaneMath(f, relaxed);
  const addresses = operands.filter((_, i) => i % 2 === 0);
  const row = f.local('i32');
  f.loop(row, rows, 1, () => {
    emitPass(math, columns, { inputs: [c, ...addresses], write: [[c, program.outputs[0]]] });
    f.add(c, cRow);
    addresses.forEach((at, i) => f.add(at, operands[2 * i + 1]));
  });
  return f;
}

/** Emits the call for rows from `row` on of a part whose first row's arguments are `operands`. */
export function rowsOfOperands(
  operands: FunctionBuilder['params'],
  row: FunctionBuilder['params'][number],
): ReturnType<typeof op>[] {
  return operands.flatMap((value, i) =>
    i % 2 === 0 ? [op('i32.add', value, op('i32.mul', operands[i + 1], row)), operands[i + 1]] : [],
  );
}
