// Public face of interchange interventions, part of `reft/reft`.

export { activationPatching, type PatchingMetric, type PatchingOptions, type PatchingResult } from './patching.js';
export type { InterchangeConfig, ResolvedInterchangeConfig } from './config.js';
export type { CounterfactualExample } from './counterfactuals.js';
export { DasTrainer, interchangeAccuracy, type DasOptions, type DasStep, type InterchangeEvaluation } from './das.js';
export { interchangeFromFiles, interchangeToFiles, loadInterchange, saveInterchange } from './files.js';
export { heatMap, type HeatMapOptions, type HeatMapPanel } from './heatMap.js';
export {
  getInterchangeModel,
  InterchangeModel,
  type InterchangeIntervention,
  type InterchangeMode,
  type InterchangeOutput,
  type InterchangeRun,
} from './interchangeModel.js';
export { interchangeKinds, type InterchangeKind, type InterchangeKindName } from './kinds.js';
export { principalComponents, setPrincipalComponents, type PrincipalComponents } from './pca.js';
export type { InterchangeSpace } from './space.js';
export {
  tokenBatch,
  type Subspaces,
  type TokenBatch,
  type UnitLocationPair,
  type UnitLocations,
} from './unitLocations.js';
