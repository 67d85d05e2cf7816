// The property checks of an edit, for one of your own before it is trained: gradients by differences in f64, rows that
// do not depend on each other, an identity start that is one. Nothing is trained here.

import { gradcheck } from '../autograd/gradcheck.js';
import { noGrad } from '../autograd/tape.js';
import { scope } from '../autograd/scope.js';
import { create } from '../tensor/create.js';
import { defaultBackend, hostBackend } from '../devices.js';
import type { Tensor } from '../tensor/tensor.js';
import { applyEdit, type EditSettings } from './applyEdit.js';
import { kindByName, optionsOf } from './defineEdit.js';
import type { EditActivation } from './editOp.js';
import { allSpecs, isPlaced, type EditKind, type EditOptions } from './kinds.js';

export interface CheckEditOptions {
  /** Default 8 and 2. */
  readonly width?: number;
  readonly rank?: number;
  readonly kindOptions?: EditOptions;
  readonly activation?: EditActivation;
  readonly seed?: number;
}

/**
 * Checks an edit at random numbers on the CPU in f64. @throws Error naming the property that does not hold, and where
 */
export async function checkEdit(given: EditKind | string, options: CheckEditOptions = {}): Promise<void> {
  const kind = typeof given === 'string' ? kindByName(given) : given;
  const { width = 8, rank = 2, seed = 1, activation = isPlaced(kind) ? 'linear' : kind.activation } = options;
  const size = { width, rank, options: optionsOf(kind, options.kindOptions) };
  const specs = allSpecs(kind, size);
  const like = { dtype: 'f64' as const, backend: hostBackend(defaultBackend()) };
  const normal = (shape: readonly number[], stream: number): Tensor =>
    create.normal(shape, { ...like, seed, stream, std: 0.5 });
  const values = Object.fromEntries(specs.map(({ name, shape }, i) => [name, normal(shape, i + 1)]));
  const settings = (parameters: Readonly<Record<string, Tensor>>): EditSettings => ({
    kind,
    size,
    activation,
    parameters,
  });
  const all = Int32Array.of(0, 1, 2);
  const h = normal([3, width], 0);

  try {
    const named = (p: readonly Tensor[]): Record<string, Tensor> =>
      Object.fromEntries(specs.map(({ name }, i) => [name, p[i]]));
    await gradcheck((x, ...p) => applyEdit(x, settings(named(p)), { indices: all }), [h, ...Object.values(values)], {
      seed,
    });
  } catch (cause) {
    const names = specs.map(({ name }, i) => `input ${i + 1} is ${name}`).join(', ');
    throw new Error(
      `edit '${kind.name}': its gradient is not that of its values (input 0 is h, ${names}): ${(cause as Error).message}`,
      { cause },
    );
  }
  noGrad(() =>
    scope(() => {
      const edited = (rows: Int32Array, p: Readonly<Record<string, Tensor>>) =>
        applyEdit(h, settings(p), { indices: rows }).dataSync();
      const together = edited(all, values);
      for (let row = 0; row < 3; row++) {
        const alone = edited(Int32Array.of(row), values);
        for (let k = row * width; k < (row + 1) * width; k++) {
          if (!(Math.abs(alone[k] - together[k]) <= 1e-9 * (1 + Math.abs(together[k])))) {
            throw new Error(
              `edit '${kind.name}': row ${row} depends on the other rows: ${alone[k]} alone, ${together[k]} among them`,
            );
          }
        }
      }
      const identity = kind.identity(activation);
      if (!identity) return;
      const start: Record<string, Tensor> = { ...values };
      for (const [name, from] of Object.entries(identity))
        start[name] = from === 'zeros' ? create.zeros(values[name].shape, like) : values[from.copy];
      const before = h.dataSync();
      edited(all, start).forEach((x, k) => {
        if (!(Math.abs(x - before[k]) <= 1e-9))
          throw new Error(`edit '${kind.name}': its identity start changes entry ${k} from ${before[k]} to ${x}`);
      });
    }),
  );
}
