// Kept mutants: what configurations and files of models say, and which of it is taken.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/models/configHF.ts': [
    [
      'layer_types decides',
      "types ? types[layer] === 'sliding_attention' : slides(layer)",
      'slides(layer)',
      'models-variants',
      'by layer_types: logits',
    ],
    ['head_dim', 'c.head_dim ?? c.hidden_size', 'c.hidden_size', 'models-variants', 'head_dim: logits'],
    [
      'the theta inside rope_parameters',
      "inside['rope_theta'] ?? c.rope_theta",
      "c.rope_theta ?? inside['rope_theta']",
      'models-config',
      'what stands inside',
    ],
    [
      'the original length, where it is not said',
      'inside[originalKey] ?? positions',
      'inside[originalKey]',
      'models-config',
      'mean the same',
    ],
    [
      'the length up to which longrope holds',
      'Math.min(positions, original)',
      'positions',
      'models-variants',
      'longrope to the original',
    ],
    [
      'rotary embeddings of each type of layer',
      'const settings = inside[type];',
      'const settings = inside[types[0]];',
      'models-config',
      'differ between types',
    ],
    [
      'another type of scaling beside rope_type',
      'partial_rotary_factor: _fraction, ...settings',
      'partial_rotary_factor: _fraction, type: _type, ...settings',
      'models-config',
      'typed errors',
    ],
    ['quantised weights are refused', 'checkQuantization(json, fail);', '', 'models-config', 'quantised'],
    [
      'keys that nobody knows',
      'checkKeys(given, new Set([...Object.keys(schema.shape), ...Object.keys(keys)]), source);',
      '',
      'models-config',
      'nobody knows',
    ],
  ],
  'src/models/families/llama.ts': [
    [
      'attention_bias on the way out',
      'outputBias: attention,',
      'outputBias: false,',
      'models-variants',
      'attention_bias: logits',
    ],
  ],
  'src/models/families/qwen2.ts': [
    ['max_window_layers', 'layer >= first', 'layer >= 0', 'models-cases models-config', '01|family'],
    ['use_sliding_window', 'c.use_sliding_window === true && ', '', 'models-variants', 'window off: logits'],
  ],
  'src/models/configKeys.ts': [
    [
      'keys with a neutral value',
      'JSON.stringify(value) === JSON.stringify(neutral[key])',
      'true',
      'models-config',
      'with the value that does not',
    ],
  ],
  'src/models/configGGUF.ts': [
    [
      'keys of a GGUF that nobody knows',
      'allowed.includes(given)',
      'allowed.length > 0',
      'models-gguf',
      'not understood',
    ],
    ['the older name of the factor', 'newer ?? older ?? 1', 'newer ?? 1', 'models-cases', '31'],
    [
      'a factor without a type',
      "value('rope.scaling.type') ?? 'linear'",
      "value('rope.scaling.type') ?? 'none'",
      'models-gguf',
      'scaling of positions',
    ],
    ['rope_freqs.weight', 'tensors.has(ropeDivisorsName) ?', 'tensors.size < 0 ?', 'models-gguf', 'rope_freqs'],
  ],
  'src/io/ggufSplit.ts': [
    [
      'a part of another model',
      'if (!isPart(part, i + 1, count))',
      'if (!isPart(part, i + 1, count + 1) && count < 0)',
      'models-gguf',
      'parts that are missing',
    ],
    [
      'the number of tensors of all parts',
      'Number(total) !== owner.size',
      'Number(total) < 0',
      'models-gguf',
      'parts that are missing',
    ],
    ['a later part', 'if (number !== 1) fail(', 'if (number === 0) fail(', 'models-gguf', 'parts that are missing'],
    [
      'parts are closed',
      'await Promise.all(parts.map(part => part.close()));',
      '',
      'models-gguf',
      'parts that are missing',
    ],
  ],
  'src/reft/adapterFiles.ts': [
    [
      "somebody else's folder without our weights",
      'if (config) parseAdapterConfig',
      "if (config && directory === '') parseAdapterConfig",
      'models-cases',
      '36',
    ],
  ],
  'src/io/resolveNode.ts': [['a folder of parts is one model', '&& !laterParts.has(name)', '', 'models-cases', '08']],
  'src/models/config.ts': [
    ['ids beyond the vocabulary', 'id >= 0 && id < vocabSize', 'id >= 0', 'models-config', 'special ids'],
    [
      'errors of rope settings are typed',
      'throw new FormatError(source, (cause as Error).message, { cause });',
      'throw cause;',
      'models-config',
      'typed errors',
    ],
  ],
  'src/models/weights.ts': [
    [
      'a transposed weight',
      'if (info && !sameShape(isRow ? info.shape.slice(1) : info.shape, shape))',
      'if (info && sizeOf(info.shape) !== sizeOf(shape))',
      'models-weights',
      'another shape',
    ],
    [
      'whole numbers as weights',
      "dtype === 'I8' && info?.dtype === 'F32'",
      "info?.dtype === 'F32'",
      'models-weights',
      'whole numbers',
    ],
    ['the scale of each int8 row', 'factors[Math.floor(i / columns)]', 'factors[0]', 'models-weights', 'int8 rows'],
    ['the layout of int8 codes', 'if (layout !== 0)', 'if (layout === 1)', 'models-weights', 'int8 rows'],
    ['a tied pair that differs', 'if (!same) throw', 'if (bytes === bytesOther) throw', 'models-weights', 'tied pair'],
    [
      'weights that nothing reads',
      'this.namesRead.has(name) ||',
      'this.namesRead.size > 0 ||',
      'models-weights',
      'no place for',
    ],
  ],
  'src/models/tensorNames.ts': [
    [
      'names without model.',
      'prefixes.length === 1 ? prefixes[0]',
      "prefixes.length === 1 ? 'model.'",
      'models-cases',
      '07',
    ],
    ['tables of old checkpoints', ' && !ignored?.test(stored)', '', 'models-weights', 'other types'],
  ],
  'src/models/load.ts': [
    [
      'a tied pair stored as the head',
      'tiedHead && !both && weights.has(head) ? head : embedding',
      'embedding',
      'models-weights',
      'tied pair',
    ],
  ],
  'src/models/block.ts': [
    ['a window for each layer', 'windows[run.layer]', 'windows[0]', 'models-variants', 'upper half: logits'],
  ],
  'src/nn/rope.ts': [
    [
      'settings of a scaling that nobody knows',
      'if (strange !== undefined) fail',
      "if (strange === '') fail",
      'models-config',
      'typed errors',
    ],
    [
      'what YaRN multiplies sines and cosines by',
      'f(Math.cos(angle)) * scale',
      'f(Math.cos(angle))',
      'models-variants',
      'yarn: logits',
    ],
    ["YaRN's ramp", 'f(1 / f(factor * power)) * f(1 - kept)', 'f(1 / f(factor * power)) * kept', 'nn-rope', 'yarn'],
    ['divisors of frequencies', 'perPosition.map((x, i) => x / divisors[i])', 'perPosition', 'nn-rope', 'divisors'],
  ],
  'src/io/storedDType.ts': [
    [
      'sizes of types that are not read',
      'U64: { values: 1, bytes: 8 }',
      'U64: { values: 1, bytes: 4 }',
      'io-safetensors',
      'not read stand',
    ],
  ],
};
