// The three kernels that the edit op and its VJP are made of, as WGSL: products of edited rows with matrices [slots, r,
// d], rows with combinations of matrices added, and sums of rows by coefficients. Each in a form for one invocation
// (several rows at once, as software adapters like it) and one for a workgroup. Which matrices, which coefficients:
// edit.ts.

import { functionTexts } from '../mathWgsl.js';

/** How the numbers along a hidden state are read. */
export type Unit = 'vec4' | 'f32';

export interface EditStructure {
  readonly unit: Unit;
  /** A workgroup works together. */
  readonly together: boolean;
  /** The bank has one slot: rows may share what they read of it. */
  readonly oneSlot: boolean;
}

/** Ranks that are worked on at once. */
export const rankBlock = 4;
/**
 * Invocations of a workgroup: those that add up a product, those that go their own way, and those that sum rows (8
 * columns by 16 parts).
 */
export const workgroupSize = { products: 64, apart: 64, alone: 16, sums: 128 } as const;
/** Columns that share the rows of a workgroup, and that one invocation takes alone. */
export const sumColumns = 8;
export const aloneColumns = 4;
/** Columns of a row tile that one invocation takes. */
export const stripe = 16;
/** Up to this rank, coefficients are unrolled. */
export const fewRanks = 8;

export const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const component = (w: number): string => 'xyzw'[w];

/** Rows that an invocation takes at once. */
export const rowsAtOnce = ({ together, oneSlot }: EditStructure, ranks = 1): number =>
  together || !oneSlot ? 1 : ranks <= 4 ? 4 : 2;

const vector = (unit: Unit): string => (unit === 'vec4' ? 'vec4<f32>' : 'f32');
const inner = (unit: Unit, x: string, y: string): string => (unit === 'vec4' ? `dot(${x}, ${y})` : `${x} * ${y}`);
const slotOf = ({ oneSlot }: EditStructure, row: string): string => (oneSlot ? '0u' : `u32(slots[slotsAt + ${row}])`);

/** A matrix in a sum: its operand, and whether it is taken away. */
export interface Term {
  readonly name: string;
  readonly minus?: boolean;
}

const sumOf = (terms: readonly Term[], element: (name: string) => string): string =>
  terms.map(({ name, minus }, n) => `${minus ? '-' : n > 0 ? '+' : ''} ${element(name)}`).join(' ');

export interface Body {
  readonly text: string;
  readonly invocations: number;
  readonly shared?: string;
  /** Functions of mathWgsl.ts, and others. */
  readonly functions?: readonly string[];
  readonly code?: string;
}

/** A body with everything around it. `declarations` are the bindings, `names` the parameters as u32. */
export function editKernel(
  declarations: string,
  names: string,
  { text, invocations, shared = '', functions = [], code = '' }: Body,
): string {
  return `${declarations}
${functionTexts(functions)}
${code}
${shared}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) groupId: vec3<u32>, @builtin(num_workgroups) groupCounts: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${names}
  let group = groupId.y * groupCounts.x + groupId.x;
  ${text}
}`;
}

/**
 * For every edited row i and rank j the products of its row of x with sums of matrices, sum0, sum1...; then `finish`,
 * which also knows `matrix`, the number of that rank in the bank.
 */
