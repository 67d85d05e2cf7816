// Where an edit, a probe or a patch may stand, as data, and every name a place goes by: ours, pyvene's,
// TransformerLens's, a module's path. What a stack of blocks has is its `StackSites`, which its family gives; a model
// has one stack or several. What happens at a site is run.ts's business.
// Sources of names: pyvene models/llama/modelings_intervenable_llama.py; TransformerLens docs, "ActivationCache" (hook
// names); transformers' module paths.

/** In the order a block passes them. `block_middle` is the residual stream between attention and feed-forward. */
export const blockComponents = [
  'block_input',
  'attention_input',
  'query_output',
  'key_output',
  'value_output',
  'attention_value_output',
  'attention_output',
  'block_middle',
  'mlp_input',
  'mlp_activation',
  'mlp_output',
  'block_output',
] as const;

/**
 * Of decoders that read an encoder, between attention and feed-forward. `cross_block_middle` is the residual stream
 * after cross attention.
 */
export const crossComponents = [
  'cross_attention_input',
  'cross_query_output',
  'cross_key_output',
  'cross_value_output',
  'cross_attention_value_output',
  'cross_attention_output',
  'cross_block_middle',
] as const;

/** Of decoders, but with the rows of the encoder they read. */
export const isOfEncoderRows = (component: Component): boolean =>
  component === 'cross_key_output' || component === 'cross_value_output';

/** Of blocks that mix tokens by a recurrence: its input after the norm, what the scan gives, what the block adds. */
export const mixerComponents = ['mixer_input', 'mixer_activation', 'mixer_output'] as const;

/**
 * Outside the blocks: `embeddings` counts as layer 0, `final_norm` (its output, what the head reads) as the last layer.
 */
export const modelComponents = ['embeddings', 'final_norm'] as const;

/** All are [N, width]. Queries and keys are those before rotary embeddings. */
export const components = [...blockComponents, ...crossComponents, ...mixerComponents, ...modelComponents] as const;
export type Component = (typeof components)[number];

/** Components that are heads side by side, of which a single one may be edited. */
export const headComponents = [
  'query_output',
  'key_output',
  'value_output',
  'attention_value_output',
  'cross_query_output',
  'cross_key_output',
  'cross_value_output',
  'cross_attention_value_output',
] as const satisfies readonly Component[];

export interface Site {
  /** The stack, in models of several: 'encoder', 'decoder', 'vision'. */
  readonly stack?: string;
  readonly layer: number;
  readonly component: Component;
  /** One head of `headComponents`: its columns alone. */
  readonly head?: number;
}

