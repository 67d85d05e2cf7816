// Whether products with quantised weights may round their other operand: each block of 32 of its elements to 16 bits
// with a scale of its own, an error of at most 2^-16 of the block's largest number. Generation allows it, because the
// CPU multiplies integers faster; nothing that is differentiated or compared with other implementations does. Which
// kernels make use of it is theirs to decide.

let rounding = false;

/** Products that `body` (synchronous) computes and that no gradient flows through may round. */
export function roundedProducts<T>(body: () => T, allowed = true): T {
  const before = rounding;
  rounding = allowed;
  try {
    return body();
  } finally {
    rounding = before;
  }
}

export const mayRound = (): boolean => rounding;
