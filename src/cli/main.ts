#!/usr/bin/env node
// The `reft` command: program.ts in a process of its own.

import { exitCodes } from './errors.js';
import { run } from './program.js';
import { allowRelaxedSimd } from './relaxedSimd.js';

const args = process.argv.slice(2);
/**
 * Commands whose result is a folder: they go on when nobody reads any more. `reft info ... | head` ends, which is no
 * failure.
 */
const writesFolder = ['train', 'convert'].includes(args[0] ?? '');
/** A pipe that nobody reads, a terminal that was closed. */
const unread = new Set(['EPIPE', 'EIO', 'ERR_STREAM_DESTROYED']);

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (!unread.has(error.code ?? '')) throw error;
    if (!writesFolder && stream === process.stdout) process.exit(exitCodes.done);
  });
}
allowRelaxedSimd();
process.exitCode = await run(args);
