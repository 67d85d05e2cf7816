// `reft devices`: what this machine can compute on, and why something is not there.

import { availableParallelism, totalmem } from 'node:os';
import type { Command } from 'commander';
import { supportsRelaxedSimd } from '../backends/cpu/wasm/emit/assembler.js';
import type { WebGpuBackend } from '../backends/webgpu/index.js';
import { openDevice } from '../devices.js';
import { addJsonOption } from './options.js';
import { bytesText, Output } from './output.js';

interface DeviceFacts {
  readonly device: 'cpu' | 'webgpu';
  readonly available: boolean;
  /** Why it is not available. */
  readonly reason?: string;
  readonly [fact: string]: unknown;
}

export function addDevicesCommand(program: Command): void {
  const command = program
    .command('devices')
    .description('List what --device can name, and say why something is not there.');
  addJsonOption(command).action(devices);
}

async function devices({ json }: { json: boolean }): Promise<void> {
  const output = new Output(json);
  const found = [await cpuFacts(), await webgpuFacts()];
  for (const facts of found) {
    const { device, available, reason, ...rest } = facts;
    const words = available
      ? Object.entries(rest)
          .map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(' ') : String(value)}`)
          .join('; ')
      : `not available: ${reason}`;
    if (!json) output.say(`${device.padEnd(8)}${words}`);
    output.event('device', facts);
  }
  if (!json) output.say(`auto    ${(await openDevice('auto')).name}`);
  output.event('done', { auto: (await openDevice('auto')).name });
}

async function cpuFacts(): Promise<DeviceFacts> {
  const backend = await openDevice('cpu');
  return {
    device: 'cpu',
    available: true,
    cores: availableParallelism(),
    simd: supportsRelaxedSimd() ? 'relaxed' : 'plain',
    limit: bytesText(backend.stats().limitBytes),
    memory: bytesText(totalmem()),
  };
}

async function webgpuFacts(): Promise<DeviceFacts> {
  try {
    const backend = (await openDevice('webgpu')) as WebGpuBackend;
    const { vendor, architecture, device, description, software, features } = backend.adapter;
    const { maxBufferSize } = backend.device.limits;
    const facts: DeviceFacts = {
      device: 'webgpu',
      available: true,
      adapter: [...new Set([vendor, architecture, device, description].filter(Boolean))].join(', ') || 'unnamed',
      software,
      buffer: bytesText(maxBufferSize),
      binding: bytesText(backend.settings.bindingBytes),
      features,
    };
    await backend.close();
    return facts;
  } catch (error) {
    return { device: 'webgpu', available: false, reason: (error as Error).message };
  }
}
