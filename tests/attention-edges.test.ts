// Attention where numbers or keys end, on the CPU's machines and on its threads: see helpers/attentionEdges.ts.

import { after } from 'node:test';
import { checkAttentionEdges } from './helpers/attentionEdges.js';
import { machines } from './helpers/machines.js';
import { threadedMachine } from './helpers/threaded.js';

const threaded = threadedMachine(2);
after(async () => {
  await threaded.backend.close();
});

checkAttentionEdges([...machines, threaded]);
