// Kept mutants: modelFiles.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
