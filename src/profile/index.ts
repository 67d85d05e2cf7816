// Public face of profiling: `reft/profile`.

export { startProfile, type Profile, type ProfileOptions } from './profile.js';
export { formatProfile, type PlaceRow, type ProfileReport, type ProfileRow } from './report.js';
export type { ChromeTrace, TraceEvent } from './chromeTrace.js';
export { phases, type Phase } from './watch.js';
