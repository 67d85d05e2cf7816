// Kept mutants: reductionEdges.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
