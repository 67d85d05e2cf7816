// Qwen2 and 2.5: a LLaMA with biases of q, k and v, whose layers slide from `max_window_layers` on if
// `use_sliding_window` says so. Source: transformers, configuration_qwen2.py.

import { configFromGGUF } from '../configGGUF.js';
import { fixedBiases, readDecoderHF, windowsOf } from '../configHF.js';
import { decoderFamily } from './family.js';
import { llamaNames } from './llama.js';

export const qwen2 = decoderFamily({
  name: 'qwen2',
  modelTypes: ['qwen2'],
  names: llamaNames,
  fromHF: (json, source) =>
    readDecoderHF(json, source, {
      defaults: { max_position_embeddings: 32768, sliding_window: 4096 },
      switches(c, common, fail) {
        const first = c.max_window_layers ?? 28;
        const slides = (layer: number): boolean =>
          c.use_sliding_window === true && typeof c.sliding_window === 'number' && layer >= first;
        return { ...fixedBiases(c, true, fail), windows: windowsOf(c, common, fail, slides) };
      },
    }),
  architectures: ['qwen2'],
  fromGGUF: configFromGGUF,
});
