// A small WebAssembly assembler: values are trees (`op('f32.add', x, op('f32.load', p))`), statements are methods of a
// function builder that append to its body. Types are checked while building, so a mistake names the instruction
// instead of failing to compile. Which instructions exist is in opcodes.ts; kernels do not belong here.
//
//   const m = new ModuleBuilder();
//   const f = m.function('sum', { params: ['i32', 'i32'], results: ['f32'] });
//   const [at, count] = f.params;
//   const i = f.local('i32'), total = f.local('f32');
//   f.loop(i, count, 1, () => {
//     f.set(total, op('f32.add', total, op('f32.load', at)));
//     f.add(at, 4);
//   });
//   f.return(total);
//   const { sum } = instantiate(m.bytes(), memory);

import { instructions, unsigned, type Instruction, type InstructionName, type WasmType } from './opcodes.js';

export type { InstructionName, WasmType } from './opcodes.js';

type Code = readonly (number | Code)[];

/** An expression. Used in two places it is computed twice: `set` it to a local first. */
export interface Value {
  readonly type: WasmType | undefined;
  readonly code: Code;
}

export interface Local extends Value {
  readonly type: WasmType;
  readonly index: number;
}

/** A number stands for a constant of the type that is expected. */
export type Operand = Value | number;

/** The target of a branch: the end of a `block`, the start of a `repeat`. */
export interface Label {
  readonly depth: number;
}

const typeCodes: Readonly<Record<WasmType, number>> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };
const voidBlock = 0x40;

/** Signed LEB128 of a number within 64 bits. */
function signed(value: bigint): number[] {
  const bytes: number[] = [];
  for (;;) {
    const low = Number(value & 127n);
    value >>= 7n;
    const done = (value === 0n && low < 64) || (value === -1n && low >= 64);
    bytes.push(done ? low : low + 128);
    if (done) return bytes;
  }
}

const bytesOf = (data: Float32Array | Float64Array | Int32Array): number[] => [...new Uint8Array(data.buffer)];

/** A scalar constant. An i32 may be given signed or unsigned. */
export function constant(type: WasmType, value: number | bigint): Value {
  switch (type) {
    case 'i32':
      return { type, code: [0x41, signed(BigInt(Number(value) | 0))] };
    case 'i64':
      return { type, code: [0x42, signed(BigInt.asIntN(64, BigInt(value)))] };
    case 'f32':
      return { type, code: [0x43, bytesOf(new Float32Array([Number(value)]))] };
    case 'f64':
      return { type, code: [0x44, bytesOf(new Float64Array([Number(value)]))] };
    case 'v128':
      throw new Error('a v128 operand needs f32x4Const, i32x4Const or a splat, not a number');
  }
}

const vectorConstant = (bytes: readonly number[]): Value => ({ type: 'v128', code: [0xfd, 0x0c, bytes] });

/** Four f32 lanes; one number fills all. */
export function f32x4Const(...lanes: readonly number[]): Value {
  return vectorConstant(bytesOf(new Float32Array(4).map((_, i) => lanes[lanes.length === 1 ? 0 : i])));
}

/** Four i32 lanes; one number fills all. */
export function i32x4Const(...lanes: readonly number[]): Value {
  return vectorConstant(bytesOf(new Int32Array(4).map((_, i) => lanes[lanes.length === 1 ? 0 : i])));
}

/** Sixteen bytes. */
export function i8x16Const(...bytes: readonly number[]): Value {
  if (bytes.length !== 16) throw new Error(`i8x16Const: expected 16 bytes, got ${bytes.length}`);
  return vectorConstant(bytes.map(b => b & 255));
}

function lift(where: string, operand: Operand, type: WasmType): Code {
  const value = typeof operand === 'number' ? constant(type, operand) : operand;
  if (value.type !== type) throw new Error(`${where}: expected a value of type ${type}, got ${value.type ?? 'none'}`);
  return value.code;
}

