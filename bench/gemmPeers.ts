// The peers of the GEMM bench behind one small interface: tfjs-wasm and jax-js, one thread each. Installed apart from
// the package (`npm ci --prefix bench/peers`); absent ones are reported, not required. Only what the bench needs of
// them is typed here.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/**
 * What one product is to a peer: call it to compute once. `read` gives the last result, to check that it did the same
 * job.
 */
export interface PeerProduct {
  run(): void | Promise<void>;
  read(): Float32Array;
  dispose(): void;
}

export interface Peer {
  readonly name: string;
  readonly version: string;
  /** batch x [m, k] [k, n]; with `transposed`, b is stored [n, k]. */
  product(
    a: Float32Array,
    b: Float32Array,
    batch: number,
    m: number,
    k: number,
    n: number,
    transposed: boolean,
  ): PeerProduct;
}

const manifest = new URL('./peers/package.json', import.meta.url);
const require = createRequire(manifest);

const versionOf = (name: string): string =>
  (
    JSON.parse(readFileSync(new URL(`./peers/node_modules/${name}/package.json`, import.meta.url), 'utf8')) as {
      version: string;
    }
  ).version;

interface TfTensor {
  dataSync(): Float32Array;
  dispose(): void;
}

interface Tf {
  tensor(data: Float32Array, shape: number[]): TfTensor;
  matMul(a: TfTensor, b: TfTensor, transposeA: boolean, transposeB: boolean): TfTensor;
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
}

async function tfjs(): Promise<Peer> {
  const tf = require('@tensorflow/tfjs-core') as Tf;
  const wasm = require('@tensorflow/tfjs-backend-wasm') as { setThreadsCount(n: number): void };
  wasm.setThreadsCount(1);
  if (!(await tf.setBackend('wasm'))) throw new Error('tfjs-wasm did not start');
  await tf.ready();
  return {
    name: 'tfjs-wasm',
    version: versionOf('@tensorflow/tfjs-backend-wasm'),
    product: (a, b, batch, m, k, n, transposed) => {
      const lead = batch === 1 ? [] : [batch];
      const x = tf.tensor(a, [...lead, m, k]);
      const y = tf.tensor(b, [...lead, ...(transposed ? [n, k] : [k, n])]);
      const once = (): TfTensor => tf.matMul(x, y, false, transposed);
      return {
        run: () => once().dispose(),
        read: () => {
          const result = once();
          const data = result.dataSync().slice();
          result.dispose();
          return data;
        },
        dispose: () => {
          x.dispose();
          y.dispose();
        },
      };
    },
  };
}

/** Arrays are counted: an operation uses up its operands, `.ref` keeps one. */
interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: number[]): JaxArray;
  blockUntilReady(): Promise<JaxArray>;
  dataSync(): Float32Array;
  dispose(): void;
}

interface Jax {
  init(...devices: string[]): Promise<string[]>;
  defaultDevice(device: string): string;
  numpy: {
    array(data: Float32Array): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    swapaxes(a: JaxArray, first: number, second: number): JaxArray;
  };
}

async function jaxJs(): Promise<Peer> {
  const jax = require('@jax-js/jax') as Jax;
  await jax.init('wasm');
  jax.defaultDevice('wasm');
  const { numpy } = jax;
  return {
    name: 'jax-js',
    version: versionOf('@jax-js/jax'),
    product: (a, b, batch, m, k, n, transposed) => {
      const lead = batch === 1 ? [] : [batch];
      const x = numpy.array(a).reshape([...lead, m, k]);
      const y = numpy.array(b).reshape([...lead, ...(transposed ? [n, k] : [k, n])]);
      const once = (): JaxArray => numpy.matmul(x.ref, transposed ? numpy.swapaxes(y.ref, -1, -2) : y.ref);
      return {
        run: async () => (await once().blockUntilReady()).dispose(),
        read: () => once().dataSync(),
        dispose: () => {
          x.dispose();
          y.dispose();
        },
      };
    },
  };
}

/** The peers that are installed, and a line about those that are not. */
export async function openPeers(): Promise<{ peers: Peer[]; missing: string[] }> {
  const peers: Peer[] = [];
  const missing: string[] = [];
  for (const [name, open] of [
    ['tfjs-wasm', tfjs],
    ['jax-js', jaxJs],
  ] as const) {
    try {
      peers.push(await open());
    } catch (error) {
      const reason = (error as Error).message.split('\n')[0];
      missing.push(`${name} is not measured (${reason}); install the peers with: npm ci --prefix bench/peers`);
    }
  }
  return { peers, missing };
}
