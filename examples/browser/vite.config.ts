// Vite as it comes, with two additions: the library is taken from this repository's src/ (an app of your own imports
// 'reft' and needs neither plugin nor alias), and pages are isolated from other origins, which lets the CPU use
// threads.

import { defineConfig } from 'vite';
import { withoutNodeFiles } from '../../scripts/browser/bundle.js';

const isolation = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

export default defineConfig({
  base: './',
  plugins: [withoutNodeFiles],
  worker: { format: 'es', plugins: () => [withoutNodeFiles] },
  server: { headers: isolation, fs: { allow: ['../..'] } },
  preview: { headers: isolation },
  build: { target: 'es2022' },
});
