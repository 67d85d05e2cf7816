// What ends a command from outside: Ctrl-C, `kill` and `docker stop` (SIGTERM), a terminal that is closed (SIGHUP). The
// first of them asks the work to end at its next step; a second Ctrl-C ends the process at once.
//
// JavaScript hears of no signal while it computes, so a thread beside it (interruptWatch) waits for Ctrl-C: Node's own
// watch for scripts (`breakOnSigint`), which the system calls whatever the main thread does. After the first one the
// thread ends, and with it Ctrl-C has its ordinary meaning again: the system ends the process, in the middle of a step
// too.

import { Worker } from 'node:worker_threads';
import type { Output } from './output.js';

export interface Interruption {
  readonly signal: AbortSignal;
  /** Stops listening. */
  dispose(): Promise<void>;
}

/**
 * One key press may arrive twice, from the terminal and from a parent like npx: what comes so soon after the first is
 * the same.
 */
const sameMs = 500;

/**
 * Runs in the thread. An inner watch hears Ctrl-C; an outer one keeps the system from ending the process in between.
 */
const interruptWatch = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { runInThisContext } = require('node:vm');
  const never = new Int32Array(new SharedArrayBuffer(4));
  globalThis.sleep = ms => Atomics.wait(never, 0, 0, ms);
  const pressedWithin = ms => {
    try {
      runInThisContext('sleep(' + ms + ')', { breakOnSigint: true });
      return false;
    } catch {
      return true;
    }
  };
  globalThis.watch = () => {
    pressedWithin(Infinity);
    require('node:fs').writeSync(2, workerData.text);
    parentPort.postMessage('pressed');
    const end = Date.now() + workerData.sameMs;
    for (let left = workerData.sameMs; left > 0; left = end - Date.now()) pressedWithin(left);
  };
  try {
    runInThisContext('watch()', { breakOnSigint: true });
  } catch {
    // A Ctrl-C between two inner watches: the thread ends, as it does after them.
  }
`;

export function onInterrupt(output: Output, message: string): Interruption {
  const controller = new AbortController();
  const text = `\n${message}; Ctrl-C again to end at once`;
  const watch = new Worker(interruptWatch, { eval: true, execArgv: [], workerData: { text: `${text}\n`, sameMs } });
  watch.unref();
  // Without the thread the listeners below hear of Ctrl-C, between two steps.
  watch.on('error', () => undefined);
  watch.on('message', () => {
    controller.abort();
  });

  const first = (): void => {
    if (controller.signal.aborted) return;
    output.note(text);
    controller.abort();
    setTimeout(() => {
      process.off('SIGINT', first).off('SIGTERM', first);
      void watch.terminate();
    }, sameMs).unref();
  };
  // A closed terminal sends SIGHUP more than once.
  process.on('SIGINT', first).on('SIGTERM', first).on('SIGHUP', first);
  return {
    signal: controller.signal,
    async dispose() {
      process.off('SIGINT', first).off('SIGTERM', first).off('SIGHUP', first);
      await watch.terminate();
    },
  };
}
