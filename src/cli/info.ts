// `reft info`: what a path holds, without loading weights: a model, a file of tensors, or an adapter.

import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { tokenizerOf } from '../io/autoTokenizer.js';
import { openResolved } from '../models/auto.js';
import { componentsOf, widthAt, type StackSites } from '../models/sites.js';
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
      ...configFacts(config),
      tokenizer: await tokenizerFacts(resolved),
    };
  } finally {
    await file.close();
  }
}

/** Keys of configurations that are sizes, by what they are called here. */
const sizeNames: Readonly<Record<string, string>> = {
  layers: 'layers',
  hiddenSize: 'hiddenSize',
  intermediateSize: 'intermediateSize',
  heads: 'heads',
  kvHeads: 'kvHeads',
  headDim: 'headDim',
  vocabSize: 'vocabSize',
  maxPositions: 'context',
  tiedHead: 'tiedHead',
};

/** Sizes, and where edits can stand in each layer, with the width of the hidden states there; of each stack by name. */
function configFacts(config: object): Facts {
  if (!('layers' in config)) {
    const stacks = Object.entries(config).filter(([, value]) => typeof value === 'object' && 'layers' in value);
    return Object.fromEntries(stacks.map(([name, stack]) => [name, configFacts(stack as object)]));
  }
  const given = config as Facts;
  const sizes = Object.entries(sizeNames).flatMap(([key, name]) => (key in given ? [[name, given[key]] as const] : []));
  const stack = config as StackSites;
  return {
    ...Object.fromEntries(sizes),
    sites: Object.fromEntries(componentsOf(stack).map(component => [component, widthAt(component, stack)])),
  };
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
