// Long work gives way once a step, so that signals, aborts and the page are seen. Nothing else.

export const nextMacrotask = (): Promise<void> => new Promise(resolve => { setTimeout(resolve, 0); });
