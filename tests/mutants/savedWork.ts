// Kept mutants: savedWork.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