function lifted(where: string, operands: readonly Operand[], types: readonly WasmType[]): Code {
  if (operands.length !== types.length)
    throw new Error(`${where}: expected ${types.length} operands, got ${operands.length}`);
  return types.map((type, i) => lift(where, operands[i], type));
}

/** Alignment is only a hint; 4 bytes is what every address here has. */
function memoryImmediate(name: string, offset: number): Code {
  if (!Number.isInteger(offset) || offset < 0 || offset > 0xffffffff)
    throw new Error(`${name}: ${offset} is not an offset`);
  const narrow = /(load|store)8/.test(name) ? 0 : /(load|store)16/.test(name) ? 1 : 2;
  return [narrow, unsigned(offset)];
}

function assemble(name: InstructionName, operands: readonly Operand[], offset: number, lane: number): Value {
  const instruction: Instruction = instructions[name];
  const { immediate, lanes, code, params, result } = instruction;
  if (lanes > 0 && !(Number.isInteger(lane) && lane >= 0 && lane < lanes)) throw new Error(`${name}: no lane ${lane}`);
  const tail: Code[] = [];
  if (immediate === 'memory' || immediate === 'memoryLane') tail.push(memoryImmediate(name, offset));
  if (immediate === 'lane' || immediate === 'memoryLane') tail.push([lane]);
  return { type: result, code: [lifted(name, operands, params), code, tail] };
}

/** An instruction on its operands. Loads and stores get offset 0; instructions with a lane go through `laneOp`. */
export function op(name: InstructionName, ...operands: readonly Operand[]): Value {
  return assemble(name, operands, 0, -1);
}

/** extract_lane and replace_lane. */
export function laneOp(name: InstructionName, lane: number, ...operands: readonly Operand[]): Value {
  return assemble(name, operands, 0, lane);
}

/** A load at `address` (bytes, unsigned) plus a constant offset. */
export function load(name: InstructionName, address: Operand, offset = 0): Value {
  return assemble(name, [address], offset, -1);
}

/** Loads one lane of `vector`, keeping the others. */
export function loadLane(name: InstructionName, lane: number, address: Operand, vector: Operand, offset = 0): Value {
  return assemble(name, [address, vector], offset, lane);
}

/** i8x16.shuffle: byte i of the result is byte lanes[i] of the 32 bytes of a and b. */
export function shuffle(a: Operand, b: Operand, lanes: readonly number[]): Value {
  const known = lanes.every(l => Number.isInteger(l) && l >= 0 && l < 32);
  if (lanes.length !== 16 || !known) throw new Error('shuffle: expected 16 lanes of 0 to 31');
  return { type: 'v128', code: [lifted('shuffle', [a, b], ['v128', 'v128']), 0xfd, 0x0d, lanes] };
}

/** The same with four 32-bit lanes of 0 to 7. */
export function shuffle32(a: Operand, b: Operand, lanes: readonly [number, number, number, number]): Value {
  return shuffle(
    a,
    b,
    lanes.flatMap(l => [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3]),
  );
}

/** a where the condition is not 0, else b; both are computed. */
export function select(a: Value, b: Operand, condition: Operand): Value {
  if (a.type === undefined) throw new Error('select: the first operand has no value');
  return { type: a.type, code: [a.code, lift('select', b, a.type), lift('select', condition, 'i32'), 0x1b] };
}

/** A call; a value if the function has a result. */
export function call(target: FunctionBuilder, ...operands: readonly Operand[]): Value {
  const given = lifted(
    `call ${target.name}`,
    operands,
    target.params.map(p => p.type),
  );
  return { type: target.results[0], code: [given, 0x10, unsigned(target.index)] };
}

export interface Signature {
  readonly params: readonly WasmType[];
  readonly results: readonly WasmType[];
}

export class FunctionBuilder {
  readonly name: string;
  readonly index: number;
  readonly params: readonly Local[];
  readonly results: readonly WasmType[];
  readonly exported: boolean;
  private readonly locals: Local[] = [];
  private readonly body: Code[] = [];
  private depth = 0;

