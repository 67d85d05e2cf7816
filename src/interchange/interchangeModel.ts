// A frozen model with interchange interventions: sources are run and read, the base is run with what was read put in
// its place, in parallel or as a chain. Edits are values given to the model's forward, as all edits are. Kinds are in
// kinds.ts, training in das.ts, files in files.ts. Source of the run's meaning: pyvene models/intervenable_base.py
// (parallel and serial forwards), without its hooks.

import type { TrainedTensor } from '../adapt/parameterSet.js';
import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Tokenizer } from '../io/tokenizer.js';
import type { CausalLM, ForwardOptions, ForwardOutput } from '../models/causalLM.js';
import type { SiteEdit } from '../models/patch.js';
import {
  promptList,
  promptRows,
  type Generated,
  type GenerateOptions,
  type Prompt,
} from '../models/generation/generate.js';
import { siteName, type Site } from '../models/sites.js';
import { create } from '../tensor/create.js';
import { formatShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import {
  resolveInterchange,
  siteOf,
  sizesOf,
  type InterchangeConfig,
  type ResolvedInterchangeConfig,
} from './config.js';
import { interchangeKinds, type InterchangeKind } from './kinds.js';
import { replaceRows } from './replaceRows.js';
import { InterchangeSpace } from './space.js';
import {
  chosenFeatures,
  flatRows,
  locate,
  rowsOfBatch,
  tokenBatch,
  type BatchRows,
  type Subspaces,
  type TokenBatch,
  type UnitLocationPair,
} from './unitLocations.js';

export interface InterchangeIntervention {
  /** `lowRankRotatedSpace@block_output/1`, with `#1` for the second of its name. */
  readonly id: string;
  readonly site: Site;
  readonly config: ResolvedInterchangeConfig;
  readonly kind: InterchangeKind;
  /** Its parameters, shared with those of its link. */
  readonly space: InterchangeSpace;
}

/**
 * 'parallel': every source is run once, unedited; all interventions act on the base. 'serial': a chain of groups; what
 * is read from one source is put into the next, whose own reading follows, and the last group's acts on the base.
 */
export type InterchangeMode = 'parallel' | 'serial';

export interface InterchangeRun extends Pick<ForwardOptions, 'logitsAt' | 'hiddenStates' | 'from' | 'onSite'> {
  readonly base: TokenBatch;
  /**
   * One for each group, in order of their keys; a single one feeds all groups of a parallel run. Null leaves its
   * interventions out. Of as many rows as the base, or one.
   */
  readonly sources?: readonly (TokenBatch | null)[];
  /**
   * For all interventions, or one for each; null leaves that one out. In a chain, `base` counts in the run that is
   * written to.
   */
  readonly unitLocations: UnitLocationPair | readonly (UnitLocationPair | null)[];
  /** For each intervention, its subspaces in this run; null or absent: those of its configuration. */
  readonly subspaces?: readonly (Subspaces | null)[];
  /** For each intervention, in place of a source run: [d], or a row for each base position in order, [rows, d]. */
  readonly sourceRepresentations?: readonly (Tensor | null | undefined)[];
}

export interface InterchangeOutput {
  /** Of the base with interventions. */
  readonly logits: Tensor;
  readonly hiddenStates: readonly Tensor[];
  /**
   * What `collect` interventions read, by their place in the list: [rows, d] in order of positions, after all edits at
   * their site.
   */
  readonly collected: readonly (Tensor | null)[];
}

/** An intervention placed in a run. */
interface Placed {
  readonly intervention: InterchangeIntervention;
  readonly number: number;
  readonly pair: UnitLocationPair;
  /** Of its space, R computed once a run however many share it. */
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** Rows of the source's hidden states, [rows, d]. */
  source: Tensor | null;
}

export class InterchangeModel {
  readonly base: CausalLM;
  readonly mode: InterchangeMode;
  readonly interventions: readonly InterchangeIntervention[];
  /** Needed by positions that look at a text. */
  tokenizer: Tokenizer | undefined;

  constructor(base: CausalLM, configs: readonly ResolvedInterchangeConfig[], mode: InterchangeMode) {
    if (configs.length === 0) throw new RangeError('interchange: expected at least one intervention, got none');
    if (mode !== 'parallel' && mode !== 'serial')
      throw new RangeError(`interchange: mode must be parallel or serial, got '${String(mode)}'`);
    this.base = base;
    this.mode = mode;
    const linked = new Map<string, InterchangeSpace>();
    const names: string[] = [];
    this.interventions = configs.map(config => {
      const [site, kind] = [siteOf(config), interchangeKinds[config.kind]];
      const name = `${kind.name}@${siteName(site)}`;
      const same = names.filter(n => n === name).length;
      names.push(name);
      const id = same > 0 ? `${name}#${same}` : name;
      const key = config.interventionLinkKey;
      const sizes = sizesOf(base, config);
      let space = key === null ? undefined : linked.get(key);
      if (space && (space.kind !== kind || JSON.stringify(space.sizes) !== JSON.stringify(sizes))) {
        throw new RangeError(`${id}: cannot share parameters with ${space.id} (link '${key}'): kind and sizes differ`);
      }
      space ??= new InterchangeSpace({
        id: key ?? id,
        kind,
        sizes,
        orthogonal: config.orthogonal,
        temperature: config.temperature,
        trainable: config.trainable,
        seed: config.seed,
        backend: base.backend,
        dtype: base.dtype,
      });
      if (key !== null) linked.set(key, space);
      return { id, site, config, kind, space };
    });
  }

  /** Parameters of the interventions, each once. */
  get spaces(): readonly InterchangeSpace[] {
    return [...new Set(this.interventions.map(i => i.space))];
  }

  /** What is trained, R through its orthogonal map; what is shared comes once. */
  trained(): TrainedTensor[] {
    return this.spaces.flatMap(space => space.trained());
  }

  /** T of every learned mask. */
  setTemperature(temperature: number): void {
    if (!(temperature > 0 && temperature < Infinity))
      throw new RangeError(`temperature: expected a number above 0, got ${temperature}`);
    for (const space of this.spaces) space.temperature = temperature;
  }

  /**
   * What the penalty of training makes small: the swapped share of the features, added up; null where nothing is
   * learned about it.
   */
  sparsity(): Tensor | null {
    const terms = this.spaces.flatMap(space => space.kind.sparsity?.(space.parameters(), space.temperature) ?? []);
    return terms.length > 0 ? terms.reduce((a, b) => a.add(b)) : null;
  }

  /** Groups of interventions in the order of their keys: as many as a run has sources. */
  get groups(): readonly (readonly InterchangeIntervention[])[] {
    const keys = [...new Set(this.interventions.map(i => i.config.groupKey))].sort((a, b) => a - b);
    return keys.map(key => this.interventions.filter(i => i.config.groupKey === key));
  }

  /**
   * Runs the sources, then the base with interventions. On the tape where something is trained. @throws RangeError
   * naming what does not fit
   */
  run(options: InterchangeRun): InterchangeOutput {
    const { base, logitsAt, hiddenStates, from, onSite } = options;
    return scope(() => {
      const rest = {
        ...(logitsAt ? { logitsAt } : {}),
        ...(hiddenStates ? { hiddenStates } : {}),
        ...(from ? { from } : {}),
        ...(onSite ? { onSite } : {}),
      };
      const { output, collected } = this.chain(options, rowsOfBatch('base', base), edits =>
        this.base.forward({ ...tokensOf(base), ...rest, ...edits }),
      );
      return { logits: output.logits, hiddenStates: output.hiddenStates, collected };
    });
  }

  /**
   * What the run reads from its sources, for each intervention [rows, d] in order of the base's positions (null where
   * it has no source): given as `sourceRepresentations`, another run need not read them again. Parallel runs only.
   */
  sourceRows(options: InterchangeRun): (Tensor | null)[] {
    if (this.mode === 'serial')
      throw new Error('interchange: the sources of a chain depend on each other; run it as a whole');
    return scope(() => {
      const placed = this.place(options);
      this.readParallel(placed, options, rowsOfBatch('base', options.base));
      return this.interventions.map((_, number) => placed.find(p => p.number === number)?.source ?? null);
    });
  }

  /**
   * Continues prompts with interventions on the prompt, in place of `base` in a parallel run; new tokens are not
   * edited.
   */
  async generate(
    prompts: Prompt | readonly Prompt[],
    run: Omit<InterchangeRun, 'base' | 'logitsAt' | 'hiddenStates' | 'from' | 'onSite'>,
    options: Omit<GenerateOptions, 'edits'> = {},
  ): Promise<Generated[]> {
    const prompted = promptRows(promptList(prompts), this.base.config.vocabSize);
    const whole: InterchangeRun = { ...run, base: tokenBatch(prompted) };
    const rows = rowsOfBatch('base', whole.base);
    const sourceRepresentations = noGrad(() => this.sourceRows(whole));
    try {
      return await this.base.generate(prompts, {
        ...options,
        edits: {
          editsFor: ({ phase, width, starts }) => {
            if (phase !== 'prompt') return [];
            const placed = this.place({ ...whole, sourceRepresentations });
            this.readParallel(placed, { ...whole, sourceRepresentations }, rows);
            return placed.flatMap(p => this.editOf(p, { ...rows, width, starts }, whole) ?? []);
          },
        },
      });
    } finally {
      for (const t of sourceRepresentations) t?.storage.dispose();
    }
  }

  /** The interventions that take part, and where. */
  private place({ unitLocations, subspaces, sourceRepresentations, sources }: InterchangeRun): Placed[] {
    const count = this.interventions.length;
    const given = (name: string, list: readonly unknown[] | undefined): void => {
      if (list && list.length !== count)
        throw new RangeError(`${name}: expected one for each of the ${count} interventions, got ${list.length}`);
    };
    const each = Array.isArray(unitLocations) ? (unitLocations as readonly (UnitLocationPair | null)[]) : null;
    given('unitLocations', each ?? undefined);
    given('subspaces', subspaces);
    given('sourceRepresentations', sourceRepresentations);
    const { groups } = this;
    const parameters = new Map(this.spaces.map(space => [space, space.parameters()]));
    const broadcast = this.mode === 'parallel' && sources?.length === 1;
    if (sources && !broadcast && sources.length !== groups.length) {
      throw new RangeError(
        `sources: expected ${groups.length}, one for each group of interventions${this.mode === 'parallel' ? ', or a single one' : ''}, got ${sources.length}`,
      );
    }
    return this.interventions.flatMap((intervention, number): Placed[] => {
      const pair = each ? each[number] : (unitLocations as UnitLocationPair);
      const group = groups.findIndex(g => g.includes(intervention));
      const constant = sourceRepresentations?.[number];
      const without = intervention.kind.needsSource && !constant && sources?.[broadcast ? 0 : group] === null;
      return pair === null || without
        ? []
        : [{ intervention, number, pair, parameters: parameters.get(intervention.space) ?? {}, source: null }];
    });
  }

  private chain<T extends ForwardOutput>(
    options: InterchangeRun,
    rows: BatchRows,
    forward: (options: Pick<ForwardOptions, 'edits' | 'collect'>) => T,
  ): { output: T; collected: (Tensor | null)[] } {
    const placed = this.place(options);
    const collected: (Tensor | null)[] = this.interventions.map(() => null);
    /**
     * Runs with the edits of some interventions, and takes what `collect` ones and readings of `wanted` sites ask for.
     */
    const run = <U extends ForwardOutput>(
      list: readonly Placed[],
      into: BatchRows,
      wanted: readonly Site[],
      body: (o: Pick<ForwardOptions, 'edits' | 'collect'>) => U,
    ): U => {
      const collecting = list.filter(p => p.intervention.kind === interchangeKinds.collect);
      const edits = list.flatMap(p => this.editOf(p, into, options) ?? []);
      const output = body({ edits, collect: [...collecting.map(p => p.intervention.site), ...wanted] });
      for (const p of collecting)
        collected[p.number] = rowsAt(output, p.intervention.site, flatRows(this.positions(p, 'base', into), into));
      return output;
    };
    if (this.mode === 'parallel') {
      this.readParallel(placed, options, rows);
      return { output: run(placed, rows, [], forward), collected };
    }
    let before: Placed[] = [];
    this.groups.forEach((group, g) => {
      const members = placed.filter(p => group.includes(p.intervention));
      const source = options.sources?.[g];
      if (!source) throw new RangeError(`sources: a serial run needs one for each group, there is none for group ${g}`);
      if (options.sourceRepresentations?.some(t => t))
        throw new RangeError('sourceRepresentations: a serial run reads its sources');
      const sourceRows = rowsOfBatch(`source ${g}`, source);
      const reading = members.filter(p => p.intervention.kind.needsSource);
      const wanted = reading.map(p => p.intervention.site);
      const output = run(before, sourceRows, wanted, o =>
        this.base.forward({ ...tokensOf(source), logitsAt: new Int32Array(), ...o }),
      );
      const next = options.sources?.[g + 1];
      for (const p of reading) this.read(p, output, sourceRows, next ? rowsOfBatch(`source ${g + 1}`, next) : rows);
      before = members;
    });
    return { output: run(before, rows, [], forward), collected };
  }

  /** Reads every source of a parallel run, each batch once, or takes what was given. */
  private readParallel(
    placed: readonly Placed[],
    { sources, sourceRepresentations }: InterchangeRun,
    rows: BatchRows,
  ): void {
    const bySource = new Map<TokenBatch, Placed[]>();
    const { groups } = this;
    for (const p of placed) {
      const {
        intervention: { id, kind, space },
        number,
      } = p;
      if (!kind.needsSource) continue;
      const constant = sourceRepresentations?.[number];
      if (constant) {
        const count = this.positions(p, 'base', rows).reduce((n, list) => n + list.length, 0);
        const { width } = space.sizes;
        const fits = constant.shape.join() === String(width) || constant.shape.join() === `${count},${width}`;
        if (!fits)
          throw new RangeError(
            `${id}: sourceRepresentations must be [${width}] or [${count}, ${width}], got ${formatShape(constant.shape)}`,
          );
        p.source = constant.rank === 1 ? constant.unsqueeze(0).expand([count, width]) : constant;
        continue;
      }
      const source = sources?.length === 1 ? sources[0] : sources?.[groups.findIndex(g => g.includes(p.intervention))];
      if (!source) throw new RangeError(`${id}: needs a source, or a sourceRepresentation`);
      bySource.set(source, [...(bySource.get(source) ?? []), p]);
    }
    for (const [source, list] of bySource) {
      const sourceRows = rowsOfBatch('source', source);
      const output = this.base.forward({
        ...tokensOf(source),
        logitsAt: new Int32Array(),
        collect: list.map(p => p.intervention.site),
      });
      for (const p of list) this.read(p, output, sourceRows, rows);
    }
  }

  /** Takes a source's rows for each base position. */
  private read(p: Placed, output: ForwardOutput, source: BatchRows, into: BatchRows): void {
    const { id, site } = p.intervention;
    if (source.batch !== into.batch && source.batch !== 1)
      throw new RangeError(
        `${id}: a source of ${source.batch} rows for a base of ${into.batch}; expected as many, or 1`,
      );
    const [to, from] = [this.positions(p, 'base', into), this.positions(p, 'source', source)];
    const matched = to.map((list, b) => {
      const row = source.batch === 1 ? 0 : b;
      if (from[row].length !== list.length)
        throw new RangeError(
          `${id}, row ${b}: ${list.length} base positions and ${from[row].length} source positions; expected as many`,
        );
      return from[row].map(position => row * source.width + source.starts[row] + position);
    });
    p.source = rowsAt(output, site, Int32Array.from(matched.flat()));
  }

  private positions({ intervention, pair }: Placed, side: 'base' | 'source', rows: BatchRows): number[][] {
    return locate(
      `${intervention.id}: ${side}`,
      side === 'base' ? pair.base : (pair.source ?? pair.base),
      rows,
      this.tokenizer,
    );
  }

  private editOf(p: Placed, rows: BatchRows, { subspaces }: InterchangeRun): SiteEdit | null {
    const {
      intervention: { id, kind, space, config, site },
      number,
      source,
      parameters,
    } = p;
    if (kind === interchangeKinds.collect) return null;
    const positions = this.positions(p, 'base', rows);
    positions.forEach((list, b) => {
      if (new Set(list).size !== list.length)
        throw new RangeError(`${id}, row ${b}: base positions [${list.join(', ')}] name one token twice`);
    });
    const indices = flatRows(positions, rows);
    const { backend, dtype } = this.base;
    const choice = chosenOf(p.intervention, subspaces?.[number] ?? config.subspaces, rows.batch);
    const shapes = Object.entries(parameters).map(([name, t]) => [name, t.shape] as const);
    return {
      site,
      about: {
        id,
        kind: kind.name,
        rows: Array.from(indices),
        ...(kind.features === 'rank' ? { rank: space.sizes.rank } : {}),
        ...(shapes.length > 0 ? { parameters: Object.fromEntries(shapes) } : {}),
      },
      apply: (h, present) =>
        replaceRows(h, present.placesOf(indices), base => {
          const perRow =
            choice && choice.length > 1 ? positions.flatMap((list, b) => list.map(() => choice[b])) : choice;
          const chosen =
            perRow &&
            create.from(Int32Array.from(perRow.flat(), Number), [perRow.length, space.features], {
              dtype: 'bool',
              backend,
            });
          const noise =
            kind.name === 'noise'
              ? create.normal(base.shape, { seed: config.seed, stream: number, dtype, backend })
              : null;
          return kind.apply({
            base,
            source,
            parameters,
            chosen,
            temperature: space.temperature,
            noise,
            noiseLevel: config.noiseLevel,
            keepError: config.keepError,
          });
        }),
    };
  }

  /** Frees the parameters; the base stays. */
  dispose(): void {
    for (const space of this.spaces) space.dispose();
  }
}

const tokensOf = ({
  inputIds,
  shape,
  attentionMask,
}: TokenBatch): Pick<ForwardOptions, 'inputIds' | 'shape' | 'attentionMask'> => ({
  inputIds,
  shape,
  ...(attentionMask ? { attentionMask } : {}),
});

function rowsAt(output: ForwardOutput, site: Site, rows: Int32Array): Tensor {
  const h = output.collected.get(siteName(site));
  if (!h) throw new Error(`interchange: the model passed no site ${siteName(site)}`);
  return h.reshape([-1, h.shape[h.rank - 1]]).takeRows(rows);
}

/**
 * Features that take part: a list for each row of the batch, a single one where all rows agree, null for all features.
 */
function chosenOf(
  { id, config, space }: InterchangeIntervention,
  subspaces: Subspaces | null,
  batch: number,
): boolean[][] | null {
  const { features } = space;
  if (subspaces) {
    const lists = chosenFeatures(id, subspaces, batch, features, config.subspacePartition);
    return lists.every(list => list.every((x, i) => x === lists[0][i])) ? lists.slice(0, 1) : lists;
  }
  const { interchangeDim } = config;
  return interchangeDim === null || interchangeDim === features
    ? null
    : [Array.from({ length: features }, (_, i) => i < interchangeDim)];
}

/**
 * Puts interchange interventions on a frozen model: `getInterchangeModel(model, [{ kind: 'lowRankRotatedSpace', layer:
 * 12, lowRankDimension: 4 }])`. They act in list order; groups in serial mode are the links of the chain.
 */
export function getInterchangeModel(
  base: CausalLM,
  config: InterchangeConfig | readonly InterchangeConfig[],
  options: { mode?: InterchangeMode } = {},
): InterchangeModel {
  const list = Array.isArray(config) ? (config as readonly InterchangeConfig[]) : [config as InterchangeConfig];
  return new InterchangeModel(
    base,
    list.map((c, place) => resolveInterchange(base, c, place)),
    options.mode ?? 'parallel',
  );
}
