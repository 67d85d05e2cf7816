#!/usr/bin/env node
// The `reft` command: puts its sub-commands together and turns what they throw into one line on stderr and an exit code.

import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { addChatCommand } from './chat.js';
import { exitCodeOf, exitCodes, Interrupted } from './errors.js';
import { addGenerateCommand } from './generate.js';
import { addInfoCommand } from './info.js';
import { Output } from './output.js';
import { allowRelaxedSimd } from './relaxedSimd.js';
import { addTrainCommand } from './train.js';

const { version, description } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string; description: string };

const program = new Command('reft')
  .description(description)
  .version(version)
  .showSuggestionAfterError()
  .configureHelp({ showGlobalOptions: true })
  .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 bad usage or input, 3 device absent, 130 interrupted.\nREFT_DEBUG=1 shows where an error came from.');
addTrainCommand(program);
addGenerateCommand(program);
addChatCommand(program);
addInfoCommand(program);
for (const command of [program, ...program.commands]) command.exitOverride().configureOutput({ outputError: () => {} });

// `reft ... | head` ends early, which is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.done);
  throw error;
});
allowRelaxedSimd();

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
  if (process.exitCode !== exitCodes.done) report(error, process.exitCode);
}

function report(error: unknown, code: number): void {
  const output = new Output(process.argv.includes('--json'));
  const message = (error instanceof Error ? error.message : String(error)).replace(/^error: /, '');
  // Commander has shown the help of a command that was called without a sub-command.
  if (!(error instanceof CommanderError && error.code === 'commander.help')) {
    output.note(error instanceof Interrupted ? message : `reft: ${message}`);
  }
  if (process.env['REFT_DEBUG'] === '1' && error instanceof Error) output.note(error.stack ?? '');
  if (!(error instanceof Interrupted)) output.event('error', { message, code });
}
