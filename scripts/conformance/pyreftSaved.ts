// Cases reft/KIND-saved-by-pyreft: the folder pyreft writes (config.json and a .bin for each intervention) gives the
// final logits of the training run KIND beside it. All three styles of pyreft's keys are read.

import { FormatError } from '../../src/io/errors.js';
import { parsePyreftConfig, pyreftFileOf, readPyreftWeights } from '../../src/reft/formats/pyreftFolder.js';
import { relative, type Comparison } from './compare.js';
import type { RunContext } from './context.js';
import { below, folderOf, lastOf, type CaseFiles } from './files.js';
import { Fixture } from './fixture.js';
import { masked } from './forward.js';
import { activationOf, buildIntervention, kindOf } from './pyreftWeights.js';
import { componentOf, editedLogits, editsWith, readPlan, readSettings } from './reft.js';

/** Weights stored in 16 bits give the logits to about that precision. */
const toleranceOf = (dtypes: ReadonlySet<string>, tolerance: number): number =>
  dtypes.has('BF16') ? 1e-2 : dtypes.has('F16') ? 2e-3 : 2 * tolerance;

export async function checkSaved(
  path: string,
  context: RunContext,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const { files } = context;
  const fixture = await Fixture.open(files, await runBeside(path, files));
  try {
    const settings = readSettings(fixture.settings);
    const model = await context.model(settings.model);
    const plan = await readPlan(fixture, settings);
    const configPath = `${path}/config.json`;
    const { intervention_types: types, sorted_keys: keys } = parsePyreftConfig(
      await bytesOf(files, configPath),
      configPath,
    );
    if (keys.length !== plan.layers.length)
      throw new FormatError(configPath, `has ${keys.length} keys, the run has ${plan.layers.length} interventions`);
    const dtypes = new Set<string>();
    const interventions = await Promise.all(
      plan.layers.map(async (layer, number) => {
        // The n-th intervention of a layer in the run is the one with #n; a list of keys may come in any order.
        const nth = plan.layers.slice(0, number).filter(l => l === layer).length;
        const at = keys.findIndex(key => layerOf(key) === layer && Number(key.split('#')[1] ?? 0) === nth);
        if (at < 0)
          throw new FormatError(
            configPath,
            `has no key for intervention ${nth} at layer ${layer}; it has ${keys.join(', ')}`,
          );
        const file = `${path}/${pyreftFileOf(keys[at])}`;
        const { weights, stored } = await readPyreftWeights(await bytesOf(files, file), file);
        for (const dtype of stored) dtypes.add(dtype);
        return buildIntervention(model, {
          kind: kindOf(types[at]),
          layer,
          number,
          component: componentOf(settings.component),
          activation: activationOf(settings.act_fn),
          weights,
        });
      }),
    );
    const { batch } = plan;
    const logits = editedLogits(model, batch, editsWith(plan, interventions));
    await masked('final.logits', logits, fixture, batch, relative(toleranceOf(dtypes, tolerance)), comparison);
  } finally {
    await fixture.close();
  }
}

/**
 * The run a saved folder belongs to: of its name, or of its name less a last part (`loreft-dotted` is `loreft` in other
 * files).
 */
async function runBeside(path: string, files: CaseFiles): Promise<string> {
  const parts = lastOf(path)
    .replace(/-saved-by-pyreft$/, '')
    .split('-');
  const paths = new Set(await files.list());
  for (let n = parts.length; n > 0; n--) {
    const run = below(folderOf(path), parts.slice(0, n).join('-'));
    if (paths.has(`${run}.safetensors`)) return run;
  }
  throw new FormatError(path, `there is no run ${parts.join('-')}.safetensors beside it`);
}

/** The layer in `layer_1_comp_..`, `layer.1.comp...` or `comp_model_layers[1]_output_..`. */
function layerOf(key: string): number | null {
  if (/[/\\]/.test(key)) throw new FormatError(key, 'a key must not hold a path');
  const found = /^layer[._](\d+)[._]comp/.exec(key) ?? /\[(\d+)\]/.exec(key);
  return found ? Number(found[1]) : null;
}

async function bytesOf(files: CaseFiles, path: string): Promise<Uint8Array> {
  const source = await files.open(path);
  try {
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}
