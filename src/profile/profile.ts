// A profile of what a backend does: its kernels are wrapped while it runs, counted, timed and placed at the sites of
// the model they serve. Results do not change. Costs are in cost.ts, places in watch.ts, figures in report.ts, the
// trace in chromeTrace.ts.

import type { Backend, Kernels, Primitives } from '../backends/backend.js';
import { defaultBackend } from '../devices.js';
import { chromeTrace, type ChromeTrace, type Memory, type Placed, type Recorded, type Span } from './chromeTrace.js';
import { fusedCost, kernelCost, matmulName, type Cost } from './cost.js';
import { Totals, type Measured, type ProfileReport } from './report.js';
import { replace, watchEngine, type Phase, type Place, type Watch } from './watch.js';

export interface ProfileOptions {
  /** Default: the default backend. */
  readonly backend?: Backend;
  /** Kernel calls kept for the trace; figures count all. Default 200,000. */
  readonly traceCalls?: number;
}

let running: Profile | null = null;

/**
 * Begins to measure a backend; one profile runs at a time.
 * @throws Error while another profile runs, RangeError for `traceCalls`
 */
export function startProfile(options: ProfileOptions = {}): Profile {
  if (running) throw new Error('profile: another profile is running; stop it first');
  return (running = new Profile(options));
}

/** Made by `startProfile`; ends with `stop`. */
export class Profile {
  readonly backend: Backend;
  private readonly traceCalls: number;
  private readonly begin: number;
  private readonly totals = new Totals();
  private readonly watch: Watch;
  private readonly restores: (() => void)[] = [];
  private readonly declined = new Map<string, number>();
  /** Measured, not yet placed. */
  private unplaced: Measured[] = [];
  private readonly calls: Placed[] = [];
  private readonly memory: Memory[] = [];
  private memoryNow: Memory | null = null;
  private readonly reads: Span[] = [];
  private readonly parts: Span[] = [];
  private partBegin: number;
  private label = '';
  private peakBytes: number;
  private readCount = 0;
  private readsUnderWay = 0;
  private waitBegin = 0;
  private waitMs = 0;
  private leftOut = 0;
  private report: ProfileReport | null = null;

  /** @internal Use `startProfile`. */
  constructor({ backend = defaultBackend(), traceCalls = 200_000 }: ProfileOptions) {
    if (!(Number.isInteger(traceCalls) && traceCalls >= 0))
      throw new RangeError(`traceCalls: expected a whole number from 0 on, got ${traceCalls}`);
    this.backend = backend;
    this.traceCalls = traceCalls;
    this.peakBytes = backend.stats().liveBytes;
    this.wrapKernels();
    this.wrapTransfers();
    this.watch = watchEngine({
      op: label => {
        this.label = label;
      },
      reached: (place, phase) => {
        this.place(place, phase);
      },
    });
    this.begin = this.partBegin = performance.now();
  }

  /** Ends a part of the work, that began with the profile or with the part before: a training step, a token. */
  mark(name: string): void {
    if (this.report) throw new Error('profile: mark after stop');
    this.watch.settle();
    const end = performance.now();
    this.parts.push({ name, start: this.partBegin, end });
    this.partBegin = end;
  }

  /** Puts the backend back as it was, and gives the figures; again, the same figures. */
  stop(): ProfileReport {
    if (this.report) return this.report;
    this.watch.settle();
    this.watch.stop();
    for (const restore of this.restores) restore();
    running = null;
    const end = performance.now();
    if (this.parts.length > 0 && this.calls.some(({ call }) => call.start >= this.partBegin))
      this.parts.push({ name: 'rest', start: this.partBegin, end });
    if (this.readsUnderWay > 0) this.waitMs += end - this.waitBegin;
    const { backend, parts, peakBytes, waitMs } = this;
    return (this.report = {
      backend: backend.name,
      recordsOnly: !backend.readSync,
      wallMs: end - this.begin,
      waitMs,
      reads: this.readCount,
      steps: parts.map(part => ({ name: part.name, ms: part.end - part.start })),
      peakBytes,
      backendPeakBytes: backend.stats().peakBytes,
      ...this.totals.rows(),
      declined: Object.fromEntries(this.declined),
    });
  }

  /** The trace, once stopped: an object for JSON.stringify. */
  trace(): ChromeTrace {
    if (!this.report) throw new Error('profile: the trace is there after stop');
    const { begin, parts, calls, reads, memory, leftOut, backend } = this;
    const recorded: Recorded = { begin, parts, calls, reads, memory };
    return chromeTrace(recorded, {
      producer: 'reft',
      backend: backend.name,
      ...(leftOut > 0 ? { kernelsLeftOut: leftOut } : {}),
    });
  }

  private place(place: Place, phase: Phase): void {
    if (this.unplaced.length === 0) return;
    for (const call of this.unplaced) {
      this.totals.add(call, place, phase);
      if (this.calls.length < this.traceCalls) this.calls.push({ call, place, phase });
      else this.leftOut++;
    }
    if (this.leftOut === 0 && this.memoryNow) this.memory.push(this.memoryNow);
    this.unplaced = [];
  }

  /** Memory is looked at here: what a kernel writes was allocated before it, and what it read is still there. */
  private measured(name: string, start: number, end: number, { flop, bytes }: Cost): void {
    this.unplaced.push({ name, start, end, flop, bytes });
    const { liveBytes: live, pooledBytes: pooled } = this.backend.stats();
    this.peakBytes = Math.max(this.peakBytes, live);
    this.memoryNow = { at: end, live, pooled };
  }

  private wrapKernels(): void {
    const { kernels, fused } = this.backend;
    const wrap = <K extends keyof Kernels>(kernel: K): void => {
      const run = kernels[kernel];
      const timed = ((call: Primitives[K]) => {
        const { label } = this;
        const start = performance.now();
        run(call);
        const end = performance.now();
        const name =
          kernel === 'matmul'
            ? matmulName(call as Primitives['matmul'])
            : label === kernel
              ? kernel
              : `${kernel} ${label}`;
        this.measured(name, start, end, kernelCost(kernel, call));
      }) as Kernels[K];
      this.restores.push(replace(kernels, kernel, () => timed));
    };
    for (const kernel of Object.keys(kernels) as (keyof Kernels)[]) wrap(kernel);
    for (const [name, original] of [...fused]) {
      fused.set(name, call => {
        const start = performance.now();
        const done = original(call);
        const end = performance.now();
        if (done) this.measured(name, start, end, fusedCost(name, call));
        else this.declined.set(name, (this.declined.get(name) ?? 0) + 1);
        return done;
      });
      this.restores.push(() => fused.set(name, original));
    }
  }

  private wrapTransfers(): void {
    const { backend } = this;
    this.restores.push(
      replace(backend, 'write', original => (allocation, byteOffset, data) => {
        const start = performance.now();
        original.call(backend, allocation, byteOffset, data);
        this.measured('write', start, performance.now(), { flop: 0, bytes: data.byteLength });
      }),
      replace(backend, 'read', original => async (...args) => {
        const start = performance.now();
        if (this.readsUnderWay++ === 0) this.waitBegin = start;
        try {
          return await original.apply(backend, args);
        } finally {
          this.readEnds(start);
        }
      }),
    );
  }

  private readEnds(start: number): void {
    this.readsUnderWay--;
    if (this.report) return;
    const end = performance.now();
    this.readCount++;
    if (this.readsUnderWay === 0) this.waitMs += end - this.waitBegin;
    if (this.leftOut === 0) this.reads.push({ name: 'read', start, end });
  }
}
