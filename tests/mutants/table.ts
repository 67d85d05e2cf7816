// Kept patches, each of which breaks one thing that a test must notice: a VJP term, a tail loop, a broadcast sum, a
// mask, an optimizer line, the freeing of memory, a check. `search` occurs exactly once in its file; `tests` and `only`
// (a pattern of test names) say who notices. `npm run mutants` runs them; a patch that no longer applies must be
// renewed with the line it breaks.

import { patches as edgeValues } from './edgeValues.js';
import { patches as attention } from './attention.js';
import { patches as adapt } from './adapt.js';
import { patches as elementwiseEdges } from './elementwiseEdges.js';
import { patches as encoders } from './encoders.js';
import { patches as engine } from './engine.js';
import { patches as firstContact } from './firstContact.js';
import { patches as hostileInput } from './hostileInput.js';
import { patches as modelFiles } from './modelFiles.js';
import { patches as options } from './options.js';
import { patches as realModels } from './realModels.js';
import { patches as reductionEdges } from './reductionEdges.js';
import { patches as savedWork } from './savedWork.js';
import { patches as scans } from './scans.js';
import { patches as seq2seq } from './seq2seq.js';
import { patches as tokenizers } from './tokenizers.js';
import { patches as trainingText } from './trainingText.js';
import type { Mutant } from './mutant.js';

const all = [
  engine,
  edgeValues,
  savedWork,
  hostileInput,
  modelFiles,
  trainingText,
  tokenizers,
  elementwiseEdges,
  reductionEdges,
  attention,
  firstContact,
  options,
  scans,
  seq2seq,
  realModels,
  adapt,
  encoders,
];

export const mutants: readonly Mutant[] = all
  .flatMap(patches => Object.entries(patches))
  .flatMap(([file, list]) =>
    list.map(([name, search, replace, tests, only]) => ({
      name,
      file,
      search,
      replace,
      tests: tests.split(' ').map(t => `tests/${t}.test.ts`),
      only,
    })),
  );
