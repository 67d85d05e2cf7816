// Measured calls as a trace that Chrome (chrome://tracing) and Perfetto open: parts, in them phases, in them sites, in
// them kernels; memory and reads beside them. Source: "Trace Event Format", Google,
// docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.

import type { Measured } from './report.js';
import type { Phase, Place } from './watch.js';

export interface TraceEvent {
  readonly name: string;
  /** part, phase, site, kernel, read, memory. */
  readonly cat?: string;
  /** X: complete; C: counter; b and e: begin and end of something that may overlap; M: a name. */
  readonly ph: 'X' | 'C' | 'b' | 'e' | 'M';
  /** Microseconds since the profile began, whole 64ths, so that sums are exact. */
  readonly ts: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly id?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: 'ms';
  readonly otherData: Readonly<Record<string, unknown>>;
}

export interface Span {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** Bytes in use and kept for reuse at a time. */
export interface Memory {
  readonly at: number;
  readonly live: number;
  readonly pooled: number;
}

/** A call with its place. */
export interface Placed {
  readonly call: Measured;
  readonly place: Place;
  readonly phase: Phase;
}

export interface Recorded {
  readonly begin: number;
  readonly parts: readonly Span[];
  /** In the order they ran. */
  readonly calls: readonly Placed[];
  readonly reads: readonly Span[];
  readonly memory: readonly Memory[];
}

export function chromeTrace(
  { begin, parts, calls, reads, memory }: Recorded,
  about: Readonly<Record<string, unknown>>,
): ChromeTrace {
  const time = (ms: number): number => Math.round((ms - begin) * 64000) / 64;
  const on = { pid: 1, tid: 1 };
  const complete = (cat: string, name: string, start: number, end: number, args?: TraceEvent['args']): TraceEvent => ({
    name,
    cat,
    ph: 'X',
    ts: time(start),
    dur: time(end) - time(start),
    ...on,
    ...(args ? { args } : {}),
  });
  const events: TraceEvent[] = [
    { name: 'process_name', ph: 'M', ts: 0, ...on, args: { name: `reft (${String(about.backend)})` } },
    { name: 'thread_name', ph: 'M', ts: 0, ...on, args: { name: 'kernels' } },
    ...parts.map(({ name, start, end }) => complete('part', name, start, end)),
  ];
  // Runs of calls with one phase, and in them of calls at one site; a part's end ends both.
  const partOf = cursor(parts);
  let phase: { name: string; part: number; first: number } | undefined;
  let site: { name: string; first: number } | undefined;
  const endSite = (next: number): void => {
    if (site) events.push(complete('site', site.name, calls[site.first].call.start, calls[next - 1].call.end));
    site = undefined;
  };
  const endPhase = (next: number): void => {
    endSite(next);
    if (phase) events.push(complete('phase', phase.name, calls[phase.first].call.start, calls[next - 1].call.end));
    phase = undefined;
  };
  calls.forEach(({ call, place, phase: name }, i) => {
    const part = partOf(call.start);
    if (phase?.name !== name || phase.part !== part) endPhase(i);
    phase ??= { name, part, first: i };
    if (site?.name !== place.site) endSite(i);
    site ??= { name: place.site, first: i };
    events.push(complete('kernel', call.name, call.start, call.end, { flop: call.flop, bytes: call.bytes }));
  });
  endPhase(calls.length);
  reads.forEach(({ name, start, end }, id) => {
    events.push(
      { name, cat: 'read', ph: 'b', ts: time(start), id, ...on },
      { name, cat: 'read', ph: 'e', ts: time(end), id, ...on },
    );
  });
  for (const { at, live, pooled } of memory)
    events.push({ name: 'memory', cat: 'memory', ph: 'C', ts: time(at), ...on, args: { live, pooled } });
  return { traceEvents: events, displayTimeUnit: 'ms', otherData: about };
}

/** The number of the span that a time lies in, for times that only grow. */
function cursor(spans: readonly Span[]): (at: number) => number {
  let i = 0;
  return at => {
    while (i < spans.length && spans[i].end <= at) i++;
    return i;
  };
}
