// Kept mutants: options.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
