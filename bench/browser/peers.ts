// The peers of the WebGPU bench, loaded by address from bench/peers (`npm ci --prefix bench/peers`); one that is not
// there is reported. Only what the bench needs of them is typed here.

/**
 * [m, k] [k, n] on the device: `run(times)` computes it that often and waits for the device, `read` gives the result.
 */
export interface Product {
  run(times: number): Promise<void>;
  read(): Promise<ArrayLike<number>>;
}

export interface Peer {
  readonly name: string;
  product(a: Float32Array, b: Float32Array, m: number, k: number, n: number): Product;
}

/** An operation uses up its operands, `.ref` keeps one. */
interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: number[]): JaxArray;
  blockUntilReady(): Promise<JaxArray>;
  data(): Promise<Float32Array>;
  dispose(): void;
}

interface Jax {
  init(device: string): Promise<string[]>;
  defaultDevice(device: string): void;
  readonly numpy: { array(data: Float32Array): JaxArray; matmul(a: JaxArray, b: JaxArray): JaxArray };
}

export async function jaxJs(address: string): Promise<Peer> {
  const jax = (await import(/* @vite-ignore */ `${address}@jax-js/jax/dist/index.js`)) as Jax;
  if (!(await jax.init('webgpu')).includes('webgpu')) throw new Error('it does not start on WebGPU');
  jax.defaultDevice('webgpu');
  const { numpy } = jax;
  return {
    name: 'jax-js',
    product: (a, b, m, k, n) => {
      const [x, y] = [numpy.array(a).reshape([m, k]), numpy.array(b).reshape([k, n])];
      return {
        run: async times => {
          const results = await Promise.all(
            Array.from({ length: times }, () => numpy.matmul(x.ref, y.ref).blockUntilReady()),
          );
          for (const result of results) result.dispose();
        },
        read: () => numpy.matmul(x.ref, y.ref).data(),
      };
    },
  };
}

interface TfTensor {
  data(): Promise<Float32Array>;
  dispose(): void;
}

interface Tf {
  tensor(data: Float32Array, shape: number[]): TfTensor;
  matMul(a: TfTensor, b: TfTensor): TfTensor;
  slice(a: TfTensor, begin: number[], size: number[]): TfTensor;
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
}

async function loadScript(address: string): Promise<void> {
  const script = document.createElement('script');
  script.src = address;
  await new Promise((resolve, reject) => {
    script.onload = resolve;
    script.onerror = () => {
      reject(new Error(`${address} is not there`));
    };
    document.head.append(script);
  });
}

export async function tfjs(address: string): Promise<Peer> {
  await loadScript(`${address}@tensorflow/tfjs-core/dist/tf-core.min.js`);
  await loadScript(`${address}@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.min.js`);
  const { tf } = globalThis as unknown as { tf: Tf };
  if (!(await tf.setBackend('webgpu'))) throw new Error('it does not start on WebGPU');
  await tf.ready();
  return {
    name: 'tfjs-webgpu',
    product: (a, b, m, k, n) => {
      const [x, y] = [tf.tensor(a, [m, k]), tf.tensor(b, [k, n])];
      return {
        // It has no wait but reading: one number of the last result.
        run: async times => {
          const results = Array.from({ length: times }, () => tf.matMul(x, y));
          const corner = tf.slice(results[times - 1], [0, 0], [1, 1]);
          await corner.data();
          for (const result of [...results, corner]) result.dispose();
        },
        read: async () => {
          const result = tf.matMul(x, y);
          const data = await result.data();
          result.dispose();
          return data;
        },
      };
    },
  };
}
