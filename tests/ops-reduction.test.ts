// The op table's reductions: see helpers/checks.ts for what each recipe must pass.

import { checkTable } from './helpers/checks.js';
import { reductions } from './helpers/recipes/reductions.js';

checkTable(reductions);
