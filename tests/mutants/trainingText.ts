// Kept mutants of training text: rows, chat templates, and where the answer stands.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/chatMessages.ts': [
    [
      'a part that is no text is refused',
      "if (part['type'] !== 'text')",
      'if (false)',
      'training-text',
      'content in parts',
    ],
    [
      'a turn without content',
      'if (!hasMoreThanText(turn)) fail',
      'if (false) fail',
      'training-text',
      'tools and calls',
    ],
  ],
  'src/io/chatAnswer.ts': [
    [
      'the end is what stands behind the marker',
      'whole.endsWith(tail) && tailStart >= start',
      'false',
      'training-text',
      'the answer',
    ],
    [
      'the prompt decides where the answer starts',
      'if (whole.startsWith(prompt)) return prompt.length;',
      '',
      'training-text',
      'the answer',
    ],
    [
      'an answer that the template leaves out',
      'if (!writesText) throw',
      'if (false) throw',
      'training-text',
      'tools and calls',
    ],
    [
      'a call that the template leaves out',
      'else if (whole ===',
      'else if (false && whole ===',
      'training-text',
      'tools and calls',
    ],
    [
      'what a template does not mark is not learned',
      'block ? Math.max(start, block[0]) : start',
      'start',
      'training-text',
      'the answer',
    ],
    ['an end unlike that of a text', '?? ending(template, last)', '', 'training-text', 'the answer'],
  ],
  'src/io/chatTemplate.ts': [
    [
      'parts become one text',
      "if (form === 'text' && Array.isArray(content))",
      'if (false)',
      'training-text',
      'content in parts',
    ],
    [
      'a text becomes a part',
      "if (form === 'parts' && typeof content === 'string')",
      'if (false)',
      'training-text',
      'content in parts',
    ],
  ],
  'src/io/tokenizer.ts': [
    [
      'tools that are not given are None',
      '\n      ...this.specialTexts,\n      tools: null,\n      documents: null,\n      ...variables,\n      messages,\n      add_generation_prompt: addGenerationPrompt,\n   ',
      ' ...this.specialTexts, ...variables, messages, add_generation_prompt: addGenerationPrompt',
      'training-text',
      'tools and calls',
    ],
  ],
  'src/io/orderedJson.ts': [
    [
      'keys that look like numbers keep their order',
      'return reorders ? entries : ',
      'return ',
      'training-text',
      'JSON keeps',
    ],
    ['1.0 is no 1', 'Number.isInteger(value) ? new JsonFloat(value) : value', 'value', 'training-text', 'JSON keeps'],
  ],
  'src/data/rowFields.ts': [
    ['further fields are refused', 'if (first', 'if (false', 'training-text', 'tools and calls'],
    ['tools as a JSON text', "typeof value !== 'string')\n   ", 'true)', 'training-text', 'tools and calls'],
  ],
  'src/data/examples.ts': [
    [
      'variables reach the template',
      'tokenizer.chat(before, { variables })',
      'tokenizer.chat(before)',
      'training-text',
      'tools and calls',
    ],
    ['the whole turn is learned', 'turn ?? answer', 'answer', 'training-text', 'tools and calls'],
    [
      'errors name the row',
      'throw new FormatError(row.where, (error as Error).message, { cause: error });',
      'throw error;',
      'training-text',
      'what a template refuses',
    ],
    ['what the template does not name is refused', 'name !== undefined', 'false', 'training-text', 'tools and calls'],
    ['a cut prompt keeps its start', 'tokenizer.startLength(prompt)', '0', 'training-text', 'cut on the left'],
  ],
  'src/data/rows.ts': [
    [
      "Alpaca's text is passed over",
      "if (forms.has('instruction')) forms.delete('text');",
      '',
      'training-text',
      'data as published',
    ],
    [
      'an input that is null',
      "isEmpty(row['input']) ? ''",
      "row['input'] === undefined ? ''",
      'training-text',
      'data as published',
    ],
  ],
  'src/data/shareGpt.ts': [
    ['human is the user', "human: 'user'", "human: 'human'", 'training-text', 'data as published'],
  ],
  'src/data/preferences.ts': [
    [
      'preferences keep what a template is told',
      'const variables = templateVariables(row, form, where);',
      'const variables = {};',
      'training-text',
      'tools and calls',
    ],
  ],
  'src/io/jinja/operators.ts': [
    [
      'the rest has the sign of the divisor',
      'rest !== 0n && rest < 0n !== y < 0n ? rest + y : rest',
      'rest',
      'jinja',
      'render as in Python',
    ],
    [
      '// rounds down',
      'x % y !== 0n && x < 0n !== y < 0n ? quotient - 1n : quotient',
      'quotient',
      'jinja',
      'render as in Python',
    ],
    [
      'a method comes before an item of its name',
      'memberOf(target, name) ?? itemAt(target, name)',
      'itemAt(target, name) ?? memberOf(target, name)',
      'jinja',
      'render as in Python',
    ],
    [
      'negative steps of slices',
      '[place(start, length - 1), place(stop, -1)]',
      '[place(start, length), place(stop, 0)]',
      'jinja',
      'render as in Python',
    ],
  ],
  'src/io/jinja/characters.ts': [
    [
      'strip takes characters',
      'if (chars === null) return text',
      'if (true) return text',
      'jinja',
      'render as in Python',
    ],
  ],
  'src/io/jinja/text.ts': [
    ['True is written large', "value ? 'True' : 'False'", 'String(value)', 'jinja', 'render as in Python'],
    ['floats have a point', 'text : `${text}.0`', 'text : text', 'jinja', 'render as in Python'],
  ],
  'src/io/jinja/values.ts': [
    [
      '1 and 1.0 are one key',
      'Number.isInteger(value) ? `n${BigInt(value)}` : `n${value}`',
      '`f${value}`',
      'jinja',
      'render as in Python',
    ],
    [
      '1.0 of JSON is a float',
      'if (value instanceof JsonFloat) return value.value;',
      'if (value instanceof JsonFloat) return BigInt(value.value);',
      'jinja',
      'render as in Python',
    ],
  ],
  'src/io/jinja/tojson.ts': [
    ['keys keep their order', 'if (options.sortKeys)', 'if (true)', 'jinja', 'render as in Python'],
  ],
  'src/io/jinja/lexer.ts': [
    ['the newline behind a block goes', "|%\\\\}\\\\n?`, 'y')", "|%\\\\}`, 'y')", 'jinja', 'render as in Python'],
    ['white space before a block goes', 'kept = text.slice(0, line);', 'kept = text;', 'jinja', 'render as in Python'],
  ],
  'src/io/jinja/render.ts': [
    [
      'a macro sees where it was defined',
      'const scope = new Scope(defined);',
      'const scope = new Scope();',
      'jinja',
      'render as in Python',
    ],
    [
      'what a turn of a loop sets ends with it',
      'const inner = new Scope(scope);\n    inner.set',
      'const inner = scope;\n    inner.set',
      'jinja',
      'render as in Python',
    ],
  ],
  'src/io/jinja/formatNumber.ts': [
    [
      'halves go to the even digit',
      'return Number(down.at(-1)) % 2 === 0 ? down : text;',
      'return text;',
      'jinja',
      'render as in Python',
    ],
  ],
};
