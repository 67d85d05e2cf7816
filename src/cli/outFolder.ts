// The folder that `reft train --out` writes: whether it may, before anything is computed; one run at a time; that it
// can be written at all, before training starts; and what is cleared in the end. Nothing that somebody else wrote there
// is ever replaced or removed.

import { access, constants, open, readdir, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeFolder, unfinishedName } from '../io/foldersNode.js';
import { writerState, writerTag, writerTagPattern } from '../io/writerNode.js';
import { adapterConfigFile, adapterModelFile, readmeFile } from '../reft/adapterFiles.js';
import { stateFile, stateTensorsFile } from '../train/checkpoint.js';
import { findFiles } from '../reft/ownFilesNode.js';
import { tidyFolder } from '../reft/savedFilesNode.js';
import { UsageError } from './errors.js';

/** What a run writes into its folder. */
const ownNames = [adapterModelFile, adapterConfigFile, readmeFile, 'training.json', 'loss.svg'];
/**
 * And into the checkpoint, in the order in which they are removed: while the state is there, the run can be ended with
 * --resume.
 */
const checkpointNames = [stateFile, readmeFile, adapterConfigFile, adapterModelFile, stateTensorsFile];

const lockPattern = new RegExp(`^\\.reft-train\\.(${writerTagPattern})\\.lock$`);
const lockName = `.reft-train.${writerTag}.lock`;

export interface OutFolderOptions {
  readonly resume: boolean;
  readonly overwrite: boolean;
}

export class OutFolder {
  readonly path: string;
  readonly checkpoint: string;
  private readonly options: OutFolderOptions;
  private made: string[] = [];
  private locked = false;

  private constructor(path: string, options: OutFolderOptions) {
    this.path = path;
    this.checkpoint = join(path, 'checkpoint');
    this.options = options;
  }

  /**
   * Looks whether a run may write here; changes nothing. @throws UsageError saying what is there and which option
   * allows it
   */
  static async check(path: string, options: OutFolderOptions): Promise<OutFolder> {
    const out = new OutFolder(path, options);
    await out.mayWrite();
    return out;
  }

  /**
   * Makes the folder, takes it for this run and tries whether `bytes` can be written.
   * @throws UsageError where another run has it; the system's error where it cannot be written
   */
  async open(bytes: number): Promise<void> {
    const { path } = this;
    try {
      this.made = await makeFolder(path);
      await this.lock();
      await this.tryToWrite(bytes);
    } catch (cause) {
      await this.close();
      if (cause instanceof UsageError) throw cause;
      throw Object.assign(new Error(`--out: ${path} cannot be written: ${(cause as Error).message}`, { cause }), {
        code: (cause as NodeJS.ErrnoException).code,
      });
    }
    try {
      // Another run may have ended here since.
      await this.mayWrite();
      await tidyFolder(path, name => ownNames.includes(name) || name === probe);
      if (await isFolder(this.checkpoint)) await tidyFolder(this.checkpoint, name => checkpointNames.includes(name));
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** Removes our files from the checkpoint, and its folder where nothing else is in it. */
  async removeCheckpoint(): Promise<void> {
    const { ours } = await findFiles(this.checkpoint, checkpointNames);
    for (const name of ours) await rm(join(this.checkpoint, name), { force: true });
    await rmdir(this.checkpoint).catch(ignoreFull);
  }

  /** Gives the folder back; one that was made for this run and is empty goes. */
  async close(): Promise<void> {
    if (this.locked) await rm(join(this.path, lockName), { force: true }).catch(() => undefined);
    this.locked = false;
    for (const folder of this.made.reverse()) await rmdir(folder).catch(() => undefined);
    this.made = [];
  }

  private async mayWrite(): Promise<void> {
    const {
      path,
      checkpoint,
      options: { resume, overwrite },
    } = this;
    await checkWritable(path);
    const [inFolder, inCheckpoint] = [await findFiles(path, ownNames), await findFiles(checkpoint, checkpointNames)];
    const foreign = [
      ...inFolder.others.map(name => join(path, name)),
      ...inCheckpoint.others.map(name => join(checkpoint, name)),
    ].find(name => !name.endsWith(readmeFile));
    if (foreign !== undefined)
      throw new UsageError(`--out: ${foreign} was not written by reft and is not replaced; give another folder`);
    const interrupted = inCheckpoint.ours.includes(stateTensorsFile);
    if (resume && !interrupted) throw new UsageError(`--resume: no checkpoint in ${path}`);
    if (resume || overwrite) return;
    if (interrupted)
      throw new UsageError(
        `--out: ${path} holds a checkpoint of a run that was interrupted; --resume goes on with it, --overwrite starts anew`,
      );
    const ours = inFolder.ours.filter(name => name !== readmeFile);
    if (ours.includes(adapterModelFile))
      throw new UsageError(`--out: ${path} holds an adapter; --overwrite replaces it when the new one is trained`);
    if (ours.length > 0)
      throw new UsageError(
        `--out: ${path} holds ${ours.join(', ')} of an earlier run; --overwrite replaces what reft wrote`,
      );
  }

  /** A file for each run that lives: two runs that start at once see each other's, and one gives way. */
  private async lock(): Promise<void> {
    const { path } = this;
    if ((await readdir(path)).includes(lockName)) throw this.taken(writerTag);
    const file = await open(join(path, lockName), 'wx');
    this.locked = true;
    await file.close();
    for (let tries = 0; ; tries++) {
      const others: string[] = [];
      for (const name of await readdir(path)) {
        const tag = lockPattern.exec(name)?.[1];
        if (tag === undefined || tag === writerTag) continue;
        if (writerState(tag) === 'dead') await rm(join(path, name), { force: true });
        else others.push(tag);
      }
      if (others.length === 0) return;
      // Of two that start at once the later one by name gives way at once, the other one waits for that.
      if (tries === 3 || others.some(tag => tag < writerTag)) throw this.taken(others[0]);
      await delay(100);
    }
  }

  private taken(tag: string): UsageError {
    const [pid] = tag.split('-');
    const whose =
      writerState(tag) === 'unknown'
        ? `on another machine (process ${pid} there; if that has ended, remove ${join(this.path, `.reft-train.${tag}.lock`)})`
        : `(process ${pid})`;
    return new UsageError(
      `--out: ${this.path} is being written by another reft train ${whose}; wait for it, or give another folder`,
    );
  }

  /** As many bytes as will be saved, written and removed again. */
  private async tryToWrite(bytes: number): Promise<void> {
    const name = join(this.path, unfinishedName(probe, '0'));
    try {
      const file = await open(name, 'w');
      try {
        const piece = new Uint8Array(Math.min(bytes, 2 ** 20));
        for (let left = bytes; left > 0; left -= piece.length) await file.write(piece, 0, Math.min(left, piece.length));
        await file.sync();
      } finally {
        await file.close();
      }
    } finally {
      await rm(name, { force: true });
    }
  }
}

const probe = 'reft-probe';

/**
 * Whether the folder, or the one in which it would be made, may be written, as far as the system says so beforehand.
 */
async function checkWritable(path: string): Promise<void> {
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    try {
      if (!(await stat(folder)).isDirectory()) throw new UsageError(`--out: ${folder} is no folder`);
      return await access(folder, constants.W_OK);
    } catch (error) {
      if (error instanceof UsageError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' || dirname(folder) === folder)
        throw Object.assign(new Error(`--out: ${path} cannot be written: ${message}`, { cause: error }), { code });
    }
  }
}

const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    s => s.isDirectory(),
    () => false,
  );

function ignoreFull(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST' && error.code !== 'ENOENT') throw error;
}
