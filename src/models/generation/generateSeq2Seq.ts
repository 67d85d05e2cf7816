// Generation of a model of two stacks: the encoder reads all inputs once, then the decoder writes a token a step,
// beginning with its start token. All rows of the decoder are of one length, so that it has no padding.

import { keep, scope } from '../../autograd/scope.js';
import { noGrad } from '../../autograd/tape.js';
import { checkIds } from '../../io/tokenIds.js';
import { checkOptionKeys, type OptionKeys } from '../../optionKeys.js';
import { nextMacrotask } from '../../tensor/macrotask.js';
import { roundedProducts } from '../../tensor/rounding.js';
import { Tensor } from '../../tensor/tensor.js';
import { Random } from '../../tensor/threefry.js';
import { KVCache } from '../cache.js';
import { contextNote } from '../config.js';
import { readAndFree, type Generated, type StepLayout } from './engine.js';
import { generateKeys, promptList, promptRows, withDefaults, type GenerateOptions, type Prompt } from './generate.js';
import type { SiteEdit } from '../patch.js';
import { checkSampling, sample } from './sampling.js';
import type { CrossStates } from '../run.js';
import type { Seq2SeqLM, Seq2SeqOptions } from '../seq2seqLM.js';

/** Where the tokens of each stack lie that a step runs, by its name: the encoder's are in the first step alone. */
export type StepLayouts = Readonly<Record<string, StepLayout>>;

/** Edits for a step; what trained edits give. */
export interface Seq2SeqEdits {
  editsFor(layouts: StepLayouts): readonly SiteEdit[];
}

/** `useCache: false` runs the encoder again each step, too. The repetition penalty looks at what the decoder wrote. */
export interface Seq2SeqGenerateOptions extends Omit<GenerateOptions, 'edits'> {
  readonly edits?: Seq2SeqEdits;
  /** What the decoder begins with, each row alike; default its start token. */
  readonly decoderPrompt?: readonly number[];
}

const keys: OptionKeys<Seq2SeqGenerateOptions> = { ...generateKeys, decoderPrompt: true };

/** What the encoder is given: rows of ids with their ends aligned, or features. */
interface Input {
  readonly options: Seq2SeqOptions;
  readonly layout: StepLayout;
}

function inputOf(model: Seq2SeqLM, rows: readonly number[][], features: Tensor | null): Input {
  const batch = features ? features.shape[0] : rows.length;
  const layout = (width: number, starts: Int32Array, lengths: readonly number[]): StepLayout => ({
    phase: 'prompt',
    batch,
    width,
    starts,
    promptLengths: lengths,
    lengths,
    ids: rows,
    rowOf: Int32Array.from({ length: batch }, (_, b) => b),
  });
  const { stem } = model.parts;
  if (features && stem) {
    const [, width] = stem.shapeOf(features);
    return {
      options: { inputFeatures: features },
      layout: layout(width, new Int32Array(batch), new Array<number>(batch).fill(width)),
    };
  }
  const lengths = rows.map(row => row.length);
  const width = Math.max(...lengths);
  const starts = Int32Array.from(lengths, n => width - n);
  const inputIds = new Int32Array(batch * width).fill(model.config.padTokenId ?? 0);
  const attentionMask = new Int32Array(batch * width);
  rows.forEach((row, b) => {
    inputIds.set(row, b * width + starts[b]);
    attentionMask.fill(1, b * width + starts[b], (b + 1) * width);
  });
  return { options: { inputIds, attentionMask, shape: [batch, width] }, layout: layout(width, starts, lengths) };
}

/** @throws RangeError or TypeError naming what is wrong with an input */
function rowsOf(model: Seq2SeqLM, prompts: readonly Prompt[]): number[][] {
  const rows = promptRows(prompts, model.config.vocabSize);
  const { maxPositions } = model.config.encoder;
  rows.forEach((row, b) => {
    if (row.length === 0) throw new RangeError(`generate: prompt ${b} is empty`);
    if (row.length > maxPositions)
      throw new RangeError(`generate: prompt ${b} has ${row.length} tokens; the encoder's context is ${maxPositions}`);
  });
  return rows;
}

