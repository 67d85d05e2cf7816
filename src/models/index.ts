// Public face of the models: `reft/models`.

export {
  AutoModelForCausalLM,
  loadCausalLM,
  openCheckpoint,
  type FromPretrainedOptions,
  type OpenCheckpoint,
} from './auto.js';
export { KVCache } from './cache.js';
export { CausalLM, labelledRows, type ForwardOptions, type ForwardOutput } from './causalLM.js';
export { configFromLlama2c, knownArchitectures, type DecoderConfig } from './config.js';
export { configFromGGUF } from './configGGUF.js';
export { configFromHF } from './configHF.js';
export type { EditDescription, SiteEdit } from './context.js';
export type { Generated, GenerateOptions, GenerationEdits, Prompt, StepLayout } from './generate.js';
export { generationConfigFromGGUF, generationConfigFromHF, type GenerationConfig } from './generationConfig.js';
export type { SamplingOptions } from './sampling.js';
export { components, headComponents, parseSite, siteName, type Component, type Site } from './sites.js';
export type { LoadProgress, WeightForm } from './weights.js';
