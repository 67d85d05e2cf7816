// The WebAssembly instructions the assembler knows: encoding and types of each, as one table. Instructions with
// immediates other than a memory offset or a lane (control flow, locals, constants, shuffles) live in assembler.ts. To
// add one, add a line.

export type WasmType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

export interface Instruction {
  readonly code: readonly number[];
  readonly params: readonly WasmType[];
  readonly result: WasmType | undefined;
  /** What follows the opcode: nothing, a memory offset, a lane number, or an offset and then a lane number. */
  readonly immediate: 'none' | 'memory' | 'lane' | 'memoryLane';
  /** Lanes of the vector, for lane instructions. */
  readonly lanes: number;
}

/** Unsigned LEB128. */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  do {
    const low = value % 128;
    value = Math.floor(value / 128);
    bytes.push(value > 0 ? low + 128 : low);
  } while (value > 0);
  return bytes;
}

const letters: Readonly<Record<string, WasmType>> = { i: 'i32', l: 'i64', f: 'f32', d: 'f64', v: 'v128' };

/** `signature`: one letter a parameter, a colon, the result's letter or nothing. */
function make(
  code: readonly number[],
  signature: string,
  immediate: Instruction['immediate'] = 'none',
  lanes = 0,
): Instruction {
  const [params, result] = signature.split(':');
  return { code, params: [...params].map(c => letters[c]), result: letters[result], immediate, lanes };
}

type Family<Prefix extends string, Names extends string> = { [K in Names as `${Prefix}.${K}`]: Instruction };

/** Instructions `prefix.name` with consecutive opcodes from `first` on and one signature. */
function run<P extends string, N extends string>(
  prefix: P,
  names: readonly N[],
  first: number,
  signature: string,
  escape?: number,
): Family<P, N> {
  const entries = names.map((name, i) => {
    const code = escape === undefined ? [first + i] : [escape, ...unsigned(first + i)];
    return [`${prefix}.${name}`, make(code, signature)];
  });
  return Object.fromEntries(entries) as Family<P, N>;
}

const plain = (code: number, signature: string): Instruction => make([code], signature);
const saturating = (code: number, signature: string): Instruction => make([0xfc, code], signature);
const memory = (code: number, signature: string): Instruction => make([code], signature, 'memory');
const simd = (code: number, signature: string): Instruction => make([0xfd, ...unsigned(code)], signature);
const simdMemory = (code: number, signature: string): Instruction =>
  make([0xfd, ...unsigned(code)], signature, 'memory');
const lane = (code: number, signature: string, lanes: number): Instruction =>
  make([0xfd, ...unsigned(code)], signature, 'lane', lanes);
const memoryLane = (code: number, signature: string, lanes: number): Instruction =>
  make([0xfd, ...unsigned(code)], signature, 'memoryLane', lanes);

const compareInts = ['eq', 'ne', 'lt_s', 'lt_u', 'gt_s', 'gt_u', 'le_s', 'le_u', 'ge_s', 'ge_u'] as const;
const compareFloats = ['eq', 'ne', 'lt', 'gt', 'le', 'ge'] as const;
const countBits = ['clz', 'ctz', 'popcnt'] as const;
const integerMath = [
  'add',
  'sub',
  'mul',
  'div_s',
  'div_u',
  'rem_s',
  'rem_u',
  'and',
  'or',
  'xor',
  'shl',
  'shr_s',
  'shr_u',
  'rotl',
  'rotr',
] as const;
const unaryFloats = ['abs', 'neg', 'ceil', 'floor', 'trunc', 'nearest', 'sqrt'] as const;
const binaryFloats = ['add', 'sub', 'mul', 'div', 'min', 'max', 'copysign'] as const;
const vectorFloats = ['add', 'sub', 'mul', 'div', 'min', 'max', 'pmin', 'pmax'] as const;
const shifts = ['shl', 'shr_s', 'shr_u'] as const;
const extremes = ['min_s', 'min_u', 'max_s', 'max_u'] as const;
const extendFrom16 = [
  'extend_low_i16x8_s',
  'extend_high_i16x8_s',
  'extend_low_i16x8_u',
  'extend_high_i16x8_u',
] as const;
const extendFrom8 = ['extend_low_i8x16_s', 'extend_high_i8x16_s', 'extend_low_i8x16_u', 'extend_high_i8x16_u'] as const;
const multiplyFrom16 = [
  'extmul_low_i16x8_s',
  'extmul_high_i16x8_s',
  'extmul_low_i16x8_u',
  'extmul_high_i16x8_u',
] as const;

