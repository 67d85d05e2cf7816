// The README.md of an adapter, as a model card: what it is and how it is loaded. Text only.

import type { AdapterConfig } from './adapterFiles.js';
import { kindByName } from './defineEdit.js';
import { formatPositions } from './positions.js';
import type { Model } from '../models/model.js';
import type { ReftModel } from './reftModel.js';

export function adapterReadme(config: AdapterConfig, reft: ReftModel<Model>): string {
  const {
    base_model_name_or_path: name,
    base_model_fingerprint: fingerprint,
    hidden_size: width,
    num_hidden_layers: layers,
  } = config;
  const edits = reft.configs.map(
    c =>
      `| ${c.kind} | \`${kindByName(c.kind).formula}\` | ${c.component} | ${c.layers.join(', ')} | ${formatPositions(c.positions)} | ${c.rank} |`,
  );
  return `---
base_model: ${JSON.stringify(name)}
library_name: reft
tags:
- reft
- representation-finetuning
---

# A ReFT adapter for ${name}

Edits on the hidden states of the frozen model (ReFT, arXiv 2404.03592): ${config.trained_parameters} trained numbers beside
${reft.base.parameterCount} frozen ones (${layers} layers of ${width}).

| kind | edit | site | layers | positions | rank |
|---|---|---|---|---|---|
${edits.join('\n')}

## Use

\`\`\`ts
import { AutoModelForCausalLM, AutoTokenizer, loadReft } from 'reft';

const model = await AutoModelForCausalLM.fromPretrained(${JSON.stringify(name)});
const tokenizer = await AutoTokenizer.fromPretrained(${JSON.stringify(name)});
const reft = await loadReft(model, 'path/of/this/folder');
const [{ ids }] = await reft.generate(tokenizer.chat('Hello!'), { maxNewTokens: 40 });
console.log(tokenizer.decode(ids, { skipSpecialTokens: true }));
\`\`\`

or \`reft chat --model ${name} --adapter path/of/this/folder\`.

## Files

\`adapter_config.json\` rebuilds the edits; \`adapter_model.safetensors\` holds their parameters (F32, R with orthonormal rows) under the names
of the formulas. The weights it was trained on: \`${fingerprint}\`.
`;
}
