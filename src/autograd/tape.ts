// The tape: a node for every operation through which a gradient flows, and the walk back over them. What reaches no
// trained leaf is never recorded and saves nothing. Rules of single operations are in ./primitives.ts and ./fused.ts;
// memory in tensor/storage.ts.

import { create } from '../tensor/create.js';
import { formatShape, sameShape } from '../tensor/shape.js';
import { holdingIntermediates, type Storage } from '../tensor/storage.js';
import type { Tensor } from '../tensor/tensor.js';
import { observer } from './observer.js';
import { scope } from './scope.js';

/**
 * Gradients of the inputs from those of the outputs (null where none came); only entries with `needs` are asked for.
 */
export type VJP = (gradients: readonly (Tensor | null)[], needs: readonly boolean[]) => (Tensor | null)[];

export interface NodeInfo {
  /** The operation's name. */
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly vjp: VJP;
  /** Tensors whose contents the VJP reads. */
  readonly saves: readonly Tensor[];
  /** What an edit or another first-class node says about itself. */
  readonly meta?: Readonly<Record<string, unknown>>;
}

export class Node {
  readonly id: number;
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly meta: Readonly<Record<string, unknown>> | undefined;
  private readonly vjp: VJP;
  private saved: { storage: Storage; version: number }[] | null;

  constructor(info: NodeInfo, outputs: readonly Tensor[]) {
    this.id = nextNode++;
    this.op = info.op;
    this.inputs = info.inputs;
    this.outputs = outputs;
    this.meta = info.meta;
    this.vjp = info.vjp;
    this.saved = [...new Set(info.saves.map(t => t.storage))].map(storage => ({ storage, version: storage.version }));
    for (const { storage } of this.saved) storage.saves++;
  }

  get savedStorages(): readonly Storage[] {
    return this.saved?.map(s => s.storage) ?? [];
  }

  gradients(gradients: readonly (Tensor | null)[], needs: readonly boolean[]): (Tensor | null)[] {
    return observer ? observer.node(this, () => this.pullBack(gradients, needs)) : this.pullBack(gradients, needs);
  }

  private pullBack(gradients: readonly (Tensor | null)[], needs: readonly boolean[]): (Tensor | null)[] {
    if (!this.saved)
      throw new Error(`backward: the values saved by ${this.op} are gone; give retainGraph to go back twice`);
    for (const { storage, version } of this.saved) {
      storage.check(`backward of ${this.op}`);
      if (storage.version !== version)
        throw new Error(
          `backward: a tensor made by ${storage.label} and saved by ${this.op} was changed in place since`,
        );
    }
    return this.vjp(gradients, needs);
  }

  /** Gives up what was saved. */
  release(): void {
    for (const { storage } of this.saved ?? []) {
      if (--storage.saves === 0 && storage.orphan) storage.dispose();
    }
    this.saved = null;
  }
}

let nextNode = 1;
let recording = true;

/** The number the next node will have: nodes made since are at or above it. */
export const nodeClock = (): number => nextNode;

export function isRecording(): boolean {
  return recording;
}

/** Nothing that runs inside `body` (synchronously) is recorded. */
export function noGrad<T>(body: () => T): T {
  return withRecording(false, body);
}

/** The opposite, inside a `noGrad`. */
export function enableGrad<T>(body: () => T): T {
  return withRecording(true, body);
}

function withRecording<T>(value: boolean, body: () => T): T {
  const before = recording;
  recording = value;
  try {
    return body();
  } finally {
    recording = before;
  }
}

/** True when an operation on these inputs is to be recorded. */
export function shouldRecord(inputs: readonly Tensor[]): boolean {
  return recording && inputs.some(t => t.needsGrad);
}

/** Puts an operation on the tape, if a gradient can flow through it. */
export function record(info: NodeInfo, outputs: readonly Tensor[]): void {
  if (!shouldRecord(info.inputs)) return;
  const floats = outputs.filter(t => t.dtype === 'f32' || t.dtype === 'f64');
  if (floats.length === 0) return;
  const node = new Node(info, outputs);
  for (const output of floats) output.node = node;
}

export interface GradOptions {
  /**
   * Record the walk itself, so that gradients can be differentiated again. The forward must then run inside
   * `holdIntermediates`.
   */
  createGraph?: boolean;
  /** Keep what was saved, to go back another time. Implied by createGraph. */
  retainGraph?: boolean;
  /** Walk only nodes made since `nodeClock()` gave this number. */
  from?: number;
}

export interface BackwardOptions extends GradOptions {
  /** The gradient of what comes after; needed unless the tensor has one element. */
  gradient?: Tensor;
}

/** Every recorded node the outputs depend on, last first. */
export function graphOf(outputs: readonly Tensor[], from = 0): Node[] {
  const seen = new Set<Node>();
  const stack = outputs.flatMap(t => (t.node ? [t.node] : []));
  while (stack.length > 0) {
    const node = stack.pop() as Node;
    if (node.id < from || seen.has(node)) continue;
    seen.add(node);
    for (const input of node.inputs) if (input.node) stack.push(input.node);
  }
  return [...seen].sort((a, b) => b.id - a.id);
}

/**
 * Gradients of `output` with respect to `wrt` (leaves or intermediate tensors); null where it does not depend on one.
 */
