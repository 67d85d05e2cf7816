// Kept mutants: tokenizers.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
