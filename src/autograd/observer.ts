// Who hears what the engine is at: an observer while a profile runs, nobody otherwise. Each place that tells it asks a
// variable first, which costs nothing beside a kernel.

export interface EngineObserver {
  /** An op takes the views of its tensors: the next kernel is its. */
  op(label: string): void;
  /** Runs the derivative of a node. */
  node<R>(node: { readonly id: number; readonly op: string }, run: () => R): R;
  /** Runs an optimizer's update. */
  update<R>(run: () => R): R;
  /** Runs what is computed once over a frozen base, or put together from that. */
  reuse<R>(run: () => R): R;
}

export let observer: EngineObserver | null = null;

export function observe(next: EngineObserver | null): void {
  observer = next;
}

/** Runs a part of the work, under the observer's eyes where there is one. */
export const observed = <R>(part: 'update' | 'reuse', run: () => R): R => (observer ? observer[part](run) : run());
