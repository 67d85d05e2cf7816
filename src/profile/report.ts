// A profile's figures: calls, time, operations and bytes added up by op, by site and by phase, and as a table for
// people. Taking them is profile.ts's business.

import type { Place, Phase } from './watch.js';

/**
 * Calls added up. Rates are those of the time in kernels; null where operations of a call are not known, or no time
 * passed.
 */
export interface ProfileRow {
  readonly name: string;
  readonly calls: number;
  readonly ms: number;
  /** Of the time in all kernels. */
  readonly share: number;
  readonly flop: number;
  readonly gflops: number | null;
  /** Read and written, each operand once. */
  readonly bytes: number;
  readonly gbps: number | null;
}

/** A row of a place: a site of one layer, or a component of all layers together. */
export interface PlaceRow extends ProfileRow {
  readonly phase: Phase;
  readonly component: string;
  readonly layer: number | null;
}

export interface ProfileReport {
  readonly backend: string;
  /** Kernels only record (WebGPU): their time is the host's, the device's shows as waiting. */
  readonly recordsOnly: boolean;
  readonly wallMs: number;
  /** In kernels and uploads. */
  readonly kernelMs: number;
  /** With at least one read under way. */
  readonly waitMs: number;
  readonly reads: number;
  readonly steps: readonly { readonly name: string; readonly ms: number }[];
  readonly calls: number;
  readonly flop: number;
  readonly bytes: number;
  /** Most bytes in use while it ran. */
  readonly peakBytes: number;
  /** Most bytes that the backend ever held, free ones included. */
  readonly backendPeakBytes: number;
  /** All longest first. */
  readonly ops: readonly ProfileRow[];
  readonly phases: readonly ProfileRow[];
  readonly components: readonly PlaceRow[];
  readonly sites: readonly PlaceRow[];
  /** Calls that a fused kernel left to the composition, by op. */
  readonly declined: Readonly<Record<string, number>>;
}

/** A kernel call that was measured; times in milliseconds. */
export interface Measured {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  readonly flop: number | null;
  readonly bytes: number;
}

interface Sum {
  calls: number;
  ms: number;
  flop: number;
  bytes: number;
  unknown: boolean;
}

interface PlacedSum {
  readonly sum: Sum;
  readonly place: Place;
  readonly phase: Phase;
}

const emptySum = (): Sum => ({ calls: 0, ms: 0, flop: 0, bytes: 0, unknown: false });

function addTo(sum: Sum, { start, end, flop, bytes }: Measured): void {
  sum.calls++;
  sum.ms += end - start;
  sum.flop += flop ?? 0;
  sum.bytes += bytes;
  sum.unknown ||= flop === null;
}

function at<T>(map: Map<string, T>, key: string, make: () => T): T {
  let found = map.get(key);
  if (!found) map.set(key, (found = make()));
  return found;
}

/** Adds up calls as they are placed. */
export class Totals {
  private readonly all = emptySum();
  private readonly ops = new Map<string, Sum>();
  private readonly phases = new Map<string, Sum>();
  private readonly components = new Map<string, PlacedSum>();
  private readonly sites = new Map<string, PlacedSum>();

  add(call: Measured, place: Place, phase: Phase): void {
    const placed = (): PlacedSum => ({ sum: emptySum(), place, phase });
    addTo(this.all, call);
    addTo(at(this.ops, call.name, emptySum), call);
    addTo(at(this.phases, phase, emptySum), call);
    addTo(at(this.components, `${phase} ${place.component}`, placed).sum, call);
    addTo(at(this.sites, `${phase} ${place.site}`, placed).sum, call);
  }

