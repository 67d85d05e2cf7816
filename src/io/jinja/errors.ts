// What is wrong with a template, or with what it does; messages are Jinja's and Python's where people know them.

/** A template that cannot be parsed. Names the line. */
export class TemplateSyntaxError extends Error {
  override readonly name = 'TemplateSyntaxError';

  constructor(message: string, source: string, position: number) {
    super(`line ${source.slice(0, position).split('\n').length}: ${message}`);
  }
}

/** What Python would raise while rendering: a TypeError, a ZeroDivisionError, an UndefinedError, raise_exception. */
export class TemplateError extends Error {
  override readonly name: string = 'TemplateError';
}
