// What can go wrong on a GPU, as one class. Errors of the device arrive late: they are thrown where a result is
// awaited.

export type WebGPUErrorKind =
  'unavailable' | 'unsupported' | 'validation' | 'out-of-memory' | 'internal' | 'lost' | 'closed';

/** `kind` says what happened, `op` in which operation (the last one recorded, where the device does not say). */
export class WebGPUError extends Error {
  override readonly name = 'WebGPUError';
  readonly kind: WebGPUErrorKind;
  readonly op: string;

  constructor(kind: WebGPUErrorKind, op: string, message: string) {
    super(`${op}: ${message}`);
    this.kind = kind;
    this.op = op;
  }
}
