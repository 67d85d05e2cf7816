// Recomputation: a part of a computation that keeps nothing between its forward and backward pass but its inputs, and
// runs again when its gradient is asked for. Memory for time: one more forward pass. ("Activation checkpointing": Chen
// et al. 2016, arXiv 1604.06174.)

import { currentScope } from '../tensor/storage.js';
import type { Tensor } from '../tensor/tensor.js';
import { refusingSites } from './grad.js';
import { aliasOf } from './primitives.js';
import { scope } from './scope.js';
import { enableGrad, gradientsOf, graphOf, isRecording, nodeClock, record, type Node } from './tape.js';

/**
 * What the backward pass may keep in place of a run, in sizes of the inputs: some edits at the end of a block keep the
 * states before them, a whole block about twenty times its input.
 */
const littleKept = 3;

/**
 * `f(...inputs)`, of which no intermediate value is kept: the backward pass runs `f` again. Where only the end of `f`
 * has a gradient (no input does), and what that needs is no more than a few times the inputs' size, it is kept instead,
 * and nothing runs again. Gradients reach the inputs and whatever trained tensors, or tensors computed from such, `f`
 * closes over. `f` must give the same result each time, and write to nothing; tensors without gradients that it closes
 * over must live until the backward pass (inputs do). Derivatives of any order.
 * @throws Error where a gradient at a `site` inside `f` is asked for, or `f` returns a tensor that depends on a trained
 * tensor it made itself
 */
export function recompute(f: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[]): Tensor {
  if (!isRecording()) return f(...inputs);
  // Leaves of its own tell what is reached through an input from what `f` closes over.
  const fresh = inputs.map(t => (t.needsGrad ? t.detach().requireGrad() : t));
  let outside: Tensor[] = [];
  let kept = false;
  const output = scope(() => {
    const from = nodeClock();
    const made = refusingSites('recompute', () => f(...fresh));
    const graph = graphOf([made], from);
    const reached = [made, ...graph.flatMap(node => node.inputs)].filter(
      t => t.needsGrad && (t.node === null || t.node.id < from),
    );
    outside = [...new Set(reached)].filter(t => !fresh.includes(t));
    kept =
      inputs.every(t => !t.needsGrad) &&
      outside.every(t => t.storage.scope !== currentScope()) &&
      savedBytes(graph, made) <= littleKept * bytesOf(inputs);
    if (kept) return made;
    for (const node of graph) node.release();
    return made.detach();
  });
  if (kept) return output;
  if (outside.some(t => t.storage.disposed))
    throw new Error('recompute: the function depends on a trained tensor that it made itself; make it outside');
  const all = [...inputs, ...outside];
  record(
    {
      op: 'recompute',
      inputs: all,
      saves: all,
      vjp([gradient], needs) {
        if (!gradient) return all.map(() => null);
        const createGraph = isRecording();
        return enableGrad(() => {
          const again = inputs.map((t, i) =>
            !needs[i] ? t.detach() : createGraph ? aliasOf(t) : t.detach().requireGrad(),
          );
          const from = nodeClock();
          const result = f(...again);
          const wanted = [...again, ...outside];
          const asked = wanted.filter((_, i) => needs[i]);
          const found = gradientsOf(result, asked, { gradient, createGraph, from });
          return wanted.map((t, i) => (needs[i] ? found[asked.indexOf(t)] : null));
        });
      },
    },
    [output],
  );
  return output;
}

const bytesOf = (tensors: Iterable<{ readonly storage: Tensor['storage'] }>): number =>
  [...new Set([...tensors].map(t => t.storage))].reduce((n, { allocation }) => n + allocation.byteLength, 0);

/** Bytes that the nodes keep of what was made in the innermost scope, besides its result. */
function savedBytes(graph: readonly Node[], result: Tensor): number {
  const saved = graph
    .flatMap(node => node.savedStorages)
    .filter(storage => storage.scope === currentScope() && storage !== result.storage);
  return bytesOf(saved.map(storage => ({ storage })));
}