  constructor(name: string, index: number, signature: Signature, exported: boolean) {
    this.name = name;
    this.index = index;
    this.exported = exported;
    this.results = signature.results;
    this.params = signature.params.map((type, i) => localValue(type, i));
  }

  /** A new local, 0 at the start of the function. */
  local(type: WasmType): Local {
    const local = localValue(type, this.params.length + this.locals.length);
    this.locals.push(local);
    return local;
  }

  localArray(type: WasmType, count: number): Local[] {
    return Array.from({ length: count }, () => this.local(type));
  }

  set(local: Local, value: Operand): void {
    this.body.push([lift(`${this.name}: set`, value, local.type), 0x21, unsigned(local.index)]);
  }

  /** Sets the local and is its new value. */
  tee(local: Local, value: Operand): Value {
    return { type: local.type, code: [lift(`${this.name}: tee`, value, local.type), 0x22, unsigned(local.index)] };
  }

  /** local += value, for i32 locals: addresses and counters. */
  add(local: Local, value: Operand): void {
    this.set(local, op('i32.add', local, value));
  }

  store(name: InstructionName, address: Operand, value: Operand, offset = 0): void {
    this.do(assemble(name, [address, value], offset, -1));
  }

  storeLane(name: InstructionName, lane: number, address: Operand, vector: Operand, offset = 0): void {
    this.do(assemble(name, [address, vector], offset, lane));
  }

  /** memory.fill: bytes [address, address + length) become `byte`. */
  fill(address: Operand, byte: Operand, length: Operand): void {
    this.body.push([lifted('memory.fill', [address, byte, length], ['i32', 'i32', 'i32']), 0xfc, 0x0b, 0x00]);
  }

  /** memory.copy: like memmove. */
  copy(to: Operand, from: Operand, length: Operand): void {
    this.body.push([lifted('memory.copy', [to, from, length], ['i32', 'i32', 'i32']), 0xfc, 0x0a, 0x00, 0x00]);
  }

  /** Evaluates for its effect; a value is dropped. */
  do(value: Value): void {
    this.body.push(value.type === undefined ? value.code : [value.code, 0x1a]);
  }

  return(value?: Operand): void {
    this.body.push([value === undefined ? [] : lift(`${this.name}: return`, value, this.results[0]), 0x0f]);
  }

  /** Branching to the label leaves the block. */
  block(body: (label: Label) => void): void {
    this.nest([0x02, voidBlock], body);
  }

  /** Branching to the label starts the body again; without a branch it ends. */
  repeat(body: (label: Label) => void): void {
    this.nest([0x03, voidBlock], body);
  }

  if(condition: Operand, then: () => void, otherwise?: () => void): void {
    this.body.push(lift(`${this.name}: if`, condition, 'i32'), [0x04, voidBlock]);
    this.depth++;
    then();
    if (otherwise) {
      this.body.push([0x05]);
      otherwise();
    }
    this.depth--;
    this.body.push([0x0b]);
  }

  branch(label: Label): void {
    this.body.push([0x0c, unsigned(this.depth - label.depth)]);
  }

  branchIf(label: Label, condition: Operand): void {
    this.body.push([lift(`${this.name}: branchIf`, condition, 'i32'), 0x0d, unsigned(this.depth - label.depth)]);
  }

  /**
   * while (counter < limit) { body; counter += step }, compared as unsigned. The counter starts as it is (locals start
   * at 0; set it before an inner loop), and the limit is computed anew each time round: give a local or a number.
   */
  loop(counter: Local, limit: Operand, step: Operand, body: () => void): void {
    this.if(op('i32.lt_u', counter, limit), () => {
      this.repeat(again => {
        body();
        this.branchIf(again, op('i32.lt_u', this.tee(counter, op('i32.add', counter, step)), limit));
      });
    });
  }

  private nest(open: Code, body: (label: Label) => void): void {
    this.body.push(open);
    this.depth++;
    body({ depth: this.depth });
    this.depth--;
    this.body.push([0x0b]);
  }

