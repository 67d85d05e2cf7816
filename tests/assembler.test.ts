// The assembler: every instruction it knows validates, and control flow, memory and lanes behave.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  call,
  constant,
  f32x4Const,
  i32x4Const,
  i8x16Const,
  instantiate,
  laneOp,
  load,
  loadLane,
  ModuleBuilder,
  op,
  select,
  shuffle32,
  supportsRelaxedSimd,
  type InstructionName,
  type Value,
  type WasmType,
} from '../src/backends/cpu/wasm/emit/assembler.js';
import { instructions } from '../src/backends/cpu/wasm/emit/opcodes.js';

const newMemory = (): WebAssembly.Memory => new WebAssembly.Memory({ initial: 1 });

const sample = (type: WasmType): Value => (type === 'v128' ? i32x4Const(1, 2, 3, 4) : constant(type, 1));

test('every instruction validates with the types of the table', () => {
  const relaxed = supportsRelaxedSimd();
  let checked = 0;
  for (const name of Object.keys(instructions) as InstructionName[]) {
    if (name.includes('relaxed') && !relaxed) continue;
    const { params, result, immediate } = instructions[name];
    const m = new ModuleBuilder();
    const f = m.function('f', { params: [], results: result ? [result] : [] });
    const operands = params.map(sample);
    if (immediate === 'memoryLane' && result) f.return(loadLane(name, 1, operands[0], operands[1], 8));
    else if (immediate === 'memoryLane') f.storeLane(name, 1, operands[0], operands[1], 8);
    else if (immediate === 'lane') f.return(laneOp(name, 1, ...operands));
    else if (immediate === 'memory' && result) f.return(load(name, operands[0], 300));
    else if (immediate === 'memory') f.store(name, operands[0], operands[1], 300);
    else f.return(op(name, ...operands));
    assert.ok(WebAssembly.validate(m.bytes()), name);
    checked++;
  }
  assert.ok(checked > 250, `${checked} instructions`);
});

/** A module of one function of scalars. */
function evaluate(result: WasmType, value: Value): number {
  const m = new ModuleBuilder();
  m.function('f', { params: [], results: [result] }).return(value);
  return instantiate(m.bytes(), newMemory()).f();
}

