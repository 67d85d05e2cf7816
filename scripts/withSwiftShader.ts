// WebGPU in Node without a GPU: SwiftShader, a Vulkan device in software, from the dev dependency @sparticuz/chromium.
// As a command, `tsx scripts/withSwiftShader.ts node --test ...` runs the rest of its line with the environment that
// makes Vulkan find it; `swiftShaderEnvironment()` gives that environment to other scripts. The dynamic linker reads it
// once: it must be set before a process starts.

import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';

/** The regular files of a tar archive (POSIX ustar) as [name, bytes]; names are cut to their last part. */
function* filesOfTar(tar: Buffer): Generator<[string, Buffer]> {
  for (let at = 0; at + 512 <= tar.length;) {
    const text = (from: number, length: number): string =>
      tar.toString('latin1', at + from, at + from + length).split('\0')[0];
    if (text(0, 100) === '') return;
    const size = parseInt(text(124, 12).trim(), 8);
    if (!(size >= 0) || at + 512 + size > tar.length) throw new Error(`the archive is cut short at byte ${at}`);
    const kind = text(156, 1);
    if (kind === '0' || kind === '') yield [path.posix.basename(text(0, 100)), tar.subarray(at + 512, at + 512 + size)];
    at += 512 + 512 * Math.ceil(size / 512);
  }
}

/** A file of the installed package @sparticuz/chromium, or undefined without it. */
export function chromiumPart(name: string): string | undefined {
  try {
    const entry = createRequire(import.meta.url).resolve('@sparticuz/chromium');
    const file = path.join(entry.slice(0, entry.lastIndexOf(`${path.sep}build${path.sep}`)), 'bin', name);
    return existsSync(file) ? file : undefined;
  } catch {
    return undefined;
  }
}

/** A folder that `fill` fills once for each `name`; several processes may try at the same time. */
export function filledFolder(name: string, fill: (folder: string) => void): string {
  const user = typeof process.getuid === 'function' ? process.getuid() : 0;
  const folder = path.join(os.tmpdir(), `reft-${name}-${user}`);
  if (existsSync(folder)) return folder;
  mkdirSync(os.tmpdir(), { recursive: true });
  const fresh = mkdtempSync(`${folder}-`);
  fill(fresh);
  try {
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
  return folder;
}

/** Unpacks a .tar.br of the package, its folders left out. */
export function unpackTo(folder: string, archive: string): void {
  for (const [name, bytes] of filesOfTar(brotliDecompressSync(readFileSync(archive)))) {
    writeFileSync(path.join(folder, name), bytes);
    chmodSync(path.join(folder, name), 0o755);
  }
}

const systemFolders = [
  '/lib',
  '/usr/lib',
  '/lib64',
  '/usr/lib64',
  '/usr/local/lib',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
];

/**
 * What to add to a process's environment so that Vulkan finds SwiftShader; empty where the package is missing, where
 * the platform is not Linux on x64 (the archive holds nothing else), or where VK_ICD_FILENAMES already names a driver.
 */
export function swiftShaderEnvironment(): Record<string, string> {
  const file = chromiumPart('swiftshader.tar.br');
  if (!file || process.platform !== 'linux' || process.arch !== 'x64' || process.env['VK_ICD_FILENAMES']) return {};
  const folder = filledFolder(`swiftshader-${statSync(file).size}`, fresh => unpackTo(fresh, file));
  const result: Record<string, string> = { VK_ICD_FILENAMES: path.join(folder, 'vk_swiftshader_icd.json') };
  if (!systemFolders.some(f => existsSync(path.join(f, 'libvulkan.so.1')))) {
    result['LD_LIBRARY_PATH'] = [folder, process.env['LD_LIBRARY_PATH']].filter(Boolean).join(':');
  }
  return result;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [command, ...args] = process.argv.slice(2);
  if (!command) {
    console.error('usage: tsx scripts/withSwiftShader.ts <command> [arguments]');
    process.exit(2);
  }
  const child = spawn(command, args, { stdio: 'inherit', env: { ...process.env, ...swiftShaderEnvironment() } });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  child.on('error', error => {
    console.error(`withSwiftShader: ${command}: ${error.message}`);
    process.exit(127);
  });
  child.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
}
