// A copy of what tests read, which mutants may break, and running test files in it.

import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { swiftShaderEnvironment } from './withSwiftShader.js';

export const root = fileURLToPath(new URL('..', import.meta.url));
const tsx = createRequire(import.meta.url).resolve('tsx/cli');

/** A folder in the system's place for temporary files; the caller removes it. */
export function copyTree(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'mutants-'));
  for (const part of [
    'src',
    'tests',
    'scripts',
    'examples',
    'bench',
    'docs',
    'README.md',
    'package.json',
    'tsconfig.json',
  ]) {
    cpSync(path.join(root, part), path.join(folder, part), {
      recursive: true,
      force: true,
      filter: source => path.basename(source) !== 'node_modules',
    });
  }
  symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'), 'dir');
  return folder;
}

export interface Outcome {
  readonly code: number | null;
  readonly timedOut: boolean;
  readonly output: string;
}

/** Runs `tsx ARGS` in a copy. What is still running after `timeoutMs` is ended, with all that it started. */
export function runTsx(
  folder: string,
  args: readonly string[],
  { timeoutMs, env, gpu = false }: { timeoutMs: number; env?: Readonly<Record<string, string>>; gpu?: boolean },
): Promise<Outcome> {
  return new Promise(resolve => {
    const child = spawn(process.execPath, [tsx, ...args], {
      cwd: folder,
      env: { ...process.env, ...(gpu ? swiftShaderEnvironment() : {}), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: process.platform !== 'win32',
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      // The runner starts processes of its own: end the group.
      if (child.pid !== undefined && process.platform !== 'win32') process.kill(-child.pid, 'SIGKILL');
      else child.kill('SIGKILL');
    }, timeoutMs);
    child.on('close', code => {
      clearTimeout(timer);
      resolve({ code, timedOut, output });
    });
  });
}

/** Works a queue off, one job at a time in each folder. */
export async function inParallel<T>(
  folders: readonly string[],
  jobs: readonly T[],
  work: (job: T, folder: string) => Promise<void>,
): Promise<void> {
  const queue = [...jobs];
  await Promise.all(
    folders.map(async folder => {
      for (let job = queue.shift(); job !== undefined; job = queue.shift()) await work(job, folder);
    }),
  );
}
