// Kept mutants: elementwiseEdges.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
