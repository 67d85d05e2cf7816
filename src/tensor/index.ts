// Public face of the tensor library: `reft/tensor`.

export { create, tensor, type CreateOptions, type RandomOptions } from './create.js';
export { defaultBackend, setDefaultBackend, stats, withBackend } from '../devices.js';
export type { DType, TypedArray } from './dtype.js';
export { concat, pad, stack, unpack } from './layout.js';
export { einsum } from './linalg.js';
export { packedRowBytes, packedWeightBytes, packings, type Packing, type PackingLayout } from './packing.js';
export { roundedProducts } from './rounding.js';
export { ShapeError, type Shape } from './shape.js';
export { Tensor, type NestedArray, type TensorLike } from './tensor.js';
export { Random } from './threefry.js';
export { gradcheck, type GradcheckOptions } from '../autograd/gradcheck.js';
export { grad, valueAndGrad } from '../autograd/grad.js';
export { keep, openScope, scope } from '../autograd/scope.js';
export { noGrad, zeroGrad } from '../autograd/tape.js';
