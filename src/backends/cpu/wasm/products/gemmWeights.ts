// Where the panels of B come from that a product is computed with: rows and columns of f32, or quantised weights,
// decoded straight into the panel, of a matrix or its transpose. The loops around it are gemmKernels.ts. Pointers and
// strides are in bytes.

import { packings } from '../../../../tensor/packing.js';
import { call, op, type FunctionBuilder, type Local, type ModuleBuilder, type Value } from '../emit/assembler.js';
import { tileColumns, transpose4 } from './gemmKernels.js';
import { smaller, words, type Madd } from './gemmUnpacked.js';
import type { Quantised } from './packedDots.js';
import { stepOf } from './packedKernels.js';

/** Quantised weights as B: W^T where `transposed`, or W. */
export interface WeightPanels {
  readonly packing: Quantised;
  readonly transposed: boolean;
}

/** Weights decoded together. */
export const weightBlock = 32;

/**
 * Emits what the loops do with B: `source` are their parameters (b, bColumn, bK), `more` as many further ones as
 * `moreWords`.
 */
export interface PanelSource {
  readonly moreWords: number;
  /** Packs `length` along k of the next `columns`. */
  pack(source: readonly Local[], more: readonly Local[], to: Local, length: Local, columns: Local): Value;
  /** Goes on by `kStep` along k. */
  advance(f: FunctionBuilder, source: readonly Local[], more: readonly Local[], kStep: Local): void;
}

/**
 * For B = W^T the parameters are (address of the first column's row of W, rowBytes, weightBytes; first k, halves); for
 * B = W they are (address of the first row, rowBytes, weightBytes; first column, halves).
 */
export function weightSource(m: ModuleBuilder, { packing, transposed }: WeightPanels, madd: Madd): PanelSource {
  const code = transposed ? rowPanels(m, packing, madd) : columnPanels(m, packing, madd);
  return {
    moreWords: 2,
    pack: ([w, rowBytes, weightBytes], [origin, halves], to, length, columns) =>
      call(code, w, rowBytes, weightBytes, origin, length, columns, to, halves),
    advance: (f, [w, rowBytes], [origin], kStep) => {
      if (transposed) f.add(origin, kStep);
      else f.add(w, op('i32.mul', rowBytes, kStep));
    },
  };
}

/** Codes and scales of the block that `element` begins, in the row at `row`. */
function blockAt(packing: Quantised, row: Value, weightBytes: Local, element: Value): { codes: Value; scales: Value } {
  const { blockBytes, scales } = packings[packing];
  const block = op('i32.shr_u', element, 5);
  return {
    codes: op('i32.add', row, op('i32.mul', block, blockBytes)),
    scales: op('i32.add', op('i32.add', row, weightBytes), op('i32.mul', block, 2 * scales)),
  };
}

/**
 * rowPanels(w, rowBytes, weightBytes, k0, length, columns, to, halves): rows of W become columns; four rows of a block
 * are decoded and turned.
 */
function rowPanels(m: ModuleBuilder, packing: Quantised, madd: Madd): FunctionBuilder {
  const f = m.function('rowPanels', { params: words(8), results: [] }, { exported: false });
  const [w, rowBytes, weightBytes, k0, length, columns, to, halves] = f.params;
  const [column, i, into, own] = f.localArray('i32', 4);
  const rows = f.localArray('i32', 4);
  const scales = f.localArray('i32', 4);
  const step = stepOf(f, packing, madd, halves);
  const decoded = rows.map(() => f.localArray('v128', 8));
  const wide = f.local('i32');
  f.set(wide, op('i32.mul', op('i32.div_u', op('i32.add', columns, tileColumns - 1), tileColumns), tileColumns));
  f.loop(column, wide, 4, () => {
    // Where a panel is wider than what is left, the last row is repeated: nobody reads it.
    rows.forEach((row, r) => {
      const { codes, scales: at } = blockAt(
        packing,
        op('i32.add', w, op('i32.mul', rowBytes, smaller(op('i32.add', column, r), op('i32.sub', columns, 1)))),
        weightBytes,
        k0,
      );
      f.set(row, codes);
      f.set(scales[r], at);
    });
    f.set(own, op('i32.and', column, -tileColumns));
    f.set(
      into,
      op(
        'i32.add',
        op('i32.add', to, op('i32.mul', op('i32.mul', own, length), 4)),
        op('i32.mul', op('i32.sub', column, own), 4),
      ),
    );
    f.set(i, 0);
    f.loop(i, length, weightBlock, () => {
      rows.forEach((row, r) => {
        step(row, scales[r], (v, weights) => f.set(decoded[r][v], weights));
        f.add(row, packings[packing].blockBytes);
        f.add(scales[r], 2 * packings[packing].scales);
      });
      for (let v = 0; v < 8; v++) {
        const four = decoded.map(d => d[v]);
        transpose4(f, four);
        four.forEach((x, q) => f.store('v128.store', into, x, 4 * tileColumns * (4 * v + q)));
      }
      f.add(into, 4 * tileColumns * weightBlock);
    });
  });
  return f;
}

/**
 * columnPanels(w, rowBytes, weightBytes, column, length, columns, to, halves): a block of each row goes to the four
 * panels that it lies in.
 */
function columnPanels(m: ModuleBuilder, packing: Quantised, madd: Madd): FunctionBuilder {
  const f = m.function('columnPanels', { params: words(8), results: [] }, { exported: false });
  const [w, rowBytes, weightBytes, column, length, columns, to, halves] = f.params;
  const [block, row, codes, scales, panelBytes] = f.localArray('i32', 5);
  const into = f.localArray('i32', 4);
  const step = stepOf(f, packing, madd, halves);
  f.set(panelBytes, op('i32.mul', length, 4 * tileColumns));
  f.loop(block, columns, weightBlock, () => {
    const at = blockAt(packing, w, weightBytes, op('i32.add', column, block));
    f.set(codes, at.codes);
    f.set(scales, at.scales);
    into.forEach((p, q) =>
      f.set(
        p,
        q === 0
          ? op('i32.add', to, op('i32.mul', op('i32.shr_u', block, 3), panelBytes))
          : op('i32.add', into[q - 1], panelBytes),
      ),
    );
    f.set(row, 0);
    f.loop(row, length, 1, () => {
      step(codes, scales, (v, weights) => f.store('v128.store', into[v >> 1], weights, 16 * (v & 1)));
      f.add(codes, rowBytes);
      f.add(scales, rowBytes);
      into.forEach(p => f.add(p, 4 * tileColumns));
    });
  });
  return f;
}
