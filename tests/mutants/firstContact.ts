// Kept mutants: firstContact.

import type { Patches } from './mutant.js';

export const patches: Patches = {};
