// Every fused op by name, for tests that hold kernels to compositions. Imports nothing at run time, so that definitions
// may be made while modules that depend on each other are still loading.

import type { FusedOp } from './fused.js';

export const fusedOps = new Map<string, FusedOp>();