export function productsBody(s: EditStructure, x: string, sums: readonly (readonly Term[])[], finish: string): Body {
  const { unit, together } = s;
  const at = (name: string, w: number): string => `${name}[${name}At + m${w} + c]`;
  const ranks = upTo(rankBlock);
  if (together) {
    const size = workgroupSize.products;
    const text = `let blocks = (ranks + ${rankBlock - 1}u) / ${rankBlock}u;
  if (group >= members * blocks) { return; }
  let i = group / blocks;
  let j0 = (group % blocks) * ${rankBlock}u;
  let slot = ${slotOf(s, 'i')};
  ${sums.length === 0 ? '' : `let x0 = ${x}At + u32(list[listAt + i]) * width;`}
  ${ranks.map(w => `let m${w} = (slot * ranks + min(j0 + ${w}u, ranks - 1u)) * width;`).join(' ')}
  ${sums.flatMap((_, g) => ranks.map(w => `var s${g}_${w} = 0.0;`)).join(' ')}
  ${
    sums.length === 0
      ? ''
      : `for (var c = lane; c < width; c += ${size}u) {
    let value = ${x}[x0 + c];
    ${sums.flatMap((terms, g) => ranks.map(w => `s${g}_${w} += ${inner(unit, 'value', `(${sumOf(terms, name => at(name, w))})`)};`)).join('\n    ')}
  }`
  }
  ${
    sums.length === 0
      ? ''
      : `${sums.flatMap((_, g) => ranks.map(w => `parts[${(g * rankBlock + w) * size}u + lane] = s${g}_${w};`)).join(' ')}
  for (var half = ${size / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      for (var p = lane; p < ${sums.length * rankBlock * size}u; p += ${size}u) { parts[p] += parts[p + half]; }
    }
  }
  workgroupBarrier();`
  }
  let j = j0 + lane;
  if (lane >= ${rankBlock}u || j >= ranks) { return; }
  let matrix = slot * ranks + j;
  ${sums.map((_, g) => `let sum${g} = parts[(${g * rankBlock}u + lane) * ${size}u];`).join(' ')}
  ${finish}`;
    return {
      text,
      invocations: size,
      shared: sums.length > 0 ? `var<workgroup> parts: array<f32, ${sums.length * rankBlock * size}>;` : '',
    };
  }
  const rows = upTo(rowsAtOnce(s));
  const pairs = rows.flatMap(t => ranks.map(w => [t, w]));
  const text = `let blocks = (ranks + ${rankBlock - 1}u) / ${rankBlock}u;
  let number = group * ${workgroupSize.alone}u + lane;
  let i0 = (number / blocks) * ${rows.length}u;
  let j0 = (number % blocks) * ${rankBlock}u;
  if (i0 >= members) { return; }
  let slot = ${slotOf(s, 'i0')};
  ${sums.length === 0 ? '' : rows.map(t => `let x${t} = ${x}At + u32(list[listAt + min(i0 + ${t}u, members - 1u)]) * width;`).join(' ')}
  ${ranks.map(w => `let m${w} = (slot * ranks + min(j0 + ${w}u, ranks - 1u)) * width;`).join(' ')}
  ${sums.flatMap((_, g) => pairs.map(([t, w]) => `var s${g}_${t}_${w} = 0.0;`)).join(' ')}
  ${
    sums.length > 0
      ? `for (var c = 0u; c < width; c++) {
    ${rows.map(t => `let value${t} = ${x}[x${t} + c];`).join(' ')}
    ${sums.flatMap((terms, g) => ranks.map(w => `let y${g}_${w} = ${sumOf(terms, name => at(name, w))};`)).join(' ')}
    ${sums.flatMap((_, g) => pairs.map(([t, w]) => `s${g}_${t}_${w} += ${inner(unit, `value${t}`, `y${g}_${w}`)};`)).join('\n    ')}
  }`
      : ''
  }
  ${pairs
    .map(
      ([t, w]) => `if ((i0 + ${t}u < members) & (j0 + ${w}u < ranks)) {
    let i = i0 + ${t}u;
    let j = j0 + ${w}u;
    let matrix = slot * ranks + j;
    ${sums.map((_, g) => `let sum${g} = s${g}_${t}_${w};`).join(' ')}
    ${finish}
  }`,
    )
    .join('\n  ')}`;
  return { text, invocations: workgroupSize.alone };
}

/** A matrix times a coefficient for each edited row i and rank j. */
export interface Lifted extends Term {
  readonly coefficient: (i: string, j: string) => string;
}

/**
 * Every row of x, and to the edited ones the matrices by their coefficients. `list` has each row's number among the
 * edited ones, or -1. Rows are read and written as bits, so that the others stay what they were.
 */
