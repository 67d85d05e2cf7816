// Public face of the layers: `reft/nn`.

export { attention, type AttentionOptions } from './attention.js';
export {
  causalConv1d,
  conv1d,
  patchEmbedding,
  type CausalConv,
  type CausalConvOptions,
  type Conv1dOptions,
} from './conv.js';
export { crossEntropy, crossEntropyMean } from './crossEntropy.js';
export { Embedding } from './embedding.js';
export { kaimingUniform, linearInit, normalInit, orthogonalInit, type InitOptions } from './init.js';
export { dropout } from '../autograd/elementwise.js';
export { LayerNorm, layerNorm } from './layerNorm.js';
export { Linear, linear } from './linear.js';
export { linearScan, type LinearScan } from './linearScan.js';
export { activationNamed, activations } from './activations.js';
export { GatedMLP, MLP } from './mlp.js';
export { Module } from './module.js';
export {
  cayley,
  compactHouseholder,
  matrixExponential,
  polarRetraction,
  qrRetraction,
  torchHouseholder,
  type OrthogonalMap,
} from './orthogonal/maps.js';
export { relativePositionBias, relativePositionBucket, type RelativePositionOptions } from './relativePosition.js';
export { rmsNorm, RMSNorm, UnweightedRMSNorm, type RMSNormOptions } from './rmsNorm.js';
export { rope, ropeFrequencies, ropeTables, type RopeFrequencies, type RopeOptions, type RopePairs } from './rope.js';
export { sinusoidalPositions, type SinusoidalOptions } from './sinusoidal.js';
export {
  AdamW,
  clipGradNorm,
  SGD,
  type AdamWOptions,
  type OptimizerState,
  type ParameterGroup,
  type SGDOptions,
} from './optim.js';
export { scheduleFactor, scheduleNames, type ScheduleName } from './schedule.js';
export { selectiveScan, type SelectiveScan, type SelectiveScanInput } from './selectiveScan.js';
export { ssru, type Ssru } from './ssru.js';