const scalar = {
  'i32.load': memory(0x28, 'i:i'),
  'i64.load': memory(0x29, 'i:l'),
  'f32.load': memory(0x2a, 'i:f'),
  'f64.load': memory(0x2b, 'i:d'),
  'i32.load8_s': memory(0x2c, 'i:i'),
  'i32.load8_u': memory(0x2d, 'i:i'),
  'i32.load16_s': memory(0x2e, 'i:i'),
  'i32.load16_u': memory(0x2f, 'i:i'),
  'i32.store': memory(0x36, 'ii:'),
  'i64.store': memory(0x37, 'il:'),
  'f32.store': memory(0x38, 'if:'),
  'f64.store': memory(0x39, 'id:'),
  'i32.store8': memory(0x3a, 'ii:'),
  'i32.store16': memory(0x3b, 'ii:'),
  'i32.eqz': plain(0x45, 'i:i'),
  ...run('i32', compareInts, 0x46, 'ii:i'),
  'i64.eqz': plain(0x50, 'l:i'),
  ...run('i64', compareInts, 0x51, 'll:i'),
  ...run('f32', compareFloats, 0x5b, 'ff:i'),
  ...run('f64', compareFloats, 0x61, 'dd:i'),
  ...run('i32', countBits, 0x67, 'i:i'),
  ...run('i32', integerMath, 0x6a, 'ii:i'),
  ...run('i64', countBits, 0x79, 'l:l'),
  ...run('i64', integerMath, 0x7c, 'll:l'),
  ...run('f32', unaryFloats, 0x8b, 'f:f'),
  ...run('f32', binaryFloats, 0x92, 'ff:f'),
  ...run('f64', unaryFloats, 0x99, 'd:d'),
  ...run('f64', binaryFloats, 0xa0, 'dd:d'),
  'i32.wrap_i64': plain(0xa7, 'l:i'),
  'i64.extend_i32_s': plain(0xac, 'i:l'),
  'i64.extend_i32_u': plain(0xad, 'i:l'),
  'f32.convert_i32_s': plain(0xb2, 'i:f'),
  'f32.convert_i32_u': plain(0xb3, 'i:f'),
  'f32.demote_f64': plain(0xb6, 'd:f'),
  'f64.convert_i32_s': plain(0xb7, 'i:d'),
  'f64.convert_i32_u': plain(0xb8, 'i:d'),
  'f64.promote_f32': plain(0xbb, 'f:d'),
  'i32.reinterpret_f32': plain(0xbc, 'f:i'),
  'i64.reinterpret_f64': plain(0xbd, 'd:l'),
  'f32.reinterpret_i32': plain(0xbe, 'i:f'),
  'f64.reinterpret_i64': plain(0xbf, 'l:d'),
  'i32.trunc_sat_f32_s': saturating(0, 'f:i'),
  'i32.trunc_sat_f32_u': saturating(1, 'f:i'),
  'i32.trunc_sat_f64_s': saturating(2, 'd:i'),
  'i32.trunc_sat_f64_u': saturating(3, 'd:i'),
};

