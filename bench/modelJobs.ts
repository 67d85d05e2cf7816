// The jobs on SmolLM2: training steps, a prompt, decoding, each measured on a model that it opens itself, so that a job
// can have a process of its own and its memory can be told. Shapes are those of the Python baseline. Which bars they
// are held to is in table.ts.

import { performance } from 'node:perf_hooks';
import type { Backend } from '../src/backends/backend.js';
import type { CausalLM } from '../src/models/causalLM.js';
import type { WeightForm } from '../src/models/weights.js';
import {
  AutoModelForCausalLM,
  getReftModel,
  mixEdits,
  ReftTrainer,
  type Example,
  type GenerateOptions,
  type ReftConfig,
} from '../src/index.js';
import { Random } from '../src/tensor/threefry.js';

export interface JobOptions {
  readonly backend: Backend;
  readonly weights: WeightForm;
  /** Fewest repeats: for trying out, not for figures. */
  readonly quick: boolean;
}

/** What a job measured, by name: seconds, tokens per second, bytes, GFLOP/s. */
export type Figures = Readonly<Record<string, number>>;

const model = 'smollm2-135m';

async function open({ backend, weights }: JobOptions): Promise<{ base: CausalLM; loadSeconds: number }> {
  const begin = performance.now();
  const base = await AutoModelForCausalLM.fromPretrained(model, { device: backend, weights });
  return { base, loadSeconds: (performance.now() - begin) / 1000 };
}

/** Random tokens, the same each time: no two rows share a prefix. */
function tokens(count: number, seed: number): Int32Array {
  const random = new Random(1, seed);
  return Int32Array.from({ length: count }, () => 3 + Math.floor(random.next() * 48_990));
}

export function examples(batch: number, length: number, prompt: number): Example[] {
  return Array.from({ length: batch }, (_, b) => {
    const ids = tokens(length, b);
    return { ids, promptLength: prompt, labels: ids.slice().fill(-100, 0, prompt), truncated: 0, where: `row ${b}` };
  });
}

/** Seconds of each step over one batch that is the whole epoch; the first one computes what the others reuse. */
export async function stepSeconds(
  base: CausalLM,
  config: ReftConfig,
  rows: readonly Example[],
  steps: number,
  reuse = true,
): Promise<number[]> {
  const trainer = new ReftTrainer(getReftModel(base, config), {
    examples: rows,
    batchSize: rows.length,
    steps,
    schedule: 'constant',
    reuse,
  });
  const seconds: number[] = [];
  for await (const step of trainer.steps()) seconds.push(step.seconds);
  trainer.dispose();
  return seconds;
}

interface TrainingJob {
  readonly config: ReftConfig;
  readonly rows: () => Example[];
  readonly steps: number;
}

const trainingJobs = {
  'few-shot': { config: { layers: [15], positions: 'l1', rank: 4 }, rows: () => examples(10, 52, 40), steps: 8 },
  'train-1': { config: { layers: [15], positions: 'l1', rank: 4 }, rows: () => examples(8, 128, 64), steps: 5 },
  // One edit a layer for all eight positions, as the baseline has it.
  'train-30': {
    config: { layers: 'all', positions: 'f4+l4', rank: 8, tied: true },
    rows: () => examples(8, 128, 64),
    steps: 4,
  },
} satisfies Record<string, TrainingJob>;

async function train({ config, rows, steps }: TrainingJob, options: JobOptions): Promise<Figures> {
  const { base, loadSeconds } = await open(options);
  const [first, ...later] = await stepSeconds(base, config, rows(), options.quick ? 2 : steps);
  return { loadSeconds, firstEpoch: first, step: Math.min(...later), peakBytes: 1024 * process.resourceUsage().maxRSS };
}

async function prefill(options: JobOptions): Promise<Figures> {
  const { base, loadSeconds } = await open(options);
  const prompt = tokens(512, 0);
  const rates: number[] = [];
  for (let i = 0; i < (options.quick ? 2 : 6); i++) {
    const [{ promptSeconds }] = await base.generate(prompt, { maxNewTokens: 1, stopTokenIds: [] });
    rates.push(512 / promptSeconds);
  }
  return { loadSeconds, first: rates[0], rate: Math.max(...rates) };
}

