// The op table's layout part: see helpers/checks.ts for what each recipe must pass.

import { checkTable } from './helpers/checks.js';
import { layout } from './helpers/recipes/layout.js';

checkTable(layout);
