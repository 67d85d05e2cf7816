// Chat templates: a list of messages becomes the text a chat model was trained on, through the model's own Jinja
// template. Only text in, text out; ids and special tokens belong to tokenizer.ts.

import { textOf, type ChatMessage } from './chatMessages.js';
import { FormatError } from './errors.js';
import { outOfTime, RenderLimitError, renderLimits, type RenderLimits } from './jinja/budget.js';
import type { Statement } from './jinja/nodes.js';
import { parseTemplate } from './jinja/parse.js';
import { render, type Rendered } from './jinja/render.js';
import { withinTime } from './timeLimit.js';

export type { ChatMessage, ContentPart } from './chatMessages.js';

/**
 * The template of a model that brings none: each turn is "Role: content" on its own line, and "Assistant:" asks for an
 * answer.
 *
 *     User: What is rain?
 *     Assistant: Water that falls.
 */
export const plainChatTemplate =
  "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] + '\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/** A parsed chat template. `raise_exception`, `strftime_now`, `range` and the filter `tojson` are available to it. */
export class ChatTemplate {
  private readonly program: readonly Statement[];
  private readonly source: string;
  private readonly limits: RenderLimits;
  private readonly text: string;
  private contentForm: ContentForm | undefined;

  /**
   * @param text the Jinja source
   * @param source the file it came from, for errors
   * @param limits what one rendering may take
   * @throws FormatError when the text is no valid template
   */
  constructor(text: string, source: string, limits: RenderLimits = renderLimits) {
    this.source = source;
    this.limits = limits;
    this.text = text;
    try {
      this.program = parseTemplate(text);
    } catch (error) {
      throw new FormatError(source, `chat template cannot be parsed: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Whether the template's text has this name anywhere: what it does not name it cannot read. */
  names(name: string): boolean {
    return new RegExp(`(?<![\\w$])${name.replace(/[^\w]/g, '\\$&')}(?![\\w$])`).test(this.text);
  }

  /**
   * The text of a conversation. Turns reach the template as they are, but that text in parts is joined for one that
   * reads texts only, and a text becomes one part for one that reads parts only.
   * @param variables what the template may read: messages, add_generation_prompt, bos_token, eos_token, tools, ...
   * @throws Error when the template refuses the messages (raise_exception), fails on them or takes more than its limits
   */
  render(variables: { messages: readonly ChatMessage[] } & Record<string, unknown>): string {
    return this.renderMarked(variables).text;
  }

  /** `render`, and which parts of the text stand in `generation` blocks. */
  renderMarked(variables: { messages: readonly ChatMessage[] } & Record<string, unknown>): Rendered {
    try {
      return this.renderAs(variables, (this.contentForm ??= this.findContentForm(variables)));
    } catch (error) {
      const did = error instanceof RenderLimitError ? 'was stopped' : 'failed';
      throw new Error(
        `${this.source}: chat template ${did} on ${variables.messages.length} messages: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  private renderAs(
    variables: { messages: readonly ChatMessage[] } & Record<string, unknown>,
    form: ContentForm,
  ): Rendered {
    const { limits, program } = this;
    const given = { ...variables, messages: variables.messages.map(message => withContentAs(form, message)) };
    const rendered = withinTime(limits.time, () => render(program, given, limits));
    if (!rendered) throw outOfTime(limits);
    return rendered.value;
  }

  /** Tries one turn as a text and as parts. A template that refuses both is left to refuse the conversation itself. */
  private findContentForm(variables: Record<string, unknown>): ContentForm {
    const probe = 'probe0f0content';
    const writes = (content: ChatMessage['content']): boolean => {
      try {
        const { text } = this.renderAs({ ...variables, messages: [{ role: 'user', content }] }, 'either');
        return text.includes(probe) && !/['"]type['"]/.test(text);
      } catch (error) {
        if (error instanceof RenderLimitError) throw error;
        return false;
      }
    };
    const readsParts = writes([{ type: 'text', text: probe }]);
    if (!readsParts) return 'text';
    return writes(probe) ? 'either' : 'parts';
  }
}

/** What a template can read as the content of a turn. */
type ContentForm = 'text' | 'parts' | 'either';

function withContentAs(form: ContentForm, message: ChatMessage): ChatMessage {
  const { content } = message;
  if (form === 'text' && Array.isArray(content)) return { ...message, content: textOf(message) };
  if (form === 'parts' && typeof content === 'string')
    return { ...message, content: [{ type: 'text', text: content }] };
  return message;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
