// Which process wrote a file that is only there while that process works (an unfinished file, a lock), and whether it
// still lives. A tag goes into the file's name: the process, when it started, the host. Node only.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';

const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 8);

/** What a tag looks like, for patterns of file names. */
export const writerTagPattern = '\\d+-[0-9a-f]{8}-[0-9a-f]{8}';

const host = hash(hostname());
/** This process. */
export const writerTag = `${process.pid}-${startOf(process.pid) ?? ''}-${host}`;

/** `unknown`: on another host, or no tag at all. */
export type WriterState = 'alive' | 'dead' | 'unknown';

export function writerState(tag: string): WriterState {
  const [pid, start, where] = tag.split('-');
  if (where !== host) return 'unknown';
  try {
    process.kill(Number(pid), 0);
  } catch (error) {
    // EPERM: somebody else's, but there.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return 'dead';
  }
  return startOf(Number(pid)) === start ? 'alive' : 'dead';
}

/**
 * When a process started, hashed, so that a number that was given to another process is noticed; null where there is
 * none any more.
 */
function startOf(pid: number): string | null {
  if (process.platform !== 'linux') return hash('');
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    // Fields after the name, which may hold spaces and brackets: the state first, the start in ticks as the 20th.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? null : hash(`${boot} ${fields[19]}`);
  } catch {
    return null;
  }
}
