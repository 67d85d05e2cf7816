// Matrix products: which variant takes a call, in how many parts, with which parameters. Their choice is made in
// ./matmulChoice.ts, their text in ./registerTile.ts and ./workgroupTile.ts.

import { add, arg, program } from '../../tensor/expr.js';
import { contiguousStrides, sizeOf } from '../../tensor/shape.js';
import { epilogueMap, type Primitives, type View } from '../backend.js';
import { mergedAxes, type Axis } from '../iteration.js';
import { withTemporary, type KernelContext } from './context.js';
import { WebGPUError } from './errors.js';
import type { MapKernels } from './map.js';
import { chooseMatmul } from './matmulChoice.js';
import type { Loads, MatmulWords } from './matmulWgsl.js';
import { addAxes, bind, checkDtype, operandOf, type Bound } from './operands.js';
import { packedRows, type PackedRows } from './packed.js';
import { Params } from './params.js';
import type { Block } from './pool.js';
import { registerTile } from './registerTile.js';
import { workgroupTile } from './workgroupTile.js';

const sum = program([add(arg(0), arg(1))], 2);
const mostBatches = 65535;

/** One product without its leading axes, which are `axes`. Strides: rows, columns. */
interface Product {
  readonly axes: readonly Axis[];
  readonly views: readonly [View, View, View];
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

const last = (view: View): [number, number] => [
  view.strides[view.strides.length - 2],
  view.strides[view.strides.length - 1],
];
const moved = (view: View, by: number): View => ({ ...view, offset: view.offset + by });

export function createMatmul(context: KernelContext, maps: MapKernels): (call: Primitives['matmul']) => void {
  const { queue, settings } = context;

  function bound({ axes, views, m, n, k }: Product): Bound | undefined {
    const [[am, ak], [bk, bn], [om, on]] = views.map(last);
    const packed = packedRows(views[1]);
    // A packed b reaches over words of its own.
    const own = packed
      ? [
          [packed.rows, 0, packed.rowWords, 0],
          [packed.rowWords, 0, 1, 0],
        ]
      : [];
    const inner = [[m, am, 0, om], [n, 0, packed ? 0 : bn, on], [k, ak, packed ? 0 : bk, 0], ...own].map(
      ([size, ...steps]) => ({ size, reduced: false, steps }),
    );
    const operands = views.map((v, i) => operandOf(v, 'f', i === 2));
    if (packed) operands[1] = { ...operands[1], type: 'u', offset: packed.offset };
    return bind({ axes: [...axes, ...inner], operands }, settings.bindingBytes);
  }

  function run(product: Product): void {
    const found = bound(product);
    const batches = sizeOf(product.axes.map(a => a.size));
    if (found && batches <= mostBatches) return record(product, found, batches);
    const { axes, views, m, n, k } = product;
    const d = axes.findIndex(a => a.size > 1);
    if (d >= 0) {
      const first = Math.ceil(axes[d].size / 2);
      const part = (size: number, from: number): Product => ({
        ...product,
        axes: axes.map((a, i) => (i === d ? { ...a, size } : a)),
        views: views.map((v, i) => moved(v, from * axes[d].steps[i])) as [View, View, View],
      });
      run(part(first, 0));
      return run(part(axes[d].size - first, first));
    }
    // Halve the side that most shortens what is too long. Packed weights are split between their rows, not within.
    const packed = packedRows(views[1]);
    const [[am, ak], [bk, bn], [om, on]] = views.map(last).map(p => p.map(Math.abs));
    const [alongK, alongN] = packed ? (packed.transposed ? [0, packed.rowWords] : [packed.rowWords, 0]) : [bk, bn];
    const reach = {
      m: (m - 1) * Math.max(am, om),
      n: (n - 1) * Math.max(alongN, on),
      k: (k - 1) * Math.max(ak, alongK),
    };
    const whole = packed && (packed.transposed ? 'k' : 'n');
    const sides = (['n', 'm', 'k'] as const).filter(s => s !== whole && product[s] > 1);
    if (sides.length === 0)
      throw new WebGPUError(
        'unsupported',
        'matmul',
        `one row is larger than the ${settings.bindingBytes} bytes that may be bound`,
      );
    const side = sides.reduce((best, s) => (reach[s] > reach[best] ? s : best));
    const first = Math.ceil(product[side] / 2);
    const rest = product[side] - first;
    const [[sam, sak], [sbk, sbn], [som, son]] = views.map(last);
    const steps = { m: [sam, 0, som], n: [0, sbn, son], k: [sak, sbk, 0] }[side];
    const resized = (v: View, i: number, size: number): View => {
      const axis = { m: [-2, 0, -2], n: [0, -1, -1], k: [-1, -2, 0] }[side][i];
      return axis === 0 ? v : { ...v, shape: v.shape.map((s, at) => (at === v.shape.length + axis ? size : s)) };
    };
    const start = views.map((v, i) => resized(v, i, first)) as [View, View, View];
    const second = views.map((v, i) => resized(moved(v, first * steps[i]), i, rest)) as [View, View, View];
    run({ ...product, [side]: first, views: start });
    if (side !== 'k') return run({ ...product, [side]: rest, views: second });
    const output = views[2];
    withTemporary(context, [m, n], 'f32', temporary => {
      run({ ...product, k: rest, views: [second[0], second[1], temporary] });
      const target = { ...output, shape: [m, n], strides: last(output) };
      maps.map({ program: sum, shape: [m, n], inputs: [target, temporary], outputs: [target], uniforms: [] }, 'matmul');
    });
  }

  /** Whether four elements along `step` of size `size` may be loaded as one vector, wherever the other strides lead. */
  const aligned = (step: number, size: number, offset: number, others: readonly number[]): boolean =>
    step === 1 && size % 4 === 0 && offset % 4 === 0 && others.every(s => s % 4 === 0);

  const packedLoads = ({ transposed, columns }: PackedRows): Loads =>
    columns % 4 > 0 ? 'single' : transposed ? 'alongK' : 'across';

  function record({ axes, views, m, n, k }: Product, { bindings, slots, offsets }: Bound, batches: number): void {
    const [[am, ak], [bk, bn], [om, on]] = views.map(last);
    const packed = packedRows(views[1]);
    // A vector binding is another type: each side has its own binding.
    const own = [0, 1, 2].map(i => bindings[slots[i]]);
    const outer = (i: number): number[] => axes.map(a => a.steps[i]);
    const a: Loads = aligned(ak, k, offsets[0], [am, ...outer(0)])
      ? 'alongK'
      : aligned(am, m, offsets[0], [ak, ...outer(0)])
        ? 'across'
        : 'single';
    const b: Loads = packed
      ? packedLoads(packed)
      : aligned(bk, k, offsets[1], [bn, ...outer(1)])
        ? 'alongK'
        : aligned(bn, n, offsets[1], [bk, ...outer(1)])
          ? 'across'
          : 'single';
    const bSteps = packed ? (packed.transposed ? [0, packed.rowWords] : [packed.rowWords, 0]) : [bk, bn];
    const params = new Params();
    const words: MatmulWords = {
      m: params.add(m),
      n: params.add(n),
      k: params.add(k),
      a: [params.add(am), params.add(ak)],
      b: [params.add(bSteps[0]), params.add(bSteps[1])],
      output: [params.add(om), params.add(on)],
      offsets: params.addAll(offsets),
      scales: params.add(packed?.scaleWord ?? 0),
      batch: addAxes(params, axes, 3),
    };
    const bTransposed = packed?.transposed ?? false;
    const { kernel, structure } = chooseMatmul(
      { m, n, k, batches, a, b, bTransposed, ...(packed && { packing: packed.packing }) },
      settings,
    );
    const key = `${kernel}${Object.entries(structure).sort().join()}|${axes.length}`;
    const source = (): string => (kernel === 'register' ? registerTile : workgroupTile)(structure, words);
    const pipeline = queue.pipeline('matmul', key, [false, false, true], params.words.length, source);
    const groups: [number, number, number] = [
      Math.ceil(n / (structure.columns * structure.across)),
      Math.ceil(m / (structure.rows * structure.down)),
      batches,
    ];
    queue.dispatch({
      pipeline,
      bindings: own.map((binding, i) => ({ ...binding, write: i === 2 })),
      params: params.words,
      groups,
    });
  }

  const product = ({ a, b, output }: Primitives['matmul']): void => {
    checkDtype('matmul', a.dtype, b.dtype, output.dtype);
    const rank = output.shape.length;
    const [m, n] = output.shape.slice(-2);
    const k = a.shape[rank - 1];
    if (k === 0) return maps.fill(output, 0);
    const buffer = (view: View) => (view.allocation as Block).buffer;
    if (buffer(output) === buffer(a) || buffer(output) === buffer(b)) {
      // One buffer may not be read and written under two bindings.
      return withTemporary(context, output.shape, 'f32', temporary => {
        const axes = mergedAxes(output.shape.slice(0, -2), [
          a.strides.slice(0, -2),
          b.strides.slice(0, -2),
          contiguousStrides(output.shape).slice(0, -2),
        ]);
        run({ axes, views: [a, b, temporary], m, n, k });
        maps.copy({ input: temporary, output }, 'matmul');
      });
    }
    const axes = mergedAxes(
      output.shape.slice(0, -2),
      [a, b, output].map(v => v.strides.slice(0, -2)),
    );
    run({ axes, views: [a, b, output], m, n, k });
  };

  return call => {
    const { output, epilogue } = call;
    if (sizeOf(output.shape) === 0) return;
    product(call);
    if (epilogue) maps.map(epilogueMap({ output, epilogue }), 'epilogue');
  };
}