export function gradientsOf(output: Tensor, wrt: readonly Tensor[], options: BackwardOptions = {}): (Tensor | null)[] {
  const { createGraph = false } = options;
  const retain = options.retainGraph ?? createGraph;
  const seed = seedOf(output, options.gradient);
  const order = graphOf([output], options.from);
  const wanted = new Set(wrt);

  // Only nodes between a wanted tensor and the output take part.
  const leads = new Set<Node>();
  for (let i = order.length - 1; i >= 0; i--) {
    if (order[i].inputs.some(t => wanted.has(t) || (t.node && leads.has(t.node)))) leads.add(order[i]);
  }

  const pending = new Map<Tensor, Tensor>();
  const users = new Map<Storage, number>(); // gradients in `pending` that lie in a storage made by this walk
  const made = new Set<Storage>();
  const hold = (t: Tensor, by: number): void => {
    const count = (users.get(t.storage) ?? 0) + by;
    users.set(t.storage, count);
    if (count === 0 && made.has(t.storage) && !createGraph) t.storage.dispose();
  };

  const walk = (): (Tensor | null)[] => {
    if (wanted.has(output) || (output.node && leads.has(output.node))) {
      pending.set(output, seed);
      hold(seed, 1);
      if (seed !== options.gradient) made.add(seed.storage);
    }
    for (const node of order) {
      if (leads.has(node)) {
        const incoming = node.outputs.map(t => pending.get(t) ?? null);
        if (incoming.some(g => g !== null)) {
          const needs = node.inputs.map(t => wanted.has(t) || (t.node !== null && leads.has(t.node)));
          const flowing = scope(() => {
            const gradients = node.gradients(incoming, needs);
            return node.inputs.map((input, i) => {
              const g = needs[i] ? gradients[i] : null;
              if (g && !sameShape(g.shape, input.shape)) {
                throw new Error(
                  `backward of ${node.op}: the gradient of input ${i} has shape ${formatShape(g.shape)}, expected ${formatShape(input.shape)}`,
                );
              }
              return g;
            });
          });
          // Held while the sums are made: several inputs may share one gradient's storage.
          for (const g of flowing) {
            if (!g) continue;
            if (!incoming.some(x => x?.storage === g.storage)) made.add(g.storage);
            hold(g, 1);
          }
          flowing.forEach((g, i) => {
            if (!g) return;
            const before = pending.get(node.inputs[i]);
            const sum = before ? before.add(g) : g;
            if (before) made.add(sum.storage);
            hold(sum, 1);
            pending.set(node.inputs[i], sum);
            if (before) hold(before, -1);
          });
          for (const g of flowing) if (g) hold(g, -1);
        }
        for (const [k, g] of incoming.entries()) {
          if (g && !wanted.has(node.outputs[k])) {
            pending.delete(node.outputs[k]);
            hold(g, -1);
          }
        }
      }
      if (!retain) node.release();
    }
    return wrt.map(t => pending.get(t) ?? null);
  };
  return withRecording(createGraph, walk);
}

function seedOf(output: Tensor, gradient: Tensor | undefined): Tensor {
  if (gradient) {
    if (!sameShape(gradient.shape, output.shape)) {
      throw new Error(
        `backward: the gradient has shape ${formatShape(gradient.shape)}, the tensor ${formatShape(output.shape)}`,
      );
    }
    return gradient;
  }
  if (output.size !== 1)
    throw new Error(
      `backward: a tensor of shape ${formatShape(output.shape)} needs a gradient; only one element has the default 1`,
    );
  return create.full(output.shape, 1, { dtype: output.dtype, backend: output.backend });
}

/** Adds gradients of `output` to `grad` of every trained leaf it depends on. */
export function backward(output: Tensor, options: BackwardOptions = {}): void {
  if (!output.needsGrad) throw new Error('backward: this tensor depends on nothing that is trained');
  const leaves = new Set<Tensor>(output.requiresGrad ? [output] : []);
  for (const node of graphOf([output])) for (const input of node.inputs) if (input.requiresGrad) leaves.add(input);
  const list = [...leaves];
  const gradients = gradientsOf(output, list, options);
  withRecording(options.createGraph ?? false, () =>
    list.forEach((leaf, i) => {
      const g = gradients[i];
      if (!g) return;
      const before = leaf.grad;
      const sum = before ? before.add(g) : g;
      const own = sum.storage === options.gradient?.storage || shared(gradients, i) ? copyOf(sum) : sum;
      own.storage.moveTo(null);
      own.storage.orphan = false;
      leaf.grad = own;
      if (before && !options.createGraph && !holdingIntermediates()) before.storage.dispose();
    }),
  );
}

/** True when another gradient of the list lies in the same storage. */
function shared(gradients: readonly (Tensor | null)[], i: number): boolean {
  return gradients.some((g, j) => j < i && g?.storage === gradients[i]?.storage);
}

function copyOf(t: Tensor): Tensor {
  return t.add(0);
}

/** Drops the accumulated gradients. */
export function zeroGrad(tensors: Iterable<Tensor>): void {
  for (const t of tensors) {
    t.grad?.storage.dispose();
    t.grad = null;
  }
}
