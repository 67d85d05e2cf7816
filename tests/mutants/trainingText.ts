// Kept mutants: trainingText.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
