// One sample on one device: values, gradients and second-order gradients of our op against torch's.

import { gradientsOf, holdIntermediates, scope } from '../../src/autograd/index.js';
import type { Backend } from '../../src/backends/index.js';
import { withBackend } from '../../src/devices.js';
import { concat, tensor, type Tensor } from '../../src/tensor/index.js';
import { Arguments, NotOurs } from './arguments.js';
import { calls, type TorchCall } from './calls.js';
import { difference, type Bound, type Numbers } from './compare.js';
import type { Gradients, Sample, Stored } from './samples.js';

export const parts = ['values', 'gradients', 'second'] as const;
export type Part = (typeof parts)[number];

export interface Device {
  readonly name: string;
  readonly backend: Backend;
  /** The float type of the samples it is given. */
  readonly dtype: 'f32' | 'f64';
  readonly hasF64: boolean;
}

/** By part: null where it equals torch's, else what differs. A part that the sample does not have is missing. */
export type Outcome = Partial<Record<Part, string | null>>;

const bounds: Readonly<Record<'f32' | 'f64', Readonly<Record<Part, Bound>>>> = {
  f64: {
    values: { relative: 1e-11, least: 1e-12 },
    gradients: { relative: 1e-10, least: 1e-11 },
    second: { relative: 1e-9, least: 1e-10 },
  },
  f32: {
    values: { relative: 1e-5, least: 1e-6 },
    gradients: { relative: 3e-5, least: 1e-5 },
    second: { relative: 1e-4, least: 1e-4 },
  },
};

interface Results {
  /** null where no gradient flows. */
  readonly tensors: readonly (Tensor | null)[];
  readonly torch: readonly (Stored | null)[];
}
/** What was computed of a sample, and the error that ended it. */
interface Computed {
  readonly parts: Map<Part, Results>;
  error?: { readonly part: Part; readonly text: string };
}

/** Throws NotOurs where our op has no counterpart of the call. */
export async function runSample(sample: Sample, device: Device): Promise<Outcome> {
  const call = calls[sample.op];
  const computed = scope(() =>
    holdIntermediates(() => withBackend(device.backend, () => compute(call, sample, device))),
  );
  const { error } = computed;
  const outcome: Outcome = error ? { [error.part]: error.text } : {};
  for (const [part, { tensors, torch }] of computed.parts) {
    const results = await Promise.all(
      tensors.map(async t => t && { shape: t.shape, dtype: t.dtype, data: await t.data() }),
    );
    outcome[part] = results.length === torch.length ? null : `${results.length} results, torch has ${torch.length}`;
    for (let i = 0; i < Math.min(results.length, torch.length); i++) {
      const [actual, expected] = [results[i] ?? zeros(torch[i]), torch[i] ?? zeros(results[i])];
      if (!actual || !expected) continue;
      const exact = part === 'values' ? sample.exact?.[i] : null;
      outcome[part] ??= difference(
        actual,
        expected,
        exact,
        bounds[expected.dtype === 'f64' ? 'f64' : 'f32'][part],
        call.sums === true || part !== 'values',
      );
    }
    for (const t of tensors) t?.storage.dispose();
  }
  return outcome;
}

function compute(call: TorchCall, sample: Sample, device: Device): Computed {
  const { gradients, second } = sample;
  if (!device.hasF64 && sample.outputs.some(t => t.dtype === 'f64')) throw new NotOurs('f64');
  const placed = new Map<number | Stored, Tensor>();
  const place = (stored: Stored): Tensor => {
    const key = stored.number ?? stored;
    let found = placed.get(key);
    if (!found) {
      if (stored.dtype === 'f64' && !device.hasF64) throw new NotOurs('f64');
      found = tensor(stored.data, stored.shape, { dtype: stored.dtype, backend: device.backend });
      if (stored.number !== undefined && gradients?.wrt.includes(stored.number)) found.requireGrad();
      placed.set(key, found);
    }
    return found;
  };
  const computed: Computed = { parts: new Map<Part, Results>() };
  let part: Part = 'values';
  try {
    const made = call.run(new Arguments(call.names, sample.args, sample.kwargs, place));
    const outputs = Array.isArray(made) ? made : [made];
    computed.parts.set('values', { tensors: outputs, torch: sample.outputs });
    if (!gradients) return computed;
    part = 'gradients';
    // An input that our op does not read has no gradient.
    const leaves = gradients.wrt.map(n => placed.get(n) ?? null);
    const read = leaves.filter((t): t is Tensor => t !== null);
    const cotangents = gradients.cotangents.map(c => (second ? place(c).requireGrad() : place(c)));
    const first = pulledBack(gradients, outputs, cotangents, read, second !== undefined);
    const gradientOf = (leaf: Tensor | null): Tensor | null => leaf && first[read.indexOf(leaf)];
    computed.parts.set('gradients', { tensors: leaves.map(gradientOf), torch: gradients.values });
    if (!second) return computed;
    part = 'second';
    const again = pulledBack(
      second,
      leaves.map(gradientOf),
      second.cotangents.map(place),
      [...read, ...cotangents],
      false,
    );
    const secondOf = (leaf: Tensor | null): Tensor | null => leaf && again[read.indexOf(leaf)];
    computed.parts.set('second', {
      tensors: [...leaves.map(secondOf), ...again.slice(read.length)],
      torch: second.values,
    });
  } catch (error) {
    if (error instanceof NotOurs) throw error;
    computed.error = { part, text: `throws ${String(error).slice(0, 160)}` };
  }
  return computed;
}

/** The gradients by `wrt` of those results that have cotangents. */
function pulledBack(
  { of }: Gradients,
  results: readonly (Tensor | null)[],
  cotangents: readonly Tensor[],
  wrt: readonly Tensor[],
  createGraph: boolean,
): (Tensor | null)[] {
  const there = of.flatMap((i, n) => {
    const result = results[i];
    return result?.needsGrad ? [{ result, cotangent: cotangents[n] }] : [];
  });
  if (there.length === 0) return wrt.map(() => null);
  const joined = (list: readonly Tensor[]): Tensor =>
    list.length === 1 ? list[0] : concat(list.map(t => t.flatten()));
  return gradientsOf(joined(there.map(t => t.result)), wrt, {
    gradient: joined(there.map(t => t.cotangent)),
    createGraph,
  });
}

/** No gradient is a gradient of zeros. */
function zeros<T extends Numbers>(like: T | null): T | null {
  return like && { ...like, data: like.data.map(() => 0) };
}
