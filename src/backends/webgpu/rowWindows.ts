// Rows of buffers larger than may be bound, by windows of rows that fit; which rows meet which is told by pairs of
// numbers.

export interface RowWindow {
  /** First rows of the windows on source and target. */
  readonly from: number;
  readonly to: number;
  /** (target, source) for each pair, counted from `to` and `from`; a source of -1 means zeros. */
  readonly pairs: Int32Array;
}

/** The pairs (i, indices[i]) by windows of `sources` rows of the input and `targets` rows of the output. */
export function rowWindows(indices: Int32Array, sources: number, targets: number): RowWindow[] {
  const groups = new Map<string, number[]>();
  indices.forEach((source, target) => {
    const key = `${source < 0 ? 0 : Math.floor(source / sources)}|${Math.floor(target / targets)}`;
    const list = groups.get(key);
    if (list) list.push(target, source);
    else groups.set(key, [target, source]);
  });
  return [...groups].map(([key, list]) => {
    const [s, t] = key.split('|').map(Number);
    const [from, to] = [s * sources, t * targets];
    return { from, to, pairs: Int32Array.from(list, (n, i) => (i % 2 === 0 ? n - to : n < 0 ? -1 : n - from)) };
  });
}
