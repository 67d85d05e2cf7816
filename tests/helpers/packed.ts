// What a model computes on packed rows [n, width], for tests that think in batches [B, T, width].

import type { Block } from '../../src/models/stack.js';
import { TransformerBlock, type BlockParts } from '../../src/models/block.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import type { SiteEdit } from '../../src/models/patch.js';
import { TokenRows } from '../../src/models/tokens.js';
import type { Tensor } from '../../src/tensor/tensor.js';

/** The rows of a batch without padding. */
export const allRows = (batch: number, length: number): TokenRows =>
  new TokenRows(
    [batch, length],
    Int32Array.from({ length: batch * length }, (_, i) => i),
    true,
  );

/** A function of [B, T, width] that applies an edit to a batch without padding. */
export const onWholeBatch =
  ({ apply }: Pick<SiteEdit, 'apply'>) =>
  (h: Tensor): Tensor => {
    const rows = allRows(h.shape[0], h.shape[1]);
    return rows.spread(apply(rows.gather(h), rows));
  };

/** A parameter by the name its checkpoint gives it. */
export function parameterOf(model: CausalLM, name: string): Tensor {
  for (const [path, parameter] of model.namedParameters()) if (path === name) return parameter;
  throw new Error(`no parameter '${name}'`);
}

/** The layers of a model's block. */
export function partsOf(model: CausalLM, layer: number): BlockParts {
  const block: Block = model.decoder.blocks[layer];
  if (!(block instanceof TransformerBlock)) throw new Error(`block ${layer} is no transformer block`);
  return block.parts;
}
