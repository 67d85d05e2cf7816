// Kept mutants: work that is lost.

import type { Patches } from './mutant.js';

export const patches: Patches = {
  'src/io/atomicWriteNode.ts': [
    [
      'a file that says what the others are goes first',
      'if (last !== undefined) await rm',
      'if (last === null) await rm',
      'savedWork-files',
      'without hashes',
    ],
    [
      'what failed is cleared',
      'for (const { temporary } of written) await rm(temporary, { force: true });',
      '',
      'savedWork-files',
      'a full disk changes none',
    ],
  ],
  'src/io/foldersNode.ts': [
    ['what dead writers left goes', "writer === 'dead' || ", '', 'savedWork-out', 'what a dead one left'],
    [
      'folders are made outermost first',
      'missing.unshift(folder)',
      'missing.push(folder)',
      'savedWork-files',
      'outermost first',
    ],
  ],
  'src/io/writerNode.ts': [
    [
      'a number that was given to another process',
      "startOf(Number(pid)) === start ? 'alive' : 'dead'",
      "'alive'",
      'savedWork-files',
      'told apart',
    ],
  ],
  'src/reft/savedFiles.ts': [
    [
      'what is not finite is not saved',
      '!data.every(Number.isFinite))\n   ',
      'data.length < 0)',
      'savedWork-files',
      'is not saved',
    ],
    [
      'files of two saves are not read',
      'config[hashKey] === undefined || ',
      'config[hashKey] !== null || ',
      'savedWork-files',
      'are refused',
    ],
  ],
  'src/reft/savedFilesNode.ts': [
    [
      'a save that was cut off is read',
      'if (pending === null) return',
      'if (pending !== undefined) return',
      'savedWork-files',
      'leaves the older',
    ],
    [
      'a save that was cut off is ended',
      'if (pending !== null) await rename',
      'if (pending === undefined) await rename',
      'savedWork-files',
      'another is cut off',
    ],
  ],
  'src/reft/ownFilesNode.ts': [
    [
      "somebody's files",
      "(await isOurs(directory, name)) ? 'ours' : 'others",
      "'ours",
      'savedWork-files',
      "somebody's files stay",
    ],
    [
      "an adapter's configuration of another library",
      "configOf('reft-adapter')",
      'jsonWhere(() => true)',
      'savedWork-out',
      'adapter_config',
    ],
  ],
  'src/reft/signedText.ts': [
    [
      'a model card that was changed',
      '(await hashOf(text.slice(0, -line.length))) === hash',
      'hash !== null',
      'savedWork-out',
      'model card that was changed',
    ],
  ],
  'src/train/checkpoint.ts': [
    [
      'the record is in the checkpoint',
      'record: JSON.stringify(record)',
      'other: JSON.stringify(record)',
      'savedWork-files',
      'without a gap',
    ],
  ],
  'src/train/runFiles.ts': [
    [
      'a bad step saves what was before it',
      'if (!this.saved) await this.save(',
      'if (this.saved) await this.save(',
      'savedWork-files',
      'a step that goes wrong',
    ],
    [
      'an error saves what was done',
      'if (lost && directory !== undefined) await',
      'if (!lost && directory !== undefined) await',
      'savedWork-files',
      'of any kind saves',
    ],
  ],
  'src/train/trainer.ts': [
    [
      'a run that diverged is no success',
      'if (measured && !Number.isFinite(measured.loss))',
      'if (measured && measured.loss < 0)',
      'savedWork-files',
      'no success',
    ],
    [
      'an abort in the last measurement saves',
      'if (!measured && this.over) await',
      'if (measured) await',
      'savedWork-files',
      'last loss is measured',
    ],
  ],
  'src/cli/train.ts': [
    [
      'a last checkpoint before the results',
      '    await trainer.saveCheckpoint(checkpoint);\n',
      '',
      'savedWork-faults',
      'killed at any',
    ],
  ],
  'src/cli/outFolder.ts': [
    [
      'what reft wrote is replaced when asked',
      'if (resume || overwrite) return;',
      'return;',
      'savedWork-out',
      'replaced with --overwrite alone',
    ],
    ['one run at a time', 'if (others.length === 0) return;', 'return;', 'savedWork-out', 'one run at a time'],
    [
      'a lock is given back',
      'if (this.locked) await rm',
      'if (!this.locked) await rm',
      'savedWork-out',
      'other files in the folder',
    ],
    [
      'the folder is tried before training',
      'await this.tryToWrite(bytes);',
      '',
      'savedWork-faults',
      'full at the start',
    ],
    [
      'a folder that was made for nothing goes',
      'await rmdir(folder).catch(() => undefined)',
      'await stat(folder).catch(() => undefined)',
      'savedWork-faults',
      'full at the start',
    ],
    [
      'only our files of a checkpoint go',
      'const { ours } = await findFiles(this.checkpoint, checkpointNames);',
      'const ours = await readdir(this.checkpoint);',
      'savedWork-out',
      'other files in the folder',
    ],
  ],
  'src/cli/profile.ts': [
    ['a trace over a trace alone', '!(await isTrace(file))', 'false', 'savedWork-out', 'a trace alone'],
  ],
  'src/cli/convert.ts': [
    ['convert asks', 'if (ours.length > 0 && !overwrite)', 'if (ours.length > 99)', 'savedWork-out', 'convert asks'],
  ],
  'src/cli/interrupt.ts': [
    ['SIGHUP saves', ".on('SIGHUP', first);\n  return", ';\n  return', 'savedWork-signals', 'at any step|end generate'],
    [
      'one Ctrl-C that comes twice',
      'left > 0; left = end - Date.now()',
      'left < 0; left = end - Date.now()',
      'savedWork-signals',
      'a second Ctrl-C',
    ],
    [
      'Ctrl-C is heard while the process computes',
      'pressedWithin(Infinity);',
      'for (;;) pressedWithin(Infinity);',
      'savedWork-signals',
      'a second Ctrl-C',
    ],
  ],
  'src/cli/main.ts': [
    ['a training outlives its reader', '!writesFolder && ', '', 'savedWork-signals', 'does not end a training'],
  ],
};
