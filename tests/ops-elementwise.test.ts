// The op table's elementwise part: see helpers/checks.ts for what each recipe must pass.

import { checkTable } from './helpers/checks.js';
import { elementwise } from './helpers/recipes/elementwise.js';

checkTable(elementwise);
