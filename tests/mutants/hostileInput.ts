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
  'src/io/chatTemplateGrowth.ts': [
    ['indentation counts in JSON', '1 + form.indent * (depth + 1)', '1', 'chat-template-bounds', 'far more than it is given'],
  ],
};
