// Folders and paths are Node's: a browser is told what to use instead. Nothing that needs Node is imported here.

/** @throws Error in a browser, naming what was called and what a page uses instead */
export function nodeOnly(call: string, instead: string): void {
  if (typeof process === 'undefined' || !process.versions?.node)
    throw new Error(`${call} works in Node only; in a browser ${instead}`);
}
