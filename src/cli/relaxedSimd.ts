// Fused multiply-add in WebAssembly. Node 20 has it behind a flag that must be set before the first module is compiled;
// only a program that owns its process may do that, so the library never does.

import { setFlagsFromString } from 'node:v8';

export function allowRelaxedSimd(): void {
  if (Number(process.versions.node.split('.')[0]) < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');
}