  /** The entry in the code section. */
  encode(): number[] {
    const groups: [number, WasmType][] = [];
    for (const { type } of this.locals) {
      const last = groups.at(-1);
      if (last && last[1] === type) last[0]++;
      else groups.push([1, type]);
    }
    const declared = vector(groups.map(([count, type]) => [...unsigned(count), typeCodes[type]]));
    const unreachableEnd = this.results.length > 0 ? [0x00] : []; // a function with a result ends in `return`
    const bytes: number[] = [...declared];
    flatten(this.body, bytes);
    bytes.push(...unreachableEnd, 0x0b);
    return [...unsigned(bytes.length), ...bytes];
  }
}

function localValue(type: WasmType, index: number): Local {
  return { type, index, code: [0x20, ...unsigned(index)] };
}

function flatten(code: Code, into: number[]): void {
  for (const part of code) {
    if (typeof part === 'number') into.push(part);
    else flatten(part, into);
  }
}

/** A count and that many entries. */
function vector(entries: readonly (readonly number[])[]): number[] {
  return [...unsigned(entries.length), ...entries.flat()];
}

function section(id: number, entries: readonly (readonly number[])[]): number[] {
  if (entries.length === 0) return [];
  const content = vector(entries);
  return [id, ...unsigned(content.length), ...content];
}

const nameBytes = (text: string): number[] => vector([...new TextEncoder().encode(text)].map(b => [b]));

/**
 * A module over one imported memory, `env.memory`. A module for shared memory links to shared memory only, and the
 * other way round.
 */
export class ModuleBuilder {
  private readonly shared: boolean;
  private readonly functions: FunctionBuilder[] = [];

  constructor(options: { memory?: { shared?: boolean } } = {}) {
    this.shared = options.memory?.shared ?? false;
  }

  /** Results: none or one. Exported under its name unless told otherwise. */
  function(name: string, signature: Signature, options: { exported?: boolean } = {}): FunctionBuilder {
    if (signature.results.length > 1) throw new Error(`${name}: at most one result`);
    const built = new FunctionBuilder(name, this.functions.length, signature, options.exported ?? true);
    this.functions.push(built);
    return built;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    const types = this.functions.map(f => [
      0x60,
      ...vector(f.params.map(p => [typeCodes[p.type]])),
      ...vector(f.results.map(type => [typeCodes[type]])),
    ]);
    const limits = this.shared ? [0x03, 0x00, ...unsigned(65536)] : [0x00, 0x00];
    const memory = [...nameBytes('env'), ...nameBytes('memory'), 0x02, ...limits];
    const exported = this.functions
      .filter(f => f.exported)
      .map(f => [...nameBytes(f.name), 0x00, ...unsigned(f.index)]);
    return new Uint8Array([
      0x00,
      0x61,
      0x73,
      0x6d,
      0x01,
      0x00,
      0x00,
      0x00,
      ...section(1, types),
      ...section(2, [memory]),
      ...section(
        3,
        this.functions.map((_, i) => unsigned(i)),
      ),
      ...section(7, exported),
      ...section(
        10,
        this.functions.map(f => f.encode()),
      ),
    ]);
  }
}

export type WasmFunction = (...args: number[]) => number;

/** Compiles and links at once; the exported functions by name. */
export function instantiate(bytes: Uint8Array<ArrayBuffer>, memory: WebAssembly.Memory): Record<string, WasmFunction> {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
  return { ...instance.exports } as Record<string, WasmFunction>;
}

/**
 * Whether this engine has the relaxed SIMD instructions (Node 20 only behind a flag, which must be set before this is
 * asked).
 */
export function supportsRelaxedSimd(): boolean {
  const m = new ModuleBuilder();
  const f = m.function('f', { params: [], results: ['v128'] });
  f.return(op('f32x4.relaxed_madd', f32x4Const(1), f32x4Const(2), f32x4Const(3)));
  return WebAssembly.validate(m.bytes());
}
