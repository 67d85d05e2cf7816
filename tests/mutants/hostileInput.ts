// Kept mutants of what hostile or wrong input may do: templates, expressions, files, ids, what is printed.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/chatTemplateBounds.ts': [
    ['a filter is measured before it runs', 'if (!canGrow(name)) return super.applyFilter', 'if (canGrow(name)) return super.applyFilter', 'chat-template-bounds', 'far more than it is given'],
    ['a method is measured before it runs', "found.type !== 'FunctionValue' || ", "found.type !== '' || ", 'chat-template-bounds', 'far more than it is given'],
  ],
  'src/io/printable.ts': [
    ['escapes of terminals are shown', '\\0-\\x08\\x0b-\\x1f', '\\0-\\x08', 'resolve', 'steer a terminal'],
    ['passwords of URLs are not shown', "'$1***@'", "'$&'", 'resolve', 'no password'],
    ['secrets are not shown', "rest.replaceAll(secret, '***')", 'rest', 'resolve', 'no password'],
  ],
  'src/io/resolveNode.ts': [
    ['Python takes no module of its surroundings', "['python3', '-I', '-m', 'pip']", "['python3', '-m', 'pip']", 'resolve', 'pip runs in a folder'],
    ['HF_ENDPOINT without a password', "url.username === '' && url.password === ''", 'true', 'resolve', 'no password'],
  ],
  'src/io/resolvePipNode.ts': [
    ['pip stands in a folder of our own', 'cwd: work,', '', 'resolve', 'pip runs in a folder'],
  ],
  'src/io/tokenIds.ts': [
    ['fractions and NaN are no ids', "if (!Number.isInteger(id)) throw", "if (id === 1e9) throw", 'hostile-ids', 'in generation'],
    ['ids beyond the vocabulary', 'id >= 0 && id < vocabSize', 'id >= 0', 'hostile-ids', 'in generation'],
    ['labels beyond the vocabulary', 'if (label < vocabSize) continue;', 'if (label < vocabSize + 99) continue;', 'hostile-ids', 'labels that are none'],
    ['prompt lengths beyond the ids', '&& (promptLength as number) <= length', '', 'hostile-ids', 'prompt lengths'],
  ],
  'src/models/generate.ts': [
    ['what is given as a prompt is looked at', 'checkIds(`generate: prompt ${b}`, ids, vocabSize);', '', 'hostile-ids', 'in generation'],
  ],
  'src/models/context.ts': [
    ['a mask has ones and zeros', 'm !== 0 && m !== 1', 'm < 0', 'hostile-ids', 'masks that are'],
  ],
  'src/reft/trainer.ts': [
    ['two trainers notice each other', 'if (other?.running) throw', 'if (other === null) throw', 'hostile-ids', 'two trainers'],
    ['a run that ended blocks no other', 'if (other?.running) throw', 'if (other && other !== this) throw', 'hostile-ids', 'two trainers'],
  ],
  'src/io/chatTemplateGrowth.ts': [
    ['indentation counts in JSON', '1 + form.indent * (depth + 1)', '1', 'chat-template-bounds', 'far more than it is given'],
  ],
};
