// `reft train`: rows to an adapter. The loop is the trainer's; here are its options, what is shown on the way, and what
// lies in --out at the end: the adapter, loss.svg and training.json, or a checkpoint when Ctrl-C came first. When --out
// may be written is outFolder.ts's business.

import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Option, type Command } from 'commander';
import { tokenizeRow, type Example } from '../data/examples.js';
import { parsePreferences, readRows, type PreferencePair, type Row } from '../data/index.js';
import { writeFilesAtomic } from '../io/atomicWriteNode.js';
import { readTextBounded } from '../io/openFileNode.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { components, type Component } from '../models/sites.js';
import { dropoutTargets, type DropoutTarget } from '../reft/applyEdit.js';
import { adapterModelFile, saveAdapter } from '../reft/adapterFiles.js';
import { orthogonalMapNames, type OrthogonalMapName } from '../nn/orthogonal/maps.js';
import type { ReftConfig } from '../reft/config.js';
import { editActivations, type EditActivation } from '../reft/editOp.js';
import { kindNames } from '../reft/defineEdit.js';
import { evaluate } from '../train/evaluate.js';
import type { KindName } from '../reft/kinds.js';
import { firstEdited } from '../reft/layout.js';
import type { NewTokens } from '../reft/positions.js';
import { getReftModel, type ReftModel } from '../reft/reftModel.js';
import { ReftTrainer } from '../reft/reftTrainer.js';
import { blamingInput, Interrupted, UsageError } from './errors.js';
import { onInterrupt } from './interrupt.js';
import { lossCurve } from './lossCurve.js';
import { loadModel } from './model.js';
import {
  addJsonOption,
  addModelOptions,
  byteSize,
  layers,
  newTokens,
  number,
  positions,
  wholeNumber,
  type ModelFlags,
} from './options.js';
import { OutFolder } from './outFolder.js';
import { bytesText, Output, type Progress } from './output.js';
import { addProfileOption, Profiling, type ProfileFlags } from './profile.js';

interface TrainFlags extends ModelFlags, ProfileFlags {
  data: string;
  out: string;
  intervention: KindName;
  layers?: number[] | 'all';
  positions: string;
  newTokens: NewTokens;
  rank: number;
  tied: boolean;
  component: Component;
  orthogonal: OrthogonalMapName;
  activation: EditActivation;
  dropout: number;
  dropoutOn: DropoutTarget;
  identityStart: boolean;
  epochs?: number;
  steps?: number;
  batchSize: number;
  accumulate: number;
  lr: number;
  schedule: 'linear' | 'cosine' | 'constant';
  warmup: number;
  weightDecay: number;
  clip: number;
  maxLength?: number;
  seed: number;
  eval?: string;
  evalEvery?: number;
  keepBest: boolean;
  earlyStopping?: number;
  minDelta?: number;
  recompute: boolean;
  reuseBudget?: number;
  reuseDir?: string;
  reuseDirBudget?: number;
  saveEvery?: number;
  dpo?: number;
  resume: boolean;
  overwrite: boolean;
  json: boolean;
}

