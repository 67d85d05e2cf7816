// Kept mutants of what hostile or wrong input may do: templates, expressions, files, ids, what is printed.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/chatTemplateBounds.ts': [
    ['a filter is measured before it runs', 'if (!canGrow(name)) return super.applyFilter', 'if (canGrow(name)) return super.applyFilter', 'chat-template-bounds', 'far more than it is given'],
    ['a method is measured before it runs', "found.type !== 'FunctionValue' || ", "found.type !== '' || ", 'chat-template-bounds', 'far more than it is given'],
  ],
  'src/io/chatTemplateGrowth.ts': [
    ['indentation counts in JSON', '1 + form.indent * (depth + 1)', '1', 'chat-template-bounds', 'far more than it is given'],
  ],
};
