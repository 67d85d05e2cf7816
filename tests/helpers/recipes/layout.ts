// Recipes of ops that move elements: views, joins, splits, rows by number, triangles.

import { concat, pad, stack, tensor } from '../../../src/tensor/index.js';
import type { Draw } from '../draw.js';
import { build, get, sizeOf, type Host } from '../host.js';
import type { Recipe, Table } from '../recipe.js';

const z = (...shape: number[]) => tensor.zeros(shape);
/** Moving is exact. */
const exact = { roundings: 0 } as const;

const shuffled = (d: Draw, rank: number): number[] => {
  const order = Array.from({ length: rank }, (_, i) => i);
  for (let i = rank - 1; i > 0; i--) {
    const j = d.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
};
const positive = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** Another shape with as many elements: sides joined and 1s put in. */
function otherShape(d: Draw, shape: readonly number[]): number[] {
  const result: number[] = [];
  for (const side of shape) {
    if (result.length > 0 && d.flip()) result[result.length - 1] *= side;
    else result.push(side);
    if (d.flip() && d.flip()) result.push(1);
  }
  return result;
}

const triangle = (name: 'tril' | 'triu'): Recipe => ({
  name: `Tensor.${name}`,
  errors: [[() => z(3)[name](), new RegExp(`^${name}: expected rank 2 or more, got \\[3\\]$`)]],
  make(d) {
    const x = d.values(d.shape(2));
    const diagonal = d.integer(5) - 2;
    const inside = (i: number, j: number): boolean => (name === 'tril' ? j <= i + diagonal : j >= i + diagonal);
    return {
      ...exact,
      inputs: [x],
      run: t => t[name](diagonal),
      reference: h => build(h.shape, i => (inside(i[i.length - 2], i[i.length - 1]) ? get(h, i) : 0)),
    };
  },
});

export const layout: Table = [
  {
    name: 'Tensor.reshape',
    errors: [
      [() => z(2, 3).reshape([4, 2]), /^reshape: \[2,3\] has 6 elements and cannot become \[4,2\]$/],
      [() => z(6).reshape([-1, -1]), /^reshape: .* cannot become \[-1,-1\]$/],
      [() => z(6).reshape([-1, 4]), /^reshape: \[6\] has 6 elements/],
    ],
    make(d) {
      const shape = d.shape();
      const to = otherShape(d, shape);
      const asked = to.length > 0 && sizeOf(to) > 0 && d.flip() ? to.map((s, i) => (i === 0 ? -1 : s)) : to;
      return { ...exact, inputs: [d.values(shape)], run: x => x.reshape(asked), reference: h => ({ ...h, shape: to }) };
    },
  },
  {
    name: 'Tensor.flatten',
    make: d => ({
      ...exact,
      inputs: [d.values(d.shape())],
      run: x => x.flatten(),
      reference: h => ({ ...h, shape: [h.data.length] }),
    }),
  },
  {
    name: 'Tensor.permute',
    errors: [
      [() => z(2, 3).permute([0, 0]), /^permute: \[0,0\] does not name each axis of \[2,3\] once$/],
      [() => z(2, 3).permute([0, 2]), /^permute: axis 2 is out of range for rank 2$/],
    ],
    make(d) {
      const shape = d.shape();
      const order = shuffled(d, shape.length);
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => x.permute(order),
        reference: h =>
          build(
            order.map(a => h.shape[a]),
            i =>
              get(
                h,
                order.map((_, axis) => i[order.indexOf(axis)]),
              ),
          ),
      };
    },
  },
  {
    name: 'Tensor.transpose',
    errors: [[() => z(3).transpose(), /^transpose: axis -2 is out of range for rank 1$/]],
    make(d) {
      const shape = d.shape(2);
      const [a, b] = [d.axis(shape.length), d.axis(shape.length)];
      const order = shape.map((_, i) => i);
      const [p, q] = [positive(a, shape.length), positive(b, shape.length)];
      [order[p], order[q]] = [order[q], order[p]];
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => x.transpose(a, b),
        reference: h =>
          build(
            order.map(k => h.shape[k]),
            i =>
              get(
                h,
                order.map(k => i[k]),
              ),
          ),
      };
    },
  },
  {
    name: 'Tensor.expand',
    errors: [
      [() => z(2, 3).expand([4, 3]), /^expand: shapes \[2,3\] and \[4,3\] do not broadcast/],
      [() => z(2, 3).expand([3]), /^expand: \[2,3\] cannot become \[3\]$/],
    ],
    make(d) {
      const shape = d.shape();
      const [from] = d.pair(shape);
      return {
        ...exact,
        inputs: [d.values(from)],
        run: x => x.expand(shape),
        reference: h => build(shape, i => get(h, i)),
      };
    },
  },
  {
    name: 'Tensor.squeeze',
    errors: [[() => z(2, 1).squeeze(0), /^squeeze: axis 0 of \[2,1\] has size 2, expected 1$/]],
    make(d) {
      const shape = otherShape(d, d.shape());
      const some = shape.flatMap((side, i) => (side === 1 && d.flip() ? [i] : []));
      const all = d.flip();
      const kept = shape.filter((side, i) => (all ? side !== 1 : !some.includes(i)));
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => x.squeeze(all ? undefined : some),
        reference: h => ({ ...h, shape: kept }),
      };
    },
  },
  {
    name: 'Tensor.unsqueeze',
    errors: [[() => z(2).unsqueeze(3), /^unsqueeze: axis 3 is out of range for rank 2$/]],
    make(d) {
      const shape = d.shape(0, 3);
      const axis = d.axis(shape.length + 1);
      const to = [...shape];
      to.splice(positive(axis, shape.length + 1), 0, 1);
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => x.unsqueeze(axis),
        reference: h => ({ ...h, shape: to }),
      };
    },
  },
  {
    name: 'Tensor.slice',
    errors: [
      [() => z(4, 3).slice(0, 3, 2), /^slice: 3\.\.2 is out of range for axis 0 of \[4,3\]$/],
      [() => z(4).slice(0, 0, 5), /^slice: 0\.\.5 is out of range/],
      [() => z(4).slice(1, 0), /^slice: axis 1 is out of range for rank 1$/],
      [() => z(4).slice(0, 0, 1.5), /^slice: 0\.\.1\.5 is out of range/],
      [() => z(4).slice(0, -5), /^slice: -5\.\. is out of range/],
      [() => z(4).slice(0, 0, -5), /^slice: 0\.\.-5 is out of range/],
      [() => z(4).slice(0, -1, -2), /^slice: -1\.\.-2 is out of range/],
    ],
    make(d) {
      const shape = d.shape(1);
      const axis = d.axis(shape.length);
      const at = positive(axis, shape.length);
      const start = d.integer(shape[at] + 1);
      const end = start + d.integer(shape[at] - start + 1);
      const negative = start < shape[at] && d.flip();
      const negativeEnd = end < shape[at] && d.flip();
      const to = shape.map((s, i) => (i === at ? end - start : s));
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x =>
          x.slice(
            axis,
            negative ? start - shape[at] : start,
            end === shape[at] ? undefined : negativeEnd ? end - shape[at] : end,
          ),
        reference: h =>
          build(to, i =>
            get(
              h,
              i.map((x, k) => (k === at ? x + start : x)),
            ),
          ),
      };
    },
  },
  {
    name: 'Tensor.select',
    errors: [
      [() => z(4, 3).select(1, 3), /^select: index 3 is out of range for axis 1 of \[4,3\]$/],
      [() => z(4, 3).select(0, -5), /^select: index -5 is out of range/],
    ],
    make(d) {
      const shape = d.shape(1, 4, { empty: false });
      const axis = d.axis(shape.length);
      const at = positive(axis, shape.length);
      const index = d.integer(shape[at]);
      const given = d.flip() ? index : index - shape[at];
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => x.select(axis, given),
        reference: h =>
          build(
            shape.filter((_, k) => k !== at),
            i => get(h, [...i.slice(0, at), index, ...i.slice(at)]),
          ),
      };
    },
  },
  {
    name: 'Tensor.split',
    errors: [
      [() => z(5, 2).split([2, 2], 0), /^split: sizes 2\+2 do not add to 5, axis 0 of \[5,2\]$/],
      [() => z(2).split([-1, 3], 0), /^split: sizes -1\+3/],
    ],
    make(d) {
      const shape = d.shape(1);
      const axis = d.axis(shape.length);
      const at = positive(axis, shape.length);
      const first = d.integer(shape[at] + 1);
      const sizes = [first, shape[at] - first];
      // The pieces the other way round, so that each is seen.
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => concat(x.split(sizes, axis).reverse(), axis),
        reference: h =>
          build(shape, i =>
            get(
              h,
              i.map((x, k) => (k === at ? (x + first) % shape[at] : x)),
            ),
          ),
      };
    },
  },
  {
    name: 'Tensor.takeRows',
    errors: [
      [() => z(3, 2).takeRows([0, 3]), /^takeRows: index 3 at 1 is out of range for 3 rows$/],
      [() => z(3).takeRows([0.5]), /^takeRows: index 0\.5 at 0/],
      [() => tensor.scalar(1).takeRows([0]), /^takeRows: a tensor of rank 0 has no rows$/],
    ],
    make(d) {
      const shape = d.shape(1);
      const rows = d.rows(d.side(40), shape[0], -1);
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => x.takeRows(d.drawn.seed % 2 ? rows : Int32Array.from(rows)),
        reference: h =>
          build([rows.length, ...shape.slice(1)], ([i, ...rest]) => (rows[i] < 0 ? 0 : get(h, [rows[i], ...rest]))),
      };
    },
  },
  {
    name: 'Tensor.scatterAddRows',
    errors: [
      [() => z(3, 2).scatterAddRows([0, 1], 4), /^scatterAddRows: 2 indices for shape \[3,2\]$/],
      [() => z(1, 2).scatterAddRows([4], 4), /^scatterAddRows: index 4 at 0 is out of range for 4 rows$/],
    ],
    make(d) {
      const shape = d.shape(1);
      const count = d.side(20);
      const rows = d.rows(shape[0], count, -1);
      const sum = (h: Host, f: (x: number) => number): Host =>
        build([count, ...shape.slice(1)], ([i, ...rest]) =>
          rows.reduce((s, r, k) => (r === i ? s + f(get(h, [k, ...rest])) : s), 0),
        );
      return {
        inputs: [d.values(shape)],
        run: x => x.scatterAddRows(rows, count),
        roundings: shape[0] + 1,
        reference: h => sum(h, x => x),
        magnitude: h => sum(h, Math.abs),
      };
    },
  },
  {
    name: 'Tensor.contiguous',
    make: d => ({
      ...exact,
      inputs: [d.values(d.shape(2))],
      run: x => x.transpose(0, -1).contiguous().transpose(0, -1).contiguous(),
      reference: h => h,
    }),
  },
  triangle('tril'),
  triangle('triu'),
  {
    name: 'tensor.concat',
    errors: [
      [() => concat([]), /^concat: needs at least one tensor$/],
      [() => concat([z(2, 3), z(2, 4)], 0), /^concat: f32\[2,4\] does not join f32\[2,3\] along axis 0$/],
      [() => concat([z(2), tensor.zeros([2], { dtype: 'i32' })]), /^concat: i32\[2\] does not join f32\[2\]/],
      [() => concat([z(2)], 1), /^concat: axis 1 is out of range for rank 1$/],
    ],
    make(d) {
      const shape = d.shape(1);
      const axis = d.axis(shape.length);
      const at = positive(axis, shape.length);
      const sides = [shape[at], d.integer(4), 1 + d.integer(3)];
      const starts = [0, sides[0], sides[0] + sides[1]];
      const sum = sides.reduce((a, b) => a + b, 0);
      return {
        ...exact,
        inputs: sides.map(s => d.values(shape.map((x, k) => (k === at ? s : x)))),
        run: (...t) => concat(t, axis),
        reference: (...h) =>
          build(
            shape.map((x, k) => (k === at ? sum : x)),
            i => {
              const from = i[at] >= starts[2] ? 2 : i[at] >= starts[1] ? 1 : 0;
              return get(
                h[from],
                i.map((x, k) => (k === at ? x - starts[from] : x)),
              );
            },
          ),
      };
    },
  },
  {
    name: 'tensor.stack',
    errors: [[() => stack([z(2), z(3)]), /^concat: f32\[1,3\] does not join f32\[1,2\]/]],
    make(d) {
      const shape = d.shape(0, 3);
      const axis = d.axis(shape.length + 1);
      const at = positive(axis, shape.length + 1);
      const to = [...shape];
      to.splice(at, 0, 3);
      return {
        ...exact,
        inputs: [0, 1, 2].map(() => d.values(shape)),
        run: (...t) => stack(t, axis),
        reference: (...h) => build(to, i => get(h[i[at]], [...i.slice(0, at), ...i.slice(at + 1)])),
      };
    },
  },
  {
    name: 'tensor.pad',
    errors: [
      [() => pad(z(2), [1, 0], [0]), /^pad: \[1,0\] and \[0\] do not pad \[2\]$/],
      [() => pad(z(2), [-1], [0]), /^pad: \[-1\]/],
    ],
    make(d) {
      const shape = d.shape(0, 3);
      const before = shape.map(() => d.integer(3));
      const after = shape.map(() => d.integer(3));
      return {
        ...exact,
        inputs: [d.values(shape)],
        run: x => pad(x, before, after),
        reference: h =>
          build(
            shape.map((s, k) => s + before[k] + after[k]),
            i => {
              const from = i.map((x, k) => x - before[k]);
              return from.every((x, k) => x >= 0 && x < shape[k]) ? get(h, from) : 0;
            },
          ),
      };
    },
  },
];
