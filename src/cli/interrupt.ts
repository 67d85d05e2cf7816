// Ctrl-C: the first one asks the work to end at its next step, a second one ends the process at once.

import { exitCodes } from './errors.js';
import type { Output } from './output.js';

export interface Interruption {
  readonly signal: AbortSignal;
  /** Stops listening. */
  dispose(): void;
}

export function onInterrupt(output: Output, message: string): Interruption {
  const controller = new AbortController();
  const listener = (): void => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    output.note(`\n${message}; Ctrl-C again to end at once`);
    controller.abort();
  };
  process.on('SIGINT', listener);
  return { signal: controller.signal, dispose: () => process.off('SIGINT', listener) };
}
