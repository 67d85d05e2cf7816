"""Tokenizers of every kind, made by Hugging Face's tokenizers and SentencePiece, with the ids of many strings and the texts of many ids.

    python scripts/tokenizerCases.py OUT.json STRINGS SEED

Fewer than 500 strings make a small file, with a small character map. It needs `tokenizers`, `sentencepiece` and `protobuf`. scripts/checkTokenizers.ts runs it and compares.
"""

import io
import json
import random
import sys
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

out, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)

words = (
    "the keeper of the light said: don't go, it's late! we've 12,345.67 miles (or more) to go... they're I'm you'll he'd "
    "naïve café Ångström Straße ΟΔΟΣ σοφός İstanbul ıI ﬁne ﬀ Ⅷ ½ ² ㎏ ｶﾞ ガ 漢字 日本語 中文字符 한국어 안녕 𠀀𪛖𫝀 "
    "Привет мир שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดี lâmpada piñata e\u0301cole o\u0308l "
    "x=1; y+=2 // comment <tag attr='1'> a_b-c @user #hash $5 %d ^ & * ~ `code` {json: [1, 2]} \\n \\t "
).split()
spaces = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u0085", "\u2003", "\u2028", "\u3000", "\ufeff", "\u200b", "\u1680", "\x1c", "\x0b", "   \n "]
odd = [
    "\u0301", "\u0308", "\u0345", "\u20dd", "\ufe0f", "\u200d", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🏴\U000e0067\U000e007f", "\u1100\u1161\u11a8", "가",
    "\x00", "\x01", "\x7f", "\u00ad", "\ufffd", "\ufffe", "\ue000", "\U000f0000", "\U0001d400", "\u0e33", "\u1e9b\u0323", "Å", "\u212b", "～", "\uff5e", "…", "—",
    "‘", "”", "٣", "५", "௧", "Ⅷ", "①", "▁", "Ġ", "Ċ", "##a", "<0x41>", "<unk>", "é", "e\u0301", "క్ష", "ක්‍ර", "ि", "\u0903",
]
tokens = ["<s>", "</s>", "<pad>", "[CLS]", "<|im_start|>", "<|im_end|>", "<mask>", "<word>", "<norm>", "<Norm>", "<left>", "<right>"]


def code_point():
    plane = rng.choice([0] * 8 + [1] * 4 + [2, 3, 14, 15, 16])
    while True:
        c = plane * 0x10000 + rng.randrange(0x10000) if rng.random() < 0.7 else rng.randrange(0x3000)
        # Characters that are younger than the tables are letters to some and nothing to others.
        if not 0xD800 <= c < 0xE000 and (unicodedata.category(chr(c)) != "Cn" or c & 0xFFFE == 0xFFFE):
            return chr(c)


def string():
    parts = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.random()
        if kind < 0.4:
            parts.append(rng.choice(words))
        elif kind < 0.6:
            parts.append(rng.choice(spaces))
        elif kind < 0.78:
            parts.append(rng.choice(odd))
        elif kind < 0.9:
            parts.append(code_point())
        else:
            parts.append(rng.choice(tokens))
        if rng.random() < 0.4:
            parts.append(" ")
    return "".join(parts)


strings = list(dict.fromkeys(["", " ", "  ", "a"] + words + [" " + w for w in spaces] + odd + [string() for _ in range(count)]))
corpus = [" ".join(rng.choice(words) for _ in range(12)) for _ in range(2000)]
added = [
    AddedToken("<s>", special=True), AddedToken("</s>", special=True), AddedToken("<pad>", special=True), AddedToken("<|im_start|>", special=True),
    AddedToken("<|im_end|>", special=True), AddedToken("<mask>", special=True, lstrip=True), AddedToken("<word>", single_word=True, normalized=False),
    AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False), AddedToken("<Norm>", normalized=True),
]


def finish(tokenizer):
    tokenizer.add_tokens(added)
    bos, eos = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", bos), ("</s>", eos)])
    return tokenizer


def bert(lowercase, strip=None):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]", "[CLS]"], show_progress=False))
    t.decoder = decoders.WordPiece()
    return finish(t)


def byte_level(pre, prefix=False):
    t = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pre is None)
    t.pre_tokenizer = level if pre is None else pre_tokenizers.Sequence([*pre, level])
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.decoder = decoders.ByteLevel()
    return finish(t)


byte_pieces = [f"<0x{b:02X}>" for b in range(256)]


def byte_fallback(normalizer, pre, decoder):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", *byte_pieces], show_progress=False))
    t.decoder = decoder
    d = json.loads(t.to_str())
    # Byte pieces are no added tokens there.
    d["added_tokens"] = d["added_tokens"][:1]
    return finish(Tokenizer.from_str(json.dumps(d)))


