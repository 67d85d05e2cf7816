// The public pieces of `reft/io`: a plain list. Nothing is defined here, and nothing that needs Node is listed
// statically.

export { FormatError } from './errors.js';
export { blobSource, fileSource, memorySource } from './byteSource.js';
export type { ByteSource } from './byteSource.js';
export { storedToFloat32 } from './storedDType.js';
export type { PlainDType, StoredArray, StoredDType } from './storedDType.js';
export type { Destination, StoredTensor, TensorFile } from './tensorFile.js';
export { openSafetensors, openShardedSafetensors, writeSafetensors } from './safetensors.js';
export type { OpenSibling, SafetensorsEntry } from './safetensors.js';
export { openGguf } from './gguf.js';
export { openLlama2c } from './llama2c.js';
export type { Llama2cConfig } from './llama2c.js';
export { openMarian } from './marian.js';
export { readTorchBin } from './torchBin.js';
export type { TorchTensor, TorchValue } from './torchBin.js';
export { AutoTokenizer, tokenizerOf } from './autoTokenizer.js';
export { plainChatTemplate, type ChatMessage, type ContentPart } from './chatTemplate.js';
export { pinnedModels, resolveModel } from './resolve.js';
export type { DownloadProgress, ResolvedModel, ResolveOptions } from './resolve.js';
export { Tokenizer } from './tokenizer.js';
export type { ChatTemplateOptions, DecodeOptions, EncodeOptions, TypedIds } from './tokenizer.js';
export { tokenizerFromGGUF } from './tokenizerGguf.js';
export { tokenizerFromFiles } from './tokenizerJson.js';
export { parseLlama2cVocabulary, tokenizerFromLlama2c } from './tokenizerLlama2c.js';
export { tokenizerFromSentencePiece } from './tokenizerSentencePiece.js';
export { TextStreamer } from './tokenizerStream.js';
