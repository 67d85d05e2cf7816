// Matrix products: which variant takes a call, in how many parts, with which parameters. The kernels' text is in ./matmulWgsl.ts.

import { add, arg, program } from '../../tensor/expr.js';
import { contiguousStrides, sizeOf } from '../../tensor/shape.js';
import type { Primitives, View } from '../backend.js';
import { mergedAxes, type Axis } from '../cpu/wasm/iteration.js';
import { withTemporary, type KernelContext } from './context.js';
import { WebGPUError } from './errors.js';
import type { MapKernels } from './map.js';
import { registerTile, workgroupTile, type Loads, type MatmulStructure, type MatmulWords } from './matmulWgsl.js';
import { addAxes, bind, checkDtype, operandOf, type Bound } from './operands.js';
import { Params } from './params.js';
import type { Block } from './pool.js';

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

const last = (view: View): [number, number] => [view.strides[view.strides.length - 2], view.strides[view.strides.length - 1]];
const moved = (view: View, by: number): View => ({ ...view, offset: view.offset + by });

export function createMatmul(context: KernelContext, maps: MapKernels): (call: Primitives['matmul']) => void {
  const { queue, settings } = context;

  function bound({ axes, views, m, n, k }: Product): Bound | undefined {
    const [[am, ak], [bk, bn], [om, on]] = views.map(last);
    const inner = [[m, am, 0, om], [n, 0, bn, on], [k, ak, bk, 0]].map(([size, ...steps]) => ({ size, reduced: false, steps }));
    return bind({ axes: [...axes, ...inner], operands: views.map((v, i) => operandOf(v, 'f', i === 2)) }, settings.bindingBytes);
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
        ...product, axes: axes.map((a, i) => (i === d ? { ...a, size } : a)),
        views: views.map((v, i) => moved(v, from * axes[d].steps[i])) as [View, View, View],
      });
      run(part(first, 0));
      return run(part(axes[d].size - first, first));
    }
    // Halve the side that most shortens what is too long.
    const [[am, ak], [bk, bn], [om, on]] = views.map(last).map(p => p.map(Math.abs));
    const reach = { m: (m - 1) * Math.max(am, om), n: (n - 1) * Math.max(bn, on), k: (k - 1) * Math.max(ak, bk) };
    const side = (['n', 'm', 'k'] as const).reduce((best, s) => (product[s] > 1 && reach[s] > reach[best] ? s : best), 'n');
    if (product[side] < 2) throw new WebGPUError('internal', 'matmul', 'operands reach over more than may be bound');
    const first = Math.ceil(product[side] / 2);
    const rest = product[side] - first;
    const [[sam, sak], [sbk, sbn], [som, son]] = views.map(last);
    const steps = { m: [sam, 0, som], n: [0, sbn, son], k: [sak, sbk, 0] }[side];
    const second = views.map((v, i) => moved(v, first * steps[i])) as [View, View, View];
    run({ ...product, [side]: first });
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

  function record({ axes, views, m, n, k }: Product, { bindings, slots, offsets }: Bound, batches: number): void {
    const [[am, ak], [bk, bn], [om, on]] = views.map(last);
    // A vector binding is another type: each side has its own binding.
    const own = [0, 1, 2].map(i => bindings[slots[i]]);
    const outer = (i: number): number[] => axes.map(a => a.steps[i]);
    const a: Loads = aligned(ak, k, offsets[0], [am, ...outer(0)]) ? 'alongK' : aligned(am, m, offsets[0], [ak, ...outer(0)]) ? 'across' : 'single';
    const b: Loads = aligned(bk, k, offsets[1], [bn, ...outer(1)]) ? 'alongK' : aligned(bn, n, offsets[1], [bk, ...outer(1)]) ? 'across' : 'single';
    const params = new Params();
    const words: MatmulWords = {
      m: params.add(m), n: params.add(n), k: params.add(k),
      a: [params.add(am), params.add(ak)], b: [params.add(bk), params.add(bn)], output: [params.add(om), params.add(on)],
      offsets: params.addAll(offsets), batch: addAxes(params, axes, 3),
    };
    let tile: MatmulStructure;
    let source: () => string;
    // A workgroup's 64 rows would mostly be empty for a few.
    const variant = m <= 8 ? 'register' : settings.matmul;
    if (variant === 'register') {
      const rows = a === 'across' && m >= 4 ? (m >= 8 ? 8 : 4) : m >= 8 ? 8 : m >= 4 ? 4 : m >= 2 ? 2 : 1;
      const columns = n >= 8 ? 8 : 4;
      const down = Math.min(8, 2 ** Math.ceil(Math.log2(Math.ceil(m / rows))));
      tile = { a: a === 'across' && rows < 4 ? 'single' : a, b, rows, columns, across: 64 / down, down };
      source = () => registerTile(tile, words);
    } else {
      tile = { a, b, rows: 4, columns: 4, across: 16, down: 16 };
      source = () => workgroupTile(tile, words);
    }
    const key = `${variant}${Object.values(tile).join('.')}|${axes.length}`;
    const pipeline = queue.pipeline('matmul', key, [false, false, true], params.words.length, source);
    const groups: [number, number, number] = [Math.ceil(n / (tile.columns * tile.across)), Math.ceil(m / (tile.rows * tile.down)), batches];
    queue.dispatch({ pipeline, bindings: own.map((binding, i) => ({ ...binding, write: i === 2 })), params: params.words, groups });
  }

  return ({ a, b, output }) => {
    checkDtype('matmul', a.dtype, b.dtype, output.dtype);
    if (sizeOf(output.shape) === 0) return;
    const rank = output.shape.length;
    const [m, n] = output.shape.slice(-2);
    const k = a.shape[rank - 1];
    if (k === 0) return maps.fill(output, 0);
    const buffer = (view: View) => (view.allocation as Block).buffer;
    if (buffer(output) === buffer(a) || buffer(output) === buffer(b)) {
      // One buffer may not be read and written under two bindings.
      return withTemporary(context, output.shape, 'f32', temporary => {
        const axes = mergedAxes(output.shape.slice(0, -2), [a.strides.slice(0, -2), b.strides.slice(0, -2), contiguousStrides(output.shape).slice(0, -2)]);
        run({ axes, views: [a, b, temporary], m, n, k });
        maps.copy({ input: temporary, output }, 'matmul');
      });
    }
    const axes = mergedAxes(output.shape.slice(0, -2), [a, b, output].map(v => v.strides.slice(0, -2)));
    run({ axes, views: [a, b, output], m, n, k });
  };
}
