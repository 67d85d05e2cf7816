// Public face of ReFT: `reft/reft`.

export { getReftModel, layoutOf, ReftModel, type TrainingMode } from './reftModel.js';
export { adapterFromFiles, adapterToFiles, loadReft, saveAdapter, type Files, type LoadReftOptions } from './adapterFiles.js';
export { EditGraph, trace, type EditNode, type GraphJSON, type InsertedEdit, type SiteNode, type TraceInputs } from './graph.js';
export { modelFingerprint } from './fingerprint.js';
export { ReftTrainer, type Evaluation, type TrainerOptions, type TrainResult, type TrainStep } from './trainer.js';
export type { TrainingData } from './trainerData.js';
export { configToJSON, resolveConfig, type ReftConfig, type ResolvedReftConfig } from './config.js';
export { edit, editActivations, type EditActivation, type EditBank, type EditRows } from './editOp.js';
export { Intervention, type TrainedTensor } from './intervention.js';
export { kinds, type EditKind, type KindName } from './kinds.js';
export { editedRows, positionsOf, type Sequence, type SequenceLayout } from './layout.js';
export { formatPositions, parsePositions, resolvePositions, type NewToken, type NewTokens, type PositionFunction, type Positions } from './positions.js';
