// A bound on the time of a call that somebody else's text decides. Node can interrupt code that runs; in a browser
// nothing can, and the call must look at the clock itself. Nothing here knows what is called.

interface Script {
  runInThisContext(options: { timeout: number }): unknown;
}
interface Vm {
  Script: new (code: string) => Script;
}

const key = Symbol.for('reft.withinTime');
const globals = globalThis as unknown as Record<symbol, (() => unknown) | undefined>;
let script: Script | null | undefined;

/**
 * `body()`, which Node ends after `milliseconds` of a clock on the wall; what body was about to do then is left undone,
 * its `finally` too.
 * @returns null when the time was over
 */
export function withinTime<T>(milliseconds: number, body: () => T): { readonly value: T } | null {
  if (!canInterrupt() || !script) return { value: body() };
  const outer = globals[key];
  globals[key] = body;
  try {
    return { value: script.runInThisContext({ timeout: milliseconds }) as T };
  } catch (error) {
    if ((error as { code?: unknown } | null)?.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') return null;
    throw error;
  } finally {
    if (outer) globals[key] = outer;
    else Reflect.deleteProperty(globalThis, key);
  }
}

/** Whether a call can be ended while it runs. */
export function canInterrupt(): boolean {
  // Not imported: the call is synchronous, and bundles for browsers may not name Node's modules.
  if (script === undefined) script = compiled();
  return script !== null;
}

/** A script that calls what is to be called: only what a script calls can be interrupted. */
function compiled(): Script | null {
  if (typeof process === 'undefined') return null;
  const vm = (process as { getBuiltinModule?: (name: string) => Vm | undefined }).getBuiltinModule?.('node:vm');
  return vm ? new vm.Script("globalThis[Symbol.for('reft.withinTime')]()") : null;
}
