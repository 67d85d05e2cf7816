// The `reft` command as a function: its sub-commands put together, and what they throw turned into one line on stderr
// and an exit code.

import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { withoutSecrets } from '../io/printable.js';
import { addChatCommand } from './chat.js';
import { addConvertCommand } from './convert.js';
import { addDevicesCommand } from './devices.js';
import { addEvalCommand } from './eval.js';
import { exitCodeOf, exitCodes, Interrupted } from './errors.js';
import { addGenerateCommand } from './generate.js';
import { addInfoCommand } from './info.js';
import { Output } from './output.js';
import { addTrainCommand } from './train.js';

const packageFile = new URL('../../package.json', import.meta.url);
const epilogue = `
Exit codes: 0 done, 1 failed, 2 bad usage or input, 3 device absent, 130 interrupted.
REFT_DEBUG=1 shows where an error came from.`;

/** The command with all its sub-commands and their options. */
export function createProgram(): Command {
  const { version, description } = JSON.parse(readFileSync(packageFile, 'utf8')) as {
    version: string;
    description: string;
  };
  const program = new Command('reft')
    .description(description)
    .version(version)
    .showSuggestionAfterError()
    .addHelpText('after', epilogue);
  addTrainCommand(program);
  addGenerateCommand(program);
  addChatCommand(program);
  addEvalCommand(program);
  addConvertCommand(program);
  addInfoCommand(program);
  addDevicesCommand(program);
  for (const command of [program, ...program.commands])
    command.exitOverride().configureOutput({ outputError: () => {} });
  return program;
}

/** Runs one command line (without node and script); gives its exit code. */
export async function run(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    return exitCodes.done;
  } catch (error) {
    const code = exitCodeOf(error);
    if (code !== exitCodes.done) report(error, code, args.includes('--json'));
    return code;
  }
}

function report(error: unknown, code: number, json: boolean): void {
  const output = new Output(json);
  const words = (error instanceof Error ? error.message : String(error)).replace(/^error: /, '');
  const message = withoutSecrets(words, process.env['HF_TOKEN']);
  // Commander has shown the help of a command line without a command.
  const shown = error instanceof CommanderError && error.code === 'commander.help';
  if (!shown) output.note(error instanceof Interrupted ? message : `reft: ${message}`);
  if (process.env['REFT_DEBUG'] === '1' && error instanceof Error) output.note(error.stack ?? '');
  if (!(error instanceof Interrupted)) output.event('error', { message, code });
}
