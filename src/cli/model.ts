// A model and its tokenizer for a command: found, fetched and loaded with progress, and described in a line. Adapters
// too.

import { stat } from 'node:fs/promises';
import { basename, parse } from 'node:path';
import { tokenizerOf } from '../io/autoTokenizer.js';
import { isHubId, pinnedModels, resolveModel, type DownloadProgress, type ResolvedModel } from '../io/resolve.js';
import type { TensorFile } from '../io/tensorFile.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { loadCausalLM, openResolved } from '../models/auto.js';
import type { CausalLM } from '../models/causalLM.js';
import type { LoadProgress } from '../models/weights.js';
import { loadReft } from '../reft/adapterFiles.js';
import type { ReftModel } from '../reft/reftModel.js';
import { openDevice } from '../devices.js';
import { sizeOf } from '../tensor/shape.js';
import { blamingInput, UsageError } from './errors.js';
import type { ModelFlags } from './options.js';
import { bytesText, countText, type Output, type Progress } from './output.js';

export interface LoadedModel {
  readonly model: CausalLM;
  readonly tokenizer: Tokenizer;
}

/** The files of a model; a path that is wrong is the user's mistake, a hub that does not answer is not. */
export async function findModel(
  name: string,
  options: { cacheDir?: string; revision?: string; signal?: AbortSignal },
  output: Output,
): Promise<ResolvedModel> {
  const there = await stat(name).catch(() => undefined);
  if (!there && !isHubId(name) && !Object.hasOwn(pinnedModels, name)) {
    throw new UsageError(
      `--model: ${JSON.stringify(name)} is no file or folder here, and no name the hub could have (organisation/name)`,
    );
  }
  const reporter = byteProgress(output, 'fetching');
  try {
    const find = (): Promise<ResolvedModel> => resolveModel(name, { ...options, progressCallback: reporter.update });
    const resolved = there ? await blamingInput(find) : await find();
    if (resolved.note) output.note(resolved.note);
    return resolved;
  } finally {
    reporter.stop();
  }
}

export async function loadModel(flags: ModelFlags, output: Output, signal?: AbortSignal): Promise<LoadedModel> {
  let tokenizer: Tokenizer | undefined;
  const model = await loadModelAlone(flags, output, signal, async resolved => {
    tokenizer = await tokenizerOf(resolved);
  });
  return { model, tokenizer: tokenizer as Tokenizer };
}

/**
 * A model without its tokenizer. Opens the device first, so that nothing is fetched for one that is not there;
 * `beforeLoading` sees what was found before its weights are read.
 */
export async function loadModelAlone(
  flags: ModelFlags,
  output: Output,
  signal?: AbortSignal,
  beforeLoading?: (resolved: ResolvedModel) => Promise<void>,
): Promise<CausalLM> {
  const { model: name, device, threads, dtype, weights, cacheDir, revision } = flags;
  if (weights === 'stored' && dtype === 'f64')
    throw new UsageError('--weights: stored computes in f32; leave out --dtype f64, or give --weights f32');
  if (threads !== undefined && device === 'webgpu')
    throw new UsageError('--threads: for the CPU, and --device is webgpu');
  const backend = await openDevice(device, { threads });
  const resolved = await findModel(
    name,
    { ...(cacheDir ? { cacheDir } : {}), ...(revision ? { revision } : {}), ...(signal ? { signal } : {}) },
    output,
  );
  await beforeLoading?.(resolved);
  const checkpoint = await openResolved(resolved);
  const title = modelTitle(name, resolved);
  const dtypes = dtypeCounts(checkpoint.file);
  const reporter = byteProgress(output, 'loading');
  try {
    const model = await loadCausalLM(checkpoint, {
      device: backend,
      dtype,
      progressCallback: reporter.update,
      ...(weights ? { weights } : {}),
      ...(signal ? { signal } : {}),
    });
    const { modelType, layers } = model.config;
    const mostly = [...dtypes].sort((a, b) => b[1] - a[1])[0]?.[0] ?? dtype;
    reporter.stop();
    output.note(
      `${title}  ${modelType}, ${layers} layers, ${countText(model.parameterCount)} parameters, ${mostly}  (${backend.name}, ${dtype})`,
    );
    return model;
  } finally {
    reporter.stop();
  }
}

/** The adapter of --adapter on a model, at the strength of --scale; null without one. */
export async function loadAdapter(
  { model, tokenizer }: LoadedModel,
  { adapter, scale }: { adapter?: string; scale?: number },
  output: Output,
): Promise<ReftModel | null> {
  if (adapter === undefined) {
    if (scale !== undefined) throw new UsageError('--scale: needs an --adapter');
    return null;
  }
  const reft = await loadReft(model, adapter, {
    onWarning: message => {
      output.note(message);
    },
  });
  reft.tokenizer = tokenizer;
  if (scale !== undefined) for (const intervention of reft.interventions) intervention.scale = scale;
  return reft;
}

/** A file by its name; a folder by its own, or by the name it was asked for where it lies in a cache. */
export function modelTitle(asked: string, resolved: ResolvedModel): string {
  if (resolved.kind === 'folder') return resolved.from === 'path' ? basename(resolved.path) : asked;
  return parse(resolved.path).name;
}

/** Numbers stored in each type. */
export function dtypeCounts(file: TensorFile): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { dtype, shape } of file.tensors.values()) counts.set(dtype, (counts.get(dtype) ?? 0) + sizeOf(shape));
  return counts;
}

/** A progress display that opens when the first report of a file comes. */
function byteProgress(
  output: Output,
  verb: string,
): { update: (progress: LoadProgress | DownloadProgress) => void; stop: () => void } {
  let current: { file: string; total: number; progress: Progress } | undefined;
  const stop = (): void => {
    current?.progress.stop();
    current = undefined;
  };
  return {
    update({ file, loaded, total }) {
      if (current?.file !== file || current.total !== total) {
        stop();
        current = { file, total, progress: output.progress(`${verb} ${basename(file)}`, total, bytesText) };
      }
      current.progress.update(loaded);
    },
    stop,
  };
}
