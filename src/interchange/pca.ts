// Principal components of hidden states, for interchanges in their space: eigenvectors of the covariance, on the
// host, in f64. O(d^3) a sweep: meant for a few hundred dimensions. The kind itself is in kinds.ts.

import { create } from '../tensor/create.js';
import { hostBackend } from '../devices.js';
import { symmetricEigen } from '../nn/hostMatrices.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import type { InterchangeSpace } from './space.js';

export interface PrincipalComponents {
  /** [k, d], orthonormal rows, of falling variance. */
  readonly components: Float64Array;
  readonly mean: Float64Array;
  /** What states are divided by first; ones unless standardised. */
  readonly std: Float64Array;
  /** Of each component. */
  readonly variances: Float64Array;
}

/**
 * The first k components of states [n, d], after their mean was taken off and, when `standardize`, each coordinate
 * divided by its deviation.
 * @throws RangeError for fewer than two states or k outside 1..d
 */
export async function principalComponents(
  states: Tensor,
  k: number,
  { standardize = true } = {},
): Promise<PrincipalComponents> {
  const [n, d] = states.shape;
  if (states.rank !== 2 || n < 2)
    throw new RangeError(
      `principalComponents: expected states [n, d] with n of 2 or more, got ${formatShape(states.shape)}`,
    );
  if (!(Number.isInteger(k) && k > 0 && k <= d))
    throw new RangeError(`principalComponents: expected 1 to ${d} components, got ${k}`);
  const data = Float64Array.from(await states.data());
  const mean = new Float64Array(d);
  for (let i = 0; i < data.length; i++) mean[i % d] += data[i] / n;
  const std = new Float64Array(d);
  for (let i = 0; i < data.length; i++) std[i % d] += (data[i] - mean[i % d]) ** 2 / n;
  // A coordinate that never moves has no scale of its own.
  for (let j = 0; j < d; j++) std[j] = standardize && std[j] > 0 ? Math.sqrt(std[j]) : 1;
  const covariance = Array.from({ length: d }, () => new Float64Array(d));
  for (let row = 0; row < n; row++) {
    for (let i = 0; i < d; i++) {
      const x = (data[row * d + i] - mean[i]) / std[i] / n;
      for (let j = i; j < d; j++) covariance[i][j] += (x * (data[row * d + j] - mean[j])) / std[j];
    }
  }
  for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) covariance[i][j] = covariance[j][i];
  const { values, vectors } = symmetricEigen(covariance);
  const order = Array.from(values, (_, i) => i)
    .sort((a, b) => values[b] - values[a])
    .slice(0, k);
  return {
    components: Float64Array.from(order.flatMap(i => [...vectors[i]])),
    mean,
    std,
    variances: Float64Array.from(order, i => values[i]),
  };
}

/** Puts components into an intervention's space. */
export function setPrincipalComponents(space: InterchangeSpace, { components, mean, std }: PrincipalComponents): void {
  const d = mean.length;
  const backend = hostBackend(space.parameters().components.backend);
  const give = (name: string, data: Float64Array, shape: number[]): void => {
    space.set(name, create.from(data, shape, { dtype: 'f64', backend }));
  };
  give('components', components, [components.length / d, d]);
  give('mean', mean, [d]);
  give('std', std, [d]);
}
