// Runs a command line of `reft` in the test's own process, and keeps what it says: for tests that look at files or
// stand in for the disk.

import { Output } from '../../src/cli/output.js';
import { run } from '../../src/cli/program.js';
import { allowRelaxedSimd } from '../../src/cli/relaxedSimd.js';

// The bits of the command in a process of its own.
allowRelaxedSimd();

export interface RunHere {
  readonly code: number;
  /** What people read, on either stream. */
  readonly text: string;
  readonly events: Record<string, unknown>[];
}

/** One command after the other: what is said is not told apart. `onEvent` sees each event as it comes. */
export async function runHere(
  args: readonly string[],
  onEvent?: (event: Record<string, unknown>) => void,
): Promise<RunHere> {
  const { event, say, note, stream } = Output.prototype;
  const lines: string[] = [];
  const events: Record<string, unknown>[] = [];
  const line = (text: string): void => {
    lines.push(text);
  };
  Object.assign(Output.prototype, {
    say: line,
    note: line,
    stream: line,
    event(name: string, fields: Readonly<Record<string, unknown>>): void {
      events.push({ event: name, ...fields });
      onEvent?.({ event: name, ...fields });
    },
  });
  try {
    return { code: await run(args), text: lines.join('\n'), events };
  } finally {
    Object.assign(Output.prototype, { event, say, note, stream });
  }
}
