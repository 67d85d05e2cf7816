// Activation patching: how much of the difference between two runs one hidden state carries, for every (component,
// layer, position). One run of base and source each; then each layer's patches are rows of a batch that starts at that
// layer. Drawing is in heatMap.ts. Source: Vig et al. 2020 (arXiv 2004.12265); Meng et al. 2022 (arXiv 2202.05262,
// causal tracing); the effect is normalised as usual there.

import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { CausalLM } from '../models/causalLM.js';
import { blockComponents, checkSite, siteName, type Component, type Site } from '../models/sites.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import type { Tensor } from '../tensor/tensor.js';
import { replaceRows } from './replaceRows.js';
import { locate, rowsOfBatch, type BatchRows, type TokenBatch, type UnitLocations } from './unitLocations.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';

/** What is measured: the logits [vocabulary] at the predicting position of pair `row`. */
export type PatchingMetric = (logits: Float32Array | Float64Array, row: number) => number;

export interface PatchingOptions {
  /** Pairs of rows: the same number of each. */
  readonly base: TokenBatch;
  readonly source: TokenBatch;
  /**
   * For each pair, the token the source run says and the one the base run says: the metric is the difference of their
   * logits.
   */
  readonly answers?: readonly { readonly source: number; readonly base: number }[];
  /** In place of `answers`. */
  readonly metric?: PatchingMetric;
  /** Default all. */
  readonly layers?: readonly number[];
  /** Default block_output. */
  readonly components?: readonly Component[];
  /** Patched one at a time, in base and source alike: as many for each row. Default 'all'. */
  readonly positions?: UnitLocations;
  /** Where the metric looks, one position a row. Default -1, the last. */
  readonly predictAt?: UnitLocations;
  /** Patched runs at once. Default 32. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal;
}

const patchingKeys: OptionKeys<PatchingOptions> = {
  base: true,
  source: true,
  answers: true,
  metric: true,
  layers: true,
  components: true,
  positions: true,
  predictAt: true,
  batchSize: true,
  signal: true,
};

export interface PatchingResult {
  readonly components: readonly Component[];
  readonly layers: readonly number[];
  /** Of the first row. */
  readonly positions: readonly number[];
  /** Mean metric over the pairs: of the base, of the source, and patched [component][layer][position]. */
  readonly baseMetric: number;
  readonly sourceMetric: number;
  readonly metric: readonly (readonly (readonly number[])[])[];
  /**
   * (metric - baseMetric) / (sourceMetric - baseMetric): 0 where a patch does nothing, 1 where it does all.
   * [component][layer][position]
   */
  readonly effects: readonly (readonly (readonly number[])[])[];
}

/** One hidden state of one pair, patched. */
interface Patch {
  readonly row: number;
  /** Which of its positions. */
  readonly slot: number;
}

/**
 * Sweeps (component, layer, position). @throws RangeError naming what does not fit, or when base and source do not
 * differ in the metric
 */
export async function activationPatching(model: CausalLM, options: PatchingOptions): Promise<PatchingResult> {
  checkOptionKeys('activationPatching', options, patchingKeys);
  const {
    base,
    source,
    components = ['block_output'],
    batchSize = 32,
    positions: where = 'all',
    predictAt = -1,
    signal,
  } = options;
  const layers = options.layers ?? Array.from({ length: model.config.layers }, (_, layer) => layer);
  for (const c of components) {
    if (!(blockComponents as readonly Component[]).includes(c))
      throw new RangeError(`patching: component '${c}' is not within blocks; those are ${blockComponents.join(', ')}`);
  }
  const sites = components.map(component => layers.map((layer): Site => checkSite({ layer, component }, model.stacks)));
  if (!(Number.isInteger(batchSize) && batchSize > 0))
    throw new RangeError(`patching: batchSize must be a whole number above 0, got ${batchSize}`);
  const rows = { base: rowsOfBatch('patching: base', base), source: rowsOfBatch('patching: source', source) };
  const count = rows.base.batch;
  if (rows.source.batch !== count)
    throw new RangeError(`patching: ${count} bases and ${rows.source.batch} sources; expected as many`);
  const places = {
    base: locate('patching: base', where, rows.base),
    source: locate('patching: source', where, rows.source),
  };
  const slots = places.base[0].length;
  for (const [side, lists] of Object.entries(places)) {
    lists.forEach((list, b) => {
      if (list.length !== slots || slots === 0)
        throw new RangeError(
          `patching: ${side} row ${b} has ${list.length} positions, expected ${slots || 'at least one'} in every row`,
        );
    });
  }
  const metric = metricOf(options, count);
  const predicting = { base: lastOf('base', predictAt, rows.base), source: lastOf('source', predictAt, rows.source) };

  // Everything patches need: the base's block inputs and the source's states, with both runs' metrics.
  const inputs = layers.map((layer): Site => ({ layer, component: 'block_input' }));
  const kept = noGrad(() =>
    scope(() => {
      const b = model.forward({ ...base, collect: inputs, logitsAt: predicting.base });
      const s = model.forward({ ...source, collect: sites.flat(), logitsAt: predicting.source });
      return { base: b.logits, source: s.logits, inputs: new Map(b.collected), states: new Map(s.collected) };
    }),
  );
  try {
    const [baseMetrics, sourceMetrics] = [await measured(kept.base, metric), await measured(kept.source, metric)];
    const [baseMetric, sourceMetric] = [mean(baseMetrics), mean(sourceMetrics)];
    if (!(Math.abs(sourceMetric - baseMetric) > 1e-9))
      throw new RangeError(`patching: the metric of base (${baseMetric}) and source (${sourceMetric}) must differ`);
    const patches = Array.from({ length: slots }, (_, slot) =>
      Array.from({ length: count }, (__, row): Patch => ({ row, slot })),
    ).flat();
    const table: number[][][] = [];
    for (const line of sites) {
      const perLayer: number[][] = [];
      for (const site of line) {
        const sums = new Array<number>(slots).fill(0);
        for (let at = 0; at < patches.length; at += batchSize) {
          await nextMacrotask();
          signal?.throwIfAborted();
          const list = patches.slice(at, at + batchSize);
          const values = await measured(
            patched(model, base, rows, places, predicting.base, kept, site, list),
            (logits, i) => metric(logits, list[i].row),
          );
          list.forEach(({ slot }, i) => {
            sums[slot] += values[i] / count;
          });
        }
        perLayer.push(sums);
      }
      table.push(perLayer);
    }
    const effect = (value: number): number => (value - baseMetric) / (sourceMetric - baseMetric);
    return {
      components,
      layers,
      positions: places.base[0],
      baseMetric,
      sourceMetric,
      metric: table,
      effects: table.map(perLayer => perLayer.map(list => list.map(effect))),
    };
  } finally {
    for (const t of [kept.base, kept.source, ...kept.inputs.values(), ...kept.states.values()]) t.storage.dispose();
  }
}