const vectorMemory = {
  'v128.load': simdMemory(0, 'i:v'),
  'v128.store': simdMemory(11, 'iv:'),
  'v128.load8x8_s': simdMemory(1, 'i:v'),
  'v128.load8x8_u': simdMemory(2, 'i:v'),
  'v128.load16x4_s': simdMemory(3, 'i:v'),
  'v128.load16x4_u': simdMemory(4, 'i:v'),
  'v128.load8_splat': simdMemory(7, 'i:v'),
  'v128.load16_splat': simdMemory(8, 'i:v'),
  'v128.load32_splat': simdMemory(9, 'i:v'),
  'v128.load64_splat': simdMemory(10, 'i:v'),
  'v128.load32_zero': simdMemory(92, 'i:v'),
  'v128.load64_zero': simdMemory(93, 'i:v'),
  'v128.load32_lane': memoryLane(86, 'iv:v', 4),
  'v128.load64_lane': memoryLane(87, 'iv:v', 2),
  'v128.store32_lane': memoryLane(90, 'iv:', 4),
  'v128.store64_lane': memoryLane(91, 'iv:', 2),
};

const vectorLanes = {
  'i8x16.splat': simd(15, 'i:v'),
  'i16x8.splat': simd(16, 'i:v'),
  'i32x4.splat': simd(17, 'i:v'),
  'i64x2.splat': simd(18, 'l:v'),
  'f32x4.splat': simd(19, 'f:v'),
  'f64x2.splat': simd(20, 'd:v'),
  'i8x16.swizzle': simd(14, 'vv:v'),
  'i8x16.extract_lane_s': lane(21, 'v:i', 16),
  'i8x16.extract_lane_u': lane(22, 'v:i', 16),
  'i8x16.replace_lane': lane(23, 'vi:v', 16),
  'i16x8.extract_lane_s': lane(24, 'v:i', 8),
  'i16x8.extract_lane_u': lane(25, 'v:i', 8),
  'i16x8.replace_lane': lane(26, 'vi:v', 8),
  'i32x4.extract_lane': lane(27, 'v:i', 4),
  'i32x4.replace_lane': lane(28, 'vi:v', 4),
  'i64x2.extract_lane': lane(29, 'v:l', 2),
  'i64x2.replace_lane': lane(30, 'vl:v', 2),
  'f32x4.extract_lane': lane(31, 'v:f', 4),
  'f32x4.replace_lane': lane(32, 'vf:v', 4),
  'f64x2.extract_lane': lane(33, 'v:d', 2),
  'f64x2.replace_lane': lane(34, 'vd:v', 2),
};

