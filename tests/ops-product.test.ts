// The op table's products of matrices: see helpers/checks.ts for what each recipe must pass.

import { checkTable } from './helpers/checks.js';
import { products } from './helpers/recipes/reductions.js';

checkTable(products);
