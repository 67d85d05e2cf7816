// Keeping R [r, d] orthonormal by construction: R is computed from free parameters by an orthogonal map, once a step,
// so that no optimizer can move it off the Stiefel manifold. The maps themselves have a file each; docs/orthogonal.md
// compares them.

import type { Backend } from '../../backends/backend.js';
import type { DType } from '../../tensor/dtype.js';
import type { Tensor } from '../../tensor/tensor.js';

import { cayley } from './cayley.js';
import { compactHouseholder } from './compactHouseholder.js';
import { matrixExponential } from './matrixExponential.js';
import { polarRetraction, qrRetraction } from './retractions.js';
import { torchHouseholder } from './torchHouseholder.js';

export { cayley, compactHouseholder, matrixExponential, polarRetraction, qrRetraction, torchHouseholder };

export const orthogonalMapNames = ['householder', 'torchHouseholder', 'cayley', 'exponential', 'qr', 'polar'] as const;
/** The name of a map in configurations and files. */
export type OrthogonalMapName = (typeof orthogonalMapNames)[number];

export const orthogonalMaps: Readonly<Record<OrthogonalMapName, OrthogonalMap>> = {
  householder: compactHouseholder,
  torchHouseholder,
  cayley,
  exponential: matrixExponential,
  qr: qrRetraction,
  polar: polarRetraction,
};

export interface OrthogonalMap {
  readonly name: string;
  /** Whether parameters may have leading axes, for several R of one shape at once. */
  readonly batched: boolean;
  /**
   * Parameters whose rotation is R [r, d] (orthonormalised first, if it is a little off), where R is or on `target`.
   * The trained ones require gradients. R is read at once: its backend's memory must be the host's.
   */
  initial(
    R: Tensor,
    target?: { readonly dtype: DType; readonly backend: Backend },
  ): { parameters: Record<string, Tensor> };
  /**
   * R [r, d] with orthonormal rows, on the tape; [.., r, d] of a batched map whose parameters all have the same leading
   * axes.
   */
  rotation(parameters: Readonly<Record<string, Tensor>>): Tensor;
}
