// The `reft` command as a user meets it: a process with arguments, two streams and an exit code.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const several = fileURLToPath(new URL('runCommands.ts', import.meta.url));

export interface Run {
  readonly args: readonly string[];
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** With --json, stdout as JSON lines. */
  readonly events: readonly Readonly<Record<string, unknown>>[];
}

export interface RunOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Sees each line of stdout, and can end the process. */
  readonly onLine?: (line: string, kill: (signal: NodeJS.Signals) => void) => void;
}

/** Runs `reft ARGS` in a process. Rejects where stdout is not JSON lines although --json was asked for. */
export async function reft(args: readonly string[], options: RunOptions = {}): Promise<Run> {
  return withEvents(args, await start([main, ...args], options));
}

/**
 * Runs several command lines in one process, one after the other. A list that begins with `< TEXT` is given that text
 * as its input.
 */
export async function reftEach(
  commands: readonly (readonly string[])[],
  env: Readonly<Record<string, string>> = {},
): Promise<Run[]> {
  const { code, stdout, stderr } = await start([several], { input: JSON.stringify(commands), env });
  if (code !== 0) throw new Error(stderr);
  return (JSON.parse(stdout) as Omit<Run, 'events' | 'args'>[]).map((run, i) => withEvents(commands[i], run));
}

function withEvents(args: readonly string[], run: Omit<Run, 'events' | 'args'>): Run {
  const lines = args.includes('--json') ? run.stdout.split('\n').filter(Boolean) : [];
  try {
    return { ...run, args, events: lines.map(line => JSON.parse(line) as Record<string, unknown>) };
  } catch (error) {
    throw new Error(`stdout is not JSON lines: ${run.stdout}`, { cause: error });
  }
}

function start(
  args: readonly string[],
  { input = '', env = {}, onLine }: RunOptions,
): Promise<Omit<Run, 'events' | 'args'>> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const begin = stdout.lastIndexOf('\n') + 1;
      stdout += text;
      const lines = stdout.slice(begin).split('\n').slice(0, -1);
      for (const line of lines) onLine?.(line, signal => child.kill(signal));
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', code => {
      resolve({ code, stdout, stderr });
    });
    child.stdin.end(input);
  });
}
