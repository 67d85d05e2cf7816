// What an ending of the command means to a shell: exit codes, and which error gets which. Wording is left to whoever
// throws.

import { CommanderError } from 'commander';
import { FormatError } from '../io/errors.js';
import { DeviceError } from '../devices.js';

export const exitCodes = { done: 0, failed: 1, usage: 2, deviceAbsent: 3, interrupted: 130 } as const;

/** Bad usage or input that only the command line can know of. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Ended by Ctrl-C or another signal; the message says what was saved and how to go on. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** Errors of the file system that mean that a path was wrong, not that a disk is. */
const wrongPath = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'EEXIST', 'EACCES', 'EPERM', 'EROFS']);
/** RangeErrors of the engine itself, which no input is to blame for. */
const engineRange =
  /^(Maximum call stack|Invalid (typed )?array|Array buffer allocation|Invalid string length|WebAssembly)/;

export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.usage;
  if (error instanceof Interrupted) return exitCodes.interrupted;
  if (error instanceof DeviceError) return exitCodes.deviceAbsent;
  if (error instanceof UsageError || error instanceof FormatError) return exitCodes.usage;
  if (error instanceof RangeError) return engineRange.test(error.message) ? exitCodes.failed : exitCodes.usage;
  return wrongPath.has((error as NodeJS.ErrnoException | undefined)?.code ?? '') ? exitCodes.usage : exitCodes.failed;
}

/** Runs `body`; any error it throws is the input's fault. */
export async function blamingInput<T>(body: () => T | Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw exitCodeOf(error) === exitCodes.failed ? new UsageError((error as Error).message, { cause: error }) : error;
  }
}
