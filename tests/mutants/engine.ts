// Kept mutants of the engine, models, edits and files as they grew. Those of later areas have files of their own.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/autograd/derive.ts': [
    ['the derivative of a product by its second factor', 'mul(g, e.args[1]), mul(g, e.args[0])]', 'mul(g, e.args[1]), mul(g, e.args[1])]', 'engine-expressions', 'derivative rule'],
    ['the sign in the derivative of a quotient', 'neg(div(mul(g, e), e.args[1]))', 'div(mul(g, e), e.args[1])', 'ops-elementwise', 'Tensor.div: gradients equal'],
    ['the factor of rsqrt', 'mul(mul(g, -0.5), mul(e, mul(e, e)))', 'mul(mul(g, -0.5), mul(e, e))', 'ops-elementwise', 'Tensor.rsqrt: gradients equal'],
    ['the mask of where', 'where(e.args[0], 0, g)', 'where(e.args[0], g, 0)', 'ops-elementwise', 'Tensor.where: gradients equal'],
    ['halves at ties', 'where(eq(x, y), 0.5, 1)', 'where(eq(x, y), 1, 1)', 'ops-special', 'ties share'],
  ],
  'src/autograd/elementwise.ts': [
    ["sigmoid's derivative through its value", 'e.mul(self, e.sub(1, self))', 'e.mul(self, e.add(1, self))', 'ops-elementwise', 'Tensor.sigmoid: gradients equal'],
    ["dropout's scale", 'e.mul(float(x.dtype, 0), e.uniform(4))', 'float(x.dtype, 0)', 'ops-elementwise', 'autograd.dropout: equals'],
  ],
  'src/tensor/shape.ts': [
    ['sums over broadcast sides of 1', 'if (i < lead || (shape[i - lead] === 1 && to[i] !== 1)) axes.push(i);', 'if (i < lead) axes.push(i);', 'engine-tape', 'broadcast gradients'],
  ],
  'src/autograd/primitives.ts': [
    ["what a product with an epilogue keeps", 'read.includes(y) ? [a, b, ...', 'false ? [a, b, ...', 'ops-epilogue', 'gradients of everything'],
    ["matmul's second gradient", "one('matmul', [a.transpose(), own], {})", 'null', 'ops-product', 'Tensor.matmul: gradients equal'],
    ["a slice's place in its gradient", 'starts: [starts], covered: false', 'starts: [starts.map(() => 0)], covered: false', 'ops-layout', 'Tensor.slice: gradients equal'],
    ["a join's pieces in its gradient", 'starts: starts[i], shape: x.shape', 'starts: starts[0], shape: x.shape', 'ops-layout', 'tensor.concat: gradients equal'],
    ["a permutation's inverse", 'axes.map((_, i) => axes.indexOf(i))', 'axes', 'ops-layout', 'Tensor.permute: gradients equal'],
    ['ties of a maximum', 'hit.mul(g.div(hit.sum(axes, { keepDims: true })))', 'hit.mul(g)', 'ops-special', 'ties share'],
    ['what is differentiated is not rounded', ' && !shouldRecord([a])', '', 'packed-rounded', 'never rounded'],
    ['matmul across backends', "backendOf('matmul', [a, b, ...operands])", 'a.backend', 'engine-tape', 'two backends'],
    ['the place of an empty window', 'sizeOf(shape) === 0 ? x.offset : ', '', 'ops-layout', 'Tensor.slice: empty'],
  ],
  'src/autograd/tape.ts': [
    ['gradients that meet are added', 'const sum = before ? before.add(g) : g;\n            if (before) made', 'const sum = g;\n            if (before) made', 'engine-tape', 'diamonds'],
    ['backward frees what was saved', 'if (!retain) node.release();', '', 'engine-tape', 'backward frees'],
    ['in-place changes are noticed', 'storage.version !== version', 'storage.version < version', 'engine-tape', 'changed in place'],
    ['a shared gradient is not freed early', 'if (count === 0 && made', 'if (count <= 1 && made', 'engine-random-graphs'],
    ['orphans go when backward is done', '--storage.saves === 0 && storage.orphan', '--storage.saves < 0 && storage.orphan', 'engine-scopes', 'stays until'],
    ['leaves do not share one gradient', 'shared(gradients, i) ? copyOf(sum)', 'false ? copyOf(sum)', 'engine-tape', 'shared gradients'],
  ],
  'src/autograd/scope.ts': [
    ['saved tensors outlive their scope', "saved.has(storage) ? 'saved' : 'free'", "'free'", 'engine-scopes', 'stays until'],
  ],
  'src/tensor/storage.ts': [
    ['a scope frees', "if (fate === 'free') storage.dispose();", "if (fate === 'free') storage.moveTo(null);", 'engine-scopes', 'a scope frees'],
  ],
  'src/tensor/reduction.ts': [
    ['the first of equal maxima', 'positions(hit, axis).neg(), -hit.shape[axis]), axis, options).neg()', 'positions(hit, axis), -1), axis, options)', 'ops-special', 'first of equals'],
    ['topk takes no entry twice', '.and(taken.not())', '', 'ops-special', 'first of equals'],
    ["cumsum's doubling", 'step *= 2', 'step *= 3', 'ops-reduction', 'Tensor.cumsum: equals'],
  ],
  'src/autograd/softmax.ts': [
    ['softmax is shifted', 'input.sub(largest(input.detach(), [input.rank - 1])).exp()', 'input.exp()', 'ops-special', 'softmax of masked'],
  ],
  'src/tensor/linalg.ts': [
    ['a product over no elements', 'sizeOf(a.shape.slice(0, -1)), k]', '-1, k]', 'ops-product', 'Tensor.matmul: empty'],
  ],
  'src/tensor/threefry.ts': [
    ['a rotation of Threefry', '[13, 15, 26, 6, 17, 29, 16, 24]', '[13, 15, 26, 6, 17, 29, 16, 25]', 'engine-random', 'known answers'],
  ],
  'src/backends/cpu/allocator.ts': [
    ['the rest of a cut block', 'this.put(offset + capacity, best - capacity)', 'this.put(offset, best - capacity)', 'engine-allocator', 'do not overlap'],
    ['merging of neighbours', 'run.size += block.size', 'run.size = block.size', 'engine-allocator', 'do not overlap'],
  ],
  'src/backends/cpu/erf.ts': [
    ['the depth of erf', 'let n = 100; n >= 1; n--', 'let n = 12; n >= 1; n--', 'engine-expressions', 'erf is exact'],
  ],
  'src/backends/cpu/emitJs.ts': [
    ['unsigned shifts', "e.type === 'u' ? `${x} >>> ${y}` : `${x} >> ${y}`", '`${x} >> ${y}`', 'engine-expressions', 'integers wrap'],
  ],
  'src/backends/cpu/reference.ts': [
    ['skipped rows of scatterAdd', 'if (target < 0) return;', 'if (target < 0) target = 0;', 'ops-layout', 'Tensor.scatterAddRows: equals'],
  ],
  'src/backends/cpu/wasm/emitMap.ts': [
    ["a row's tail", 'stage(1, row.count, () => {', 'stage(1, limitFor(4), () => {', 'ops-elementwise', 'Tensor.add: equals'],
    ["a sum's tail takes one lane", 'i32x4Const(-1, 0, 0, 0)', 'i32x4Const(-1, -1, 0, 0)', 'ops-reduction', 'Tensor.sum: equals'],
  ],
  'src/backends/cpu/wasm/reduce.ts': [
    ['the last columns of a reduction', '  strips(1, 1);\n', '', 'ops-reduction', 'Tensor.sum: equals'],
  ],
  'src/backends/cpu/wasm/lanes.ts': [
    ["exp's second constant", 'splat(2.12194440e-4), this.madd(n', 'splat(0), this.madd(n', 'ops-elementwise', 'Tensor.exp: equals'],
  ],
  'src/backends/cpu/wasm/gatherScatter.ts': [
    ['the tail of added rows', 'f.loop(k, rowElements, 1, () => {', 'f.loop(k, vectors, 1, () => {', 'ops-layout', 'Tensor.scatterAddRows: equals'],
  ],
  'src/backends/cpu/wasm/gemm.ts': [
    ['the last rows of a slab', 'steps(p.m, slab)) {', 'steps(p.m & -4, slab)) {', 'gemm', 'tile edges'],
    ['an epilogue comes once, after the last part of k', 'Number(k0 + k === p.k)', '1', 'ops-epilogue', 'f32: within'],
    ['sums past the blocks that are packed at once', 'Number(add || k0 > 0)', 'Number(add)', 'gemm', 'k over several blocks'],
  ],
  'src/backends/cpu/wasm/packed.ts': [
    ['pieces of rows add up', 'accumulate: j > 0', 'accumulate: false', 'packed-tensors', 'many more weights'],
  ],
  'src/backends/cpu/wasm/gemmWeights.ts': [
    ['where along k a part of W^T begins', 'f.add(origin, kStep)', 'f.add(origin, 0)', 'packed-tensors', 'weights decoded into panels'],
    ['where along k a part of W begins', "f.add(w, op('i32.mul', rowBytes, kStep))", 'f.add(w, 0)', 'packed-tensors', 'weights decoded into panels'],
    ['columns that are repeated', "smaller(op('i32.add', column, r), op('i32.sub', columns, 1))", 'column', 'packed-tensors', 'weights decoded into panels'],
  ],
  'src/backends/cpu/wasm/packedDots.ts': [
    ['minima and offsets of one row', "madd(load('v128.load', op('i32.add', own, stride)), least, total)", 'total', 'packed-rounded', 'rounded products stay'],
    ['zeros past the last block', 'for (const list of [scales, sums])', 'for (const list of [scales])', 'packed-rounded', 'rounded products stay'],
    ['the order of nibbles', 'const ordered = packing ===', 'const ordered = packing !==', 'packed-rounded', 'rounded products stay'],
  ],
  'src/backends/cpu/wasm/packedTiles.ts': [
    ['minima of a tile', "madd(load('v128.load32_splat', aScales, 4 * (tileRows + i)), minima[j], v)", 'v', 'packed-rounded', 'rounded products stay'],
    ['offsets of a tile', "if (packing === 'q4_0')", "if (packing === 'q8_0')", 'packed-rounded', 'rounded products stay'],
    ['the panels of the next rows', "f.add(panels, op('i32.mul', aBytes, together))", 'f.add(panels, 0)', 'packed-rounded', 'many rows'],
  ],
  'src/nn/linear.ts': [
    ['neighbours follow each other', 'weight.offset === offset + rows * columns && ', '', 'models-joined', 'no neighbours'],
  ],
  'src/backends/cpu/wasm/fused/softmax.ts': [
    ["the inner product in softmax's VJP", 'e.mul(a, e.sub(b, u))', 'e.mul(a, b)', 'ops-fused', 'fused.softmax: gradients of kernels'],
    ['the label in the VJP of cross-entropy', "sub(load('v128.load32_splat', own), gradient)", "load('v128.load32_splat', own)", 'ops-fused',
      'fused.crossEntropy: gradients of kernels'],
    ['rows without a label in the VJP', "f.fill(out, 0, op('i32.mul', count, 4))", 'f.fill(out, 0, 4)', 'ops-fused', 'fused.crossEntropy: gradients of kernels'],
  ],
  'src/backends/cpu/wasm/fused/norms.ts': [
    ['the part along x in the VJP of rmsNorm', 'e.sub(e.mul(gw, u), e.mul(a, v))', 'e.mul(gw, u)', 'ops-fused', 'fused.rmsNorm: gradients of kernels'],
    ['the mean in the VJP of layerNorm', 'e.sub(e.sub(gw, w), e.mul(normal', 'e.sub(gw, e.mul(normal', 'ops-fused', 'fused.layerNorm: gradients of kernels'],
  ],
  'src/backends/cpu/wasm/fused/rope.ts': [
    ['the tables of a batch', 'const tableB = cos.shape[0] === 1 ? 0 :', 'const tableB = cos.shape[0] > 0 ? 0 :', 'ops-fused', 'fused.rope: equals'],
    ['the way back', 'inverse ? -1 : 1', '1', 'ops-fused', 'fused.rope .2.: gradients of kernels'],
  ],
  'src/backends/cpu/wasm/fused/edit.ts': [
    ["the scale in the edit's VJP", 'products.map(total => hold(f, mul(total, scale)))', 'products', 'ops-fused', 'fused.edit .2.: gradients of kernels'],
    ['the sign of dC', "accumulate(h, block.rowsOf('dC'), s, e.sub)", "accumulate(h, block.rowsOf('dC'), s, e.add)", 'ops-fused', 'fused.edit .2.: gradients of kernels'],
    ['ranks beyond the blocks of four', 'for (const size of [4, 1])', 'for (const size of [4])', 'ops-fused', 'fused.edit: equals'],
  ],
  'src/backends/cpu/wasm/fused/attentionForward.ts': [
    ['keys that not all queries of a panel see', 'mask(allTo, to);', '', 'wasm-fused', 'attention and its vjp'],
    ["a window's first keys", 'mask(from, allFrom);', '', 'wasm-fused', 'attention and its vjp'],
    ['queries that see nothing', "op('v128.andnot', div(splat(1), totals[half]), none)", 'div(splat(1), totals[half])', 'attention-edges', 'infinite'],
    ['the next group packs its own keys', "op('i32.ne', keyHead, current)", "op('i32.lt_s', current, 0)", 'wasm-fused', 'attention and its vjp'],
  ],
  'src/backends/cpu/wasm/fused/attentionVjp.ts': [
    ['panels that all queries see', "op('i32.le_s', plus(key, width), ofFirst.to)", "op('i32.le_s', key, ofFirst.to)", 'wasm-fused', 'attention and its vjp'],
    ['the last queries of a panel of keys', "up(plus(distance, field.window, width - 1), width)", 'up(plus(distance, field.window), width)', 'wasm-fused',
      'attention and its vjp'],
    ['rows past the last query', 'const end = smaller(f, high, rows);', 'const end = high;', 'wasm-fused', 'attention and its vjp'],
  ],
  'src/backends/cpu/wasm/copy.ts': [
    ['axes that merge', 'outer.from === axis.side * axis.from', 'outer.from >= axis.from', 'copy'],
  ],
  'src/nn/attention.ts': [
    ['the causal mask', 'causal ? t + causalOffset + 1 : S', 'causal ? t + causalOffset + 2 : S', 'ops-fused', 'fused.attention: equals its'],
    ['the sliding window', 't + causalOffset - window + 1 : 0', 't + causalOffset - window : 0', 'ops-fused', 'fused.attention: equals its'],
  ],
  'src/nn/crossEntropy.ts': [
    ['the row of a label', 'i * v + label', 'label', 'ops-fused', 'fused.crossEntropy: equals'],
    ['rows without a label', 'labelTensor.ge(0)', 'labelTensor.ge(-1000)', 'ops-fused', 'fused.crossEntropy: equals'],
  ],
  'src/nn/rmsNorm.ts': [
    ['the epsilon of rmsNorm', '.add(eps).rsqrt()', '.rsqrt()', 'ops-fused', 'fused.rmsNorm: equals'],
  ],
  'src/backends/webgpu/matmulChoice.ts': [
    ['a long k is taken in parts', 'const long = k > longestChain * slices;', 'const long = false;', 'webgpu-long-sums', 'register: a long k'],
  ],
  'src/nn/rope.ts': [
    ['the direction of rotation', 'x1.mul(c).sub(x2.mul(s))', 'x1.mul(c).add(x2.mul(s))', 'ops-fused', 'fused.rope: equals'],
  ],
  'src/nn/optim.ts': [
    ["AdamW's bias correction", 'const corrections = [1 / (1 - b1 ** this.stepCount)', 'const corrections = [1', 'nn-optim', 'AdamW: several'],
    ["AdamW's decay", 'sub(mul(p, decay), ', 'sub(p, ', 'nn-optim', 'AdamW: several'],
    ["SGD's velocity", 'add(mul(uniform(2), m), decayed)', 'add(m, decayed)', 'nn-optim', 'SGD: several'],
    ['clipping only shrinks', '.mul(maxNorm).minimum(1)', '.mul(maxNorm)', 'nn-optim', 'clipGradNorm'],
  ],
  'src/nn/compactHouseholder.ts': [
    ['what lies left of the diagonal', 'const upper = where(onOrAbove(1), arg(0), 0);', 'const upper = where(onOrAbove(1), arg(0), arg(0));', 'nn-orthogonal', 'left of the diagonal'],
    ['the order of reflections', 'triangle.transpose().matmul(T.transpose())', 'triangle.transpose().matmul(T)', 'nn-orthogonal', 'any orthonormal start'],
  ],
  'src/nn/cayley.ts': [
    ["the half of Cayley's transform", '0.25', '0.5', 'nn-orthogonal'],
  ],
  'src/reft/rotations.ts': [
    ['each intervention gets its own R of a stack', 'together.select(0, k)', 'together.select(0, 0)', 'reft-kinds'],
  ],
  'src/reft/mixedEdits.ts': [
    ["a row's own slot", 'Array.from(use.at, () => slot)', 'Array.from(use.at, () => 0)', 'reft-mixed', 'gives each row'],
    ['a joined bank is made anew when what it joins has changed', 'if (found?.versions === versions) return found.bank;', 'if (found) return found.bank;', 'reft-mixed', 'act at once'],
  ],
  'src/reft/compose.ts': [
    ['every difference is taken at the same state', 'sum.add(edit.apply(h).sub(h).mul(weight))', 'sum.add(edit.apply(sum).sub(sum).mul(weight))', 'reft-mixed', 'interpolation'],
  ],
  'src/reft/objective.ts': [
    ['chosen before rejected', 'gained.select(1, 0).sub(gained.select(1, 1))', 'gained.select(1, 1).sub(gained.select(1, 0))', 'reft-preference', 'begin at log 2'],
  ],
  'src/backends/cpu/wasm/epilogue.ts': [
    ['the next row of an operand', 'addresses.forEach((at, i) => f.add(at, operands[2 * i + 1]))', '', 'ops-epilogue', 'within the product'],
    ['the rows of a block of operands', "op('i32.add', value, op('i32.mul', operands[i + 1], row))", 'value', 'ops-epilogue', 'f32: within'],
    ['the columns of a piece of operands', 'byteOffset: o.byteOffset + 4 * column * o.strides[1]', 'byteOffset: o.byteOffset', 'ops-epilogue', 'pieces'],
  ],
  'src/models/context.ts': [
    ['edits that need every token after the last attention', '|| !keeps(edit)', '', 'models-lastBlock', 'keeps all tokens'],
    ['an edit keeps a token when the last block is narrowed', 'some(row => places[row] >= 0)', 'some(() => true)', 'models-lastBlock', 'all tokens are there'],
    ['places of the tokens that are left', 'const places = late ? this.narrowed?.places : this.real?.places', 'const places = this.real?.places',
      'models-lastBlock', 'loreft in every layer'],
    ['edits of one head', 'h.slice(-1, to, width)]', 'h.slice(-1, to, width).mul(0)]', 'models-sites', 'an edit of one head'],
  ],
  'src/autograd/recompute.ts': [
    ['tensors that are closed over get gradients', 'const all = [...inputs, ...outside];', 'const all = [...inputs];', 'engine-recompute', 'closed over'],
    ['a small end is kept', 'savedBytes(graph, made) <= littleKept', 'savedBytes(graph, made) < 0', 'reft-recompute', 'lowest edit'],
  ],
  'src/reft/reuseFiles.ts': [
    ['the checksum of a file', 'file.metadata.checksum !== await sha256(data)', '!file.metadata.checksum', 'reft-reuse-files', 'damaged'],
    ['the ids are part of the name', 'start, [...example.ids.subarray(0, end)]]', 'start, end]', 'reft-reuse-files', 'what decides it'],
  ],
  'src/reft/trainer.ts': [
    ['the next step is read ahead', 'this.reuse && this.done + 1 < this.totalSteps', 'this.reuse && this.done < 0', 'reft-reuse-files', 'begins to read'],
  ],
  'src/models/realTokens.ts': [
    ['real tokens behind cached ones', 'b * length + column - past;', 'b * length + column - keyStart[b];', 'reft-padding', 'takes the steps'],
    ['zeros at padding', 'fill(-1)', 'fill(0)', 'reft-padding', 'with zeros at padding'],
  ],
  'src/reft/formats/pyreftWeights.ts': [
    ['R is kept transposed', 'data[k * rank + i] = R.data[i * width + k]', 'data[i * width + k] = R.data[i * width + k]', 'reft-formats', 'every kind is written'],
  ],
  'src/reft/interchange/kinds.ts': [
    ['the side of a soft boundary', 'end.sub(i)', 'i.sub(end)', 'interchange-kinds'],
  ],
  'src/profile/cost.ts': [
    ['two operations a product', 'flop: (2 * a.shape', 'flop: (a.shape', 'profile-cost'],
  ],
  'src/nn/schedule.ts': [
    ['the length of the decline', 'Math.max(1, totalSteps - warmupSteps)', 'Math.max(1, totalSteps)', 'nn-schedule', 'as transformers'],
  ],
  'src/reft/editOp.ts': [
    ["the edit's C h", 'u.sub(project(x, C, slots))', 'u.add(project(x, C, slots))', 'ops-fused', 'fused.edit: equals'],
    ["the edit's slots", 'bank.takeRows(slots).matmul(x.unsqueeze(-1))', 'bank.takeRows(slots.map(() => 0)).matmul(x.unsqueeze(-1))', 'ops-fused', 'fused.edit: equals'],
  ],
  'src/reft/positions.ts': [
    ['short prompts are halved', 'const half = Math.floor(promptLength / 2);', 'const half = promptLength;', 'reft-positions', 'halves of a short prompt'],
  ],
  'src/io/safetensors.ts': [
    ['tensors stay inside the file', 'end < begin || dataStart + end > source.size', 'end < begin', 'io-safetensors', 'broken files'],
    ['tensors do not overlap', 'if (tensor.byteOffset !== at) {', 'if (tensor.byteOffset > at) {', 'io-safetensors', 'broken files'],
  ],
};

