// `--profile` of the commands that compute: what is measured around them, the table on stderr, the JSON event, and the
// trace file. How it is measured is src/profile's business.

import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import type { Backend } from '../backends/backend.js';
import { writeFileAtomic } from '../io/atomicWriteNode.js';
import { isTrace } from '../reft/ownFilesNode.js';
import { formatProfile, startProfile, type Profile } from '../profile/index.js';
import { UsageError } from './errors.js';
import type { Output } from './output.js';

export interface ProfileFlags {
  /** True without a file. */
  profile?: true | string;
}

export function addProfileOption(command: Command, defaultFile: string): Command {
  return command.option(
    '--profile [file]',
    `measure where the time goes, and write a trace that Chrome opens (default file: ${defaultFile})`,
  );
}

/** Measures a backend while a body runs, if --profile asks for it. */
export class Profiling {
  private readonly file: string | null;
  private readonly backend: Backend;
  private readonly output: Output;
  private profile: Profile | null = null;

  constructor({ profile }: ProfileFlags, defaultFile: string, backend: Backend, output: Output) {
    this.file = profile === undefined ? null : profile === true ? defaultFile : profile;
    this.backend = backend;
    this.output = output;
  }

  /** Ends a step or a token. */
  mark(name: string): void {
    this.profile?.mark(name);
  }

  /** Runs `body`, and reports when it came to its end. */
  async run<T>(body: () => Promise<T>): Promise<T> {
    const { file, output } = this;
    if (file === null) return body();
    // Now rather than after hours of training.
    if (!(await stat(dirname(file)).catch(() => undefined))?.isDirectory())
      throw new UsageError(`--profile: there is no folder ${dirname(file)} to write ${file} in`);
    if (
      (await stat(file).then(
        () => true,
        () => false,
      )) &&
      !(await isTrace(file))
    )
      throw new UsageError(`--profile: ${file} is no trace of reft and is not replaced`);
    const profile = (this.profile = startProfile({ backend: this.backend }));
    let result: T;
    try {
      result = await body();
    } finally {
      profile.stop();
      this.profile = null;
    }
    const report = profile.stop();
    await writeFileAtomic(file, JSON.stringify(profile.trace()));
    output.note(`\n${formatProfile(report)}\n\ntrace: ${file} (open it at chrome://tracing or ui.perfetto.dev)`);
    output.event('profile', { trace: file, ...report });
    return result;
  }
}
