"""Writes tests/fixtures/tokenizer/parts.json: what Hugging Face's tokenizers makes of small texts, one component at a time, at its borders.

    pip install tokenizers && python scripts/tokenizerParts.py
"""

import json
import pathlib

import tokenizers
from tokenizers import Tokenizer

TEXTS = [
    "", " ", "a", " a", "a ", "a b", "  a  b  ", "a.b, c!", "don't they're I'm you'd we'll it's I've", "x1 22 ٣३", "Straße İΣ ΟΔΟΣ ﬁ", "é e\u0301 ö",
    "日本語 漢字", "👍🏽 👩\u200d👧", "\t\n\r\n x\u00a0y\u3000z\u0085w", "a\x00b\x01c\x7fd\u00ade\ufffdf", "▁a▁ b", "##a b##", "a--b---c", "aaa aab abab", "AbC",
    "\ufeffa\u200bb", "1,234.5 (x)", "!?", "a b", "_a_b", "𠀀x", "naïve Å\u212b½", "b" * 12,
]
WORD = {"type": "WordLevel", "vocab": {"?": 0, "a": 1, "b": 2}, "unk_token": "?"}


def made(model=WORD, added=(), **parts):
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added), "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None, "model": model, **parts,
    }))


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def metaspace(scheme, split=True, replacement="▁"):
    return {"type": "Metaspace", "replacement": replacement, "prepend_scheme": scheme, "split": split}


