// What the checks of one run share: the folder, the device, and the model used last. Models resolve inside the folder, save aliases.

import { stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative as relativePath, resolve } from 'node:path';
import type { Backend } from '../../src/backends/backend.js';
import { tokenizerOf } from '../../src/io/autoTokenizer.js';
import { pinnedModels, resolveModel, type ResolvedModel } from '../../src/io/resolve.js';
import type { Tokenizer } from '../../src/io/tokenizer.js';
import { loadCausalLM, openResolved } from '../../src/models/auto.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { knownArchitectures } from '../../src/models/config.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { readJson } from './fixture.js';

/** A case that this version does not claim to do. */
export class Unsupported extends Error {
  override readonly name = 'Unsupported';
}

export class RunContext {
  readonly dir: string;
  readonly backend: Backend;
  private readonly note: (message: string) => void;
  private last: { key: string; model: CausalLM } | null = null;

  constructor(dir: string, backend: Backend, note: (message: string) => void) {
    this.dir = resolve(dir);
    this.backend = backend;
    this.note = note;
  }

  /** The model called `name` in a case's settings: a folder or file in the folder of cases, or an alias. */
  async model(name: string): Promise<CausalLM> {
    const resolved = await this.find(name);
    if (this.last?.key === resolved.path) return this.last.model;
    if (resolved.kind === 'folder') {
      const config = await readJson(join(resolved.path, 'config.json'));
      const type = String((config as { model_type?: unknown } | null)?.model_type);
      if (!(knownArchitectures as readonly string[]).includes(type)) throw new Unsupported(`models of type '${type}' are not supported`);
    }
    for (const weight of this.last?.model.parameters() ?? []) weight.storage.dispose();
    this.last = null;
    const model = await loadCausalLM(await openResolved(resolved), { device: this.backend });
    this.last = { key: resolved.path, model };
    return model;
  }

  async tokenizer(name: string): Promise<Tokenizer> {
    return tokenizerOf(await this.find(name));
  }

  private async find(name: string): Promise<ResolvedModel> {
    const path = resolve(this.dir, name);
    const below = relativePath(this.dir, path);
    const inside = !below.startsWith('..') && !isAbsolute(below);
    if (inside && await stat(path).then(() => true, () => false)) return resolveModel(path);
    // A file may be named as the one its alias is pinned to.
    const alias = Object.keys(pinnedModels).find(a => a === name || basename(pinnedModels[a].member) === name);
    if (!alias) throw new Error(`model '${name}' is not in ${this.dir}, and no alias (${Object.keys(pinnedModels).join(', ')})`);
    const resolved = await resolveModel(alias);
    if (resolved.note) this.note(resolved.note);
    return resolved;
  }
}

/** The folder of a case. */
export const folderOf = (path: string): string => (dirname(path) === '.' ? '' : dirname(path));

/** A tensor's numbers; its memory is given back. */
export async function take(tensor: Tensor): Promise<ArrayLike<number>> {
  const data = await tensor.data();
  tensor.storage.dispose();
  return data;
}
