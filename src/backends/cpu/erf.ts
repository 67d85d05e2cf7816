// The error function in f64, to about 1e-16 relative near 0 and 1e-15 everywhere: gradient checks of GELU rest on it.
// Series and continued fraction from Abramowitz and Stegun, 7.1.6 and 7.1.14.

const twoOverSqrtPi = 2 / Math.sqrt(Math.PI);

export function erf(x: number): number {
  const a = Math.abs(x);
  if (Number.isNaN(x)) return NaN;
  if (a >= 6) return Math.sign(x);
  return a < 2.5 ? series(x) : Math.sign(x) * (1 - complement(a));
}

/** 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (1 3 5 .. (2n+1)): all terms have one sign. */
function series(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 200; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
    if (Math.abs(term) < 1e-17 * Math.abs(sum)) break;
  }
  return twoOverSqrtPi * Math.exp(-x * x) * sum;
}

/** erfc(x) = exp(-x^2) / sqrt(pi) * 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + ...)))), for x well above 0. */
function complement(x: number): number {
  let tail = x;
  for (let n = 100; n >= 1; n--) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * tail);
}
