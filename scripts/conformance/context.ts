// What the checks of one run share: the files, the device, and the model used last.

import type { Backend } from '../../src/backends/backend.js';
import type { Tokenizer } from '../../src/io/tokenizer.js';
import { loadCausalLM } from '../../src/models/auto.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { knownArchitectures } from '../../src/models/families/index.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import type { CaseFiles } from './files.js';

/** A case that this version does not claim to do. */
export class Unsupported extends Error {
  override readonly name = 'Unsupported';
}

export class RunContext {
  readonly files: CaseFiles;
  readonly backend: Backend;
  private last: { key: string; model: CausalLM } | null = null;

  constructor(files: CaseFiles, backend: Backend) {
    this.files = files;
    this.backend = backend;
  }

  /** The model called `name` in a case's settings. */
  async model(name: string): Promise<CausalLM> {
    const named = await this.files.model(name);
    if (this.last?.key === named.key) return this.last.model;
    if (named.config !== undefined) {
      const type = String((named.config as { model_type?: unknown } | null)?.model_type);
      if (!(knownArchitectures as readonly string[]).includes(type))
        throw new Unsupported(`models of type '${type}' are not supported`);
    }
    for (const weight of this.last?.model.parameters() ?? []) weight.storage.dispose();
    this.last = null;
    const model = await loadCausalLM(await named.open(), { device: this.backend });
    this.last = { key: named.key, model };
    return model;
  }

  async tokenizer(name: string): Promise<Tokenizer> {
    return (await this.files.model(name)).tokenizer();
  }
}

/** A tensor's numbers; its memory is given back. */
export async function take(tensor: Tensor): Promise<ArrayLike<number>> {
  const data = await tensor.data();
  tensor.storage.dispose();
  return data;
}
