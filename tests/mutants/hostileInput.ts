// Kept mutants of what hostile or wrong input may do: templates, expressions, files, ids, what is printed.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/jinja/budget.ts': [
    ['the length of a text', 'if (length > characters)', 'if (length < 0)', 'chat-template-bounds', 'doubles'],
    [
      'what would be long is refused before it is made',
      'if (characters > most)',
      'if (characters < 0)',
      'chat-template-bounds',
      'far more than it is given',
    ],
    ['a range is bounded', 'if (count > most)', 'if (count < 0)', 'chat-template-bounds', 'too long a range'],
  ],
  'src/io/printable.ts': [
    [
      'escapes of terminals are shown',
      'const steering = /[\\0-\\x08\\x0b-\\x1f',
      'const steering = /[\\0-\\x08',
      'resolve',
      'steer a terminal',
    ],
    ['passwords of URLs are not shown', "'$1***@'", "'$&'", 'resolve', 'no password'],
    ['secrets are not shown', "rest.replaceAll(secret, '***')", 'rest', 'resolve', 'no password'],
  ],
  'src/io/resolveNode.ts': [
    [
      'Python takes no module of its surroundings',
      "['python3', '-I', '-m', 'pip']",
      "['python3', '-m', 'pip']",
      'resolve',
      'pip runs in a folder',
    ],
    ['HF_ENDPOINT without a password', "url.username === '' && url.password === ''", 'true', 'resolve', 'no password'],
  ],
  'src/io/resolvePipNode.ts': [
    ['pip stands in a folder of our own', 'cwd: work,', '', 'resolve', 'pip runs in a folder'],
  ],
  'src/io/tokenIds.ts': [
    [
      'fractions and NaN are no ids',
      'if (!Number.isInteger(id)) throw',
      'if (id === 1e9) throw',
      'hostile-ids',
      'in generation',
    ],
    ['ids beyond the vocabulary', 'id >= 0 && id < vocabSize', 'id >= 0', 'hostile-ids', 'in generation'],
    [
      'labels beyond the vocabulary',
      'if (label < vocabSize) continue;',
      'if (label < vocabSize + 99) continue;',
      'hostile-ids',
      'labels that are none',
    ],
    ['prompt lengths beyond the ids', '&& (promptLength as number) <= length', '', 'hostile-ids', 'prompt lengths'],
  ],
  'src/models/generation/generate.ts': [
    [
      'what is given as a prompt is looked at',
      'checkIds(`generate: prompt ${b}`, ids, vocabSize);',
      '',
      'hostile-ids',
      'in generation',
    ],
  ],
  'src/models/tokens.ts': [
    ['a mask has ones and zeros', 'm !== 0 && m !== 1', 'm < 0', 'hostile-ids', 'masks that are'],
  ],
  'src/train/claims.ts': [
    [
      'two trainers notice each other',
      'if (other?.running) throw',
      'if (other === null) throw',
      'hostile-ids',
      'two trainers',
    ],
    [
      'a run that ended blocks no other',
      'if (other?.running) throw',
      'if (other && other !== run) throw',
      'hostile-ids',
      'two trainers',
    ],
  ],
  'src/io/regexCost.ts': [
    [
      'two ways over one edge',
      'inside.has(to) && ways > 1',
      'inside.has(to) && ways > 9',
      'hostile-regex',
      'exponentially',
    ],
    [
      'ways that part and meet',
      'Math.floor(pair / size) !== pair % size && returning',
      'Math.floor(pair / size) === -1 && returning',
      'hostile-regex',
      'exponentially',
    ],
    ['circles that read the same', 'if (next === end) return true;', '', 'hostile-regex', 'with a power'],
    ['a match may begin anywhere', 'if (scans) all[0].set(0, 1);', '', 'hostile-regex', 'with a power'],
    [
      'where the whole may end nothing is given up',
      'place === 0 || !graph.ends.has(place)',
      'place >= 0',
      'hostile-regex',
      'with a power',
    ],
    [
      'what is looked ahead for',
      'power = new Search(graph, expression.flags, true).degree() + 1 + looks',
      'power = new Search(graph, expression.flags, true).degree() + 1',
      'hostile-regex',
      'exponentially',
    ],
  ],
  'src/io/regexParse.ts': [
    [
      'a part that may be empty, many times',
      'if (term.empty && least > writtenOut)',
      'if (false)',
      'hostile-regex',
      'exponentially',
    ],
    [
      'repeats within repeats are counted',
      'if (++this.terms > mostTerms)',
      'if (++this.terms > 3e6)',
      'hostile-regex',
      'what cannot be said',
    ],
  ],
  'src/io/regexBound.ts': [
    [
      'a limit of time',
      'if (steps <= soonOver) return body();',
      'if (steps <= 1e300) return body();',
      'hostile-regex',
      'may take long',
    ],
  ],
  'src/io/tokenizerPattern.ts': [
    ['expressions of tokenizers', 'if (fault !== null) {', "if (fault === '') {", 'hostile-regex', 'in a tokenizer'],
  ],
  'src/io/tokenizerGrowth.ts': [
    [
      'growth in a sequence',
      '(growth, part) => growth * growthOf(part)',
      '(growth, part) => Math.max(growth, growthOf(part))',
      'hostile-regex',
      'replacements',
    ],
  ],
  'src/reft/positions.ts': [
    [
      'expressions of positions',
      'if (fault !== null) throw',
      "if (fault === '') throw",
      'hostile-regex',
      'in positions',
    ],
  ],
  'src/io/openFileNode.ts': [
    ['only ordinary files are read', 'if (info.isFile()) return;', 'return;', 'hostile-files', 'it is a folder'],
    ['files are bounded', '> mostBytes[kind])\n     ', '< 0)', 'hostile-files', 'far too large'],
  ],
  'src/cli/output.ts': [
    [
      'what people read steers no terminal',
      'printable(withoutSecrets(',
      '(withoutSecrets(',
      'hostile-output',
      'on their way',
    ],
    [
      'what people read tells no password',
      "withoutSecrets(text, process.env['HF_TOKEN'])",
      'text',
      'hostile-output',
      'on their way',
    ],
    [
      'answers steer no terminal',
      'process.stdout.isTTY ? withoutControls(text) : text',
      'text',
      'hostile-output',
      'on their way',
    ],
  ],
  'src/train/evaluate.ts': [
    [
      'a loss that is not finite is no result',
      '!Number.isFinite(sum)',
      'sum === 1e300',
      'hostile-output',
      'broken weights',
    ],
  ],
};
