// Kept mutants: hostileInput.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
