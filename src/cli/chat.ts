// `reft chat`: a conversation at the terminal, or line by line from a pipe. Lines that begin with / are commands.

import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import type { ChatMessage } from '../io/chatTemplate.js';
import { Interrupted, UsageError } from './errors.js';
import { answer } from './generate.js';
import { lineInput } from './inputLines.js';
import { onInterrupt } from './interrupt.js';
import { loadAdapter, loadModel } from './model.js';
import {
  addAdapterOption,
  addJsonOption,
  addModelOptions,
  addSamplingOptions,
  type ModelFlags,
  type SamplingFlags,
} from './options.js';
import { Output } from './output.js';

interface ChatFlags extends ModelFlags, SamplingFlags {
  adapter?: string;
  scale?: number;
  system?: string;
  json: boolean;
}

const help = `/adapter on|off   with or without the adapter's edits
/reset            forget the conversation
/help             this list
/quit             leave (also Ctrl-D)
Ctrl-C stops an answer.`;

export function addChatCommand(program: Command): void {
  const command = program
    .command('chat')
    .description('Talk to a model, with or without an adapter; /help lists what can be typed.');
  addModelOptions(command).option('--system <text>', 'a system message in front of the conversation');
  addAdapterOption(command);
  addSamplingOptions(command);
  addJsonOption(command).action(chat);
}

async function chat(flags: ChatFlags): Promise<void> {
  const output = new Output(flags.json);
  const loading = onInterrupt(output, 'ending');
  const loaded = await loadModel(flags, output, loading.signal)
    .catch((cause: unknown) => {
      throw loading.signal.aborted ? new Interrupted('interrupted', { cause }) : cause;
    })
    .finally(() => loading.dispose());
  const reft = await loadAdapter(loaded, flags, output);
  const messages: ChatMessage[] = [];
  let turns = 0;
  /** SIGTERM and SIGHUP leave, and cut an answer short. */
  let left = false;

  const terminal = process.stdin.isTTY && process.stderr.isTTY;
  const input = lineInput(process.stdin);
  const lines = createInterface({ input: input.stream, output: process.stderr, terminal, prompt: '> ' });
  // Ctrl-C while nothing is said; onInterrupt hears it during an answer.
  const close = (): void => {
    lines.close();
  };
  const leave = (): void => {
    left = true;
    lines.close();
  };
  lines.on('SIGINT', close);
  process.on('SIGINT', close).on('SIGTERM', leave).on('SIGHUP', leave);
  const ask = (): void => {
    if (terminal) lines.prompt();
  };

  output.note('Type a message, or /help.');
  ask();
  try {
    for await (const line of lines) {
      const text = input.restore(line).trim();
      if (left || text === '/quit') break;
      if (text.startsWith('/')) output.note(command(text));
      else if (text !== '') await speak(text);
      ask();
    }
  } finally {
    lines.close();
    input.close();
    process.off('SIGINT', close).off('SIGTERM', leave).off('SIGHUP', leave);
  }
  if (left) throw new Interrupted('interrupted');
  output.event('done', { turns });

  function command(text: string): string {
    if (text === '/help') return help;
    if (text === '/reset') {
      messages.length = 0;
      return 'the conversation starts anew';
    }
    if (text === '/adapter on' || text === '/adapter off') {
      if (!reft) return 'there is no adapter: start with --adapter DIR';
      reft.enabled = text === '/adapter on';
    }
    if (text.split(/\s+/)[0] === '/adapter')
      return reft ? `adapter ${reft.enabled ? 'on' : 'off'}` : 'there is no adapter: start with --adapter DIR';
    return `${text.split(/\s+/)[0]}: not known; /help lists what is`;
  }

  async function speak(text: string): Promise<void> {
    const asked = [...messages, { role: 'user', content: text }];
    process.off('SIGINT', close);
    // In raw mode Ctrl-C is a key, which nobody reads while an answer is computed.
    if (terminal) process.stdin.setRawMode(false);
    const speaking = onInterrupt(output, 'stopping this answer');
    try {
      const ids = loaded.tokenizer.chat(asked, { system: flags.system }).ids;
      if (ids.length >= loaded.model.config.maxPositions) {
        throw new UsageError(
          `the conversation has ${ids.length} tokens, the model's context is ${loaded.model.config.maxPositions}; /reset starts anew`,
        );
      }
      const reply = await answer(loaded, reft, ids, flags, {
        signal: speaking.signal,
        onText: piece => {
          output.stream(piece);
        },
      });
      output.stream('\n');
      output.event('answer', {
        text: reply.text,
        ids: reply.ids,
        tokensPerSecond: reply.tokensPerSecond,
        adapter: reft?.enabled ?? false,
      });
      messages.push({ role: 'user', content: text }, { role: 'assistant', content: reply.text });
      turns++;
    } catch (error) {
      // A message that cannot be answered does not end the conversation.
      if (!(error instanceof UsageError) && !(error instanceof RangeError)) throw error;
      output.note(error.message);
    } finally {
      await speaking.dispose();
      process.on('SIGINT', close);
      if (terminal && !left) process.stdin.setRawMode(true);
    }
  }
}