def bert(clean, chinese, accents, lower):
    return {"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese, "strip_accents": accents, "lowercase": lower}


NORMALIZERS = [
    *({"type": kind} for kind in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]),
    *({"type": "Strip", "strip_left": left, "strip_right": right} for left in [False, True] for right in [False, True]),
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "xx"},
    {"type": "Replace", "pattern": {"String": "."}, "content": "$&"},
    {"type": "Replace", "pattern": {"Regex": "-+|\\s+"}, "content": "_"},
    {"type": "Replace", "pattern": {"Regex": "b*"}, "content": ""},
    bert(True, True, None, True), bert(True, False, None, False), bert(False, True, True, False), bert(False, False, False, True), bert(True, True, True, True),
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
    {"type": "Sequence", "normalizers": []},
]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PRE_TOKENIZERS = [
    *(split({"String": "-"}, behavior, invert) for behavior in BEHAVIORS for invert in [False, True]),
    *(split({"Regex": "[a-c]+|\\d"}, behavior) for behavior in BEHAVIORS),
    *({"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS),
    *({"type": "Digits", "individual_digits": single} for single in [False, True]),
    *({"type": kind} for kind in ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"]),
    {"type": "CharDelimiterSplit", "delimiter": "a"},
    *({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex} for prefix in [False, True] for regex in [False, True]),
    *(metaspace(scheme, cut) for scheme in ["first", "never", "always"] for cut in [False, True]),
    *({"type": "FixedLength", "length": length} for length in [1, 3]),
    {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("first"), {"type": "Digits", "individual_digits": True}]},
    {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always")]},
]
TOKENS = [
    [], ["a"], ["a", "b"], ["▁a", "▁b", "c"], ["▁", "a"], ["##a", "b", "##c"], ["a</w>", "b", "c</w>"], ["Ġa", "Ċ", "b"], ["Ã", "©"], ["Ã", "x"], ["é", "Ġ日"],
    ["<0x41>", "<0xC3>", "<0xA9>", "b"], ["<0xC3>", "a"], ["<0xFF>", "<0x41>"], ["<0xc3>", "<0xa9>"], ["<0x4>", "<0xGG>"], ["a", ".", "b", " ,", "?"],
    ["do", "not", "n't", "'m", "'s", "'", "x"], ["  a", "b  ", "   "], [" ", " ", "a"], ["", "a", ""], ["xxa", "bxx", "xx"], ["x", "x", "x", "a", "x", "x"],
    ["▁▁a▁", "b▁"], ["I", " 've", " 're", " do not"], ["a", "!", " !"], ["y", "x"], ["xyx"],
]
DECODERS = [
    None,
    *({"type": kind} for kind in ["ByteFallback", "Fuse"]),
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    *({"type": "Strip", "content": "x", "start": start, "stop": stop} for start, stop in [(0, 0), (1, 0), (0, 1), (2, 2), (9, 9)]),
    *(metaspace(scheme) for scheme in ["first", "never", "always"]),
    *({"type": "WordPiece", "prefix": "##", "cleanup": cleanup} for cleanup in [False, True]),
    {"type": "BPEDecoder", "suffix": "</w>"},
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    *({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": strip, "start": start, "stop": stop},
    ]} for strip, start, stop in [(" ", 1, 0), ("x", 2, 1), ("x", 0, 2), (" ", 9, 9)]),
    {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": "-"}]},
]

LETTERS = {"type": "BPE", "vocab": {t: i for i, t in enumerate(["?", "a", "b", "c", "ab", "abc", "bc", "##b", "a</w>", "b</w>", "ab</w>", "<0x64>"])}, "merges": []}


def bpe(**fields):
    return {**LETTERS, "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **fields}


def unigram(pieces, **fields):
    return {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": [["?", 0.0], *pieces], **fields}


PIECES = [["a", -1.0], ["b", -2.0], ["ab", -2.5], ["c", -3.0], ["abc", -5.5], ["👍", -4.0]]
BYTES = [[f"<0x{byte:02X}>", -9.0] for byte in "dé".encode()]
WORDS = {t: i for i, t in enumerate(["?", "a", "b", "ab", "##b", "##c", "##bc", "abb", "a" * 3])}
MODELS = [
    bpe(merges=[["a", "b"], ["ab", "c"]]), bpe(merges=[["b", "c"], ["a", "b"]]), bpe(merges=[["b", "c"], ["a", "b"], ["ab", "c"]], unk_token="?"),
    bpe(merges=[["b", "c"]], unk_token="?", fuse_unk=True), bpe(merges=[["b", "c"]], unk_token="?", ignore_merges=True), bpe(byte_fallback=True, unk_token="?"), bpe(byte_fallback=True),
    bpe(end_of_word_suffix="</w>", merges=[["a", "b</w>"]], unk_token="?"),
    unigram(PIECES), unigram(PIECES, unk_id=None), unigram([*PIECES, *BYTES], byte_fallback=True), unigram([*PIECES, ["aa", -2.0], ["ba", -3.0]]),
    {"type": "WordPiece", "vocab": WORDS, "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 4},
    {"type": "WordPiece", "vocab": WORDS, "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    {"type": "WordLevel", "vocab": {"?": 0, "ab": 1, "abc": 2}, "unk_token": "?"},
]
MODEL_TEXTS = ["", "a", "b", "ab", "abc", "abcabc", "aabb", "abb", "bca", "d", "ad", "dd", "addb", "é", "aé", "👍", "a👍b", "👍👎", "abcd", "aaa", "aaaa", "aaaab", "baba", "abbc", "c"]

NAMES = ["<s>", "<S>", "<l>", "<r>", "<w>", "<n>", "<nn>"]
ADDED = [
    {"id": 3 + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **more}
    for i, (content, more) in enumerate([
        ("<s>", {"special": True}), ("<S>", {"normalized": True}), ("<l>", {"lstrip": True}), ("<r>", {"rstrip": True}), ("w", {"single_word": True}), ("<n", {}), ("<nn>", {}),
    ])
]
ADDED_TEXTS = [
    "<s>", "a<s>b", "a <l> b", "a <r> b", "a  <l><r>  b", "\t<l>", "<r>\n", "w", "a w b", "aw", "wa", "w.", "_w", "1w", "éw", "w\u0301", "日w", "w w", "<n<nn><n>", "<nn", "<S><s>", "<S> <s>",
    "<l> <r> <l>", "a\u00a0<l>\u2003b", "a\ufeff<l>", "<s><s>", "< s>", "<", "ww", "w-w", "𠀀w", "w𠀀", "👍w", " ",
]
LOWER = {"type": "Lowercase"}
SPECIAL = {"[A]": {"id": "[A]", "ids": [3], "tokens": ["<s>"]}, "[B]": {"id": "[B]", "ids": [4, 5], "tokens": ["<S>", "<l>"]}}


def template(*parts):
    return {"type": "TemplateProcessing", "single": [
        {"Sequence": {"id": "A", "type_id": 0}} if part == "$A" else {"SpecialToken": {"id": part, "type_id": 0}} for part in parts
    ], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": SPECIAL}


PROCESSORS = [
    template("$A"), template("[A]", "$A"), template("$A", "[B]"), template("[B]", "[A]", "$A", "[A]"),
    {"type": "BertProcessing", "sep": ["<S>", 4], "cls": ["<s>", 3]}, {"type": "RobertaProcessing", "sep": ["<S>", 4], "cls": ["<s>", 3], "trim_offsets": True, "add_prefix_space": True},
    {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}, template("[A]", "$A", "[B]")]},
]


def tried(run):
    try:
        return run()
    except BaseException:  # whatever the library refuses, its panics too
        return None


def main():
    ids = lambda tokenizer, text: tried(lambda: tokenizer.encode(text).ids)
    result = {
        "tokenizers": tokenizers.__version__,
        "normalizers": [[part, [[text, made(normalizer=part).normalizer.normalize_str(text)] for text in TEXTS]] for part in NORMALIZERS],
        "preTokenizers": [[part, [[text, [piece for piece, _ in made(pre_tokenizer=part).pre_tokenizer.pre_tokenize_str(text)]] for text in TEXTS]] for part in PRE_TOKENIZERS],
        "decoders": [[part, [[tokens, tried(lambda: made(decoder=part).decoder.decode(tokens)) if part else " ".join(tokens)] for tokens in TOKENS]] for part in DECODERS],
        "models": [[model, [[text, ids(made(model), text)] for text in MODEL_TEXTS]] for model in MODELS],
        "added": [[parts, [[text, ids(made(added=ADDED, **parts), text)] for text in ADDED_TEXTS]] for parts in [
            {}, {"normalizer": LOWER}, {"pre_tokenizer": {"type": "WhitespaceSplit"}}, {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
        ]],
        "addedTokens": ADDED,
        "processors": [[part, ids(made(added=ADDED, post_processor=part), "a")] for part in PROCESSORS],
    }
    target = pathlib.Path(__file__).parent.parent / "tests/fixtures/tokenizer/parts.json"
    lines = []
    for key, value in result.items():
        if isinstance(value, list):
            lines.append(f'"{key}": [\n' + ",\n".join(json.dumps(entry, ensure_ascii=True) for entry in value) + "\n]")
        else:
            lines.append(f'"{key}": {json.dumps(value)}')
    target.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    print(target, target.stat().st_size)


main()
