// Public face of the autograd engine: `reft/autograd`.

export { map, unary, dropout, randomLike, swiglu, where } from './elementwise.js';
export {
  defineFused,
  runFused,
  type FusedCall,
  type FusedDefinition,
  type FusedExtra,
  type FusedOp,
  type FusedVjpCall,
  type OutputSpec,
} from './fused.js';
export { fusedOps } from './fusedRegistry.js';
export { grad, site, valueAndGrad, type Params, type ValueAndGradOptions } from './grad.js';
export { gradcheck, type GradcheckOptions } from './gradcheck.js';
export { mapInto } from './primitives.js';
export { recompute } from './recompute.js';
export { keep, openScope, scope } from './scope.js';
export {
  backward,
  gradientsOf,
  graphOf,
  isRecording,
  noGrad,
  enableGrad,
  Node,
  zeroGrad,
  type BackwardOptions,
} from './tape.js';
export { holdIntermediates } from '../tensor/storage.js';
export * as expr from '../tensor/expr.js';