export async function generateSeq2Seq(
  model: Seq2SeqLM,
  inputs: Prompt | readonly Prompt[] | Tensor,
  given: Seq2SeqGenerateOptions,
): Promise<Generated[]> {
  checkOptionKeys('generate', given, keys);
  const options = withDefaults(model, given);
  const { config, name } = model;
  const { maxNewTokens = 64, seed = 0, useCache = true, rounded = true, signal } = options;
  if (!(Number.isInteger(maxNewTokens) && maxNewTokens > 0))
    throw new RangeError(`maxNewTokens: expected a whole number above 0, got ${maxNewTokens}`);
  checkSampling(options);
  const features = inputs instanceof Tensor ? inputs : null;
  if (Boolean(features) !== Boolean(model.parts.stem))
    throw new TypeError(`generate: ${name} reads ${features ? 'prompts of ids' : 'features [B, mels, T], a tensor'}`);
  const prompts = features ? [] : promptList(inputs as Prompt | readonly Prompt[]);
  const { options: read, layout: encoderLayout } = inputOf(model, rowsOf(model, prompts), features);
  const { batch } = encoderLayout;
  const { decoderPrompt = [config.decoderStartTokenId] } = options;
  const others = decoderPrompt.filter(id => id !== config.decoderStartTokenId);
  checkIds('decoderPrompt', others, config.vocabSize);
  const first = decoderPrompt.length;
  if (first === 0) throw new RangeError('decoderPrompt: expected at least one token');
  if (first + maxNewTokens > config.maxPositions)
    throw new RangeError(
      `generate: ${first} tokens and ${maxNewTokens} new ones; the decoder's context is ${config.maxPositions}${contextNote(config)}`,
    );
  const stops = Array.from({ length: batch }, (_, b) => {
    const prompt = prompts[b];
    const source = prompt && 'ids' in prompt ? prompt : undefined;
    return new Set(options.stopTokenIds ?? model.endTokenIds(options.tokenizer, source));
  });
  const randoms = stops.map((_, b) => new Random(seed, b));
  const results = stops.map((): number[] => []);
  const finished = stops.map(() => false);
  const cache = useCache ? new KVCache(first + Math.min(maxNewTokens, 256)) : undefined;
  const filler = config.padTokenId ?? 0;
  let encoded: CrossStates | undefined;
  let promptSeconds = 0;
  const begin = performance.now();
  let aborted = false;

  try {
    for (let step = 0; step < maxNewTokens && finished.includes(false); step++) {
      if (signal?.aborted) {
        aborted = true;
        break;
      }
      const ids = results.map(row => [...decoderPrompt, ...padded(row, step, filler)]);
      const whole = step === 0 || !cache;
      const width = whole ? first + step : 1;
      const decoder: StepLayout = {
        phase: whole ? 'prompt' : 'token',
        batch,
        width,
        starts: new Int32Array(batch).fill(width - first - step),
        promptLengths: ids.map(() => first),
        lengths: ids.map(() => first + step),
        ids,
        rowOf: encoderLayout.rowOf,
      };
      const layouts: StepLayouts = encoded ? { decoder } : { encoder: encoderLayout, decoder };
      const made = noGrad(() =>
        roundedProducts(
          () =>
            scope(() => {
              const output = model.forward({
                ...(encoded ? { encoded } : read),
                decoderInputIds: Int32Array.from(ids.flatMap(row => row.slice(-width))),
                decoderShape: [batch, width],
                ...(cache ? { cache } : {}),
                edits: options.edits?.editsFor(layouts) ?? [],
                logitsAt: Int32Array.from(ids, (_, b) => (b + 1) * width - 1),
              });
              if (cache && !encoded) encoded = kept(output.encoded);
              return output.logits;
            }),
          rounded,
        ),
      );
      const logits = await readAndFree(made);
      results.forEach((row, b) => {
        if (finished[b]) return;
        const place = `${name}: new token ${step} of prompt ${b}`;
        const next = logits.subarray(b * config.vocabSize, (b + 1) * config.vocabSize);
        const id = sample(
          next,
          [...decoderPrompt, ...row].filter(id => id >= 0),
          options,
          randoms[b],
          place,
        );
        row.push(id);
        options.onToken?.(b, id);
        if (stops[b].has(id)) finished[b] = true;
      });
      if (step === 0) promptSeconds = (performance.now() - begin) / 1000;
      await nextMacrotask();
    }
  } finally {
    cache?.dispose();
    for (const tensor of encoded ? tensorsOf(encoded) : []) tensor.storage.dispose();
  }
  const decodeSeconds = (performance.now() - begin) / 1000 - promptSeconds;
  return results.map((ids, b) => ({
    ids,
    finish: finished[b] ? 'stop' : aborted ? 'aborted' : 'length',
    promptSeconds,
    decodeSeconds,
  }));
}

/** Rows that ended early are filled up; what they say no longer matters. */
const padded = (ids: readonly number[], length: number, filler: number): number[] =>
  Array.from({ length }, (_, i) => ids[i] ?? filler);

const tensorsOf = ({ states, tokens }: CrossStates): Tensor[] => [states, ...tokens.bounds.tensors];

/** The encoder's states for all steps to come. */
function kept({ states, tokens }: CrossStates): CrossStates {
  for (const tensor of tensorsOf({ states, tokens })) keep(tensor);
  return { states, tokens };
}
