#!/usr/bin/env node
// The `reft` command: program.ts in a process of its own.

import { exitCodes } from './errors.js';
import { run } from './program.js';
import { allowRelaxedSimd } from './relaxedSimd.js';

// `reft ... | head` ends early, which is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.done);
  throw error;
});
allowRelaxedSimd();
process.exitCode = await run(process.argv.slice(2));
