// Where a kernel belongs: while a profile runs, it is the engine's observer (autograd/observer.ts), and methods of
// models are wrapped, so that it hears of each site, of each node on the way back, and of updates; when it ends they
// are put back as they were.

import { observe } from '../autograd/observer.js';
import { nodeClock } from '../autograd/tape.js';
import { CausalLM } from '../models/causalLM.js';
import { Run } from '../models/run.js';
import { siteName } from '../models/sites.js';

/** `reuse` is what is computed once over a frozen base, and put together from there. */
export const phases = ['forward', 'backward', 'optimizer', 'reuse', 'other'] as const;
export type Phase = (typeof phases)[number];

/** What kernels led to: a site, its edits, or a named part outside of all sites. */
export interface Place {
  /**
   * `mlp_output/3`, `block_output/15 edits`; `inputs` (before a forward pass), `head` (logits), `loss` (after a forward
   * pass), `gradient sums` (of several uses of a tensor, and clipping), `optimizer`, `other`.
   */
  readonly site: string;
  /** The same without its layer. */
  readonly component: string;
  readonly layer: number | null;
}

export interface Watcher {
  /** The op whose views are being taken: the next kernel is its. */
  op(label: string): void;
  /** All kernels since the last call led here. */
  reached(place: Place, phase: Phase): void;
}

export interface Watch {
  /** A part of the work is over: gives what ran since the last site to where it belongs. */
  settle(): void;
  /** Puts everything back. */
  stop(): void;
}

/** Replaces a property, on the object itself or inherited; gives the way back. */
export function replace<O extends object, K extends keyof O>(
  object: O,
  key: K,
  make: (original: O[K]) => O[K],
): () => void {
  const own = Object.getOwnPropertyDescriptor(object, key);
  Object.defineProperty(object, key, {
    configurable: true,
    enumerable: own?.enumerable ?? true,
    writable: true,
    value: make(object[key]),
  });
  return () => {
    if (own) Object.defineProperty(object, key, own);
    else Reflect.deleteProperty(object, key);
  };
}

const outside = (name: string): Place => ({ site: name, component: name, layer: null });
const inputs = outside('inputs');
const head = outside('head');
const loss = outside('loss');
const sums = outside('gradient sums');
const optimizer = outside('optimizer');
const other = outside('other');

/** Sites remembered for nodes that may still be visited. */
const mostRanges = 100_000;

export function watchEngine(watcher: Watcher): Watch {
  // Nodes below `until`, and from the entry before on, were recorded on the way to `place`.
  let ranges: { until: number; place: Place }[] = [];
  let last: Phase = 'other';
  let inReuse = 0;
  let inNode = 0;

  const reached = (place: Place, phase: Phase): void => {
    watcher.reached(place, phase);
    last = phase;
    const until = nodeClock();
    if (phase === 'backward' || ranges.at(-1)?.until === until) return;
    if (ranges.length >= mostRanges) ranges = ranges.slice(mostRanges / 2);
    ranges.push({ until, place });
  };
  const forward = (place: Place): void => {
    reached(place, inReuse > 0 ? 'reuse' : 'forward');
  };
  const settle = (): void => {
    if (last === 'forward') reached(loss, 'forward');
    else if (last === 'backward') reached(sums, 'backward');
    else reached(other, 'other');
  };
  const placeOf = (id: number): Place => {
    let [low, high] = [0, ranges.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ranges[middle].until > id) high = middle;
      else low = middle + 1;
    }
    return ranges[low]?.place ?? other;
  };

  observe({
    op: label => {
      watcher.op(label);
    },
    node(node, run) {
      if (inNode > 0) return run();
      settle();
      // What runs again passes its sites again, and its own nodes are placed at them.
      if (node.op === 'recompute') return run();
      inNode++;
      try {
        return run();
      } finally {
        inNode--;
        reached(placeOf(node.id), 'backward');
      }
    },
    update(run) {
      settle();
      const result = run();
      reached(optimizer, 'optimizer');
      last = 'other';
      return result;
    },
    reuse(run) {
      settle();
      inReuse++;
      try {
        return run();
      } finally {
        inReuse--;
        reached(inputs, 'reuse');
      }
    },
  });
  const restores = [
    replace(
      CausalLM.prototype,
      'forward',
      original =>
        function (this: CausalLM, ...args) {
          if (last === 'forward') forward(loss);
          else forward(inputs);
          const result = original.apply(this, args);
          forward(head);
          return result;
        },
    ),
    replace(
      Run.prototype,
      'site',
      original =>
        function (this: Run, ...args) {
          const [layer, component] = args;
          const { stack } = this.sites;
          const site = siteName({ ...(stack === undefined ? {} : { stack }), layer, component });
          forward({ site, component, layer });
          const result = original.apply(this, args);
          forward({ site: `${site} edits`, component: `${component} edits`, layer });
          return result;
        },
    ),
  ];
  const endPart = (): void => {
    settle();
    last = 'other';
  };
  return {
    settle: endPart,
    stop: () => {
      observe(null);
      for (const restore of restores) restore();
    },
  };
}
