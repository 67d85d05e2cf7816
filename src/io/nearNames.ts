// Names like a missing one, for error messages. Nothing else.

/** Edits (insert, delete, replace) between two strings, given up beyond `limit`. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    let best = i;
    for (let j = 1; j <= b.length; j++) {
      current[j] = Math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (current[j] < best) best = current[j];
    }
    if (best > limit) return limit + 1;
    previous = current;
  }
  return previous[b.length];
}

/**
 * Up to `most` of `names` that are near `name`: few edits apart, or one ends with the other (a missing or extra
 * prefix). Nearest first.
 */
export function nearNames(name: string, names: Iterable<string>, most = 3): string[] {
  const limit = Math.max(2, Math.floor(Math.min(name.length, 200) / 4));
  const found: { readonly candidate: string; readonly distance: number }[] = [];
  for (const candidate of names) {
    if (candidate.length > 500) continue;
    const suffix = candidate.length > 2 && name.length > 2 && (candidate.endsWith(name) || name.endsWith(candidate));
    const distance = suffix ? 0.5 : editDistance(name, candidate, limit);
    if (distance <= limit) found.push({ candidate, distance });
  }
  found.sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1));
  return found.slice(0, most).map(entry => entry.candidate);
}
