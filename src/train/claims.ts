// One run at a time on each trained tensor: two that take turns would train neither.

interface Run {
  readonly running: boolean;
}

/** The last run on a tensor. One that nobody holds any more blocks none. */
const lastRun = new WeakMap<object, WeakRef<Run>>();

/** Takes tensors for a run. @throws Error naming a tensor on which another run goes on */
export function claim(run: Run, tensors: readonly { readonly name: string; readonly tensor: object }[]): void {
  for (const { name, tensor } of tensors) {
    const other = lastRun.get(tensor)?.deref();
    if (other?.running) throw new Error(`trainer: another trainer is being run on ${name}; end its steps first`);
  }
  for (const { tensor } of tensors) lastRun.set(tensor, new WeakRef(run));
}
