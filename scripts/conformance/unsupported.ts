/** A case that this version does not claim to do. */
export class Unsupported extends Error {
  override readonly name = 'Unsupported';
}
