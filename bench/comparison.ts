// Two runs of the bench side by side: which rows are comparable, how much slower each became, what is said about it.
// Nothing is measured here.

import type { FinishedRow, Results } from './results.js';

export interface Pair {
  readonly name: string;
  readonly unit: string;
  readonly better: FinishedRow['better'];
  readonly before: number;
  /** As measured, times the speed of the machine then over now where both runs say it. */
  readonly now: number;
}

/** Why two runs cannot be compared, or null. */
export function comparable(
  before: Pick<Results, 'machine' | 'threads' | 'relaxed'>,
  now: Pick<Results, 'machine' | 'threads' | 'relaxed'>,
): string | null {
  if (before.machine !== now.machine)
    return `the last results are of another machine (${before.machine}; this is ${now.machine})`;
  if (before.threads !== now.threads) return `the last results are of ${before.threads} threads, not ${now.threads}`;
  if (before.relaxed !== now.relaxed) return `the last results are with relaxed SIMD ${before.relaxed ? 'on' : 'off'}`;
  return null;
}

const speedUnits = new Set(['s', 'ms', 'tokens/s', 'steps/s', 'GFLOP/s']);

/**
 * Rows of both runs, once each: the same row against several peers is one. Speeds are scaled to the machine of the
 * earlier run.
 */
export function pairRows(
  before: Pick<Results, 'rows' | 'registerLoop'>,
  now: Pick<Results, 'rows' | 'registerLoop'>,
): Pair[] {
  const speed = before.registerLoop && now.registerLoop ? now.registerLoop / before.registerLoop : 1;
  const key = ({ name, unit }: FinishedRow): string => `${name}, ${unit}`;
  const earlier = new Map(before.rows.map(row => [key(row), row]));
  const later = new Map(now.rows.map(row => [key(row), row]));
  return [...later].flatMap(([name, row]): Pair[] => {
    const found = earlier.get(name);
    if (!found) return [];
    const scale = speedUnits.has(row.unit) ? (row.better === 'lower' ? speed : 1 / speed) : 1;
    return [{ name: row.name, unit: row.unit, better: row.better, before: found.ours, now: row.ours * scale }];
  });
}

/** 1.2 is a fifth slower (or larger), 0.8 a fifth faster. */
export const slowdown = ({ better, before, now }: Pair): number => (better === 'lower' ? now / before : before / now);

/** A line for each pair, worst first, and the pairs that became slower by more than `threshold`. */
export function verdict(pairs: readonly Pair[], threshold: number): { text: string; slower: Pair[] } {
  if (pairs.length === 0) throw new RangeError('there is no row that both runs have');
  const sorted = [...pairs].sort((a, b) => slowdown(b) - slowdown(a));
  const slower = sorted.filter(pair => slowdown(pair) > 1 + threshold);
  const lines = sorted.map(pair => {
    const change = 100 * (slowdown(pair) - 1);
    const word = slower.includes(pair) ? '  SLOWER' : '';
    return `${pair.name.padEnd(44)}${pair.before.toPrecision(4).padStart(9)} -> ${pair.now.toPrecision(4).padStart(9)} ${pair.unit.padEnd(9)}${change >= 0 ? '+' : ''}${change.toFixed(1)} %${word}`;
  });
  const summary =
    slower.length > 0
      ? `${slower.length} of ${pairs.length} rows are more than ${100 * threshold} % slower`
      : `no row is more than ${100 * threshold} % slower`;
  return { text: [...lines, summary].join('\n'), slower };
}
