// A case: NAME.json (settings) and NAME.safetensors (tensors), read on the host. What they mean is known by the checks.

import { FormatError } from '../../src/io/errors.js';
import { openSafetensors } from '../../src/io/safetensors.js';
import type { TensorFile } from '../../src/io/tensorFile.js';
import type { CaseFiles } from './files.js';

/** Numbers with their shape, on the host. */
export interface HostArray {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

export class Fixture {
  /** Settings: an object of anything. */
  readonly settings: Readonly<Record<string, unknown>>;
  private readonly file: TensorFile;

  private constructor(settings: Readonly<Record<string, unknown>>, file: TensorFile) {
    this.settings = settings;
    this.file = file;
  }

  /** `path` has no extension. */
  static async open(files: CaseFiles, path: string): Promise<Fixture> {
    const settings = await files.json(`${path}.json`);
    if (typeof settings !== 'object' || settings === null || Array.isArray(settings))
      throw new FormatError(`${path}.json`, 'expected an object of settings');
    return new Fixture(
      settings as Record<string, unknown>,
      await openSafetensors(await files.open(`${path}.safetensors`)),
    );
  }

  close(): Promise<void> {
    return this.file.close();
  }

  get names(): string[] {
    return [...this.file.tensors.keys()];
  }

  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  shape(name: string): readonly number[] {
    const found = this.file.tensors.get(name);
    if (!found) throw new FormatError(this.file.name, `has no tensor '${name}'`);
    return found.shape;
  }

  /** True where a tensor holds whole numbers by type. */
  isWhole(name: string): boolean {
    return /^[IU]/.test(this.file.tensors.get(name)?.dtype ?? '');
  }

  floats(name: string): Promise<Float64Array> {
    return this.file.readFloat64(name);
  }

  ints(name: string): Promise<Int32Array> {
    return this.file.readInt32(name);
  }

  async array(name: string): Promise<HostArray> {
    return { shape: this.shape(name), data: await this.floats(name) };
  }
}
