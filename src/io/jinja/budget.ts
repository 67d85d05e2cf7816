// What one rendering may take. A template comes with a model's files, from anybody, and Jinja can loop for ever and
// double a text again and again: all that is made is counted here, before it is made where it could be large.

export interface RenderLimits {
  /** Milliseconds of one rendering. */
  readonly time: number;
  /** Characters of the text that comes out, and of any on the way. */
  readonly characters: number;
  /** Numbers of one `range`. */
  readonly range: number;
  /** Everything made on the way, kept or not: characters, 64 for an item of a list, 1 for an expression evaluated. */
  readonly work: number;
}

/**
 * Far above any conversation that a model could read: a context of a million tokens is some four million characters.
 */
export const renderLimits: RenderLimits = { time: 5000, characters: 2 ** 25, range: 100_000, work: 2 ** 29 };

/** A template that takes too much. The message says what it did and what the limit is. */
export class RenderLimitError extends Error {
  override readonly name = 'RenderLimitError';
}

export const outOfTime = (limits: RenderLimits): RenderLimitError =>
  new RenderLimitError(`rendering takes longer than ${limits.time / 1000} s`);

const itemWork = 64;
/** Between two looks at the clock. */
const callsAtOnce = 256;

class Budget {
  readonly limits: RenderLimits;
  private readonly deadline: number;
  private work = 0;
  private calls = 0;

  constructor(limits: RenderLimits) {
    this.limits = limits;
    this.deadline = performance.now() + limits.time;
  }

  spend(work: number): void {
    this.work += work;
    if (this.work > this.limits.work)
      throw new RenderLimitError(
        `makes more texts and lists on the way than the limit of ${this.limits.work} characters`,
      );
    if (++this.calls % callsAtOnce === 0 && performance.now() > this.deadline) throw outOfTime(this.limits);
  }
}

/** Of the rendering that runs: it is synchronous, so that there is one at a time, or one within another. */
let budget = new Budget(renderLimits);

export function withBudget<T>(limits: RenderLimits, body: () => T): T {
  const outer = budget;
  budget = new Budget(limits);
  try {
    return body();
  } finally {
    budget = outer;
  }
}

/** Counts what is done or made: 1 for each expression evaluated and each character. */
export const spend = (work: number): void => {
  budget.spend(work);
};

/** Counts `count` items of a list. */
export const spendItems = (count: number): void => {
  budget.spend(itemWork * count);
};

/** @throws RenderLimitError for a text of more characters than are allowed */
export function checkLength(length: number): void {
  const { characters } = budget.limits;
  if (length > characters)
    throw new RenderLimitError(`makes a text of ${length} characters, at most ${characters} are allowed`);
}

/** Counts a text that was made. */
export function made(text: string): string {
  checkLength(text.length);
  budget.spend(text.length);
  return text;
}

/** The text that `write` makes in pieces. It is measured before it is made: a list can hold itself many times over. */
export function assemble(what: string, write: (out: (piece: string) => void) => void): string {
  let length = 0;
  write(piece => {
    budget.spend(1);
    reserve(what, (length += piece.length));
  });
  budget.spend(length);
  const pieces: string[] = [];
  write(piece => pieces.push(piece));
  return pieces.join('');
}

/** Refuses what would be a text of more characters than are allowed, before it is made. */
export function reserve(what: string, characters: number): void {
  const most = budget.limits.characters;
  if (characters > most)
    throw new RenderLimitError(`${what} would make more than ${most} characters, the most that are allowed`);
}

/** @throws RenderLimitError for a range of more numbers than are allowed */
export function checkRange(count: number): void {
  const most = budget.limits.range;
  if (count > most) throw new RenderLimitError(`asks for a range of ${count} numbers, at most ${most} are allowed`);
}
