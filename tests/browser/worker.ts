// A worker that runs one job and tells its verdicts.

import { runJob, type Job } from './jobs.js';

addEventListener('message', ({ data }: MessageEvent<Job>) => {
  runJob(data, verdict => {
    postMessage({ verdict });
  }).then(
    () => {
      postMessage({ done: true });
    },
    (error: unknown) => {
      postMessage({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    },
  );
});