  rows(): Pick<ProfileReport, 'kernelMs' | 'calls' | 'flop' | 'bytes' | 'ops' | 'phases' | 'components' | 'sites'> {
    const { ms: kernelMs, calls, flop, bytes } = this.all;
    const row = (name: string, { unknown, ...sum }: Sum): ProfileRow => ({
      name,
      ...sum,
      share: kernelMs > 0 ? sum.ms / kernelMs : 0,
      gflops: unknown || sum.ms === 0 ? null : sum.flop / sum.ms / 1e6,
      gbps: sum.ms === 0 ? null : sum.bytes / sum.ms / 1e6,
    });
    const sorted = <R extends ProfileRow>(rows: R[]): R[] => rows.sort((a, b) => b.ms - a.ms);
    const plain = (map: Map<string, Sum>): ProfileRow[] => sorted([...map].map(([name, sum]) => row(name, sum)));
    const placed = (map: Map<string, PlacedSum>, whole: boolean): PlaceRow[] =>
      sorted(
        [...map.values()].map(({ sum, phase, place }) => ({
          ...row(whole ? place.component : place.site, sum),
          phase,
          component: place.component,
          layer: whole ? null : place.layer,
        })),
      );
    return {
      kernelMs,
      calls,
      flop,
      bytes,
      ops: plain(this.ops),
      phases: plain(this.phases),
      components: placed(this.components, true),
      sites: placed(this.sites, false),
    };
  }
}

/** `rows` bounds each part of the table. Lines of at most about 110 characters. */
export function formatProfile(report: ProfileReport, { rows = 12 }: { rows?: number } = {}): string {
  const { backend, steps, wallMs, kernelMs, waitMs, flop, bytes, calls, peakBytes, recordsOnly } = report;
  const percent = (ms: number): string => `${wallMs > 0 ? Math.round((100 * ms) / wallMs) : 0} %`;
  const rate = (amount: number): string => (kernelMs > 0 ? (amount / kernelMs / 1e6).toFixed(1) : '0');
  const lines = [
    `profile (${backend}): ${seconds(wallMs)}${steps.length > 0 ? `, ${steps.length} parts` : ''}; ${calls} kernels ${seconds(kernelMs)} (${percent(kernelMs)}), ` +
      `waiting for reads ${seconds(waitMs)} (${percent(waitMs)}), the rest between kernels`,
    `${(flop / 1e9).toFixed(2)} GFLOP at ${rate(flop)} GFLOP/s, ${(bytes / 1e9).toFixed(2)} GB read and written at ${rate(bytes)} GB/s, ` +
      `at most ${(peakBytes / 1e6).toFixed(1)} MB in use`,
  ];
  if (recordsOnly)
    lines.push(
      'kernels only record here: times and rates are those of the host; what the device took shows as waiting for reads',
    );
  const declined = Object.entries(report.declined);
  if (declined.length > 0)
    lines.push(`composed because the fused kernel declined: ${declined.map(([op, n]) => `${op} ${n}`).join(', ')}`);
  lines.push(
    '',
    ...table('by op', report.ops, rows),
    '',
    ...table(
      'by site, layers together',
      report.components.map(r => ({ ...r, name: `${r.phase}  ${r.component}` })),
      rows,
    ),
  );
  return lines.join('\n');
}

const seconds = (ms: number): string => (ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`);

function table(title: string, all: readonly ProfileRow[], limit: number): string[] {
  const number = (value: number | null, digits: number): string => (value === null ? '-' : value.toFixed(digits));
  const cells = all
    .slice(0, limit)
    .map(r => [
      r.name,
      String(r.calls),
      r.ms.toFixed(1),
      `${(100 * r.share).toFixed(1)} %`,
      (r.flop / 1e9).toFixed(3),
      number(r.gflops, 1),
      (r.bytes / 1e9).toFixed(3),
      number(r.gbps, 1),
    ]);
  const heads = [title, 'calls', 'ms', 'share', 'GFLOP', 'GFLOP/s', 'GB', 'GB/s'];
  const widths = heads.map((head, i) => Math.max(head.length, ...cells.map(c => c[i].length)));
  const line = (row: string[]): string =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('  ')
      .trimEnd();
  const rest = all.slice(limit);
  const more = rest.length === 0 ? [] : [`${rest.length} more: ${rest.reduce((ms, r) => ms + r.ms, 0).toFixed(1)} ms`];
  return [line(heads), ...cells.map(line), ...more];
}
