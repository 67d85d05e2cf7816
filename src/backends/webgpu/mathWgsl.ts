// The element functions in WGSL, where the built-in ones are too rough (exp to 3 + 2|x| ULP, tanh made of it, sin and
// cos only within [-pi, pi]). The formulas of ../cpu/wasm/lanes.ts, with an exact integer reduction for sin and cos
// (Payne and Hanek 1983). Errors where f32 arithmetic is rounded to nearest: exp, log, tanh, erf, sin, cos within 3
// ULP.

/** Horner, highest coefficient first. */
function polynomial(x: string, coefficients: readonly number[]): string {
  return coefficients.slice(1).reduce((p, c) => `(${p} * ${x} + ${literal(c)})`, literal(coefficients[0]));
}

/** A finite f32 as WGSL text. */
export function literal(x: number): string {
  const rounded = Math.fround(x);
  if (!Number.isFinite(rounded)) throw new RangeError(`${x} is no WGSL literal`);
  if (Object.is(rounded, -0)) return 'bitcast<f32>(0x80000000u)';
  const text = String(rounded);
  return rounded < 0 ? `(${text}f)` : `${text}f`;
}

interface WgslFunction {
  readonly needs: readonly string[];
  readonly text: string;
}

const functions: Readonly<Record<string, WgslFunction>> = {
  toInt: {
    needs: ['isNan'],
    text: `fn toInt(x: f32) -> i32 {
  if (isNan(x)) { return 0; }
  if (x >= 2147483648.0) { return 2147483647; }
  if (x <= -2147483648.0) { return bitcast<i32>(0x80000000u); }
  return i32(x);
}`,
  },
  isNan: { needs: [], text: 'fn isNan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }' },
  anyNan: {
    needs: ['isNan'],
    text: 'fn anyNan(x: vec4<f32>) -> bool { return isNan(x.x) | isNan(x.y) | isNan(x.z) | isNan(x.w); }',
  },
  largerOf: {
    needs: ['isNan'],
    // The built-in max may drop a NaN.
    text: 'fn largerOf(x: f32, y: f32) -> f32 { return select(select(max(x, y), y, isNan(y)), x, isNan(x)); }',
  },
  expOf: {
    needs: ['isNan'],
    // The power of two is applied in two factors: overflow and subnormals come out right.
    text: `fn expOf(argument: f32) -> f32 {
  if (isNan(argument)) { return argument; }
  let x = clamp(argument, -104.0, 89.0);
  let n = round(x * ${literal(Math.LOG2E)});
  let r = (x - n * 0.693359375f) + n * ${literal(2.1219444e-4)};
  let p = ${polynomial('r', [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1])};
  let series = (p * (r * r) + r) + 1.0;
  let k = i32(n);
  let half = k >> 1u;
  return series * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((k - half + 127) << 23u);
}`,
  },
  expBelow: {
    needs: ['isNan'],
    // exp(x) for x <= 0, as after a shift by a maximum: no branches, 0 below the normal numbers.
    text: `fn expBelow(x: f32) -> f32 {
  let n = round(max(x, -87.0) * ${literal(Math.LOG2E)});
  let r = (x - n * 0.693359375f) + n * ${literal(2.1219444e-4)};
  let p = ${polynomial('r', [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1])};
  let value = ((p * (r * r) + r) + 1.0) * bitcast<f32>(u32(i32(n) + 127) << 23u);
  return select(select(value, 0.0, x < -87.0), x, isNan(x));
}`,
  },
  logOf: {
    needs: [],
    // Infinities and NaN are made of bits: they are no WGSL constants. A subnormal argument is a whole number of
    // 2^-149, whether or not the device computes with such numbers.
    text: `fn logOf(argument: f32) -> f32 {
  let word = bitcast<u32>(argument);
  let size = word & 0x7fffffffu;
  if (size == 0u) { return bitcast<f32>(word | 0xff800000u); }
  if (size > 0x7f800000u) { return argument; }
  if (word >= 0x80000000u) { return bitcast<f32>(word | 0x7fc00000u); }
  if (word == 0x7f800000u) { return argument; }
  let subnormal = size < 0x800000u;
  let x = select(argument, f32(size), subnormal);
  let bits = bitcast<i32>(x) - 0x3f3504f3;
  let e = f32((bits >> 23u) - select(0, 149, subnormal));
  let r = bitcast<f32>((bits & 0x7fffff) + 0x3f3504f3) - 1.0;
  let z = r * r;
  let p = ${polynomial(
    'r',
    [
      7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
      2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ],
  )};
  let y = ((p * r) * z - e * ${literal(2.1219444e-4)}) - 0.5 * z;
  return e * 0.693359375f + (r + y);
}`,
  },
  // The sign is taken from the bits: of -0 too.
  withSignOf: {
    needs: [],
    text: 'fn withSignOf(x: f32, size: f32) -> f32 { return bitcast<f32>((bitcast<u32>(x) & 0x80000000u) | bitcast<u32>(size)); }',
  },
  tanhOf: {
    needs: ['expOf', 'withSignOf'],
    text: `fn tanhOf(x: f32) -> f32 {
  let size = abs(x);
  let z = x * x;
  if (size < 0.625) {
    return withSignOf(x, size + size * (z * ${polynomial('z', [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1])}));
  }
  return withSignOf(x, 1.0 - 2.0 / (expOf(2.0 * size) + 1.0));
}`,
  },
  erfOf: {
    needs: ['expOf'],
    text: `fn erfOf(x: f32) -> f32 {
  if (isNan(x)) { return x; }
  let t = min(abs(x), 4.5);
  if (t <= 0.927734375) {
    let s = x * x;
    return x + x * ${polynomial('s', [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1])};
  }
  let q = ${polynomial('t', [-1.7285347e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1])};
  let far = 1.0 - expOf(q * t - t);
  return select(far, -far, x < 0.0);
}`,
  },
  wideProduct: {
    needs: [],
    text: `fn wideProduct(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let p = (a & 0xffffu) * (b >> 16u);
  let q = (a >> 16u) * (b & 0xffffu);
  let middle = (low >> 16u) + (p & 0xffffu) + (q & 0xffffu);
  return vec2<u32>((low & 0xffffu) | (middle << 16u), (a >> 16u) * (b >> 16u) + (p >> 16u) + (q >> 16u) + (middle >> 16u));
}`,
  },
  twoOverPi: {
    needs: [],
    // 32 bits of 2 / pi from bit \`at\` on; a word of zeros goes before.
    text: `fn twoOverPi(at: u32) -> u32 {
  var digits = array<u32, 9>(0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u);
  let i = at >> 5u;
  let shift = at & 31u;
  return select((digits[i] << shift) | (digits[i + 1u] >> (32u - shift)), digits[i], shift == 0u);
}`,
  },
  sinCos: {
    needs: ['wideProduct', 'twoOverPi'],
    // |x| = m 2^e; the 96 bits of 2 / pi that matter modulo 4 times m give the quarter turns and 64 bits of the rest.
    text: `fn sinCos(x: f32, ahead: u32) -> f32 {
  let bits = bitcast<u32>(x) & 0x7fffffffu;
  if (bits >= 0x7f800000u) { return x - x; }
  var quarter = ahead;
  var r = bitcast<f32>(bits);
  if (r > 0.78) {
    let m = (bits & 0x7fffffu) | 0x800000u;
    let at = (bits >> 23u) - 120u;
    let p0 = wideProduct(m, twoOverPi(at + 64u));
    let p1 = wideProduct(m, twoOverPi(at + 32u));
    let middle = p1.x + p0.y;
    let top = m * twoOverPi(at) + p1.y + select(0u, 1u, middle < p0.y);
    quarter += top >> 30u;
    var high = (top << 2u) | (middle >> 30u);
    var low = (middle << 2u) | (p0.x >> 30u);
    let over = high >= 0x80000000u;
    if (over) {
      quarter += 1u;
      low = ~low + 1u;
      high = ~high + select(0u, 1u, low == 0u);
    }
    var scale = 95u;
    if (high == 0u) {
      high = low;
      low = 0u;
      scale = 63u;
    }
    let shift = min(countLeadingZeros(high), 31u);
    let lead = select((high << shift) | (low >> (32u - shift)), high, shift == 0u);
    r = f32(lead) * bitcast<f32>((scale - shift) << 23u) * ${literal(Math.PI / 2)};
    r = select(r, -r, over);
  }
  let z = r * r;
  let sine = r + r * (z * ${polynomial('z', [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1])});
  let cosine = (${polynomial('z', [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2])} * z * z - 0.5 * z) + 1.0;
  let value = select(sine, cosine, (quarter & 1u) == 1u);
  return select(value, -value, (quarter & 2u) == 2u);
}`,
  },
  sinOf: {
    needs: ['sinCos'],
    text: 'fn sinOf(x: f32) -> f32 { let s = sinCos(x, 0u); return select(s, -s, bitcast<u32>(x) >= 0x80000000u); }',
  },
  cosOf: { needs: ['sinCos'], text: 'fn cosOf(x: f32) -> f32 { return sinCos(x, 1u); }' },
};

/** The text of the functions named and of what they need, each once. */
export function functionTexts(names: Iterable<string>): string {
  const seen = new Map<string, string>();
  const visit = (name: string): void => {
    if (seen.has(name)) return;
    functions[name].needs.forEach(visit);
    seen.set(name, functions[name].text);
  };
  for (const name of names) visit(name);
  return [...seen.values()].join('\n');
}
