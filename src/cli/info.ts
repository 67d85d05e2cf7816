// `reft info`: what a path holds, without loading weights: a model, a file of tensors, or an adapter.

import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { tokenizerOf } from '../io/autoTokenizer.js';
import { openResolved } from '../models/auto.js';
import type { DecoderConfig } from '../models/config.js';
import { componentsOf, widthAt } from '../models/sites.js';
import { adapterFacts, counted, tensorFacts, type Facts } from './adapterFacts.js';
import { findModel, modelTitle } from './model.js';
import { addJsonOption } from './options.js';
import { Output } from './output.js';

export function addInfoCommand(program: Command): void {
  const command = program
    .command('info')
    .description('Say what a model, a file of tensors or an adapter holds.')
    .argument(
      '<path>',
      'a model folder, a .gguf, llama2.c or .safetensors file, the name of a model, or an adapter ' +
        'folder, which may be of pyreft, AdapterHub or peft',
    )
    .option('--cache-dir <dir>', 'where downloaded models are kept');
  addJsonOption(command).action(info);
}

async function info(path: string, flags: { cacheDir?: string; json: boolean }): Promise<void> {
  const output = new Output(flags.json);
  const isTensorFile =
    path.endsWith('.safetensors') &&
    (await stat(path).then(
      s => s.isFile(),
      () => false,
    ));
  const facts = isTensorFile
    ? await tensorFacts(path)
    : ((await adapterFacts(path)) ?? (await modelFacts(path, flags.cacheDir, output)));
  const width = Math.max(...Object.keys(facts).map(name => name.length)) + 2;
  if (!flags.json)
    for (const [name, value] of Object.entries(facts)) output.say(`${name.padEnd(width)}${spell(value)}`);
  output.event('done', facts);
}

async function modelFacts(path: string, cacheDir: string | undefined, output: Output): Promise<Facts> {
  const resolved = await findModel(path, cacheDir ? { cacheDir } : {}, output);
  const { config, file } = await openResolved(resolved);
  try {
    const sizes = await Promise.all(resolved.files.map(async name => (await stat(name)).size));
    return {
      kind: 'model',
      name: modelTitle(path, resolved),
      path: resolved.path,
      format: file.format,
      from: resolved.from,
      ...counted(file),
      bytes: sizes.reduce((a, b) => a + b, 0),
      files: resolved.files.length,
      architecture: config.modelType,
      layers: config.layers,
      hiddenSize: config.hiddenSize,
      intermediateSize: config.intermediateSize,
      heads: config.heads,
      kvHeads: config.kvHeads,
      headDim: config.headDim,
      vocabSize: config.vocabSize,
      context: config.maxPositions,
      tiedHead: config.tiedHead,
      sites: siteWidths(config),
      tokenizer: await tokenizerFacts(resolved),
    };
  } finally {
    await file.close();
  }
}

/** Where edits can stand in each layer, with the width of the hidden states there. */
function siteWidths(config: DecoderConfig): Facts {
  return Object.fromEntries(componentsOf(config).map(component => [component, widthAt(component, config)]));
}

async function tokenizerFacts(resolved: Parameters<typeof tokenizerOf>[0]): Promise<Facts | string> {
  try {
    const t = await tokenizerOf(resolved);
    const token = (id: number | undefined): string | null =>
      id === undefined ? null : (t.idToToken(id) ?? String(id));
    const special = { bos: token(t.bosTokenId), eos: token(t.eosTokenId), stops: t.stopTokenIds.map(token) };
    return { vocabSize: t.vocabSize, ...special, chatTemplate: t.chatTemplate !== undefined };
  } catch (error) {
    // A model without a tokenizer is still a model.
    return `none: ${(error as Error).message}`;
  }
}

function spell(value: unknown): string {
  if (typeof value === 'number') return value.toLocaleString('en');
  if (Array.isArray(value)) return value.map(spell).join(', ');
  if (value === null || typeof value !== 'object') return String(value);
  return Object.entries(value)
    .map(([name, v]) => `${name} ${spell(v)}`)
    .join('; ');
}
