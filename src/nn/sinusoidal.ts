// Tables of sinusoidal positions (Vaswani et al. 2017): the first half of a row sines, the second half cosines, of
// position times a frequency that falls from column to column. In f32 steps, as those who trained with them compute.

export interface SinusoidalOptions {
  /** The longest period over 2 pi; default 10000. */
  readonly base?: number;
  /**
   * Where the frequencies end: at 1 / base in the last column (Marian, Whisper, tensor2tensor), or one step before it
   * (the paper; Marian's models in transformers). Default true.
   */
  readonly inclusive?: boolean;
}

const f = Math.fround;

/** [count, width] row-major, for positions from `start` on. */
export function sinusoidalPositions(
  count: number,
  width: number,
  { start = 0, base = 10_000, inclusive = true }: SinusoidalOptions & { start?: number } = {},
): Float32Array {
  if (!(width > 0 && width % 2 === 0))
    throw new RangeError(`sinusoidal positions: the width must be even and positive, got ${width}`);
  const half = width / 2;
  if (inclusive && half < 2)
    throw new RangeError('sinusoidal positions: frequencies from 1 to 1 / base need a width of at least 4');
  const step = f(Math.log(base) / (inclusive ? half - 1 : half));
  const table = new Float32Array(count * width);
  for (let i = 0; i < half; i++) {
    const frequency = f(Math.exp(f(-i * step)));
    for (let p = 0; p < count; p++) {
      const angle = f((start + p) * frequency);
      table[p * width + i] = Math.sin(angle);
      table[p * width + half + i] = Math.cos(angle);
    }
  }
  return table;
}
