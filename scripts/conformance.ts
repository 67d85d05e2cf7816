// `npm run conformance -- DIR`: this library against golden tensors of the reference implementations. See scripts/conformance/run.ts.

import { runConformance } from './conformance/run.js';

process.exitCode = await runConformance(process.argv.slice(2), {
  out: text => { process.stdout.write(text); },
  error: text => { process.stderr.write(text); },
});
