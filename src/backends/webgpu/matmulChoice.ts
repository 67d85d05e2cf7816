// Which matrix product kernel takes a shape, with what tile: figures measured on SwiftShader (software), and for GPUs
// the usual reasons (shared panels for large products; for few rows as many invocations as keep the memory busy). Text
// of the kernels and splitting are elsewhere.

import type { Settings } from './context.js';
import { longestChain, type Loads, type MatmulStructure } from './matmulWgsl.js';
import { mostSlices } from './registerTile.js';

export interface MatmulShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batches: number;
  readonly a: Loads;
  readonly b: Loads;
  readonly packing?: MatmulStructure['packing'];
  readonly bTransposed: boolean;
}

export interface MatmulChoice {
  readonly kernel: 'register' | 'workgroup';
  readonly structure: MatmulStructure;
}

/** The largest power of two that is no more than x. */
const atMost = (x: number): number => 2 ** Math.floor(Math.log2(Math.max(1, x)));

/** Speed of a software tile of `rows` rows, by rows that are really there. */
const worth = (m: number, rows: number, speed: number): number => (speed * m) / (Math.ceil(m / rows) * rows);

export function chooseMatmul(
  { m, n, k, batches, a, b, packing, bTransposed }: MatmulShape,
  settings: Settings,
): MatmulChoice {
  const base = { b, ...(packing && { packing }), bTransposed };
  const gpu = settings.matmul === 'workgroup';
  // 64 x 64 would mostly be empty for a few rows or columns.
  if (gpu && m > 8 && n > 8)
    return {
      kernel: 'workgroup',
      structure: { ...base, a, rows: 4, columns: 4, across: 16, down: 16, slices: 1, long: k > longestChain },
    };
  // A kernel takes from 50 ms to a second to compile in software: small products share one with plain loads, only large
  // ones get the largest tile.
  const work = m * n * k * batches;
  const small = !packing && work < 2 ** 14;
  const large = settings.tile >= 16 && !gpu && n >= 16 && work >= 2 ** 24 && worth(m, 16, 4) > worth(m, 8, 3);
  const most = large ? 16 : gpu || work < 2 ** 17 ? 4 : 8;
  let rows = 1;
  while (rows < most && (2 * rows <= m || (small && m > 1))) rows *= 2;
  const columns = large ? 16 : n >= 8 && !gpu && !small ? 8 : 4;
  const loads = {
    a: small || (a === 'across' && rows < 4) ? ('single' as const) : a,
    b: small ? ('single' as const) : b,
  };
  const [tall, wide] = [Math.ceil(m / rows), Math.ceil(n / columns)];
  const slices = slicesOf(
    { m, n, k, batches, ...loads, bTransposed, ...(packing && { packing }) },
    tall * wide * batches,
    rows * columns,
    settings,
  );
  const lanes = large ? 16 : 64;
  const long = k > longestChain * slices;
  if (slices > 1) {
    // All of them stay to the end, for the sums: no more than there are columns for.
    const across = Math.min(
      Math.max(1, atMost(Math.min(lanes, mostSlices(rows, columns)) / slices)),
      2 ** Math.ceil(Math.log2(wide)),
    );
    return { kernel: 'register', structure: { ...base, ...loads, rows, columns, across, down: 1, slices, long } };
  }
  const down = tall === 1 ? 1 : wide === 1 ? lanes : Math.sqrt(lanes);
  return {
    kernel: 'register',
    structure: { ...base, ...loads, rows, columns, across: lanes / down, down, slices, long },
  };
}

/** How many invocations share each of `tiles` tiles of `elements`. */
function slicesOf(
  { k, a, b, packing, bTransposed }: MatmulShape,
  tiles: number,
  elements: number,
  settings: Settings,
): number {
  const gpu = settings.matmul === 'workgroup';
  // Steps of k that one invocation can skip: a block of packed weights, four where loads are vectors.
  const steps = Math.floor(k / (packing && b === 'alongK' ? 32 : a === 'alongK' || b === 'alongK' ? 4 : 1));
  // In software what counts is that the lanes of a vector are all used.
  if (!gpu)
    return tiles < settings.invocations && steps >= 8 * settings.slices
      ? Math.min(settings.slices, mostSlices(1, elements))
      : 1;
  // Neighbours on a GPU should read neighbouring memory: 16 vectors of a row of b.
  const least = b === 'alongK' || bTransposed ? 16 : 1;
  return Math.max(
    1,
    Math.min(
      settings.slices,
      Math.max(least, atMost(settings.invocations / tiles)),
      atMost(steps),
      atMost(mostSlices(1, elements)),
    ),
  );
}
