// Run in a process of its own by engine-expressions, with and without code generation from strings: prints a
// computation's bits.

import { createCpuBackend } from '../../src/backends/index.js';
import { tensor } from '../../src/tensor/index.js';

let generates = true;
try {
  new Function('return 0');
} catch {
  generates = false;
}
const backend = createCpuBackend({ simd: false });
const x = tensor.normal([4, 5], { seed: 3, dtype: 'f64', backend }).requireGrad();
const y = x.gelu().add(x.sigmoid().mul(x.tanh())).softmax(-1).mul(x).sum();
y.backward();
const bits = [...y.dataSync(), ...(x.grad?.dataSync() ?? [])]
  .map(v => Buffer.from(Float64Array.of(v).buffer).toString('hex'))
  .join('');
process.stdout.write(JSON.stringify({ generates, bits }));