/** New tokens of each row a second, the prompt's time left out. */
async function decodeRate(
  from: Pick<CausalLM, 'generate'>,
  prompts: readonly Int32Array[],
  maxNewTokens: number,
): Promise<number> {
  const options: GenerateOptions = { maxNewTokens, stopTokenIds: [] };
  const [{ ids, decodeSeconds }] = await from.generate(prompts, options);
  return (ids.length - 1) / decodeSeconds;
}

async function decode(options: JobOptions): Promise<Figures> {
  const { base, loadSeconds } = await open(options);
  const prompts = [tokens(64, 0)];
  const rates: number[] = [];
  for (let i = 0; i < (options.quick ? 1 : 4); i++)
    rates.push(await decodeRate(base, prompts, options.quick ? 16 : 128));
  return {
    loadSeconds,
    rate: Math.max(...rates),
    residentBytes: process.memoryUsage.rss(),
    peakBytes: 1024 * process.resourceUsage().maxRSS,
  };
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Pairs of runs, who goes first taking turns: the median rate of each, and the median of the pairs' ratios. */
async function pairs(
  count: number,
  a: () => Promise<number>,
  b: () => Promise<number>,
): Promise<{ a: number; b: number; ratio: number }> {
  const both: [number, number][] = [];
  await a();
  await b();
  for (let i = 0; i < count; i++) {
    if (i % 2 === 0) both.push([await a(), await b()]);
    else both.push(await b().then(async second => [await a(), second]));
  }
  return { a: median(both.map(p => p[0])), b: median(both.map(p => p[1])), ratio: median(both.map(p => p[0] / p[1])) };
}

const tenLayers = Array.from({ length: 10 }, (_, i) => 3 * i);

/** Ten edits of the prompt alone against none, 128 new tokens a run as in `decode`. */
async function decodeEdits(options: JobOptions): Promise<Figures> {
  const { base } = await open(options);
  const edited = getReftModel(base, { layers: tenLayers, positions: 'l1', rank: 8 });
  const prompts = [tokens(64, 0)];
  const length = options.quick ? 8 : 128;
  const { a, b, ratio } = await pairs(
    options.quick ? 3 : 30,
    () => decodeRate(edited, prompts, length),
    () => decodeRate(base, prompts, length),
  );
  return { rate: a, unedited: b, ratio };
}

/** Numbers in the matrices that a new token passes; a tied embedding is the head. */
function matrixNumbers({ config, parameterCount }: CausalLM): number {
  return parameterCount - (config.tiedHead ? 0 : config.vocabSize * config.hiddenSize);
}

/**
 * Sixteen rows that edit every token in ten layers, each with an adapter of its own, against the same with one adapter
 * for all.
 */
async function decode16(options: JobOptions): Promise<Figures> {
  const { base } = await open(options);
  const adapter = (seed: number) =>
    getReftModel(base, { layers: tenLayers, positions: 'all', rank: 8, seed: 100 * seed });
  const sets = Array.from({ length: 16 }, (_, i) => adapter(i));
  const prompts = sets.map((_, i) => tokens(16, i));
  const length = options.quick ? 4 : 16;
  const mixed = mixEdits(sets);
  const { a, b, ratio } = await pairs(
    options.quick ? 2 : 10,
    () => decodeRate(mixed, prompts, length),
    () => decodeRate(sets[0], prompts, length),
  );
  return { steps: a, one: b, ratio, gflops: (a * 16 * 2 * matrixNumbers(base)) / 1e9 };
}

export const modelJobs: Readonly<Record<string, (options: JobOptions) => Promise<Figures>>> = {
  ...Object.fromEntries(
    Object.entries(trainingJobs).map(([name, job]) => [name, (options: JobOptions) => train(job, options)]),
  ),
  'prefill-512': prefill,
  'decode-1': decode,
  'decode-edits': decodeEdits,
  'decode-16': decode16,
};

export { decodeRate, open as openModel, tokens };
