// Kept mutants: tokenizers, sampling, where generation ends.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/models/sampling.ts': [
    ['a NaN beside the largest logit', 'Number.isNaN(logits[i]) || ', '', 'models-sampling', 'not finite'],
    ['an infinite logit', ' || logits[i] === Infinity', '', 'models-sampling', 'not finite'],
    ['no token may be chosen', "if (logits[best] === -Infinity)", 'if (false)', 'models-sampling', 'not finite'],
    ['what a penalty makes infinite', 'repetitionPenalty === 1 ? best : mostLikely', 'true ? best : mostLikely', 'models-sampling', 'penalty|not finite'],
    ['the penalty once a token', 'new Set(seen)', '[...seen]', 'models-sampling', 'acts once'],
    ['weights of 0', 'if (weights[i] === 0) continue;', '', 'models-sampling', 'Infinity is never'],
  ],
  'src/models/generate.ts': [
    ["a row's stream", 'new Random(seed, b)', 'new Random(seed, 0)', 'models-generation', 'its own stream'],
    ["a prompt's ends", "'ids' in p ? p : undefined", 'undefined', 'models-generation', 'bring their ends'],
    ["a tokenizer's ends", 'model.endTokenIds(options.tokenizer, ', 'model.endTokenIds(undefined, ', 'models-generation', 'bring their ends'],
    ['what is given stands above', "...sampling, ...(maxNewTokens === undefined ? {} : { maxNewTokens }), ...said", '...said, ...sampling', 'models-generation', 'defaults'],
    ['settings that are not supported', 'if (missing !== undefined)', 'if (false)', 'models-generation', 'defaults'],
  ],
  'src/models/causalLM.ts': [
    ["generation_config.json's ends", '...this.generation.eosTokenIds, ', '', 'models-generation', 'generation_config.json says'],
  ],
  'src/models/generationConfig.ts': [
    ['do_sample', 'c.do_sample !== true || ', '', 'models-generation', 'as transformers'],
    ["transformers' top-k", 'c.top_k ?? 50', 'c.top_k ?? 0', 'models-generation', 'as transformers'],
  ],
  'src/reft/editedModel.ts': [
    ['the tokenizer of an edited model', '{ tokenizer: this.tokenizer, ...options', '{ ...options', 'models-generation', 'bring their ends'],
  ],
};
