// Public face of the models: `reft/models`.

export {
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForSeq2SeqLM,
  AutoModelForSpeechSeq2Seq,
  AutoModelForImageClassification,
  AutoModelForImageTextToText,
  AutoModelForMaskedLM,
  AutoModelForSequenceClassification,
  loadCausalLM,
  loadModel,
  openCheckpoint,
  type FromPretrainedOptions,
  type OpenCheckpoint,
} from './auto.js';
export { BaseEncoder, TextEncoder, type BaseOutput, type EmbedOptions } from './baseEncoder.js';
export { ClipModel, type ClipConfig, type ClipOptions, type ClipOutput } from './clip.js';
export { KVCache } from './cache.js';
export { CausalLM, labelledRows } from './causalLM.js';
export {
  Classifier,
  ImageClassifier,
  newClassifier,
  SequenceClassifier,
  type ClassifierOutput,
  type NewHeadOptions,
  type Pooling,
} from './classifier.js';
export { problemTypes, type EncoderConfig, type LabelConfig, type ProblemType } from './configEncoder.js';
export { configFromLlama2c, type DecoderConfig, type RopeSettings, type StackConfig } from './config.js';
export { configFromGGUF, configFromHF, knownArchitectures } from './families/index.js';
export type { ImageConfig, ImageOptions } from './imageEncoder.js';
export { meanPool, type TextOptions } from './encoder.js';
export { MaskedLM, type MaskedOptions } from './maskedLM.js';
export {
  Model,
  type ForwardOptions,
  type ForwardOutput,
  type Labels,
  type Loss,
  type ModelOutput,
  type PassOptions,
} from './model.js';
export {
  onBatch,
  type EditDescription,
  type Patch,
  type PrefixPatch,
  type Projection,
  type ProjectionPatch,
  type SiteEdit,
} from './patch.js';
export { Engine, Request, type EngineOptions, type RequestOptions } from './generation/engine.js';
export type { Generated, GenerateOptions, GenerationEdits, Prompt, StepLayout } from './generation/generate.js';
export { generationConfigFromGGUF, generationConfigFromHF, type GenerationConfig } from './generationConfig.js';
export type { SamplingOptions } from './generation/sampling.js';
export { Seq2SeqLM, type Encoded, type Seq2SeqOptions, type Seq2SeqOutput } from './seq2seqLM.js';
export type { Seq2SeqConfig } from './configSeq2Seq.js';
export type { Seq2SeqEdits, Seq2SeqGenerateOptions, StepLayouts } from './generation/generateSeq2Seq.js';
export { components, headComponents, parseSite, siteName, type Component, type Site } from './sites.js';
export { TokenRows, Tokens } from './tokens.js';
export type { LoadProgress, WeightForm } from './weights.js';
