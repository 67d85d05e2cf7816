// `AutoTokenizer.fromPretrained(name)`: the tokenizer that belongs to a model, wherever it is kept. Building one is in
// the tokenizer*.ts files.

import { fileSource } from './byteSource.js';
import { FormatError } from './errors.js';
import { openGgufFile } from './gguf.js';
import { resolveModel, type ResolvedModel, type ResolveOptions } from './resolve.js';
import type { Tokenizer } from './tokenizer.js';
import { tokenizerFromGGUF } from './tokenizerGguf.js';
import { parseLlama2cVocabulary, tokenizerFromLlama2c } from './tokenizerLlama2c.js';
import { tokenizerFromSentencePiece } from './tokenizerSentencePiece.js';

/** The tokenizer of a model that `resolveModel` found. */
export async function tokenizerOf(resolved: ResolvedModel): Promise<Tokenizer> {
  if (resolved.kind === 'folder') {
    const { tokenizerFromFolder } = await import('./tokenizerNode.js');
    return tokenizerFromFolder(resolved.path);
  }
  if (resolved.kind === 'gguf') {
    const file = await openGgufFile(resolved.path);
    try {
      return tokenizerFromGGUF(file.metadata, resolved.path);
    } finally {
      await file.close();
    }
  }
  const isMarian = resolved.kind === 'marian';
  if (!resolved.tokenizerPath) {
    const expected = isMarian ? 'one .spm file for both languages' : 'a llama2.c tokenizer .bin';
    throw new FormatError(resolved.path, `has no vocabulary beside it (${expected})`);
  }
  const source = await fileSource(resolved.tokenizerPath);
  try {
    const bytes = await source.read(0, source.size);
    // marian ends every text with the end token, whatever the vocabulary says.
    if (isMarian) return tokenizerFromSentencePiece(bytes, source.name, { addEosToken: true });
    return tokenizerFromLlama2c(parseLlama2cVocabulary(bytes, source.name), source.name);
  } finally {
    await source.close();
  }
}

export const AutoTokenizer = {
  /** A path, an alias (`smollm2-135m`) or a hub id, as for AutoModelForCausalLM. */
  async fromPretrained(idOrPath: string, options: ResolveOptions = {}): Promise<Tokenizer> {
    return tokenizerOf(await resolveModel(idOrPath, options));
  },
};
