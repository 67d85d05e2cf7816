// Arguments of kernels that have many: words in scratch memory, read into locals by name.

import { load, type FunctionBuilder, type Local } from '../emit/assembler.js';

/** Locals with the words at `descriptor`, in the order of `names`; names in `floats` are f32. */
export function loadFields<N extends string>(
  f: FunctionBuilder,
  descriptor: Local,
  names: readonly N[],
  floats: readonly N[] = [],
): Record<N, Local> {
  const entries = names.map((name, i) => {
    const type = floats.includes(name) ? 'f32' : 'i32';
    const local = f.local(type);
    f.set(local, load(`${type}.load`, descriptor, 4 * i));
    return [name, local] as const;
  });
  return Object.fromEntries(entries) as Record<N, Local>;
}

/** Writes what `loadFields` reads; a name without a value is 0. */
export function writeFields<N extends string>(
  memory: WebAssembly.Memory,
  descriptor: number,
  names: readonly N[],
  values: Partial<Record<N, number>>,
  floats: readonly N[] = [],
): void {
  const words = new Int32Array(memory.buffer, descriptor, names.length);
  for (let i = 0; i < names.length; i++) words[i] = values[names[i]] ?? 0;
  if (floats.length === 0) return;
  const numbers = new Float32Array(memory.buffer, descriptor, names.length);
  for (const name of floats) numbers[names.indexOf(name)] = values[name] ?? 0;
}