# Sources and what stands for them, in hexadecimal: letters, ligatures, composed pairs, spaces, what goes, and a beginning of another source.
small_map = '''41 30A\tC5\nFB01\t66 69\nFB00\t66 66\n304B 3099\t304C\nFF76 FF9E\t30AC\n2003\t20\n3000\t20\nA0\t20\n200B\t\nAD\t\n2026\t2E 2E 2E
6F 308\tF6\n65 301\tE9\n2168\t49 58\nBD\t31 2044 32\n1100 1161\tAC00\n1F44D\t2B 31\n20000\t4E00\nA\t20\nD\t20\nFF5E\t7E\n'''


def unigram(rule, fallback=False, scheme="always", extra=True):
    model = io.BytesIO()
    rules = {"normalization_rule_name": rule}
    if count < 500:
        with tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False) as tsv:
            tsv.write(small_map)
        rules = {"normalization_rule_tsv": tsv.name}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=500, minloglevel=2, **rules,
        character_coverage=0.98, byte_fallback=fallback, hard_vocab_limit=False)
    proto = spm.ModelProto.FromString(model.getvalue())
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=0, byte_fallback=fallback))
    charsmap = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    t.normalizer = normalizers.Sequence([charsmap, normalizers.Replace(Regex(" {2,}"), " ")]) if extra else charsmap
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    t.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return finish(t)


def word_level(normalizer, pre, decoder=None):
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.normalizer = normalizer
    t.pre_tokenizer = pre
    # All that the strings are cut into is known, so that every cut shows.
    t.train_from_iterator(strings, trainers.WordLevelTrainer(vocab_size=10**6, special_tokens=["<unk>"], show_progress=False))
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(["<unk>", *sorted(t.get_vocab())]))}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    whole.normalizer, whole.pre_tokenizer = normalizer, pre
    if decoder:
        whole.decoder = decoder
    return finish(whole)


gpt4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
llama = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
P = pre_tokenizers
made = {
    "bert-uncased": bert(True),
    "bert-cased": bert(False),
    "bert-accents": bert(True, False),
    "gpt2": byte_level(None),
    "gpt2-prefix": byte_level(None, True),
    "llama3": byte_level([P.Split(Regex(gpt4), "isolated")]),
    "smollm": byte_level([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]),
    "llama2": byte_fallback(llama, None, decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])),
    "gemma": byte_fallback(normalizers.Replace(" ", "▁"), P.Split(" ", "merged_with_previous"), decoders.Sequence(back)),
    "t5": unigram("nmt_nfkc"),
    "xlmr": unigram("nmt_nfkc_cf", extra=False, scheme="first"),
    "unigram-bytes": unigram("nfkc", fallback=True, scheme="never"),
    "whitespace": word_level(normalizers.NFKD(), P.Whitespace(), decoders.BPEDecoder()),
    "punctuation": word_level(normalizers.NFKC(), P.Sequence([P.WhitespaceSplit(), P.Punctuation("contiguous"), P.Digits()])),
    "accents": word_level(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]),
                          P.Split(Regex(r"[\s\p{P}]"), "merged_with_next")),
    "delimiter": word_level(normalizers.Replace(Regex(r"[aeiou]"), "$1"), P.Sequence([P.CharDelimiterSplit(" "), P.Split(Regex(r"\w+"), "removed", invert=True)])),
}

result = {"strings": strings, "tokenizers": {}}
for name, t in made.items():
    plain = [t.encode(s, add_special_tokens=False).ids for s in strings]
    t.encode_special_tokens = True
    split = [t.encode(s, add_special_tokens=False).ids for s in strings]
    t.encode_special_tokens = False
    # Since 0.21 the library decodes an added token that it looks for in normalized text as its normalized content, which is not what was encoded.
    known = sorted(i for token, i in t.get_vocab().items() if token != "<Norm>")
    ids = [[rng.choice(known) for _ in range(rng.randrange(1, 24))] for _ in range(count // 4)]
    if t.token_to_id("<0x00>") is not None:
        first = t.token_to_id("<0x00>")
        ids += [[first + b for b in string().encode()] + [rng.choice(known)] for _ in range(count // 8)]
        ids += [[first + rng.randrange(256) if rng.random() < 0.7 else rng.choice(known) for _ in range(12)] for _ in range(count // 8)]
    texts = [[t.decode(i, skip_special_tokens=False), t.decode(i, skip_special_tokens=True)] for i in ids]
    result["tokenizers"][name] = {
        "json": t.to_str(), "special": [t.token_to_id(a.content) for a in added if a.special], "ids": plain, "split": split, "around": t.encode("x").ids, "decode": ids, "texts": texts,
    }
with open(out, "w", encoding="utf-8") as f:
    json.dump(result, f)