export function addTrainCommand(program: Command): void {
  const command = program
    .command('train')
    .description('Train edits on the hidden states of a frozen model and save them as an adapter.');
  addModelOptions(command)
    .requiredOption(
      '--data <file>',
      'rows to learn: JSON lines of prompt/completion, messages, instruction/input/output or text',
    )
    .requiredOption('--out <dir>', 'folder for the adapter')
    .addOption(new Option('--intervention <kind>', 'kind of edit').choices(kindNames()).default('loreft'))
    .option('--layers <list>', '15, 0,3,6 or all (default: at one and two thirds of the depth)', layers)
    .option(
      '--positions <positions>',
      'l1, f1, f7+l7, all, none, numbers like 0,3,-1, match:/re/ or marker:text',
      positions,
      'l1',
    )
    .option('--new-tokens <which>', 'tokens of the answer to edit: all, none, first:N or every:N', newTokens, 'all')
    .option('--rank <r>', 'rank of each edit', wholeNumber(1), 4)
    .option('--tied', 'one edit a layer for the first and the last positions', false)
    .addOption(
      new Option('--component <site>', 'where in a block the edits stand').choices(components).default('block_output'),
    )
    .addOption(
      new Option('--orthogonal <map>', 'how R is kept orthonormal').choices(orthogonalMapNames).default('householder'),
    )
    .addOption(
      new Option('--activation <name>', 'activation inside the edit').choices(editActivations).default('linear'),
    )
    .option('--identity-start', 'begin with edits that change nothing', false)
    .option('--dropout <p>', 'dropout on what an edit adds', number({ min: 0, below: 1 }), 0)
    .addOption(
      new Option('--dropout-on <what>', 'dropout on what an edit adds, or on the whole edited state')
        .choices(dropoutTargets)
        .default('difference'),
    )
    .addOption(
      new Option('--epochs <n>', 'passes over the rows (default: 5)').argParser(wholeNumber(1)).conflicts('steps'),
    )
    .addOption(new Option('--steps <n>', 'updates, in place of epochs').argParser(wholeNumber(1)))
    .option('--batch-size <n>', 'rows a batch', wholeNumber(1), 4)
    .option('--accumulate <n>', 'batches an update', wholeNumber(1), 1)
    .option('--lr <rate>', 'learning rate', number({ above: 0 }), 4e-3)
    .addOption(
      new Option('--schedule <name>', 'course of the learning rate')
        .choices(['linear', 'cosine', 'constant'])
        .default('linear'),
    )
    .option(
      '--warmup <n>',
      'updates until the learning rate is reached, or below 1 their share of all',
      number({ min: 0 }),
      0,
    )
    .option('--weight-decay <w>', 'decoupled weight decay, not on R', number({ min: 0 }), 0)
    .option('--clip <norm>', 'bound on the norm of the gradient; 0 leaves it alone', number({ min: 0 }), 1)
    .option('--max-length <n>', 'most tokens of a row; longer prompts are cut on the left', wholeNumber(2))
    .option('--seed <n>', 'seed of initial values, order and dropout', wholeNumber(0), 0)
    .option('--eval <file>', 'rows that are not trained on, to measure the loss on as the run goes and at the end')
    .option('--eval-every <n>', 'steps between two measurements (default: those of an epoch)', wholeNumber(1))
    .option('--keep-best', 'save the parameters whose loss on the --eval rows was the least, not the last ones', false)
    .option('--early-stopping <n>', 'end after n measurements of --eval in a row without progress', wholeNumber(1))
    .option('--min-delta <loss>', 'what a loss must fall by to be progress (default: 0)', number({ min: 0 }))
    .option(
      '--save-every <n>',
      'steps between two checkpoints (default: 25 on a device that can be lost, else only on Ctrl-C)',
      wholeNumber(1),
    )
    .option('--recompute', 'less memory, more time: run the blocks of the model again in the backward pass', false)
    .option(
      '--reuse-budget <size>',
      'most memory for what a frozen model computes the same way each step (default: 1GiB)',
      byteSize,
    )
    .option(
      '--reuse-dir <dir>',
      'folder for what a frozen model computes the same way each step: room beyond memory, and for later runs',
    )
    .option(
      '--reuse-dir-budget <size>',
      'most bytes in that folder; what was used longest ago goes first (default: 16GiB)',
      byteSize,
    )
    .option(
      '--dpo <beta>',
      'rows are preferences, {"prompt" or "messages","chosen","rejected"}: prefer the chosen answers, beta near 0.1',
      number({ above: 0 }),
    )
    .addOption(new Option('--resume', 'continue from the checkpoint in --out').default(false).conflicts('overwrite'))
    .option('--overwrite', 'replace the adapter or the checkpoint that reft wrote into --out', false);
  addProfileOption(command, 'profile.json in --out');
  addJsonOption(command).action(train);
}

