// The module paths of sites, as transformers' users write them, from the names of a family's layers: what a layer gives
// or takes is a site, and so is what the module that holds it gives or takes.

import type { Role } from './block.js';
import type { ModelNames } from './families/family.js';
import type { Component, ModuleSites } from './sites.js';

/** What a layer takes and gives. */
const around: Partial<Readonly<Record<Role, { input?: Component; output?: Component }>>> = {
  attentionNorm: { output: 'attention_input' },
  q: { output: 'query_output' },
  k: { output: 'key_output' },
  v: { output: 'value_output' },
  o: { input: 'attention_value_output', output: 'attention_output' },
  attentionPostNorm: { output: 'attention_output' },
  attentionSumNorm: { output: 'block_middle' },
  crossNorm: { output: 'cross_attention_input' },
  crossQ: { output: 'cross_query_output' },
  crossK: { output: 'cross_key_output' },
  crossV: { output: 'cross_value_output' },
  crossO: { input: 'cross_attention_value_output', output: 'cross_attention_output' },
  crossSumNorm: { output: 'cross_block_middle' },
  mlpNorm: { input: 'block_middle', output: 'mlp_input' },
  up: { input: 'mlp_input' },
  gateUp: { input: 'mlp_input' },
  down: { input: 'mlp_activation', output: 'mlp_output' },
  mlpPostNorm: { output: 'mlp_output' },
  mlpSumNorm: { output: 'block_output' },
};

/** `parallel`: attention and feed-forward read the same states. */
export function moduleSites(
  {
    blocks,
    roles,
    embeddings,
    norm,
    head,
    modules,
    moduleBlocks,
  }: Pick<ModelNames, 'blocks' | 'roles' | 'embeddings' | 'norm' | 'head' | 'modules' | 'moduleBlocks'>,
  parallel = false,
): ModuleSites {
  const inBlock: Record<string, Component> = { input: 'block_input', output: 'block_output', ...modules };
  const parent = (path: string | undefined): string | undefined =>
    path?.includes('.') ? path.slice(0, path.lastIndexOf('.')) : undefined;
  const add = (path: string | undefined, side: 'input' | 'output', component: Component | undefined): void => {
    if (path !== undefined && component) inBlock[`${path}.${side}`] ??= component;
  };
  if (parallel) add(roles.mlpNorm, 'input', 'block_input');
  // Cross attention stands between attention and feed-forward.
  if (roles.crossQ !== undefined) {
    add(roles.crossNorm, 'input', 'block_middle');
    add(roles.mlpNorm, 'input', 'cross_block_middle');
  }
  for (const [role, path] of Object.entries(roles) as [Role, string][]) {
    // With norms on what the parts add, the products before them are no sites.
    const isInner = (role === 'o' && roles.attentionPostNorm) || (role === 'down' && roles.mlpPostNorm);
    add(path, 'input', around[role]?.input);
    if (!isInner) add(path, 'output', around[role]?.output);
  }
  const attention = parent(roles.q ?? roles.qkv);
  if (attention !== undefined && attention === parent(roles.o)) {
    add(attention, 'input', 'attention_input');
    if (!roles.attentionPostNorm) add(attention, 'output', 'attention_output');
  }
  const cross = parent(roles.crossQ);
  if (cross !== undefined && cross === parent(roles.crossO)) add(cross, 'output', 'cross_attention_output');
  const mlp = parent(roles.up ?? roles.gateUp);
  if (mlp !== undefined && mlp === parent(roles.down)) {
    add(mlp, 'input', 'mlp_input');
    if (!roles.mlpPostNorm) add(mlp, 'output', 'mlp_output');
  }
  const outside: Record<string, Component> = {};
  // Positions are added later where they are learned.
  const whole = embeddings.norm ?? (embeddings.position === undefined ? embeddings.word : undefined);
  if (whole !== undefined) outside[`${whole}.output`] = 'embeddings';
  if (norm !== undefined) {
    outside[`${norm}.output`] = 'final_norm';
    if (head !== undefined) outside[`${head}.input`] = 'final_norm';
  }
  return { blocks, ...(moduleBlocks ? { otherBlocks: moduleBlocks } : {}), inBlock, outside };
}