/** Logits [patches, vocabulary] of base runs from a site's block on, each with one state of its source in place. */
function patched(
  model: CausalLM,
  base: TokenBatch,
  rows: { base: BatchRows; source: BatchRows },
  places: { base: number[][]; source: number[][] },
  predicting: Int32Array,
  kept: { inputs: ReadonlyMap<string, Tensor>; states: ReadonlyMap<string, Tensor> },
  site: Site,
  list: readonly Patch[],
): Tensor {
  const { width } = rows.base;
  const pick = <T extends Int32Array>(all: T): Int32Array =>
    Int32Array.from(list.flatMap(({ row }) => [...all.subarray(row * width, (row + 1) * width)]));
  const flat = (t: Tensor | undefined): Tensor => (t as Tensor).reshape([-1, (t as Tensor).shape[2]]);
  return noGrad(() =>
    scope(() => {
      const columns = Array.from({ length: width }, (_, t) => t);
      const input = flat(kept.inputs.get(siteName({ layer: site.layer, component: 'block_input' })));
      const hiddenStates = input
        .takeRows(list.flatMap(({ row }) => columns.map(t => row * width + t)))
        .reshape([list.length, width, -1]);
      const from = list.map(
        ({ row, slot }) => row * rows.source.width + rows.source.starts[row] + places.source[row][slot],
      );
      const into = Int32Array.from(
        list,
        ({ row, slot }, i) => i * width + rows.base.starts[row] + places.base[row][slot],
      );
      const state = flat(kept.states.get(siteName(site))).takeRows(from);
      return model.forward({
        inputIds: pick(base.inputIds),
        shape: [list.length, width],
        ...(base.attentionMask ? { attentionMask: pick(base.attentionMask) } : {}),
        from: { layer: site.layer, hiddenStates },
        edits: [{ site, apply: (h, present) => replaceRows(h, present.placesOf(into), () => state) }],
        logitsAt: Int32Array.from(list, ({ row }, i) => i * width + (predicting[row] - row * width)),
      }).logits;
    }),
  );
}

/** The metric of each row of logits [n, vocabulary], which are freed. */
async function measured(logits: Tensor, metric: PatchingMetric): Promise<number[]> {
  const [n, vocabulary] = logits.shape;
  const data = (await logits.data()) as Float32Array;
  logits.storage.dispose();
  return Array.from({ length: n }, (_, i) => metric(data.subarray(i * vocabulary, (i + 1) * vocabulary), i));
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

function lastOf(side: string, predictAt: UnitLocations, rows: BatchRows): Int32Array {
  return Int32Array.from(locate(`patching: predictAt of ${side}`, predictAt, rows), (list, b) => {
    if (list.length !== 1)
      throw new RangeError(`patching: predictAt must be one position a row, ${side} row ${b} has ${list.length}`);
    return b * rows.width + rows.starts[b] + list[0];
  });
}

function metricOf({ answers, metric }: PatchingOptions, count: number): PatchingMetric {
  if ((answers === undefined) === (metric === undefined))
    throw new RangeError('patching: expected either answers or a metric');
  if (metric) return metric;
  if (answers?.length !== count)
    throw new RangeError(`patching: answers for ${answers?.length ?? 0} pairs, there are ${count}`);
  return (logits, row) => {
    const { source, base } = answers[row];
    for (const token of [source, base])
      if (!(token in logits))
        throw new RangeError(`patching: answer ${token} is outside the vocabulary of ${logits.length}`);
    return logits[source] - logits[base];
  };
}
