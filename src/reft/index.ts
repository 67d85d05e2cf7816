// Public face of ReFT: `reft/reft`.

export { getReftModel, layoutOf, ReftModel } from './reftModel.js';
export { getSeq2SeqReft, Seq2SeqReft, type StackLayouts } from './seq2seqReft.js';
export type { Files } from '../adapt/files.js';
export type { AdaptedModel, Adapter, FirstChange, TrainingMode } from '../adapt/adapter.js';
export { EditedModel, type EditedGenerateOptions } from './editedModel.js';
export { adapterFromFiles, adapterToFiles, loadReft, saveAdapter, type LoadReftOptions } from './adapterFiles.js';
export {
  EditGraph,
  trace,
  type EditNode,
  type GraphJSON,
  type InsertedEdit,
  type SiteNode,
  type TraceInputs,
} from './graph.js';
export { trainBaseParameters } from './baseParameters.js';
export { modelFingerprint } from '../train/fingerprint.js';
export { ReftTrainer } from './reftTrainer.js';
export { Trainer } from '../train/trainer.js';
export type { Evaluation, TrainerOptions, TrainResult, TrainStep } from '../train/options.js';
export type { TrainingData } from '../train/data.js';
export type { EarlyStopping, EvaluatedStep } from '../train/evaluationCourse.js';
export { configToJSON, resolveConfig, type ReftConfig, type ResolvedReftConfig } from './config.js';
export { edit, editActivations, type EditActivation, type EditBank, type EditRows } from './editOp.js';
export { Intervention } from './intervention.js';
export type { TrainedTensor } from '../adapt/parameterSet.js';
export { applyEdit, type DropoutTarget, type EditedRows, type EditSettings } from './applyEdit.js';
export { composedKinds, starts, type EditDefinition, type ParameterDefinition } from './composedKinds.js';
export { checkEdit, type CheckEditOptions } from './checkEdit.js';
export { defineEdit, kindByName, kindNames } from './defineEdit.js';
export {
  kinds,
  type BiasOption,
  type ComposedKind,
  type EditContext,
  type EditKind,
  type EditOptions,
  type EditSize,
  type KindName,
  type PlacedKind,
} from './kinds.js';
export type { RowOptions, RowOptionsFor } from './rowOptions.js';
export { editedRows, positionsOf, type Sequence, type SequenceLayout } from './layout.js';
export {
  formatPositions,
  parsePositions,
  resolvePositions,
  type NewToken,
  type NewTokens,
  type PositionFunction,
  type Positions,
} from './positions.js';
export * from '../interchange/index.js';
export { compose, ComposedEdits, type Composition, type Overlap } from './compose.js';
export { MixedEdits, mixEdits, type RowEdits } from './mixedEdits.js';
export { principalAngles } from './principalAngles.js';
export { evaluate, type EvaluateOptions, type RowsEvaluation } from '../train/evaluate.js';
export { adapterHubFromFiles } from './formats/adapterHub.js';
export { controlVectorOf } from './formats/controlVector.js';
export { loadEditFolder, type EditFolder, type EditFormat } from './formats/editFolder.js';
export { pyreftFromFiles, pyreftToFiles, type PyreftOptions } from './formats/pyreftFolder.js';