export function liftBody(s: EditStructure, x: string, output: string, lifted: readonly Lifted[], ranks: number): Body {
  const { unit, together } = s;
  const type = vector(unit);
  const bits = unit === 'vec4' ? 'vec4<u32>' : 'u32';
  const rows = upTo(rowsAtOnce(s, ranks));
  // Software reads a constant place of its own memory ten times as fast as a buffer.
  const held = !together;
  const unrolled = ranks <= fewRanks;
  const coefficient = (g: number, t: number, j: string): string =>
    held ? `held[${(g * rows.length + t) * ranks}u + ${j}]` : lifted[g].coefficient(`u32(i${t})`, j);
  const adds = (j: string): string =>
    lifted
      .map(
        ({ name, minus }, g) => `let y${g} = ${name}[${name}At + (slot0 * ranks + ${j}) * width + c];
      ${rows.map(t => `sum${t} ${minus ? '-' : '+'}= ${coefficient(g, t, j)} * y${g};`).join(' ')}`,
      )
      .join('\n      ');
  const any = rows.map(t => `(i${t} >= 0)`).join(' | ');
  const column = `${rows.map(t => `let own${t} = ${x}[x${t} + c];`).join(' ')}
    ${
      lifted.length > 0
        ? `if (${any}) {
      ${rows.map(t => `var sum${t} = bitcast<${type}>(own${t});`).join(' ')}
      ${
        unrolled
          ? upTo(ranks)
              .map(j => `{ ${adds(`${j}u`)} }`)
              .join('\n      ')
          : `for (var j = 0u; j < ranks; j++) { ${adds('j')} }`
      }
      ${rows.map(t => `if (n0 + ${t}u < rows) { ${output}[${output}At + (n0 + ${t}u) * width + c] = select(own${t}, bitcast<${bits}>(sum${t}), i${t} >= 0); }`).join('\n      ')}
    } else {
      ${rows.map(t => `if (n0 + ${t}u < rows) { ${output}[${output}At + (n0 + ${t}u) * width + c] = own${t}; }`).join(' ')}
    }`
        : rows
            .map(t => `if (n0 + ${t}u < rows) { ${output}[${output}At + (n0 + ${t}u) * width + c] = own${t}; }`)
            .join(' ')
    }`;
  const start = `if (n0 >= rows) { return; }
  ${rows.map(t => `let n${t}_ = min(n0 + ${t}u, rows - 1u); let i${t} = list[listAt + n${t}_]; let x${t} = ${x}At + n${t}_ * width;`).join('\n  ')}
  ${lifted.length === 0 ? '' : `let slot0 = ${slotOf(s, 'u32(max(i0, 0))')};`}`;
  if (together) {
    const size = workgroupSize.apart;
    return {
      invocations: size,
      text: `let number = group * ${size}u + lane;
  let n0 = number / width;
  let c = number % width;
  ${start}
  ${column}`,
    };
  }
  return {
    invocations: workgroupSize.alone,
    text: `let number = group * ${workgroupSize.alone}u + lane;
  let stripes = (width + ${stripe - 1}u) / ${stripe}u;
  let n0 = (number / stripes) * ${rows.length}u;
  let from_ = (number % stripes) * ${stripe}u;
  ${start}
  ${
    lifted.length === 0
      ? ''
      : `var held: array<f32, ${lifted.length * rows.length * ranks}>;
  for (var j = 0u; j < ranks; j++) {
    ${lifted.flatMap((l, g) => rows.map(t => `if (i${t} >= 0) { held[${(g * rows.length + t) * ranks}u + j] = ${l.coefficient(`u32(i${t})`, 'j')}; }`)).join('\n    ')}
  }`
  }
  for (var c = from_; c < min(from_ + ${stripe}u, width); c++) {
    ${column}
  }`,
  };
}

/**
 * Sums of rows by one set of coefficients: where they begin in `coefficients`, and where the sums go; with a sign each.
 */
export interface Summed {
  readonly from: string;
  readonly matrices: readonly Term[];
  readonly biases: readonly Term[];
}

/**
 * For every slot, rank and column the sum over the slot's edited rows of coefficient times row of x, and of the
 * coefficients alone. Coefficients are vectors of four ranks, [m, blocks]. The order of the sums is fixed.
 */
