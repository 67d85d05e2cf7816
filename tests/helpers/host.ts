// Plain arrays for the references of the op table: naive, f64, one element at a time. Nothing of the engine may be used
// here, or its mistakes would be on both sides.

export interface Host {
  readonly shape: readonly number[];
  readonly data: Float64Array;
  readonly dtype: 'float' | 'i32' | 'bool';
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((n, side) => n * side, 1);

/** Every index of `shape`, row-major. The array is reused: copy it to keep it. */
export function* indicesOf(shape: readonly number[]): Generator<number[]> {
  const at = shape.map(() => 0);
  for (let n = sizeOf(shape); n > 0; n--) {
    yield at;
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis] === shape[axis]; axis--) at[axis] = 0;
  }
}

export function build(shape: readonly number[], f: (index: number[]) => number, dtype: Host['dtype'] = 'float'): Host {
  const data = new Float64Array(sizeOf(shape));
  let n = 0;
  for (const index of indicesOf(shape)) data[n++] = f(index);
  return { shape: [...shape], data, dtype };
}

/** The element at an index of a shape that `h` broadcasts to. */
export function get(h: Host, index: readonly number[]): number {
  const lead = index.length - h.shape.length;
  let at = 0;
  for (let axis = 0; axis < h.shape.length; axis++)
    at = at * h.shape[axis] + (h.shape[axis] === 1 ? 0 : index[lead + axis]);
  return h.data[at];
}

export function broadcast(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(0, ...shapes.map(s => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sides = shapes.map(s => s[s.length - rank + i] ?? 1);
    return sides.find(side => side !== 1) ?? 1;
  });
}

/** f of broadcast inputs, element by element. */
export function zip(f: (...x: number[]) => number, inputs: readonly Host[], dtype: Host['dtype'] = 'float'): Host {
  return build(broadcast(...inputs.map(h => h.shape)), i => f(...inputs.map(h => get(h, i))), dtype);
}

/** Gathers the elements along `axes` for each kept index (axes removed, or 1 with keepDims) and gives them to f. */
export function fold(
  h: Host,
  axes: readonly number[],
  f: (values: number[], index: number[]) => number,
  keepDims = false,
  dtype: Host['dtype'] = h.dtype,
): Host {
  const kept = h.shape.map((side, axis) => (axes.includes(axis) ? 1 : side));
  const along = h.shape.map((side, axis) => (axes.includes(axis) ? side : 1));
  const full = build(
    kept,
    i => {
      const values: number[] = [];
      for (const j of indicesOf(along))
        values.push(
          get(
            h,
            i.map((x, axis) => x + j[axis]),
          ),
        );
      return f(values, i);
    },
    dtype,
  );
  return keepDims ? full : { ...full, shape: h.shape.filter((_, axis) => !axes.includes(axis)) };
}

export const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Batched product, broadcasting; `f` maps each product (Math.abs gives the magnitude a bound is made of). */
export function product(a: Host, b: Host, f: (x: number) => number = x => x): Host {
  const [m, k] = a.shape.slice(-2);
  const n = b.shape[b.shape.length - 1];
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
  return build([...batch, m, n], index => {
    const lead = index.slice(0, -2);
    const [i, j] = index.slice(-2);
    let sum = 0;
    for (let p = 0; p < k; p++) sum += f(at2(a, lead, i, p) * at2(b, lead, p, j));
    return sum;
  });
}

/** A matrix element: leading axes broadcast, the last two do not. */
function at2(h: Host, lead: readonly number[], i: number, j: number): number {
  const own = h.shape.length - 2;
  let at = 0;
  for (let axis = 0; axis < own; axis++)
    at = at * h.shape[axis] + (h.shape[axis] === 1 ? 0 : lead[lead.length - own + axis]);
  return h.data[(at * h.shape[own] + i) * h.shape[own + 1] + j];
}

/** 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x, by 40 panels of five-point Gauss-Legendre. */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  const nodes = [0, 0.5384693101056831, -0.5384693101056831, 0.906179845938664, -0.906179845938664];
  const weights = [0.5688888888888889, 0.4786286704993665, 0.4786286704993665, 0.2369268850561891, 0.2369268850561891];
  const half = x / 80;
  let sum = 0;
  for (let panel = 0; panel < 40; panel++) {
    const middle = (2 * panel + 1) * half;
    nodes.forEach((t, i) => (sum += weights[i] * Math.exp(-((middle + half * t) ** 2))));
  }
  return (2 / Math.sqrt(Math.PI)) * half * sum;
}

export const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