async function train(flags: TrainFlags): Promise<void> {
  const output = new Output(flags.json);
  const rows = flags.dpo === undefined ? await readRows(flags.data) : [];
  if (flags.dpo !== undefined && flags.eval !== undefined) throw new UsageError('--eval: not with --dpo');
  if (flags.reuseDirBudget !== undefined && flags.reuseDir === undefined)
    throw new UsageError('--reuse-dir-budget: has no meaning without --reuse-dir');
  for (const [flag, given, needed] of [
    ['--eval-every', flags.evalEvery !== undefined, '--eval'],
    ['--keep-best', flags.keepBest, '--eval'],
    ['--early-stopping', flags.earlyStopping !== undefined, '--eval'],
    ['--min-delta', flags.minDelta !== undefined, '--early-stopping'],
  ] as const) {
    const there = (needed === '--eval' ? flags.eval : flags.earlyStopping) !== undefined;
    if (given && !there) throw new UsageError(`${flag}: has no meaning without ${needed}`);
  }
  const evalRows = flags.eval === undefined ? undefined : await readRows(flags.eval);
  const out = await OutFolder.check(flags.out, flags);
  const { checkpoint } = out;

  const interruption = onInterrupt(output, 'ending after this step');
  const { signal } = interruption;
  let begun: ReftTrainer | undefined;
  try {
    const { model, tokenizer } = await loadModel(flags, output, signal);
    const reft = await blamingInput(() => getReftModel(model, reftConfig(flags, model.config.layers)));
    reft.tokenizer = tokenizer;
    reft.onWarning = message => {
      output.note(message);
    };
    const pairs = flags.dpo === undefined ? [] : await readPairs(flags, tokenizer);
    const examples =
      pairs.length > 0
        ? pairs.flatMap(({ chosen, rejected }) => [chosen, rejected])
        : await tokenize(rows, tokenizer, flags.maxLength);
    const evaluated = evalRows && (await tokenize(evalRows, tokenizer, flags.maxLength));
    const shown: { progress?: Progress } = {};
    describe(output, reft, examples);
    const profiling = new Profiling(flags, join(flags.out, 'profile.json'), model.backend, output);

    const trainer = new ReftTrainer(reft, {
      tokenizer,
      signal,
      ...(flags.dpo === undefined ? { examples } : { preferences: { pairs, beta: flags.dpo } }),
      ...(flags.steps !== undefined ? { steps: flags.steps } : { epochs: flags.epochs ?? 5 }),
      batchSize: flags.batchSize,
      gradientAccumulation: flags.accumulate,
      learningRate: flags.lr,
      schedule: flags.schedule,
      warmup: flags.warmup,
      weightDecay: flags.weightDecay,
      maxGradNorm: flags.clip,
      seed: flags.seed,
      recompute: flags.recompute,
      checkpoint: { directory: checkpoint, ...(flags.saveEvery === undefined ? {} : { everySteps: flags.saveEvery }) },
      ...(flags.resume ? { resume: checkpoint } : {}),
      ...(flags.reuseBudget === undefined ? {} : { reuseBudgetBytes: flags.reuseBudget }),
      ...(flags.reuseDir === undefined ? {} : { reuseDirectory: flags.reuseDir }),
      ...(flags.reuseDirBudget === undefined ? {} : { reuseDirectoryBudgetBytes: flags.reuseDirBudget }),
      ...(evaluated ? { evaluation: { examples: evaluated, every: flags.evalEvery } } : {}),
      keepBest: flags.keepBest,
      ...(flags.earlyStopping ? { earlyStopping: { patience: flags.earlyStopping, minDelta: flags.minDelta } } : {}),
      onStep: step => {
        profiling.mark(`step ${step.index}`);
        output.event('step', {
          step: step.index,
          total: step.total,
          epoch: step.epoch,
          loss: step.loss,
          learningRate: step.learningRate,
          gradNorm: step.gradNorm,
          seconds: step.seconds,
        });
        shown.progress?.update(step.index, `loss ${step.loss.toFixed(3)}  ${step.seconds.toFixed(2)} s/step`);
      },
      onEvaluation: ({ step, loss, perplexity, labelled }) => {
        profiling.mark(`evaluation ${step}`);
        output.event('evaluation', { step, loss, perplexity, labelled });
      },
    });
    await out.open(savedBytes(reft));
    const progress = (shown.progress = output.progress('training', trainer.totalSteps));
    begun = trainer;
    let result;
    try {
      result = await profiling.run(() => trainer.train());
    } finally {
      progress.stop();
    }
    if (result.aborted) {
      output.event('interrupted', { steps: result.steps, checkpoint });
      throw new Interrupted(
        `interrupted after step ${result.steps} of ${trainer.totalSteps}; saved ${checkpoint}; continue with the same command and --resume`,
      );
    }
    // With it, --resume ends what is cut off from here on.
    await trainer.saveCheckpoint(checkpoint);
    await saveAdapter(reft, flags.out);
    const { record } = trainer;
    const title = `${flags.intervention}, ${pairs.length > 0 ? `${pairs.length} pairs` : `${rows.length} rows`}`;
    await writeFilesAtomic(flags.out, [
      ['training.json', `${JSON.stringify(record)}\n`],
      ['loss.svg', await lossCurve(record.losses, { title, evaluation: record.evaluation })],
    ]);
    await out.removeCheckpoint();
    if (result.stoppedEarly) {
      const steps = `step ${result.steps} of ${trainer.totalSteps}`;
      output.say(`stopped after ${steps}: ${flags.earlyStopping} measurements of --eval without progress`);
    }
    if (flags.keepBest && result.best) {
      output.say(`kept the parameters after step ${result.best.step}, the best on the rows of --eval`);
    }
    output.say(
      `loss ${result.loss.toFixed(4)} over all ${flags.dpo === undefined ? 'labelled tokens' : 'pairs'}, ${result.steps} steps in ${result.seconds.toFixed(1)} s`,
    );
    const heldOut = evaluated && (await heldOutLosses(reft, evaluated));
    if (heldOut) {
      const { loss, frozenLoss } = heldOut;
      output.say(`loss ${loss.toFixed(4)} over the rows of --eval; the frozen model has ${frozenLoss.toFixed(4)}`);
    }
    output.say(
      `saved ${flags.out} (${bytesText((await stat(join(flags.out, adapterModelFile))).size)} of weights)  loss curve ${join(flags.out, 'loss.svg')}`,
    );
    const { steps, loss, seconds, trainableParameters, stoppedEarly, best } = result;
    output.event('done', {
      steps,
      loss,
      seconds,
      trainableParameters,
      adapter: flags.out,
      ...(heldOut ? { evaluation: { ...heldOut, best, stoppedEarly, keptBest: flags.keepBest } } : {}),
    });
  } catch (error) {
    if (signal.aborted && !begun)
      throw new Interrupted('interrupted before the first step; nothing was saved', { cause: error });
    const saved = begun?.lastSaved;
    if (saved && !(error as Error).message.includes(saved.directory)) {
      output.note(`${saved.directory} holds the run up to step ${saved.step}; --resume goes on from there`);
    }
    throw error;
  } finally {
    await out.close();
    await interruption.dispose();
  }
}