export function sumsBody(s: EditStructure, x: string, summed: readonly Summed[]): Body {
  const { unit, together, oneSlot } = s;
  const type = vector(unit);
  const ranks = upTo(rankBlock);
  const reads = summed.some(({ matrices }) => matrices.length > 0);
  const columns = upTo(together || !reads ? 1 : aloneColumns);
  const store = (value: (g: number, w: number, t: number) => string, bias: (g: number, w: number) => string): string =>
    ranks
      .map(
        w => `if (j0 + ${w}u < ranks) {
    let matrix = slot * ranks + j0 + ${w}u;
    ${columns
      .map(t =>
        summed
          .map(({ matrices }, g) =>
            matrices.length === 0
              ? ''
              : `if (c0 + ${t}u < width) {
      let at = matrix * width + c0 + ${t}u;
      ${matrices.map(({ name, minus }) => `${name}[${name}At + at] = ${minus ? '-' : ''}${value(g, w, t)};`).join(' ')}
    }`,
          )
          .join('\n    '),
      )
      .join('\n    ')}
    if (c0 == 0u) { ${summed.flatMap(({ biases }, g) => biases.map(({ name, minus }) => `${name}[${name}At + matrix] = ${minus ? '-' : ''}${bias(g, w)};`)).join(' ')} }
  }`,
      )
      .join('\n  ');
  const variables = summed
    .flatMap((_, g) => [
      ...(reads ? ranks.flatMap(w => columns.map(t => `var s${g}_${w}_${t} = ${type}(0.0);`)) : []),
      `var b${g} = vec4<f32>(0.0);`,
    ])
    .join(' ');
  const row = `${oneSlot ? '' : `if (${slotOf(s, 'i')} != slot) { continue; }`}
    ${
      reads
        ? `let from_ = ${x}At + u32(list[listAt + i]) * width;
    ${columns.map(t => `let x${t} = ${x}[from_ + min(c0 + ${t}u, width - 1u)];`).join(' ')}`
        : ''
    }
    ${summed
      .map(
        ({ from }, g) => `let f${g} = coefficients[${from} + i * blocks + block];
    b${g} += f${g};
    ${reads ? ranks.flatMap(w => columns.map(t => `s${g}_${w}_${t} += f${g}.${component(w)} * x${t};`)).join(' ') : ''}`,
      )
      .join('\n    ')}`;
  const place = (
    number: string,
    perStripe: number,
  ): string => `let blocks = (ranks + ${rankBlock - 1}u) / ${rankBlock}u;
  let stripes = ${reads ? `(width + ${perStripe - 1}u) / ${perStripe}u` : '1u'};
  let stripe = ${number} % stripes;
  let block = (${number} / stripes) % blocks;
  let slot = ${number} / (stripes * blocks);
  let j0 = block * ${rankBlock}u;
  if (slot >= slotCount) { return; }`;
  if (!together) {
    return {
      invocations: workgroupSize.alone,
      text: `let number = group * ${workgroupSize.alone}u + lane;
  ${place('number', columns.length)}
  let c0 = stripe * ${columns.length}u;
  ${variables}
  for (var i = 0u; i < members; i++) {
    ${row}
  }
  ${store(
    (g, w, t) => `s${g}_${w}_${t}`,
    (g, w) => `b${g}.${component(w)}`,
  )}`,
    };
  }
  const size = workgroupSize.sums;
  const parts = size / sumColumns;
  const joined = (g: number): string => {
    const values = [
      ...(reads ? ranks.map(w => [`s${g}_${w}_0`, 'parts', `${w * size}u + `]) : []),
      [`b${g}`, 'biasParts', ''],
    ];
    return `workgroupBarrier();
  ${values.map(([value, shared, at]) => `${shared}[${at}lane] = ${value};`).join(' ')}
  for (var half = ${size / 2}u; half >= ${sumColumns}u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { ${values.map(([, shared, at]) => `${shared}[${at}lane] += ${shared}[${at}lane + half];`).join(' ')} }
  }
  workgroupBarrier();
  ${values.map(([value, shared, at]) => `${value} = ${shared}[${at}lane % ${sumColumns}u];`).join(' ')}`;
  };
  return {
    invocations: size,
    shared: `var<workgroup> parts: array<${type}, ${rankBlock * size}>;\nvar<workgroup> biasParts: array<vec4<f32>, ${size}>;`,
    text: `${place('group', sumColumns)}
  let c0 = stripe * ${sumColumns}u + lane % ${sumColumns}u;
  ${variables}
  for (var i = lane / ${sumColumns}u; i < members; i += ${parts}u) {
    ${row}
  }
  ${summed.map((_, g) => joined(g)).join('\n  ')}
  if (lane >= ${sumColumns}u) { return; }
  ${store(
    (g, w) => `s${g}_${w}_0`,
    (g, w) => `b${g}.${component(w)}`,
  )}`,
  };
}
