// What a kept mutant is: a patch that breaks one thing, and the tests that must notice.

export interface Mutant {
  readonly name: string;
  readonly file: string;
  readonly search: string;
  readonly replace: string;
  readonly tests: readonly string[];
  /** Run these tests only, for speed. */
  readonly only?: string;
}

/** `tests` are names without folder and ending, separated by spaces; `only` is a pattern of test names. */
export type Patch = readonly [name: string, search: string, replace: string, tests: string, only?: string];

/** Patches by the file they break. */
export type Patches = Readonly<Record<string, readonly Patch[]>>;