const vectorMath = {
  ...run('i8x16', compareInts, 35, 'vv:v', 0xfd),
  ...run('i16x8', compareInts, 45, 'vv:v', 0xfd),
  ...run('i32x4', compareInts, 55, 'vv:v', 0xfd),
  ...run('f32x4', compareFloats, 65, 'vv:v', 0xfd),
  ...run('f64x2', compareFloats, 71, 'vv:v', 0xfd),
  'v128.not': simd(77, 'v:v'),
  ...run('v128', ['and', 'andnot', 'or', 'xor'], 78, 'vv:v', 0xfd),
  'v128.bitselect': simd(82, 'vvv:v'),
  'v128.any_true': simd(83, 'v:i'),
  'i8x16.all_true': simd(99, 'v:i'),
  'i8x16.bitmask': simd(100, 'v:i'),
  'i16x8.all_true': simd(131, 'v:i'),
  'i16x8.bitmask': simd(132, 'v:i'),
  'i32x4.all_true': simd(163, 'v:i'),
  'i32x4.bitmask': simd(164, 'v:i'),
  ...run('i8x16', ['abs', 'neg'], 96, 'v:v', 0xfd),
  ...run('i8x16', shifts, 107, 'vi:v', 0xfd),
  'i8x16.add': simd(110, 'vv:v'),
  'i8x16.sub': simd(113, 'vv:v'),
  ...run('i8x16', extremes, 118, 'vv:v', 0xfd),
  ...run('i8x16', ['narrow_i16x8_s', 'narrow_i16x8_u'], 101, 'vv:v', 0xfd),
  ...run('i16x8', ['abs', 'neg'], 128, 'v:v', 0xfd),
  ...run('i16x8', shifts, 139, 'vi:v', 0xfd),
  ...run('i16x8', extendFrom8, 135, 'v:v', 0xfd),
  ...run('i16x8', ['narrow_i32x4_s', 'narrow_i32x4_u'], 133, 'vv:v', 0xfd),
  'i16x8.add': simd(142, 'vv:v'),
  'i16x8.sub': simd(145, 'vv:v'),
  'i16x8.mul': simd(149, 'vv:v'),
  ...run('i16x8', extremes, 150, 'vv:v', 0xfd),
  ...run('i32x4', ['abs', 'neg'], 160, 'v:v', 0xfd),
  ...run('i32x4', shifts, 171, 'vi:v', 0xfd),
  ...run('i32x4', extendFrom16, 167, 'v:v', 0xfd),
  ...run('i32x4', ['extadd_pairwise_i16x8_s', 'extadd_pairwise_i16x8_u'], 126, 'v:v', 0xfd),
  'i32x4.add': simd(174, 'vv:v'),
  'i32x4.sub': simd(177, 'vv:v'),
  'i32x4.mul': simd(181, 'vv:v'),
  ...run('i32x4', extremes, 182, 'vv:v', 0xfd),
  'i32x4.dot_i16x8_s': simd(186, 'vv:v'),
  ...run('i32x4', multiplyFrom16, 188, 'vv:v', 0xfd),
  ...run('i64x2', ['abs', 'neg'], 192, 'v:v', 0xfd),
  ...run('i64x2', shifts, 203, 'vi:v', 0xfd),
  'i64x2.add': simd(206, 'vv:v'),
  'i64x2.sub': simd(209, 'vv:v'),
  'i64x2.mul': simd(213, 'vv:v'),
  ...run('f32x4', ['ceil', 'floor', 'trunc', 'nearest'], 103, 'v:v', 0xfd),
  ...run('f32x4', ['abs', 'neg'], 224, 'v:v', 0xfd),
  'f32x4.sqrt': simd(227, 'v:v'),
  ...run('f32x4', vectorFloats, 228, 'vv:v', 0xfd),
  ...run('f64x2', ['ceil', 'floor'], 116, 'v:v', 0xfd),
  'f64x2.trunc': simd(122, 'v:v'),
  'f64x2.nearest': simd(148, 'v:v'),
  ...run('f64x2', ['abs', 'neg'], 236, 'v:v', 0xfd),
  'f64x2.sqrt': simd(239, 'v:v'),
  ...run('f64x2', vectorFloats, 240, 'vv:v', 0xfd),
  'i32x4.trunc_sat_f32x4_s': simd(248, 'v:v'),
  'i32x4.trunc_sat_f32x4_u': simd(249, 'v:v'),
  'f32x4.convert_i32x4_s': simd(250, 'v:v'),
  'f32x4.convert_i32x4_u': simd(251, 'v:v'),
  'f32x4.demote_f64x2_zero': simd(94, 'v:v'),
  'f64x2.promote_low_f32x4': simd(95, 'v:v'),
  'f64x2.convert_low_i32x4_s': simd(254, 'v:v'),
  'f64x2.convert_low_i32x4_u': simd(255, 'v:v'),
};

/**
 * Relaxed SIMD: one or two roundings as the machine likes. relaxed_madd is a * b + c, relaxed_nmadd is -(a * b) + c.
 */
const relaxed = {
  'f32x4.relaxed_madd': simd(0x105, 'vvv:v'),
  'f32x4.relaxed_nmadd': simd(0x106, 'vvv:v'),
  'f64x2.relaxed_madd': simd(0x107, 'vvv:v'),
  'f64x2.relaxed_nmadd': simd(0x108, 'vvv:v'),
  'i16x8.relaxed_dot_i8x16_i7x16_s': simd(0x112, 'vv:v'),
  'i32x4.relaxed_dot_i8x16_i7x16_add_s': simd(0x113, 'vvv:v'),
};

export const instructions = { ...scalar, ...vectorMemory, ...vectorLanes, ...vectorMath, ...relaxed };

export type InstructionName = keyof typeof instructions;