/** Heads and sizes, by which widths and single heads follow. */
export interface SiteSizes {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** The sites of one stack and what its checkpoint's modules call them. */
export interface StackSites extends SiteSizes {
  /** Absent in models of one stack, and for the main stack of others. */
  readonly stack?: string;
  /** The stack whose states cross attention reads. */
  readonly reads?: string;
  /** In the order they are passed; default: those of a decoder without cross attention. */
  readonly components?: readonly Component[];
  /** Widths that do not follow from the sizes. */
  readonly widths?: Partial<Readonly<Record<Component, number>>>;
  readonly modules?: ModuleSites;
}

export interface ModuleSites {
  /** What stands before the number of a block: `model.layers`. */
  readonly blocks: string;
  /** What else may stand there. */
  readonly otherBlocks?: readonly string[];
  /** By the path behind the number, like `mlp.output`. */
  readonly inBlock: Readonly<Record<string, Component>>;
  /** By the whole path, like `model.norm.output`. */
  readonly outside: Readonly<Record<string, Component>>;
}

/** The stacks of a model; a single one may stand for itself. */
export type ModelSites = StackSites | readonly StackSites[];

export const stacksOf = (sites: ModelSites): readonly StackSites[] =>
  Array.isArray(sites) ? (sites as readonly StackSites[]) : [sites as StackSites];

/** `block_output/15`; a single head is `query_output/3:5`, one of a stack `encoder/block_output/3`. */
export const siteName = ({ stack, layer, component, head }: Site): string =>
  `${stack === undefined ? '' : `${stack}/`}${component}/${layer}${head === undefined ? '' : `:${head}`}`;

export const isHeadComponent = (component: Component): boolean =>
  (headComponents as readonly Component[]).includes(component);

/** What a decoder without cross attention passes, in order. */
export const decoderComponents: readonly Component[] = ['embeddings', ...blockComponents, 'final_norm'];

/** What a stack passes, in order. */
export const componentsOf = ({ components: listed }: StackSites): readonly Component[] => listed ?? decoderComponents;

const isOutside = (component: Component): boolean => (modelComponents as readonly Component[]).includes(component);

/** How many heads stand side by side at a component; 1 where there are none. */
export function headsAt(component: Component, { heads, kvHeads }: SiteSizes): number {
  if (!isHeadComponent(component)) return 1;
  return /key_output|^(cross_)?value_output/.test(component) ? kvHeads : heads;
}

/** Width of the hidden states at a component, or of one head there. */
export function widthAt(component: Component, sizes: StackSites, head?: number): number {
  if (isHeadComponent(component)) return sizes.headDim * (head === undefined ? headsAt(component, sizes) : 1);
  return sizes.widths?.[component] ?? (component === 'mlp_activation' ? sizes.intermediateSize : sizes.hiddenSize);
}

/** The stack a site is of. @throws RangeError naming the stacks there are */
export function stackOf(site: Pick<Site, 'stack'>, model: ModelSites, name = String(site.stack)): StackSites {
  const stacks = stacksOf(model);
  const stack = stacks.find(s => s.stack === site.stack);
  if (stack) return stack;
  const names = stacks.map(s => (s.stack === undefined ? 'the main one, without a name' : `'${s.stack}'`)).join(', ');
  throw new RangeError(`site ${name}: expected a stack of the model (${names})`);
}

/** The stack whose tokens are the rows of a site. */
export const rowsStackOf = (site: Site, model: ModelSites): string | undefined =>
  isOfEncoderRows(site.component) ? stackOf(site, model).reads : site.stack;

/** @throws RangeError naming the site and what the model has */
export function checkSite(site: Site, model: ModelSites): Site {
  const { layer, component, head } = site;
  const name = siteName(site);
  const stack = stackOf(site, model, name);
  const { layers } = stack;
  const listed = componentsOf(stack);
  if (!listed.includes(component)) throw new RangeError(`site ${name}: the components are ${listed.join(', ')}`);
  if (!(Number.isInteger(layer) && layer >= 0 && layer < layers))
    throw new RangeError(`site ${name}: the model has layers 0..${layers - 1}`);
  if (component === 'embeddings' && layer !== 0) throw new RangeError(`site ${name}: embeddings are before layer 0`);
  if (component === 'final_norm' && layer !== layers - 1)
    throw new RangeError(`site ${name}: the final norm is after layer ${layers - 1}`);
  if (head === undefined) return site;
  if (!isHeadComponent(component)) {
    const some = headComponents.filter(c => listed.includes(c)).join(', ');
    throw new RangeError(`site ${name}: only ${some} have heads`);
  }
  const heads = headsAt(component, stack);
  if (!(Number.isInteger(head) && head >= 0 && head < heads))
    throw new RangeError(`site ${name}: ${component} has heads 0..${heads - 1}`);
  return site;
}

/** Every site of a stack, in the order they are passed. With `heads`, single heads after the component they are of. */
export function sitesOf(sites: StackSites, heads = false): Site[] {
  const stack = sites.stack === undefined ? {} : { stack: sites.stack };
  const listed = componentsOf(sites);
  const inBlock = listed.filter(component => !isOutside(component));
  const single = (layer: number, component: Component): Site[] =>
    heads && isHeadComponent(component)
      ? Array.from({ length: headsAt(component, sites) }, (_, head) => ({ ...stack, layer, component, head }))
      : [];
  const blocks = Array.from({ length: sites.layers }, (_, layer) =>
    inBlock.flatMap(component => [{ ...stack, layer, component }, ...single(layer, component)]),
  ).flat();
  return [
    ...(listed.includes('embeddings') ? [{ ...stack, layer: 0, component: 'embeddings' as const }] : []),
    ...blocks,
    ...(listed.includes('final_norm') ? [{ ...stack, layer: sites.layers - 1, component: 'final_norm' as const }] : []),
  ];
}

/** TransformerLens's names: what stands behind `blocks.<n>.`, or `encoder.<n>.` and `decoder.<n>.`. */
const transformerLens: Readonly<Record<string, Component>> = {
  hook_resid_pre: 'block_input',
  hook_resid_mid: 'block_middle',
  hook_resid_mid_cross: 'cross_block_middle',
  hook_resid_post: 'block_output',
  hook_attn_out: 'attention_output',
  hook_cross_attn_out: 'cross_attention_output',
  hook_mlp_out: 'mlp_output',
  'attn.hook_q': 'query_output',
  'attn.hook_k': 'key_output',
  'attn.hook_v': 'value_output',
  'attn.hook_z': 'attention_value_output',
  'cross_attn.hook_q': 'cross_query_output',
  'cross_attn.hook_k': 'cross_key_output',
  'cross_attn.hook_v': 'cross_value_output',
  'cross_attn.hook_z': 'cross_attention_value_output',
  'mlp.hook_post': 'mlp_activation',
};

const transformerLensOutside: Readonly<Record<string, Component>> = {
  hook_embed: 'embeddings',
  'ln_final.hook_normalized': 'final_norm',
};

/** A name's stack, component, layer and head, by any dialect; null where it is not known. */
function placeNamed(text: string, sites: StackSites): Omit<Site, 'stack'> | null {
  const prefix = sites.stack === undefined ? '' : `${sites.stack}/`;
  const modules = sites.modules ?? llamaModules;
  const bare = text.startsWith(prefix) ? text.slice(prefix.length) : null;
  const outside = Object.hasOwn(modules.outside, text)
    ? modules.outside[text]
    : bare !== null && (modelComponents as readonly string[]).includes(bare)
      ? (bare as Component)
      : sites.stack === undefined && Object.hasOwn(transformerLensOutside, text)
        ? transformerLensOutside[text]
        : undefined;
  if (outside) return { component: outside, layer: outside === 'embeddings' ? 0 : sites.layers - 1 };
  const ours = bare === null ? null : /^(?:head_)?([a-z_]+)\/(\d+)(?::(\d+))?$/.exec(bare);
  if (ours && (components as readonly string[]).includes(ours[1]))
    return { component: ours[1] as Component, layer: Number(ours[2]), ...headOf(ours[3]) };
  const lens = new RegExp(`^${sites.stack ?? 'blocks'}\\.(\\d+)\\.([a-z_.]+?)(?:\\[(\\d+)\\])?$`).exec(text);
  if (lens && Object.hasOwn(transformerLens, lens[2]))
    return { component: transformerLens[lens[2]], layer: Number(lens[1]), ...headOf(lens[3]) };
  const path = [modules.blocks, ...(modules.otherBlocks ?? [])].map(blocks => pathBehind(text, blocks)).find(Boolean);
  if (path && Object.hasOwn(modules.inBlock, path.rest))
    return { component: modules.inBlock[path.rest], layer: path.layer };
  return null;
}

const headOf = (head: string | undefined): { head?: number } => (head === undefined ? {} : { head: Number(head) });

/** The number and the path behind `model.layers`, which may also be written without its first part. */
function pathBehind(text: string, blocks: string): { layer: number; rest: string } | null {
  for (const prefix of new Set([blocks, blocks.slice(blocks.indexOf('.') + 1)])) {
    if (!text.startsWith(prefix)) continue;
    const path = /^(?:\.(\d+)|\[(\d+)\])\.([A-Za-z0-9_.]+)$/.exec(text.slice(prefix.length));
    if (path) return { layer: Number(path[1] ?? path[2]), rest: path[3] };
  }
  return null;
}

/**
 * A site by any of its names: `block_output/15`, `query_output/3:5`, `encoder/block_output/3`; pyvene's component with
 * a layer, `head_query_output/3:5`; TransformerLens's `blocks.3.hook_resid_post` and `blocks.3.attn.hook_z[5]`; module
 * paths like `model.layers[3].self_attn.o_proj.input`. TransformerLens's `ln_final.hook_normalized` is the norm's
 * output with its weight folded in, as it does by default.
 * @throws RangeError naming what is not known
 */
export function parseSite(name: string, model: ModelSites): Site {
  const text = name.trim();
  const stacks = stacksOf(model);
  for (const sites of stacks) {
    const place = placeNamed(text, sites);
    const stack = sites.stack === undefined ? {} : { stack: sites.stack };
    if (place) return checkSite({ ...stack, ...place }, model);
  }
  const [{ stack, modules = llamaModules }] = stacks;
  const listed = [...new Set(stacks.flatMap(componentsOf))];
  const prefix = stacks.every(s => s.stack !== undefined) ? `${stacks.map(s => s.stack).join(' or ')}/` : '';
  throw new RangeError(
    `site '${name}' is not known: expected ${prefix}<component>/<layer> with a component of ${listed.join(', ')}, or a name like ` +
      `${stack ?? 'blocks'}.3.hook_resid_post (${Object.keys(transformerLens).join(', ')}) or ` +
      `${modules.blocks}[3].output (${Object.keys(modules.inBlock).join(', ')})`,
  );
}

/** Module paths of LLaMA and of all that follow it. */
const llamaModules: ModuleSites = {
  blocks: 'model.layers',
  inBlock: {
    input: 'block_input',
    output: 'block_output',
    'input_layernorm.output': 'attention_input',
    'self_attn.input': 'attention_input',
    'self_attn.q_proj.output': 'query_output',
    'self_attn.k_proj.output': 'key_output',
    'self_attn.v_proj.output': 'value_output',
    'self_attn.o_proj.input': 'attention_value_output',
    'self_attn.o_proj.output': 'attention_output',
    'self_attn.output': 'attention_output',
    'post_attention_layernorm.input': 'block_middle',
    'post_attention_layernorm.output': 'mlp_input',
    'mlp.input': 'mlp_input',
    'mlp.down_proj.input': 'mlp_activation',
    'mlp.down_proj.output': 'mlp_output',
    'mlp.output': 'mlp_output',
  },
  outside: {
    'model.embed_tokens.output': 'embeddings',
    'model.norm.output': 'final_norm',
    'lm_head.input': 'final_norm',
  },
};
