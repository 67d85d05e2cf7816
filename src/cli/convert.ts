// `reft convert`: edits from one format into another. The formats are in ../reft/formats; here are the options and what
// is said.

import { stat } from 'node:fs/promises';
import { Option, type Command } from 'commander';
import { writeFileAtomic } from '../io/atomicWriteNode.js';
import { adapterToFiles } from '../reft/adapterFiles.js';
import { writeFolder } from '../reft/adapterFilesNode.js';
import { editActivations, type EditActivation } from '../reft/editOp.js';
import { controlVectorOf } from '../reft/formats/controlVector.js';
import { loadEditFolder } from '../reft/formats/editFolder.js';
import { pyreftConfigFile, pyreftToFiles } from '../reft/formats/pyreftFolder.js';
import { findFiles, isControlVector } from '../reft/ownFilesNode.js';
import { blamingInput, Interrupted, UsageError } from './errors.js';
import { onInterrupt } from './interrupt.js';
import { loadModelAlone } from './model.js';
import { addJsonOption, addModelOptions, positions, type ModelFlags } from './options.js';
import { Output } from './output.js';

const targets = ['reft', 'pyreft', 'control-vector'] as const;

interface ConvertFlags extends ModelFlags {
  from: string;
  to: (typeof targets)[number];
  out: string;
  positions?: string;
  activation?: EditActivation;
  overwrite: boolean;
  json: boolean;
}

export function addConvertCommand(program: Command): void {
  const command = program
    .command('convert')
    .description(
      "Turn edits into another format: ours, pyreft's folders, or a control vector for llama.cpp. AdapterHub's ReFT folders are read.",
    );
  addModelOptions(command)
    .requiredOption('--from <dir>', 'the edits: a folder of ours, of pyreft or of AdapterHub')
    .addOption(new Option('--to <format>', 'what to write').choices(targets).default('reft'))
    .requiredOption('--out <path>', 'folder to write, or the .gguf file of a control vector')
    .option(
      '--positions <positions>',
      'positions of a pyreft folder, which does not save them (default: l1, or f1+l1 for untied pairs)',
      positions,
    )
    .addOption(
      new Option('--activation <name>', 'activation of a pyreft folder, which does not save it').choices(
        editActivations,
      ),
    )
    .option('--overwrite', 'replace edits of this format that are in --out', false);
  addJsonOption(command).action(convert);
}

async function convert(flags: ConvertFlags): Promise<void> {
  const output = new Output(flags.json);
  if (flags.to === 'control-vector') await mayReplaceFile(flags);
  const interruption = onInterrupt(output, 'ending');
  try {
    await convertModel(flags, output, interruption.signal);
  } catch (error) {
    throw (error as Error).name === 'AbortError'
      ? new Interrupted('interrupted; nothing was written', { cause: error })
      : error;
  } finally {
    await interruption.dispose();
  }
}

async function convertModel(flags: ConvertFlags, output: Output, signal: AbortSignal): Promise<void> {
  const model = await loadModelAlone(flags, output, signal);
  const pyreft = {
    ...(flags.positions === undefined ? {} : { positions: flags.positions }),
    ...(flags.activation ? { activation: flags.activation } : {}),
  };
  const { reft, format } = await loadEditFolder(model, flags.from, {
    pyreft,
    onWarning: message => {
      output.note(message);
    },
  });
  if (format === 'pyreft') output.note('pyreft saves neither positions nor activation: check the ones below');
  output.note(reft.summary());
  signal.throwIfAborted();
  await blamingInput(async () => {
    if (flags.to === 'control-vector') await writeFileAtomic(flags.out, await controlVectorOf(reft));
    else await writeEdits(flags, await (flags.to === 'pyreft' ? pyreftToFiles : adapterToFiles)(reft), output);
  });
  output.say(`${format} ${flags.from} as ${flags.to} in ${flags.out}`);
  output.event('done', {
    from: format,
    to: flags.to,
    out: flags.out,
    interventions: reft.interventions.length,
    parameters: reft.parameterCount,
  });
}

async function mayReplaceFile({ out, overwrite }: ConvertFlags): Promise<void> {
  if (
    !(await stat(out).then(
      () => true,
      () => false,
    ))
  )
    return;
  if (!(await isControlVector(out)))
    throw new UsageError(`--out: ${out} is there, is no control vector and is not replaced`);
  if (!overwrite) throw new UsageError(`--out: ${out} is there; --overwrite replaces it`);
}

async function writeEdits(
  { out, overwrite }: ConvertFlags,
  files: ReadonlyMap<string, Uint8Array>,
  output: Output,
): Promise<void> {
  const { ours } = await findFiles(out, [...files.keys()]);
  if (ours.length > 0 && !overwrite)
    throw new UsageError(`--out: ${out} holds ${ours.join(', ')}; --overwrite replaces what is there`);
  const left = await writeFolder(out, files, files.has(pyreftConfigFile) ? pyreftConfigFile : undefined);
  if (left.length > 0) output.note(`${out}: ${left.join(', ')} was not written by reft and is left as it is`);
}
