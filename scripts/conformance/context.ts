// What the checks of one run share: the files, the device, and the model used last.

import type { Backend } from '../../src/backends/backend.js';
import type { Tokenizer } from '../../src/io/tokenizer.js';
import { loadModel } from '../../src/models/auto.js';
import { CausalLM } from '../../src/models/causalLM.js';
import { tasks } from '../../src/models/families/family.js';
import { familyOf, knownArchitectures } from '../../src/models/families/index.js';
import type { Model } from '../../src/models/model.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import type { CaseFiles } from './files.js';
import { Unsupported } from './unsupported.js';
import { taskOf } from './inputs.js';

export { Unsupported } from './unsupported.js';

export class RunContext {
  readonly files: CaseFiles;
  readonly backend: Backend;
  private last: { key: string; model: Model } | null = null;

  constructor(files: CaseFiles, backend: Backend) {
    this.files = files;
    this.backend = backend;
  }

  /** The causal language model called `name` in a case's settings. */
  async causalLM(name: string): Promise<CausalLM> {
    const model = await this.model(name);
    if (model instanceof CausalLM) return model;
    throw new Unsupported(`${name} is no causal language model`);
  }

  /** The model called `name`, for the task of its class; default: the class its configuration names. */
  async model(name: string, className?: string): Promise<Model> {
    const named = await this.files.model(name);
    const config = named.config as { model_type?: unknown; architectures?: unknown } | null | undefined;
    const type = String(config?.model_type);
    if (named.config !== undefined && !knownArchitectures.includes(type))
      throw new Unsupported(`models of type '${type}' are not supported`);
    const [listed] = Array.isArray(config?.architectures) ? config.architectures : [];
    const wanted = className ?? (listed === undefined ? undefined : String(listed));
    const task = wanted === undefined ? 'causalLM' : taskOf(wanted, type);
    const key = `${named.key} ${task}`;
    if (this.last?.key === key) return this.last.model;
    for (const weight of this.last?.model.parameters() ?? []) weight.storage.dispose();
    this.last = null;
    const checkpoint = await named.open();
    if (!familyOf(checkpoint.config).tasks[task]) {
      await checkpoint.file.close();
      throw new Unsupported(`a ${type} as ${tasks[task]} is not supported`);
    }
    const model = await loadModel(checkpoint, task, { device: this.backend });
    this.last = { key, model };
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
