// `npm run conformance -- DIR`: this library against golden tensors of the reference implementations. See
// scripts/conformance/run.ts. With `--device webgpu` on a machine without a GPU it runs again with the software adapter
// that comes with a dev dependency.

import { spawnSync } from 'node:child_process';
import { DeviceError, openDevice } from '../src/devices.js';
import { runConformance } from './conformance/run.js';
import { swiftShaderEnvironment } from './withSwiftShader.js';

const args = process.argv.slice(2);

/** The environment of a software adapter, where webgpu is asked for and there is no other. */
async function softwareAdapter(): Promise<Record<string, string> | null> {
  const at = args.indexOf('--device');
  if (args[at + 1] !== 'webgpu' && !args.includes('--device=webgpu')) return null;
  try {
    await openDevice('webgpu');
    return null;
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    const env = swiftShaderEnvironment();
    return Object.keys(env).length > 0 ? env : null;
  }
}

const env = await softwareAdapter();
if (env) {
  process.stderr.write('no GPU adapter here: using SwiftShader\n');
  const { status } = spawnSync(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  process.exitCode = status ?? 1;
} else {
  process.exitCode = await runConformance(args, {
    out: text => {
      process.stdout.write(text);
    },
    error: text => {
      process.stderr.write(text);
    },
  });
}
