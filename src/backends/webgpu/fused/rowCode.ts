// WGSL for one row of a fused kernel: passes along the row and what is made once between them, by one invocation alone
// or by the lanes of a workgroup together. Bindings, row numbers and dispatch are rowKernels.ts.

import type { Access } from '../operands.js';

/** Sums go in blocks of so many terms: rounding errors do not grow with the length of the row. */
const block = 32;
/**
 * Elements in the text of a loop: a software compiler leaves loops as they are, and their ends cost as much as a load.
 */
const unrolled = 4;
/** Below every finite number but itself; WGSL promises nothing of infinities. */
const lowest = '-3.4028234e38f';

/**
 * What a kernel is given for each element ('row': [.., n], or [n] for all rows alike) or once for each row ('one':
 * [..]).
 */
export interface RowOperand {
  readonly name: string;
  readonly along: 'row' | 'one';
  /** Integers; f32 otherwise. */
  readonly type?: 'i';
}

/**
 * One walk along the row. Names in the expressions: the operands of `reads`, j (the element's number), and whatever was
 * made before.
 */
export interface Pass {
  readonly reads: readonly string[];
  /** Totals by the names they get. */
  readonly sum?: Readonly<Record<string, string>>;
  readonly max?: Readonly<Record<string, string>>;
  /** Outputs along the row and their elements. */
  readonly write?: Readonly<Record<string, string>>;
}

export class RowCode {
  /** Totals that the widest pass makes at once. */
  totals = 0;
  private readonly lines: string[] = [];
  private readonly operands: readonly RowOperand[];
  private readonly access: Access;
  private readonly lanes: number;

  /** Operand k starts at `k${k}` in this row. */
  constructor(operands: readonly RowOperand[], access: Access, lanes: number) {
    this.operands = operands;
    this.access = access;
    this.lanes = lanes;
  }

  get text(): string {
    return this.lines.join('\n  ');
  }

  /** An operand along the row, at one element. */
  at(name: string, index: string): string {
    const k = this.number(name);
    return this.access.load(k, `k${k} + ${index}`);
  }

  let(name: string, value: string): void {
    this.lines.push(`let ${name} = ${value};`);
  }

  /** Names an input that has one value a row. */
  take(name: string): void {
    const k = this.number(name);
    this.let(name, this.access.load(k, `k${k}`));
  }

  /** Writes an output that has one value a row. */
  set(name: string, value: string): void {
    const k = this.number(name);
    const store = this.access.store(k, `k${k}`, value);
    this.lines.push(this.lanes > 1 ? `if (lane == 0u) { ${store} }` : store);
  }

  pass({ reads, sum = {}, max = {}, write = {} }: Pass): void {
    const { lanes, lines } = this;
    const [sums, maxima] = [Object.entries(sum), Object.entries(max)];
    const element = [
      ...reads.map(name => `let ${name} = ${this.at(name, 'j')};`),
      ...sums.map(([name, value]) => `${name}Part += ${value};`),
      ...maxima.map(([name, value]) => `${name}All = max(${name}All, ${value});`),
      ...Object.entries(write).map(([name, value]) =>
        this.access.store(this.number(name), `k${this.number(name)} + j`, value),
      ),
    ].join('\n      ');
    for (const [name] of sums) lines.push(`var ${name}All = 0.0;`);
    for (const [name] of maxima) lines.push(`var ${name}All = ${lowest};`);
    lines.push(`for (var start = ${lanes > 1 ? 'lane' : '0u'}; start < count; start += ${block * lanes}u) {
    let end = min(start + ${block * lanes}u, count);
    ${sums.map(([name]) => `var ${name}Part = 0.0;`).join(' ')}
    var j = start;
    while (j + ${(unrolled - 1) * lanes}u < end) {
      ${`{ ${element} }\n      j += ${lanes}u;\n      `.repeat(unrolled)}
    }
    for (; j < end; j += ${lanes}u) {
      ${element}
    }
    ${sums.map(([name]) => `${name}All += ${name}Part;`).join(' ')}
  }`);
    this.join([...sums, ...maxima].map(([name]) => ({ name, isSum: name in sum })));
  }

  /** Gives the totals their names, once all lanes have added their share. */
  private join(totals: readonly { name: string; isSum: boolean }[]): void {
    const { lanes, lines } = this;
    if (lanes === 1) {
      for (const { name } of totals) this.let(name, `${name}All`);
      return;
    }
    if (totals.length === 0) return;
    this.totals = Math.max(this.totals, totals.length);
    const joined = totals.map(({ isSum }, i) => {
      const [own, other] = [`shared${i}[lane]`, `shared${i}[lane + half]`];
      return isSum ? `${own} += ${other};` : `${own} = max(${own}, ${other});`;
    });
    totals.forEach(({ name }, i) => lines.push(`shared${i}[lane] = ${name}All;`));
    lines.push(`for (var half = ${lanes / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { ${joined.join(' ')} }
  }`);
    // Barriers before and after come with this load.
    totals.forEach(({ name }, i) => this.let(name, `workgroupUniformLoad(&shared${i}[0])`));
  }

  private number(name: string): number {
    const k = this.operands.findIndex(o => o.name === name);
    if (k < 0) throw new Error(`a row kernel has no operand ${name}`);
    return k;
  }
}
