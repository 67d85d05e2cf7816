// Options that several commands share, and the parsers that turn their words into checked values. Every parser refuses
// with one line that commander puts the option's name in front of.

import { InvalidArgumentError, Option, type Command } from 'commander';
import type { WeightDType, WeightForm } from '../models/weights.js';
import type { DeviceName } from '../devices.js';
import { parsePositions, type NewTokens } from '../reft/positions.js';

export interface ModelFlags {
  model: string;
  device: DeviceName;
  threads?: number;
  dtype: WeightDType;
  weights?: WeightForm;
  cacheDir?: string;
  revision?: string;
}

export interface SamplingFlags {
  maxNewTokens?: number;
  temperature: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  seed: number;
}

export function addModelOptions(command: Command): Command {
  return command
    .requiredOption(
      '--model <model>',
      'a folder, a .gguf or llama2.c file, the alias smollm2-135m, or a model of the hub',
    )
    .addOption(new Option('--device <device>', 'where to compute').choices(['auto', 'cpu', 'webgpu']).default('auto'))
    .option('--threads <n>', 'threads of the CPU; results do not depend on it (default: all cores)', wholeNumber(1))
    .addOption(new Option('--dtype <dtype>', 'type to compute in').choices(['f32', 'f64']).default('f32'))
    .addOption(
      new Option(
        '--weights <form>',
        'matrices in memory: as stored (f16, bf16, Q8_0, Q4_0, Q4_1), or decoded to f32 (default: stored)',
      ).choices(['stored', 'f32']),
    )
    .option('--cache-dir <dir>', 'where downloaded models are kept')
    .option('--revision <revision>', 'branch, tag or commit of a model of the hub');
}

export function addSamplingOptions(command: Command): Command {
  return command
    .option(
      '--max-new-tokens <n>',
      'most tokens to generate (default: 128, or what the context leaves)',
      wholeNumber(1),
    )
    .option('--temperature <t>', '0 always takes the most likely token', number({ min: 0 }), 0)
    .option('--top-k <k>', 'sample among the k most likely tokens', wholeNumber(1))
    .option(
      '--top-p <p>',
      'sample among the tokens that hold this share of the probability',
      number({ above: 0, max: 1 }),
    )
    .option('--repetition-penalty <p>', 'above 1 makes tokens seen so far less likely', number({ above: 0 }))
    .option('--seed <n>', 'seed of the sampling', wholeNumber(0), 0);
}

export function addAdapterOption(command: Command): Command {
  return command
    .option('--adapter <dir>', 'a folder that reft train saved')
    .option(
      '--scale <c>',
      "strength of the adapter's edits: 0 is the base, 1 as trained (default: as saved)",
      number({}),
    );
}

export function addJsonOption(command: Command): Command {
  return command.option('--json', 'write JSON lines to stdout, and nothing else there', false);
}

export function wholeNumber(min: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < min) {
      throw new InvalidArgumentError(`Expected a whole number of at least ${min}.`);
    }
    return value;
  };
}

export function number({
  min = -Infinity,
  above = -Infinity,
  below = Infinity,
  max = Infinity,
}): (text: string) => number {
  const bounds = [
    min > -Infinity && `at least ${min}`,
    above > -Infinity && `above ${above}`,
    below < Infinity && `below ${below}`,
    max < Infinity && `at most ${max}`,
  ]
    .filter(Boolean)
    .join(' and ');
  return text => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value) && value >= min && value > above && value < below && value <= max)
      return value;
    throw new InvalidArgumentError(`Expected a number${bounds ? ` ${bounds}` : ''}.`);
  };
}

/** Bytes of each unit: decimal ones as `bytesText` writes them, and binary ones. */
const byteUnits: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** `2GB`, `512MiB`, `1.5GB` or a number of bytes, as bytes. */
export function byteSize(text: string): number {
  const [, count, unit = 'B'] = /^(\d+(?:\.\d+)?)([A-Za-z]+)?$/.exec(text) ?? [];
  const bytes = Object.hasOwn(byteUnits, unit) ? Number(count) * byteUnits[unit] : NaN;
  if (Number.isSafeInteger(Math.round(bytes)) && (unit !== 'B' || Number.isInteger(bytes))) return Math.round(bytes);
  throw new InvalidArgumentError(
    `Expected a size like 2GB, 512MiB or 0: a number and one of ${Object.keys(byteUnits).join(', ')}, or a number of bytes.`,
  );
}

/** `15`, `0,3,6` or `all`. */
export function layers(text: string): number[] | 'all' {
  if (text === 'all') return 'all';
  if (!/^\d+(,\d+)*$/.test(text)) throw new InvalidArgumentError('Expected layer numbers like 15 or 0,3,6, or all.');
  return text.split(',').map(Number);
}

/** `l1`, `f7+l7`, `all` or `0,3,-1`; kept as the text it is. */
export function positions(text: string): string {
  try {
    parsePositions(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return text;
}

/** `all`, `none`, `first:8` or `every:2`. */
export function newTokens(text: string): NewTokens {
  if (text === 'all' || text === 'none') return text;
  const [, which, count] = /^(first|every):([1-9]\d*)$/.exec(text) ?? [];
  if (which === undefined || !Number.isSafeInteger(Number(count))) {
    throw new InvalidArgumentError('Expected all, none, first:N or every:N.');
  }
  return which === 'first' ? { first: Number(count) } : { every: Number(count) };
}
