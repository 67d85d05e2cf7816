// What the page and its worker say to each other.

export interface ExampleText {
  readonly prompt: string;
  readonly completion: string;
}

export interface TrainingSettings {
  readonly layers: readonly number[];
  readonly rank: number;
  readonly epochs: number;
  readonly learningRate: number;
}

export type Side = 'before' | 'after';

export type Request =
  | { readonly type: 'load'; readonly files: readonly File[]; readonly device: 'webgpu' | 'cpu' }
  | { readonly type: 'train'; readonly examples: readonly ExampleText[]; readonly settings: TrainingSettings }
  /** Ends training or an answer at its next step. */
  | { readonly type: 'stop' }
  | {
      readonly type: 'answer';
      readonly prompt: string;
      readonly strength: number;
      readonly longest: number;
      readonly sides: readonly Side[];
    }
  | { readonly type: 'save' }
  | { readonly type: 'open adapter'; readonly file: File };

export type Reply =
  /** `fallback` says why it is not the device that was asked for. */
  | { readonly type: 'device'; readonly device: string; readonly fallback?: string }
  | { readonly type: 'loading'; readonly done: number; readonly total: number }
  | { readonly type: 'model'; readonly name: string; readonly parameters: number; readonly layers: number }
  | {
      readonly type: 'step';
      readonly index: number;
      readonly total: number;
      readonly loss: number;
      readonly seconds: number;
    }
  /** There are edits now: trained (perhaps stopped early), or from an adapter. */
  | { readonly type: 'edits'; readonly summary: string; readonly from: 'trained' | 'stopped' | 'adapter' }
  | { readonly type: 'answer'; readonly side: Side; readonly text: string }
  | { readonly type: 'adapter'; readonly zip: Uint8Array<ArrayBuffer>; readonly name: string }
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'error'; readonly message: string }
  /** The request before this is done. */
  | { readonly type: 'idle' };
