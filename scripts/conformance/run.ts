// The conformance command: finds the cases of a folder, runs the chosen ones on a device, reports each with its worst
// tensor. Exit 0 when something ran and nothing failed or was unsupported, 1 when not, 2 bad usage, 3 device absent.

import { stat } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { exitCodes } from '../../src/cli/errors.js';
import { DeviceError, openDevice } from '../../src/devices.js';
import { findCases, globTest } from './cases.js';
import { RunContext } from './context.js';
import { folderFiles } from './filesNode.js';
import { devices, runCase, type Device } from './suite.js';

export type { CaseResult } from './suite.js';

const usage = `Usage: npm run conformance -- DIR [--device cpu|webgpu] [--only GLOB,GLOB] [--json]

Compares with the golden tensors below DIR. A case is a path without extension, such as tiny-llama/forward or reft/loreft.
A GLOB matches the whole path, * crosses /, a bare folder means all below it.
`;

export interface Streams {
  out(text: string): void;
  error(text: string): void;
}

/** Runs the command; gives its exit code. */
export async function runConformance(args: readonly string[], streams: Streams): Promise<number> {
  let options;
  try {
    options = readArguments(args);
    if (options.help) {
      streams.out(usage);
      return exitCodes.done;
    }
    if (
      !(await stat(options.dir).then(
        s => s.isDirectory(),
        () => false,
      ))
    )
      throw new RangeError(`DIR: '${options.dir}' is not a folder`);
  } catch (error) {
    streams.error(`${(error as Error).message}\n\n${usage}`);
    return exitCodes.usage;
  }
  const { dir, device, json } = options;
  let backend;
  try {
    backend = await openDevice(device);
  } catch (error) {
    streams.error(`${(error as Error).message}\n`);
    return error instanceof DeviceError ? exitCodes.deviceAbsent : exitCodes.failed;
  }
  const files = folderFiles(dir, message => {
    streams.error(`${message}\n`);
  });
  const all = findCases(await files.list());
  const tests = options.globs.map(globTest);
  options.globs.forEach((glob, i) => {
    if (!all.some(c => tests[i](c.path))) streams.error(`--only: '${glob}' matches no case\n`);
  });
  const chosen = all.filter(c => tests.length === 0 || tests.some(matches => matches(c.path)));
  const context = new RunContext(files, backend);
  const counts = { pass: 0, fail: 0, unsupported: 0 };
  const width = Math.max(4, ...chosen.map(c => c.path.length));
  if (!json) streams.out(`${row(['case', 'status', 'max abs', 'max rel', 'tolerance', 'tensor'], width)}\n`);
  for (const c of chosen) {
    const { result, message } = await runCase(c, context, device);
    counts[result.status]++;
    if (json) {
      streams.out(`${JSON.stringify(result)}\n`);
      if (message) streams.error(`${c.path}: ${message}\n`);
    } else {
      streams.out(
        `${row([c.path, result.status, figure(result.maxAbs), figure(result.maxRel), figure(result.tolerance), message ?? result.tensor ?? ''], width)}\n`,
      );
    }
  }
  const done = { passed: counts.pass, failed: counts.fail, unsupported: counts.unsupported };
  if (json) streams.out(`${JSON.stringify({ event: 'done', ...done })}\n`);
  else streams.out(`${done.passed} passed, ${done.failed} failed, ${done.unsupported} unsupported, on ${device}\n`);
  return done.passed > 0 && done.failed + done.unsupported === 0 ? exitCodes.done : exitCodes.failed;
}

function readArguments(args: readonly string[]): {
  dir: string;
  device: Device;
  globs: string[];
  json: boolean;
  help: boolean;
} {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      device: { type: 'string', default: 'cpu' },
      only: { type: 'string', multiple: true, default: [] },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const device = devices.find(d => d === values.device);
  if (!device) throw new RangeError(`--device: expected ${devices.join(' or ')}, got '${values.device}'`);
  if (!values.help && positionals.length !== 1) throw new RangeError(`expected one DIR, got ${positionals.length}`);
  const globs = values.only
    .flatMap(list => list.split(','))
    .map(glob => glob.trim())
    .filter(glob => glob !== '');
  if (values.only.length > 0 && globs.length === 0) throw new RangeError('--only: names no case');
  return { dir: positionals[0], device, globs, json: values.json, help: values.help };
}

const figure = (value: number | null): string => (value === null ? '-' : value === 0 ? '0' : value.toExponential(1));

const row = ([path, status, maxAbs, maxRel, tolerance, tensor]: readonly string[], width: number): string =>
  `${path.padEnd(width)}  ${status.padEnd(11)}  ${maxAbs.padStart(8)}  ${maxRel.padStart(8)}  ${tolerance.padStart(9)}  ${tensor}`.trimEnd();
