// Fused ops: a composition of ordinary ops that is the definition, plus optional faster kernels (registered by name in
// a backend) and an optional VJP that calls them. Where a backend has no kernel, or it declines, the composition runs
// and is taped as usual, unless the definition says how to compute the same faster; second derivatives always
// differentiate the composition. Kernels themselves live in the backends, definitions beside what they belong to.

// First: ops are defined while modules that depend on each other are still loading, whichever of them is imported
// first.
import { fusedOps } from './fusedRegistry.js';
import type { Attributes, Backend } from '../backends/backend.js';
import { allocate } from '../tensor/create.js';
import type { DType } from '../tensor/dtype.js';
import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { aliasOf, backendOf } from './primitives.js';
import { enableGrad, gradientsOf, isRecording, nodeClock, noGrad, record, shouldRecord } from './tape.js';

/** What the host knows beside tensors: row numbers for kernels, other lists for the composition. */
export interface FusedExtra {
  readonly indices?: Int32Array;
  readonly lists?: Readonly<Record<string, Int32Array>>;
  /** What the node says about itself in the graph. */
  readonly meta?: Readonly<Record<string, unknown>>;
}

/** What an op is called with: optional tensors are null, attributes are numbers. */
export interface FusedCall extends FusedExtra {
  readonly inputs: readonly (Tensor | null)[];
  readonly attributes: Attributes;
}

export interface OutputSpec {
  readonly shape: Shape;
  readonly dtype: DType;
}

export interface FusedVjpCall extends FusedCall {
  /** The kernel's outputs: the result and whatever else it wrote to be saved. */
  readonly outputs: readonly Tensor[];
  readonly gradient: Tensor;
  readonly needs: readonly boolean[];
}

export interface FusedDefinition {
  /** The definition, in ordinary ops. */
  compose(call: FusedCall): Tensor;
  /**
   * Shapes of what the kernel writes: the result first, then what it saves. Default: one output like the first input.
   */
  outputs?(call: FusedCall): OutputSpec[];
  /**
   * What runs where no kernel takes the call, if that is not the composition: the outputs that a kernel would write, by
   * ordinary ops that are not recorded. `vjp` must then have gradients without kernels, too.
   */
  compute?(call: FusedCall): Tensor[];
  /** Gradients of the inputs, or null to differentiate the composition. */
  vjp?(call: FusedVjpCall): (Tensor | null)[] | null;
  /** The tensors `vjp` reads; default all inputs and outputs. */
  saves?(call: FusedCall & { outputs: readonly Tensor[] }): (Tensor | null)[];
}

export interface FusedOp {
  readonly fusedName: string;
  readonly definition: FusedDefinition;
  (inputs: readonly (Tensor | null)[], attributes?: Attributes, extra?: FusedExtra): Tensor;
}

const present = (tensors: readonly (Tensor | null)[]): Tensor[] => tensors.filter((t): t is Tensor => t !== null);

/** Defines a fused op. `defineFused('rmsNorm', { compose })` is a working op; kernels only make it faster. */
export function defineFused(name: string, definition: FusedDefinition): FusedOp {
  const fused: FusedOp = Object.assign(
    (inputs: readonly (Tensor | null)[], attributes: Attributes = {}, extra: FusedExtra = {}): Tensor => {
      const call: FusedCall = { ...extra, inputs, attributes };
      const given = present(inputs);
      const specs = definition.outputs?.(call) ?? [{ shape: given[0].shape, dtype: given[0].dtype }];
      const { compute } = definition;
      const outputs =
        runFused(backendOf(name, given), name, inputs, specs, attributes, call.indices) ??
        (compute ? noGrad(() => compute(call)) : null);
      if (!outputs) return definition.compose(call);
      if (shouldRecord(given)) {
        // Optional inputs that are absent take no part: positions are mapped back for the tape.
        const at = inputs.flatMap((t, i) => (t ? [i] : []));
        record(
          {
            op: name,
            inputs: given,
            meta: extra.meta,
            saves: present(definition.saves?.({ ...call, outputs }) ?? [...inputs, ...outputs]),
            vjp(gradients, needs) {
              const gradient = gradients[0];
              if (!gradient) return given.map(() => null);
              const all = inputs.map((_, i) => needs[at.indexOf(i)] ?? false);
              const direct = isRecording()
                ? null
                : (definition.vjp?.({ ...call, outputs, gradient, needs: all }) ?? null);
              const result = direct ?? composedVjp(definition, call, gradient, all);
              return at.map(i => result[i]);
            },
          },
          outputs.slice(0, 1),
        );
      }
      return outputs[0];
    },
    { fusedName: name, definition },
  );
  fusedOps.set(name, fused);
  return fused;
}

/** Runs a backend's fused kernel, or gives null where there is none or it declines. */
export function runFused(
  backend: Backend,
  name: string,
  inputs: readonly (Tensor | null)[],
  specs: readonly OutputSpec[],
  attributes: Attributes = {},
  indices?: Int32Array,
): Tensor[] | null {
  const kernel = backend.fused.get(name);
  if (!kernel || inputs.some(t => t && t.dtype === 'f64')) return null;
  const outputs = specs.map(({ shape, dtype }) => allocate(name, shape, dtype, backend));
  const done = kernel({
    inputs: inputs.map(t => t && t.view(name)),
    outputs: outputs.map(t => t.view(name)),
    attributes,
    ...(indices ? { indices } : {}),
  });
  if (done) return outputs;
  for (const t of outputs) t.storage.dispose();
  return null;
}

/** Gradients by differentiating the composition; recorded themselves when the tape is on. */
export function composedVjp(
  definition: FusedDefinition,
  call: FusedCall,
  gradient: Tensor,
  needs: readonly boolean[],
): (Tensor | null)[] {
  const createGraph = isRecording();
  return enableGrad(() => {
    // A fresh tensor for each input, so that one given twice gets two gradients.
    const aliases = call.inputs.map((t, i) => (t && needs[i] ? aliasOf(t) : t));
    const from = nodeClock();
    const output = definition.compose({ ...call, inputs: aliases });
    const wanted = present(aliases.filter((_, i) => needs[i]));
    const gradients = gradientsOf(output, wanted, { gradient, createGraph, from });
    return aliases.map((t, i) => (t && needs[i] ? gradients[wanted.indexOf(t)] : null));
  });
}