test('opcodes mean what their names say', () => {
  const f32 = (name: InstructionName, ...args: number[]): number => evaluate('f32', op(name, ...args));
  const i32 = (name: InstructionName, ...args: number[]): number => evaluate('i32', op(name, ...args));
  assert.equal(f32('f32.add', 2, 3), 5);
  assert.equal(f32('f32.sub', 2, 3), -1);
  assert.equal(f32('f32.mul', 2, 3), 6);
  assert.equal(f32('f32.div', 3, 2), 1.5);
  assert.equal(f32('f32.min', 3, 2), 2);
  assert.equal(f32('f32.max', 3, 2), 3);
  assert.equal(f32('f32.abs', -3), 3);
  assert.equal(f32('f32.neg', 3), -3);
  assert.equal(f32('f32.sqrt', 9), 3);
  assert.equal(f32('f32.floor', -1.5), -2);
  assert.equal(f32('f32.ceil', -1.5), -1);
  assert.equal(f32('f32.trunc', -1.7), -1);
  assert.equal(f32('f32.nearest', 2.5), 2);
  assert.equal(i32('i32.sub', 2, 3), -1);
  assert.equal(i32('i32.mul', -2, 3), -6);
  assert.equal(i32('i32.div_u', -2, 2), 0x7fffffff);
  assert.equal(i32('i32.rem_s', -7, 3), -1);
  assert.equal(i32('i32.shl', 1, 5), 32);
  assert.equal(i32('i32.shr_s', -8, 1), -4);
  assert.equal(i32('i32.shr_u', -1, 28), 15);
  assert.equal(i32('i32.rotl', 0x80000001, 1), 3);
  assert.equal(i32('i32.lt_u', -1, 1), 0);
  assert.equal(i32('i32.lt_s', -1, 1), 1);
  assert.equal(i32('i32.eqz', 0), 1);
  assert.equal(evaluate('i32', op('i32.trunc_sat_f32_s', 3e10)), 0x7fffffff);
  assert.equal(evaluate('i32', op('i32.reinterpret_f32', 1)), 0x3f800000);
  assert.equal(evaluate('f32', op('f32.convert_i32_u', -1)), 2 ** 32);
  assert.equal(evaluate('f64', op('f64.promote_f32', 0.5)), 0.5);
  const vector: [InstructionName, number, number, number][] = [
    ['f32x4.add', 2, 3, 5],
    ['f32x4.sub', 2, 3, -1],
    ['f32x4.mul', 2, 3, 6],
    ['f32x4.div', 3, 2, 1.5],
    ['f32x4.min', 3, 2, 2],
    ['f32x4.max', 3, 2, 3],
    ['f32x4.pmin', 3, 2, 2],
    ['f32x4.pmax', 3, 2, 3],
  ];
  for (const [name, a, b, expected] of vector) {
    assert.equal(
      evaluate('f32', laneOp('f32x4.extract_lane', 3, op(name, f32x4Const(a), f32x4Const(b)))),
      expected,
      name,
    );
  }
  const integers: [InstructionName, number, number, number][] = [
    ['i32x4.add', 2, 3, 5],
    ['i32x4.sub', 2, 3, -1],
    ['i32x4.mul', -2, 3, -6],
    ['i32x4.min_s', -1, 1, -1],
    ['i32x4.min_u', -1, 1, 1],
    ['i32x4.max_s', -1, 1, 1],
    ['i32x4.max_u', -1, 1, -1],
    ['i32x4.lt_s', -1, 1, -1],
    ['i32x4.lt_u', -1, 1, 0],
    ['i32x4.gt_s', -1, 1, 0],
    ['i32x4.eq', 4, 4, -1],
    ['i32x4.ne', 4, 4, 0],
    ['i32x4.le_s', 4, 4, -1],
    ['i32x4.ge_u', 4, 5, 0],
    ['v128.and', 6, 3, 2],
    ['v128.or', 6, 3, 7],
    ['v128.xor', 6, 3, 5],
    ['v128.andnot', 6, 3, 4],
    ['i32x4.dot_i16x8_s', 3, 5, 15],
  ];
  for (const [name, a, b, expected] of integers) {
    assert.equal(
      evaluate('i32', laneOp('i32x4.extract_lane', 2, op(name, i32x4Const(a), i32x4Const(b)))),
      expected,
      name,
    );
  }
  const first = (v: Value): number => evaluate('i32', laneOp('i32x4.extract_lane', 0, v));
  assert.equal(first(op('i32x4.shl', i32x4Const(3), 4)), 48);
  assert.equal(first(op('i32x4.shr_s', i32x4Const(-8), 1)), -4);
  assert.equal(first(op('i32x4.shr_u', i32x4Const(-1), 31)), 1);
  assert.equal(first(op('i32x4.trunc_sat_f32x4_s', f32x4Const(-2.9))), -2);
  assert.equal(first(op('v128.bitselect', i32x4Const(0xff), i32x4Const(0), i32x4Const(0x0f))), 0x0f);
  assert.equal(evaluate('f32', laneOp('f32x4.extract_lane', 1, op('f32x4.convert_i32x4_s', i32x4Const(7)))), 7);
  assert.equal(evaluate('f32', laneOp('f32x4.extract_lane', 1, op('f32x4.floor', f32x4Const(-1.5)))), -2);
  assert.equal(evaluate('f32', laneOp('f32x4.extract_lane', 1, op('f32x4.nearest', f32x4Const(1.5)))), 2);
  assert.equal(evaluate('f32', laneOp('f32x4.extract_lane', 1, op('f32x4.sqrt', f32x4Const(16)))), 4);
  assert.equal(evaluate('i32', op('v128.any_true', i32x4Const(0, 0, 1, 0))), 1);
  assert.equal(evaluate('i32', op('i32x4.all_true', i32x4Const(0, 0, 1, 0))), 0);
  assert.equal(evaluate('i32', op('i32x4.bitmask', i32x4Const(-1, 0, -1, 0))), 5);
  const mixed = shuffle32(f32x4Const(0, 1, 2, 3), f32x4Const(4, 5, 6, 7), [0, 4, 7, 3]);
  assert.equal(evaluate('f32', laneOp('f32x4.extract_lane', 2, mixed)), 7);
  assert.equal(
    evaluate('i32', laneOp('i8x16.extract_lane_u', 15, i8x16Const(...Array.from({ length: 16 }, (_, i) => i + 240)))),
    255,
  );
  assert.equal(evaluate('f32', laneOp('f32x4.extract_lane', 0, laneOp('f32x4.replace_lane', 0, f32x4Const(1), 9))), 9);
});