/**
 * A generous bound on what a run saves: parameters, those of the orthogonal maps, two moments of each and the best of
 * them, in f64 at most.
 */
const savedBytes = (reft: ReftModel): number => 2 ** 16 + 8 * 8 * reft.parameterCount;

function reftConfig(flags: TrainFlags, layerCount: number): ReftConfig {
  const third = (n: number): number => Math.min(layerCount - 1, Math.round((n * layerCount) / 3));
  return {
    kind: flags.intervention,
    layers: flags.layers ?? [...new Set([third(1), third(2)])],
    positions: flags.positions,
    rank: flags.rank,
    tied: flags.tied,
    newTokens: flags.newTokens,
    component: flags.component,
    orthogonal: flags.orthogonal,
    activation: flags.activation,
    dropout: flags.dropout,
    dropoutOn: flags.dropoutOn,
    seed: flags.seed,
    identityStart: flags.identityStart,
  };
}

/** The mean loss on rows that were not trained on, with the edits and without. */
async function heldOutLosses(
  reft: ReftModel,
  examples: readonly Example[],
): Promise<{ loss: number; frozenLoss: number }> {
  const [edited, frozen] = [await evaluate(reft, examples), await evaluate(reft.base, examples)];
  return { loss: edited.loss, frozenLoss: frozen.loss };
}

async function tokenize(rows: readonly Row[], tokenizer: Tokenizer, maxLength?: number): Promise<Example[]> {
  return blamingInput(() => rows.map(row => tokenizeRow(row, tokenizer, { maxLength })));
}

function describe(output: Output, reft: ReftModel, examples: readonly Example[]): void {
  output.note(reft.summary());
  const sum = (of: (e: Example) => number): number => examples.reduce((n, e) => n + of(e), 0);
  const tokens = sum(e => e.ids.length);
  const labelled = sum(e => e.labels.reduce((n, label, t) => n + (t > 0 && label >= 0 ? 1 : 0), 0));
  const unchanged = sum(e => firstEdited(reft.interventions, { ...e, length: e.ids.length }, reft.tokenizer));
  const cut = examples.filter(e => e.truncated > 0).length;
  output.note(
    `${examples.length} rows, ${tokens} tokens, ${labelled} labelled; ${unchanged} tokens before the first edit` +
      (cut > 0 ? `; ${cut} rows cut to --max-length` : ''),
  );
}

async function readPairs({ data, maxLength }: TrainFlags, tokenizer: Tokenizer): Promise<PreferencePair[]> {
  return parsePreferences(await readTextBounded(data, 'rows'), basename(data), tokenizer, { maxLength });
}
