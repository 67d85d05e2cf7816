// The orthogonal maps side by side: time of R and its gradient over sizes, alone and for sixty edits at once; how far R
// R^T is from the identity after 5,000 steps; the loss reached on a small task with a known answer; what a map adds to
// an edit. Prints the tables of docs/orthogonal.md: `npx tsx bench/orthogonal.ts`.

import { setFlagsFromString } from 'node:v8';

// This process is ours: ask for fused multiply-add before anything compiles.
if (Number(process.versions.node.split('.')[0]) < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');

const { gradientsOf, noGrad, scope } = await import('../src/autograd/index.js');
const nn = await import('../src/nn/index.js');
const { edit } = await import('../src/reft/editOp.js');
const { orthogonalMaps } = await import('../src/nn/orthogonal/maps.js');
const { stack } = await import('../src/tensor/layout.js');
const { tensor } = await import('../src/tensor/index.js');
type Tensor = InstanceType<typeof import('../src/tensor/tensor.js').Tensor>;
type Parameters = Record<string, Tensor>;

const maps = Object.entries(orthogonalMaps);

/** The least of some runs, ms: what others do on the machine only adds to it. */
function time(body: () => void): number {
  const times: number[] = [];
  const begin = performance.now();
  for (
    let i = 0;
    i < 8 ||
    (times.length < 15 && performance.now() - begin < 3000) ||
    (times.length < 400 && performance.now() - begin < 1000);
    i++
  ) {
    const start = performance.now();
    scope(body);
    if (i >= 5) times.push(performance.now() - start);
  }
  return Math.min(...times);
}

const trainedOf = (parameters: Parameters): Tensor[] => Object.values(parameters).filter(t => t.requiresGrad);

function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  console.log([head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`).join('\n'));
  console.log();
}

function costs(): void {
  const sizes = [576, 4096].flatMap(d => [1, 4, 8, 32].map(r => [r, d] as const));
  const rows = maps.map(([name, map]) => [
    name,
    ...sizes.map(([r, d]) => {
      const { parameters } = map.initial(nn.orthogonalInit([r, d], { seed: 1 }));
      const gradient = tensor.normal([r, d], { seed: 2 });
      return time(() => {
        gradientsOf(map.rotation(parameters), trainedOf(parameters), { gradient });
      }).toFixed(2);
    }),
  ]);
  table(['map', ...sizes.map(([r, d]) => `d ${d}, r ${r}`)], rows);
}

/** Thirty layers with two edits each: one by one, and stacked as training does it. */
function sixty(): void {
  const [n, r, d] = [60, 8, 576];
  const rows = maps
    .filter(([, map]) => map.batched)
    .map(([name, map]) => {
      const all = Array.from({ length: n }, (_, seed) => map.initial(nn.orthogonalInit([r, d], { seed })).parameters);
      const leaves = all.flatMap(trainedOf);
      const gradient = tensor.normal([n, r, d], { seed: 2 });
      const alone = time(() => {
        gradientsOf(stack(all.map(p => map.rotation(p))), leaves, { gradient });
      });
      const together = time(() => {
        gradientsOf(
          map.rotation(Object.fromEntries(Object.keys(all[0]).map(key => [key, stack(all.map(p => p[key]))]))),
          leaves,
          { gradient },
        );
      });
      return [name, alone.toFixed(1), together.toFixed(1)];
    });
  table(['map', 'one by one', 'stacked'], rows);
}

/**
 * An edit of n positions, forward and backward, with R given and with R from the default map; the sizes of the Python
 * baseline.
 */
function edits(): void {
  const rows = (
    [
      [576, 4, 10],
      [576, 8, 112],
      [2048, 8, 112],
      [4096, 8, 112],
      [4096, 8, 8],
    ] as const
  ).map(([d, r, n]) => {
    const h = tensor.normal([1, n, d], { seed: 1 }).requireGrad();
    const W = tensor.normal([r, d], { seed: 2, std: 0.01 }).requireGrad();
    const b = tensor.zeros([r]).requireGrad();
    const { parameters } = nn.compactHouseholder.initial(nn.orthogonalInit([r, d], { seed: 3 }));
    const given = noGrad(() => nn.compactHouseholder.rotation(parameters)).requireGrad();
    const rowsOf = { indices: Int32Array.from({ length: n }, (_, i) => i), slots: new Int32Array(n) };
    const run = (R: Tensor, leaf: Tensor): void => {
      const [A, C] = [W.unsqueeze(0), R.unsqueeze(0)];
      gradientsOf(edit(h, { A, b: b.unsqueeze(0), C, P: C }, rowsOf).sum(), [h, W, b, leaf]);
    };
    const times = [
      time(() => {
        run(given, given);
      }),
      time(() => {
        run(nn.compactHouseholder.rotation(parameters), parameters['V']);
      }),
    ];
    return [`d ${d}, r ${r}, ${n} positions`, ...times.map(t => t.toFixed(2))];
  });
  table(['loreft', 'R given', 'R from its map'], rows);
}

/** max |R R^T - I| in f64. */
function drift(R: Tensor): number {
  const [r, d] = R.shape;
  const data = R.dataSync();
  let worst = 0;
  for (let i = 0; i < r; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = i === j ? -1 : 0;
      for (let k = 0; k < d; k++) sum += data[i * d + k] * data[j * d + k];
      worst = Math.max(worst, Math.abs(sum));
    }
  }
  return worst;
}

/**
 * A loreft edit of rank 8 learns another one's results on 256 states of 128 numbers of very different sizes (1 to
 * 1/100, as those of models), from another start; the rate falls to 0 over `total` steps. Losses are relative to that
 * of no edit.
 */
function learn(
  map: typeof nn.compactHouseholder,
  learningRate: number,
  total: number,
  at: readonly number[],
): { losses: number[]; drift: number } {
  const [n, r, d] = [256, 8, 128];
  const rows = { indices: Int32Array.from({ length: n }, (_, i) => i), slots: new Int32Array(n) };
  const lead = (t: Tensor): Tensor => t.unsqueeze(0);
  const h = tensor.normal([n, d], { seed: 1 }).mul(
    tensor(
      Float32Array.from({ length: d }, (_, k) => 100 ** (-k / d)),
      [d],
    ),
  );
  const goalR = nn.orthogonalInit([r, d], { seed: 2 });
  const goal = edit(
    h,
    {
      A: tensor.normal([1, r, d], { seed: 3, std: 0.3 }),
      b: tensor.normal([1, r], { seed: 4 }),
      C: lead(goalR),
      P: lead(goalR),
    },
    rows,
  );
  const none = h.sub(goal).square().mean();
  const { parameters } = map.initial(nn.orthogonalInit([r, d], { seed: 5 }));
  const W = nn.linearInit([r, d], { seed: 6 }).requireGrad();
  const b = tensor.zeros([r]).requireGrad();
  const optimizer = new nn.AdamW([{ parameters: trainedOf(parameters), orthogonal: true }, { parameters: [W, b] }]);
  const losses: number[] = [];
  for (let step = 1; step <= total; step++) {
    scope(() => {
      const R = map.rotation(parameters);
      const value = edit(h, { A: lead(W), b: lead(b), C: lead(R), P: lead(R) }, rows)
        .sub(goal)
        .square()
        .mean()
        .div(none);
      value.backward();
      if (at.includes(step)) losses.push(value.dataSync()[0]);
      optimizer.step(learningRate * (1 - (step - 1) / total));
      optimizer.zeroGrad();
    });
  }
  return { losses, drift: drift(noGrad(() => map.rotation(parameters))) };
}

function training(): void {
  const rates = [3e-3, 1e-2, 3e-2];
  const rows = maps.map(([name, map]) => {
    const long = learn(map, 1e-2, 5000, [5000]);
    const runs = rates.map(rate => learn(map, rate, 300, [300]).losses[0].toExponential(1));
    return [name, long.drift.toExponential(1), long.losses[0].toExponential(1), ...runs];
  });
  table(
    ['map', 'drift after 5,000 steps', 'loss after 5,000', ...rates.map(rate => `loss after 300 at ${rate}`)],
    rows,
  );
}

console.log('R and its gradient, ms, one thread\n');
costs();
console.log('sixty R of rank 8, d 576, and their gradients, ms\n');
sixty();
console.log('an edit, forward and backward, ms\n');
edits();
console.log('learning another edit with AdamW: 5,000 steps at 1e-2, 300 steps at three rates\n');
training();
