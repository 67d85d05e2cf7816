// Long work gives way once a step, so that signals, aborts and the page are seen. Nothing else.

/**
 * Resolves in a macrotask of its own, at once: timers wait for a millisecond in Node and for four in a page that sets
 * them again and again.
 */
export const nextMacrotask = (): Promise<void> =>
  new Promise(resolve => {
    if (typeof setImmediate === 'function') {
      setImmediate(resolve);
      return;
    }
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
