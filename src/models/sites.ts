// Where an edit, a probe or a patch may stand, as data, and every name a place goes by: ours, pyvene's,
// TransformerLens's, a module's path. What happens at a site is context.ts's business.
// Sources of names: pyvene models/llama/modelings_intervenable_llama.py; TransformerLens docs, "ActivationCache" (hook
// names); transformers models/llama/modeling_llama.py (module paths).

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
 * Outside the blocks: `embeddings` counts as layer 0, `final_norm` (its output, what the head reads) as the last layer.
 */
export const modelComponents = ['embeddings', 'final_norm'] as const;

/** All are [B, T, width]. Queries and keys are those before rotary embeddings. */
export const components = [...blockComponents, ...modelComponents] as const;
export type Component = (typeof components)[number];

/** Components that are heads side by side, of which a single one may be edited. */
export const headComponents = [
  'query_output',
  'key_output',
  'value_output',
  'attention_value_output',
] as const satisfies readonly Component[];

export interface Site {
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

/** `block_output/15`; a single head is `query_output/3:5`. */
export const siteName = ({ layer, component, head }: Site): string =>
  `${component}/${layer}${head === undefined ? '' : `:${head}`}`;

export const isHeadComponent = (component: Component): boolean =>
  (headComponents as readonly Component[]).includes(component);

/** How many heads stand side by side at a component; 1 where there are none. */
export function headsAt(component: Component, { heads, kvHeads }: SiteSizes): number {
  if (!isHeadComponent(component)) return 1;
  return component === 'key_output' || component === 'value_output' ? kvHeads : heads;
}

/** Width of the hidden states at a component, or of one head there. */
export function widthAt(component: Component, sizes: SiteSizes, head?: number): number {
  if (isHeadComponent(component)) return sizes.headDim * (head === undefined ? headsAt(component, sizes) : 1);
  return component === 'mlp_activation' ? sizes.intermediateSize : sizes.hiddenSize;
}

/** @throws RangeError naming the site and what the model has */
export function checkSite(site: Site, sizes: SiteSizes): Site {
  const { layer, component, head } = site;
  const name = siteName(site);
  const { layers } = sizes;
  if (!components.includes(component))
    throw new RangeError(`site ${name}: the components are ${components.join(', ')}`);
  if (!(Number.isInteger(layer) && layer >= 0 && layer < layers))
    throw new RangeError(`site ${name}: the model has layers 0..${layers - 1}`);
  if (component === 'embeddings' && layer !== 0) throw new RangeError(`site ${name}: embeddings are before layer 0`);
  if (component === 'final_norm' && layer !== layers - 1)
    throw new RangeError(`site ${name}: the final norm is after layer ${layers - 1}`);
  if (head === undefined) return site;
  if (!isHeadComponent(component)) throw new RangeError(`site ${name}: only ${headComponents.join(', ')} have heads`);
  const heads = headsAt(component, sizes);
  if (!(Number.isInteger(head) && head >= 0 && head < heads))
    throw new RangeError(`site ${name}: ${component} has heads 0..${heads - 1}`);
  return site;
}

// One table: what others call the component of a layer. Suffixes of `blocks.<n>.` (TransformerLens) and of
// `model.layers.<n>.` (module paths).

const transformerLens: Readonly<Record<string, Component>> = {
  hook_resid_pre: 'block_input',
  hook_resid_mid: 'block_middle',
  hook_resid_post: 'block_output',
  hook_attn_out: 'attention_output',
  hook_mlp_out: 'mlp_output',
  'attn.hook_q': 'query_output',
  'attn.hook_k': 'key_output',
  'attn.hook_v': 'value_output',
  'attn.hook_z': 'attention_value_output',
  'mlp.hook_post': 'mlp_activation',
};

const modulePaths: Readonly<Record<string, Component>> = {
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
};

const outside: Readonly<Record<string, Component>> = {
  hook_embed: 'embeddings',
  'model.embed_tokens.output': 'embeddings',
  embeddings: 'embeddings',
  'ln_final.hook_normalized': 'final_norm',
  'model.norm.output': 'final_norm',
  'lm_head.input': 'final_norm',
  final_norm: 'final_norm',
};

/**
 * A site by any of its names: `block_output/15`, `query_output/3:5`; pyvene's component with a layer,
 * `head_query_output/3:5`; TransformerLens's `blocks.3.hook_resid_post` and `blocks.3.attn.hook_z[5]`; module paths
 * like `model.layers[3].self_attn.o_proj.input`. TransformerLens's `ln_final.hook_normalized` is the norm's output with
 * its weight folded in, as it does by default.
 * @throws RangeError naming what is not known
 */
export function parseSite(name: string, sizes: SiteSizes): Site {
  const text = name.trim();
  const whole = outside[text];
  if (whole) return { component: whole, layer: whole === 'embeddings' ? 0 : sizes.layers - 1 };
  const own = /^(?:head_)?([a-z_]+)\/(\d+)(?::(\d+))?$/.exec(text);
  const lens = /^blocks\.(\d+)\.([a-z_.]+?)(?:\[(\d+)\])?$/.exec(text);
  const path = /^(?:model\.)?layers(?:\.(\d+)|\[(\d+)\])\.([a-z_.]+)$/.exec(text);
  const component = own ? own[1] : lens ? transformerLens[lens[2]] : path ? modulePaths[path[3]] : undefined;
  if (component === undefined || !(components as readonly string[]).includes(component)) {
    throw new RangeError(
      `site '${name}' is not known: expected <component>/<layer> with a component of ${components.join(', ')}, or a name like ` +
        `blocks.3.hook_resid_post (${Object.keys(transformerLens).join(', ')}) or model.layers[3].output (${Object.keys(modulePaths).join(', ')})`,
    );
  }
  const head = own?.[3] ?? lens?.[3];
  const layer = Number(own?.[2] ?? lens?.[1] ?? path?.[1] ?? path?.[2]);
  return checkSite(
    { component: component as Component, layer, ...(head === undefined ? {} : { head: Number(head) }) },
    sizes,
  );
}
