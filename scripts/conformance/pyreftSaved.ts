// Cases reft/KIND-saved-by-pyreft: the folder pyreft writes (config.json and a .bin for each intervention) gives the final logits of the
// training run KIND beside it. All three styles of pyreft's keys are read.

import { basename, dirname, join } from 'node:path';
import { stat } from 'node:fs/promises';
import { z } from 'zod';
import { fileSource } from '../../src/io/byteSource.js';
import { FormatError } from '../../src/io/errors.js';
import { storedToFloat32, type PlainDType } from '../../src/io/storedDType.js';
import { readTorchBin, type TorchTensor } from '../../src/io/torchBin.js';
import { relative, type Comparison } from './compare.js';
import type { RunContext } from './context.js';
import { Fixture, readJson, type HostArray } from './fixture.js';
import { masked } from './forward.js';
import { activationOf, buildIntervention, kindOf, rotation } from './pyreftWeights.js';
import { componentOf, editedLogits, editsWith, readPlan, readSettings } from './reft.js';

const schema = z.looseObject({
  intervention_types: z.array(z.string()).min(1),
  representations: z.array(z.array(z.unknown()).min(2)).min(1),
  sorted_keys: z.array(z.string()).min(1),
});

/** Weights stored in 16 bits give the logits to about that precision. */
const toleranceOf = (dtypes: ReadonlySet<PlainDType>, tolerance: number): number => (dtypes.has('BF16') ? 1e-2 : dtypes.has('F16') ? 2e-3 : 2 * tolerance);

export async function checkSaved(path: string, context: RunContext, tolerance: number, comparison: Comparison): Promise<void> {
  const folder = join(context.dir, path);
  const fixture = await Fixture.open(await runBeside(folder));
  try {
    const settings = readSettings(fixture.settings);
    const model = await context.model(settings.model);
    const plan = await readPlan(fixture, settings);
    const configPath = join(folder, 'config.json');
    const parsed = schema.safeParse(await readJson(configPath));
    if (!parsed.success) throw new FormatError(configPath, parsed.error.issues.map(i => `${i.path.join('.')}: ${i.message}`).join('; '));
    const { intervention_types: types, representations, sorted_keys: keys } = parsed.data;
    if (keys.length !== plan.layers.length || types.length !== keys.length || representations.length !== keys.length) {
      throw new FormatError(configPath, `has ${keys.length} keys, ${types.length} types and ${representations.length} representations, the run has ${plan.layers.length} interventions`);
    }
    const dtypes = new Set<PlainDType>();
    const interventions = await Promise.all(plan.layers.map(async (layer, number) => {
      // The n-th intervention of a layer in the run is the one with #n; a list of keys may come in any order.
      const nth = plan.layers.slice(0, number).filter(l => l === layer).length;
      const at = keys.findIndex(key => layerOf(key) === layer && Number(key.split('#')[1] ?? 0) === nth);
      if (at < 0) throw new FormatError(configPath, `has no key for intervention ${nth} at layer ${layer}; it has ${keys.join(', ')}`);
      const { weights, stored } = await readWeights(join(folder, `intkey_${keys[at]}.bin`));
      for (const dtype of stored) dtypes.add(dtype);
      return buildIntervention(model, {
        kind: kindOf(types[at]), layer, number, component: componentOf(settings.component), activation: activationOf(settings.act_fn), weights,
      });
    }));
    const { batch } = plan;
    const logits = editedLogits(model, batch, editsWith(plan, interventions));
    await masked('final.logits', logits, fixture, batch, relative(toleranceOf(dtypes, tolerance)), comparison);
  } finally {
    await fixture.close();
  }
}

/** The run a saved folder belongs to: of its name, or of its name less a last part (`loreft-dotted` is `loreft` in other files). */
async function runBeside(folder: string): Promise<string> {
  const parts = basename(folder).replace(/-saved-by-pyreft$/, '').split('-');
  for (let n = parts.length; n > 0; n--) {
    const path = join(dirname(folder), parts.slice(0, n).join('-'));
    if (await stat(`${path}.safetensors`).then(() => true, () => false)) return path;
  }
  throw new FormatError(folder, `there is no run ${parts.join('-')}.safetensors beside it`);
}

/** The layer in `layer_1_comp_..`, `layer.1.comp...` or `comp_model_layers[1]_output_..`. */
function layerOf(key: string): number | null {
  if (/[/\\]/.test(key)) throw new FormatError(key, 'a key must not hold a path');
  const found = /^layer[._](\d+)[._]comp/.exec(key) ?? /\[(\d+)\]/.exec(key);
  return found ? Number(found[1]) : null;
}

/** One .bin by the names the fixtures use; counters are left out. */
async function readWeights(path: string): Promise<{ weights: Map<string, HostArray>; stored: PlainDType[] }> {
  const source = await fileSource(path);
  try {
    const values = [...await readTorchBin(source)].filter(([name]) => name !== 'embed_dim' && name !== 'interchange_dim');
    const tensors = values.map(([name, value]): [string, TorchTensor] => {
      if (typeof value !== 'object' || value === null) throw new FormatError(path, `'${name}' is no tensor`);
      return [nameOf(name), value];
    });
    const weights = new Map(tensors.map(([name, { dtype, shape, data }]) => [name, { shape, data: Float64Array.from(storedToFloat32(dtype, data)) }]));
    return { weights, stored: tensors.map(([, t]) => t.dtype) };
  } finally {
    await source.close();
  }
}

function nameOf(name: string): string {
  if (name === 'weight' || name === 'bias') return `learned_source.${name}`;
  return name === 'rotate_layer.parametrizations.weight.0.base' ? rotation.base : name;
}
