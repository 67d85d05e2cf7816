// A headless Chromium for tests and benches: the dev dependency @sparticuz/chromium brings the browser, the libraries
// it needs and SwiftShader. CHROMIUM_PATH names another one (Debian's /usr/bin/chromium, say); CHROMIUM_ARGS replaces
// the flags that choose the software adapter, where there is a GPU. What pages do is not known here.

import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { chromium, type Browser } from 'playwright-core';
import { chromiumPart, filledFolder, unpackTo } from '../withSwiftShader.js';

/** WebGPU computed by the CPU, on any machine. */
const softwareAdapter = '--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader';
const debian = '/usr/bin/chromium';

interface Program {
  readonly executablePath: string;
  readonly env: Readonly<Record<string, string>>;
}

function fontConfiguration(fonts: string): string {
  const folders = ['/usr/share/fonts', '/usr/local/share/fonts', fonts].map(folder => `  <dir>${folder}</dir>`);
  return [
    '<?xml version="1.0"?>',
    '<!DOCTYPE fontconfig SYSTEM "fonts.dtd">',
    '<fontconfig>',
    ...folders,
    `  <cachedir>${fonts}</cachedir>`,
    '</fontconfig>',
    '',
  ].join('\n');
}

/** Unpacks the dev dependency once (200 MB in the folder for temporary files), or finds the system's browser. */
function findChromium(): Program {
  const named = process.env['CHROMIUM_PATH'];
  if (named) return { executablePath: named, env: {} };
  const [browser, libraries, graphics, fonts] = [
    'chromium.br',
    'al2023.tar.br',
    'swiftshader.tar.br',
    'fonts.tar.br',
  ].map(chromiumPart);
  if (browser && libraries && graphics && fonts && process.platform === 'linux' && process.arch === 'x64') {
    const folder = filledFolder(`chromium-${statSync(browser).size}`, fresh => {
      writeFileSync(path.join(fresh, 'chromium'), brotliDecompressSync(readFileSync(browser)), { mode: 0o755 });
      unpackTo(fresh, graphics);
      for (const [name, archive] of [
        ['lib', libraries],
        ['fonts', fonts],
      ]) {
        mkdirSync(path.join(fresh, name));
        unpackTo(path.join(fresh, name), archive);
      }
    });
    const configuration = path.join(folder, 'fonts', 'reft-fonts.conf');
    if (!existsSync(configuration)) writeFileSync(configuration, fontConfiguration(path.join(folder, 'fonts')));
    const search = [path.join(folder, 'lib'), folder, process.env['LD_LIBRARY_PATH']].filter(Boolean).join(':');
    return {
      executablePath: path.join(folder, 'chromium'),
      env: { LD_LIBRARY_PATH: search, FONTCONFIG_FILE: configuration },
    };
  }
  if (existsSync(debian)) return { executablePath: debian, env: {} };
  throw new Error(
    `no Chromium: the dev dependency @sparticuz/chromium brings one on Linux x64; elsewhere set CHROMIUM_PATH, or install ${debian}`,
  );
}

/** Starts Chromium; it ends with `close()` or with this process. */
export async function launchChromium(): Promise<Browser> {
  const { executablePath, env } = findChromium();
  const args = [
    '--headless=new',
    '--no-sandbox',
    ...(process.env['CHROMIUM_ARGS'] ?? softwareAdapter).split(' ').filter(Boolean),
  ];
  return chromium.launch({ executablePath, args, env: { ...(process.env as Record<string, string>), ...env } });
}
