// Chat templates: a list of messages becomes the text a chat model was trained on, through the model's own Jinja template.
// Only text in, text out; ids and special tokens belong to tokenizer.ts.

import { outOfTime, parseTemplate, renderBounded, RenderLimitError, renderLimits, type Program, type RenderLimits } from './chatTemplateBounds.js';
import { FormatError } from './errors.js';
import { withinTime } from './timeLimit.js';

/** One turn of a conversation. `role` is usually "system", "user" or "assistant". */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/**
 * The template of a model that brings none: each turn is "Role: content" on its own line, and "Assistant:" asks for an answer.
 *
 *     User: What is rain?
 *     Assistant: Water that falls.
 */
export const plainChatTemplate =
  "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] + '\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/** A parsed chat template. `raise_exception`, `strftime_now`, `range` and the filter `tojson` are available to it. */
export class ChatTemplate {
  private readonly program: Program;
  private readonly source: string;
  private readonly limits: RenderLimits;

  /**
   * @param text the Jinja source
   * @param source the file it came from, for errors
   * @param limits what one rendering may take
   * @throws FormatError when the text is no valid template
   */
  constructor(text: string, source: string, limits: RenderLimits = renderLimits) {
    this.source = source;
    this.limits = limits;
    try {
      this.program = parseTemplate(text);
    } catch (error) {
      throw new FormatError(source, `chat template cannot be parsed: ${messageOf(error)}`, { cause: error });
    }
  }

  /**
   * The text of a conversation.
   * @param variables what the template may read: messages, add_generation_prompt, bos_token, eos_token, tools, ...
   * @throws Error when the template refuses the messages (raise_exception), fails on them or takes more than its limits
   */
  render(variables: { messages: readonly ChatMessage[] } & Record<string, unknown>): string {
    const { limits, program } = this;
    try {
      // Copied, because a template may assign to what it is given.
      const given = { ...variables, messages: variables.messages.map(message => ({ ...message })) };
      const rendered = withinTime(limits.time, () => renderBounded(program, given, limits));
      if (!rendered) throw outOfTime(limits);
      return rendered.value;
    } catch (error) {
      const did = error instanceof RenderLimitError ? 'was stopped' : 'failed';
      throw new Error(`${this.source}: chat template ${did} on ${variables.messages.length} messages: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