test('constants of every size', () => {
  for (const value of [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, 2 ** 31 - 1, -(2 ** 31)])
    assert.equal(evaluate('i32', constant('i32', value)), value);
  assert.equal(evaluate('i32', constant('i32', 2 ** 32 - 4)), -4);
  assert.equal(evaluate('i32', op('i32.wrap_i64', op('i64.shr_u', constant('i64', 2n ** 63n), 63))), 1);
  for (const value of [0, -0, 1.5, Infinity, Math.fround(1e-40)])
    assert.ok(
      Object.is(evaluate('f32', constant('f32', value)), value),
      "Object.is(evaluate('f32', constant('f32', value)), value)",
    );
  assert.equal(evaluate('f64', constant('f64', Math.PI)), Math.PI);
});

test('loops, branches, calls, select', () => {
  const m = new ModuleBuilder();
  const square = m.function('square', { params: ['i32'], results: ['i32'] }, { exported: false });
  square.return(op('i32.mul', square.params[0], square.params[0]));

  const f = m.function('sumOfSquares', { params: ['i32'], results: ['i32'] });
  const [i, total] = f.localArray('i32', 2);
  f.loop(i, f.params[0], 1, () => f.set(total, op('i32.add', total, call(square, i))));
  f.return(total);

  const g = m.function('firstDivisor', { params: ['i32'], results: ['i32'] });
  const d = g.local('i32');
  g.set(d, 2);
  g.block(found => {
    g.repeat(again => {
      g.if(
        op('i32.eqz', op('i32.rem_u', g.params[0], d)),
        () => g.branch(found),
        () => g.add(d, 1),
      );
      g.branch(again);
    });
  });
  g.return(d);

  const h = m.function('larger', { params: ['f32', 'f32'], results: ['f32'] });
  h.return(select(h.params[0], h.params[1], op('f32.gt', h.params[0], h.params[1])));

  const built = instantiate(m.bytes(), newMemory());
  assert.deepEqual(Object.keys(built), ['sumOfSquares', 'firstDivisor', 'larger']);
  for (const n of [0, 1, 2, 5])
    assert.equal(
      built.sumOfSquares(n),
      [...Array(n).keys()].reduce((s, x) => s + x * x, 0),
    );
  assert.equal(built.firstDivisor(35), 5);
  assert.equal(built.larger(2, 3), 3);
  assert.equal(built.larger(4, 3), 4);
});

test('memory: loads, stores, lanes, fill and copy', () => {
  const memory = newMemory();
  const m = new ModuleBuilder();
  const f = m.function('go', { params: [], results: [] });
  f.store('v128.store', 0, load('v128.load32_splat', 64, 4));
  f.store('v128.store', 16, loadLane('v128.load32_lane', 2, 64, load('v128.load64_zero', 64), 8));
  f.storeLane('v128.store32_lane', 3, 32, load('v128.load', 64), 4);
  f.fill(48, 7, 3);
  f.copy(52, 64, 8);
  instantiate(m.bytes(), memory);
  const floats = new Float32Array(memory.buffer);
  floats.set([1, 2, 3, 4], 16);
  instantiate(m.bytes(), memory).go();
  assert.deepEqual([...floats.subarray(0, 10)], [2, 2, 2, 2, 1, 2, 3, 0, 0, 4]);
  assert.deepEqual([...new Uint8Array(memory.buffer, 48, 4)], [7, 7, 7, 0]);
  assert.deepEqual([...floats.subarray(13, 15)], [1, 2]);
});

test('the shared bit decides which memory a module links to', () => {
  const shared = new WebAssembly.Memory({ initial: 1, maximum: 4, shared: true });
  for (const isShared of [false, true]) {
    const m = new ModuleBuilder({ memory: { shared: isShared } });
    m.function('f', { params: [], results: ['f32'] }).return(load('f32.load', 8));
    const [right, wrong] = isShared ? [shared, newMemory()] : [newMemory(), shared];
    assert.equal(instantiate(m.bytes(), right).f(), 0);
    assert.throws(() => instantiate(m.bytes(), wrong), WebAssembly.LinkError);
  }
});

test('mistakes name the instruction', () => {
  const m = new ModuleBuilder();
  const f = m.function('f', { params: ['f32'], results: [] });
  assert.throws(() => op('i32.add', f.params[0], 1), /i32\.add: expected a value of type i32, got f32/);
  assert.throws(() => op('f32.add', f.params[0]), /f32\.add: expected 2 operands, got 1/);
  assert.throws(() => op('f32x4.add', f32x4Const(1), 1), /v128/);
  assert.throws(() => laneOp('f32x4.extract_lane', 4, f32x4Const(1)), /no lane 4/);
  assert.throws(() => load('v128.load', 0, -4), /offset/);
});
