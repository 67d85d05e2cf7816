// Texts that people may change after they were written (a model card, a drawing): the last line, a comment in Markdown
// and in SVG, holds the hash of what stands above. A text whose hash is not right any more is somebody's work and is
// never replaced.

import { sha256 } from '../train/fingerprint.js';

const signature = /<!-- written by reft; once changed, reft leaves it alone: (sha256:[0-9a-f]{64}) -->\n$/;
const hashOf = (text: string): Promise<string> => sha256(new TextEncoder().encode(text));

export async function signed(text: string): Promise<string> {
  return `${text}<!-- written by reft; once changed, reft leaves it alone: ${await hashOf(text)} -->\n`;
}

/** Whether a text is one of ours as it was written. */
export async function isSigned(text: string): Promise<boolean> {
  const [line, hash] = signature.exec(text) ?? [];
  return line !== undefined && (await hashOf(text.slice(0, -line.length))) === hash;
}
