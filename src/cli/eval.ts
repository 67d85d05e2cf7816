// `reft eval`: how well a model, with an adapter or without, says what rows say.

import type { Command } from 'commander';
import { tokenizeRow } from '../data/examples.js';
import { readRows } from '../data/index.js';
import { evaluate } from '../train/evaluate.js';
import { prepareExamples } from '../train/data.js';
import { blamingInput, Interrupted } from './errors.js';
import { onInterrupt } from './interrupt.js';
import { loadAdapter, loadModel } from './model.js';
import { addAdapterOption, addJsonOption, addModelOptions, wholeNumber, type ModelFlags } from './options.js';
import { Output } from './output.js';

interface EvalFlags extends ModelFlags {
  adapter?: string;
  scale?: number;
  data: string;
  batchSize: number;
  maxLength?: number;
  json: boolean;
}

export function addEvalCommand(program: Command): void {
  const command = program
    .command('eval')
    .description('Measure loss, perplexity and exact answers on rows, with an adapter or without.');
  addAdapterOption(addModelOptions(command))
    .requiredOption('--data <file>', 'rows to measure: JSON lines as for reft train')
    .option('--batch-size <n>', 'rows a batch', wholeNumber(1), 8)
    .option('--max-length <n>', 'most tokens of a row; longer prompts are cut on the left', wholeNumber(2));
  addJsonOption(command).action(evalRows);
}

async function evalRows(flags: EvalFlags): Promise<void> {
  const output = new Output(flags.json);
  const rows = await readRows(flags.data);
  const interruption = onInterrupt(output, 'ending after this batch');
  const { signal } = interruption;
  try {
    const loaded = await loadModel(flags, output, signal);
    const reft = await loadAdapter(loaded, flags, output);
    const { model, tokenizer } = loaded;
    const examples = await blamingInput(() => {
      const made = rows.map(row => tokenizeRow(row, tokenizer, { maxLength: flags.maxLength }));
      return reft ? prepareExamples('evaluation', { examples: made }, reft, {}) : made;
    });
    const progress = output.progress('evaluating', examples.length);
    let result;
    try {
      result = await evaluate(reft ?? model, examples, {
        batchSize: flags.batchSize,
        signal,
        onProgress: done => {
          progress.update(done);
        },
      });
    } finally {
      progress.stop();
    }
    const { loss, perplexity, exactMatch, tokenAccuracy, labelled } = result;
    output.say(
      `loss ${loss.toFixed(4)}  perplexity ${perplexity.toFixed(3)}  exact answers ${(100 * exactMatch).toFixed(1)} %  tokens ${(100 * tokenAccuracy).toFixed(1)} %  ` +
        `(${result.rows} rows, ${labelled} labelled tokens)`,
    );
    output.event('done', { loss, perplexity, exactMatch, rows: result.rows });
  } catch (error) {
    if (signal.aborted && !(error instanceof Interrupted))
      throw new Interrupted('interrupted before the last row; nothing was measured', { cause: error });
    throw error;
  } finally {
    await interruption.dispose();
  }
}
