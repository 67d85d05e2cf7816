// What a training run needs to go on bit for bit: raw parameters (an orthogonal map's own, not R), the optimizer's
// moments, the step, and everything that must be the same in both runs, and what was measured so far.
// `trainer_state.safetensors` is all of it, its header included, so that one rename makes a checkpoint;
// `trainer_state.json` shows the same state to people. The adapter's files lie beside them.

import { z } from 'zod';
import { memorySource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import { parseJsonObject } from '../io/strictJson.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkedBy, type Files } from '../adapt/files.js';
import type { EvaluationCourseState } from './evaluationCourse.js';
import { finiteEntry } from '../reft/savedFiles.js';
import { recordSchema, type TrainingRecord } from './trainingRecord.js';

export const stateTensorsFile = 'trainer_state.safetensors';
export const stateFile = 'trainer_state.json';
const formatVersion = 1;

const scalar = z.union([z.string(), z.number(), z.boolean()]);

const schema = z.strictObject({
  format: z.literal('reft-trainer'),
  format_version: z.literal(formatVersion),
  /** Steps done. */
  step: z.number().int().nonnegative(),
  /** Updates the optimizer has made. */
  optimizer_step: z.number().int().nonnegative(),
  /** Where the run has rows to evaluate: what their losses were. */
  evaluation: z
    .strictObject({
      evaluated: z.number().int().nonnegative(),
      best: z.strictObject({ step: z.number().int().positive(), loss: z.number() }).nullable(),
      progress: z.number().nullable(),
      waited: z.number().int().nonnegative(),
    })
    .optional(),
  /** What must be the same to go on: options, data, base, edits. */
  settings: z.record(z.string(), scalar),
});

export type TrainerSettings = Readonly<Record<string, z.infer<typeof scalar>>>;

export interface TrainerState {
  readonly step: number;
  readonly optimizerStep: number;
  readonly evaluation?: EvaluationCourseState | undefined;
  readonly settings: TrainerSettings;
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly record: TrainingRecord;
}

/** The state's own file first: its rename is the checkpoint. @throws Error naming a tensor that is not finite */
export async function stateToFiles(state: TrainerState): Promise<Map<string, Uint8Array>> {
  const { step, optimizerStep, evaluation, settings, tensors, record } = state;
  const written: z.infer<typeof schema> = {
    format: 'reft-trainer',
    format_version: formatVersion,
    step,
    optimizer_step: optimizerStep,
    ...(evaluation ? { evaluation } : {}),
    settings: { ...settings },
  };
  const entries: SafetensorsEntry[] = [];
  for (const [name, tensor] of tensors)
    entries.push(await finiteEntry(name, tensor, tensor.dtype === 'f64' ? 'F64' : 'F32'));
  return new Map([
    [stateTensorsFile, writeSafetensors(entries, { state: JSON.stringify(written), record: JSON.stringify(record) })],
    [stateFile, new TextEncoder().encode(`${JSON.stringify(written, null, 2)}\n`)],
  ]);
}

/**
 * Reads a state back: `restore` is given values of the shapes and types of `expected`, only after everything was
 * checked.
 * @throws FormatError for bad files; RangeError naming the first setting that differs
 */
export async function stateFromFiles(
  files: Files,
  source: string,
  settings: TrainerSettings,
  expected: ReadonlyMap<string, Tensor>,
  restore: (state: TrainerState) => void,
): Promise<void> {
  const bytes = files.get(stateTensorsFile);
  if (!bytes) throw new FormatError(source, `is no checkpoint: it has no ${stateTensorsFile}`);
  const file = await openSafetensors(memorySource(bytes, `${source}/${stateTensorsFile}`));
  const text = file.metadata.state;
  if (typeof text !== 'string') throw new FormatError(file.name, 'has no state in its header');
  const parsed = <T>(as: z.ZodType<T>, json: string, what: string): T =>
    checkedBy(as, parseJsonObject(new TextEncoder().encode(json), file.name, what), file.name);
  const state = parsed(schema, text, 'the state');
  // A checkpoint of an earlier version has no record.
  const record = parsed(
    recordSchema,
    (file.metadata['record'] as string | undefined) ?? '{"losses":[],"evaluation":[]}',
    'the record',
  );
  for (const name of new Set([...Object.keys(settings), ...Object.keys(state.settings)])) {
    if (settings[name] === state.settings[name]) continue;
    throw new RangeError(
      `resume: ${name} is ${settings[name] ?? 'absent'}, but ${source} was made with ${state.settings[name] ?? 'none'}; a run can only go on unchanged`,
    );
  }
  for (const name of file.tensors.keys())
    if (!expected.has(name)) throw new FormatError(file.name, `has a tensor '${name}' this run does not know`);
  const tensors = new Map<string, Tensor>();
  try {
    for (const [name, like] of expected) {
      const stored = file.tensors.get(name);
      const dtype = like.dtype === 'f64' ? 'F64' : 'F32';
      if (!stored) throw new FormatError(file.name, `has no tensor '${name}'`);
      if (stored.dtype !== dtype || stored.shape.join() !== like.shape.join()) {
        throw new FormatError(
          file.name,
          `'${name}' is ${stored.dtype} [${stored.shape}], expected ${dtype} [${like.shape}]`,
        );
      }
      const data = dtype === 'F64' ? await file.readFloat64(name) : await file.readFloat32(name);
      if (!(data as Float32Array).every(Number.isFinite))
        throw new FormatError(file.name, `'${name}' has numbers that are not finite`);
      tensors.set(name, create.from(data, like.shape, { dtype: like.dtype, backend: like.backend }));
    }
    restore({
      step: state.step,
      optimizerStep: state.optimizer_step,
      evaluation: state.evaluation,
      settings,
      tensors,
      record,
    });
  } finally {
    for (const t of tensors.values()) t.storage.dispose();
  }
}
