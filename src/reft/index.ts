// Public face of ReFT: `reft/reft`.

export { getReftModel, layoutOf, ReftModel, type TrainingMode } from './reftModel.js';
export { resolveConfig, type ReftConfig, type ResolvedReftConfig } from './config.js';
export { edit, editActivations, type EditActivation, type EditBank, type EditRows } from './editOp.js';
export { Intervention, type TrainedTensor } from './intervention.js';
export { kinds, type EditKind, type KindName } from './kinds.js';
export { editedRows, type SequenceLayout } from './layout.js';
export { formatPositions, parsePositions, resolvePositions, type Positions } from './positions.js';
