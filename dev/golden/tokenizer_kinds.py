#!/usr/bin/env python3
"""Small tokenizers of each kind and what the reference libraries make of two texts with them.

    tokenizer_kinds.py make TRAIN WIKITEXT OUT        trains them, writes OUT/<name>/ and OUT/golden.json
    tokenizer_kinds.py large TRAIN OUT           larger ones with SentencePiece's whole nmt_nfkc rules, and OUT/noise.txt
    tokenizer_kinds.py compare NIBBLE_ENCODE DIR TEXT...   ids of whole files: nibble_encode against the libraries
    tokenizer_kinds.py big TRAIN OUT                  a tokenizer.json of 128k tokens and 280k merges, for timing

Needs the packages sentencepiece (0.2.3) and tokenizers (0.22); TRAIN is any English text, WIKITEXT the test part of
WikiText-2 raw (CC BY-SA 3.0), of which the first 16 KiB are kept beside the tokenizers.
"""
import base64, json, os, struct, subprocess, sys, tempfile, unicodedata

import sentencepiece as spm
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + r"+|[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER +
          r"*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

TORTURE = [
    "Plain text, then  two  spaces,   three and\ttabs\t\t\n\nnew lines\r\n and trailing   \n",
    "It's, I'm, WE'RE, they'll'Ve 'tis o'clock don’t DON'T it'ſ\n",
    "Numbers 1 12 123 1234 12345678 3.14159 1,000,000 ½ ⅔ ² ٣٤٥ 一二三 Ⅷ x1y22z333\n",
    "emoji 😀 👍🏽 👨\u200d👩\u200d👧\u200d👦 🇩🇪🇫🇷 ❤\ufe0f ☺︎ 🤦🏼\u200d♂\ufe0f 1\ufe0f\u20e3\n",
    "CJK 漢字かな交じり文。カタカナ ﾊﾝｶｸ 한국어 \u110c\u1169\u1112\u1161\u11b8 中文，标点！ 𠮷野家\n",
    "combining e\u0301 é n\u0303 ñ A\u030a Å \u212b a\u0301\u0323 a\u0323\u0301 \u1ec7 e\u0323\u0302 Z\u0351\u036b\u0343\u032a\u0302 L\u0320\u0368\u0367!\n",
    "compat ﬁ ﬂ Ａｂｃ １２３ ① ㎏ ℡ ™ … ‥ “quotes” «g» — – ‐ soft\u00adhyphen ſ ß ẞ İ ı Σς\n",
    "spaces [\u00a0] [\u2003] [\u3000] [\u200b] [\u2028] [\ufeff] [\u1680] [\u180e] [\u202f] [\u0085] [\x0b\x0c] \u3000 \u3000x\n",
    "controls \x00\x01\x02\x07\x08\x1b[0m\x1c\x7f\x80\x9f end\n",
    "scripts Привет мир Ёё שָׁלוֹם مرحبا بالعالم नमस्ते สวัสดี ကမ္ဘာ ᏣᎳᎩ ⴰⵣⵓⵍ Γειά σου ꦗꦮ 𝔘𝔫𝔦 𐍈 ǅ ʰ\n",
    "code  if (a<=b&&c!=d){x+=y<<2;}//!? ...---===>>> http://a.b/c?d=e&f=%20#g foo_bar FooBarBaz camelCase HTTPServer iOS9\n",
    "long " + "a" * 90 + "!" * 40 + " " * 40 + "x" + "\n" * 7 + "-" * 20 + "\n",
    "specials <s> </s> <unk> <|endoftext|> <|im_start|>user\n<|im_end|> <0x41> <pad> [INST] <tool> <mask>  x <mask>x xword word wordword ▁ ▁▁a b▁c\n",
    "private \ue000\uf8ff\U000f0000 nonchar \ufffe\uffff\U0010ffff replacement \ufffd tag \U000e0041\n",
]
MALFORMED = (rb"invalid " + b"\x80 \xbf\xbf \xc0\x80 \xc1\xbf \xc3 \xc3( \xe2\x82 \xe2\x28\xa1 \xe2\x82( \xed\xa0\x80 \xed\xbf\xbf \xf0\x9f\x98 "
             b"\xf0\x28\x8c\xbc \xf0\x90\x28\xbc \xf4\x90\x80\x80 \xf5\x80\x80\x80 \xf8\x88\x80\x80\x80 \xfe\xff end\n"
             b"   last line without newline  \xc3\xa9\xe2\x96")


def torture():
    return "".join(TORTURE).encode() + MALFORMED


def rules_tsv(path):
    """A part of NFKC as SentencePiece rules, enough for the texts above, so that the compiled trie stays small."""
    rules = {}
    for c in set("".join(TORTURE)) | set(map(chr, range(0x300))):
        normal = unicodedata.normalize("NFKC", c)
        if normal != c:
            rules[c] = normal
    for base in "aeinosuAEINOSU":
        for mark in "\u0300\u0301\u0302\u0303\u0308\u0323":
            rules[base + mark] = unicodedata.normalize("NFKC", base + mark)
    for c in map(chr, list(range(1, 9)) + list(range(14, 32)) + [127, 0x200b, 0xfeff, 0xad]):
        rules[c] = ""
    for c in "\t\n\x0b\x0c\r\u00a0\u1680\u2003\u3000\u2028\u202f\u0085":
        rules[c] = " "
    with open(path, "w") as file:
        for source, target in sorted(rules.items()):
            if source == target:
                continue
            file.write(" ".join(f"{ord(c):04X}" for c in source) + "\t" + " ".join(f"{ord(c):04X}" for c in target) + "\n")


def train_spm(out, name, text, vocab_size=600, **options):
    os.makedirs(f"{out}/{name}", exist_ok=True)
    spm.SentencePieceTrainer.train(input=text, model_prefix=f"{out}/{name}/tokenizer", minloglevel=2, num_threads=1, vocab_size=vocab_size,
                                   input_sentence_size=6000, shuffle_input_sentence=False, control_symbols=["<mask>"],
                                   **options)
    os.remove(f"{out}/{name}/tokenizer.vocab")


def make_spm(out, text):
    with tempfile.TemporaryDirectory() as folder:
        tsv = folder + "/rules.tsv"
        rules_tsv(tsv)
        train_spm(out, "spm-bpe", text, model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                  user_defined_symbols=["<tool>", "[INST]"], allow_whitespace_only_pieces=True, split_digits=True)
        train_spm(out, "spm-bpe-rules", text, model_type="bpe", normalization_rule_tsv=tsv, user_defined_symbols=["<tool>", "b▁c"], split_by_whitespace=False)
        train_spm(out, "spm-unigram", text, model_type="unigram", normalization_rule_tsv=tsv, user_defined_symbols=["<tool>", "[INST]"])
        train_spm(out, "spm-unigram-bytes", text, model_type="unigram", byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
                  normalization_rule_name="identity", user_defined_symbols=["<tool>"])


def save(out, name, tokenizer, old_merges=False):
    os.makedirs(f"{out}/{name}", exist_ok=True)
    data = json.loads(tokenizer.to_str())
    if old_merges:
        data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    with open(f"{out}/{name}/tokenizer.json", "w") as file:
        json.dump(data, file, ensure_ascii=False, separators=(",", ":"))


def byte_level(text, pre, normalizer=None, ignore_merges=False, size=700, more=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    steps = list(pre)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"])
    tokenizer.train([text, *more], trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
    tokenizer.add_tokens(["<tool>", AddedToken("word", single_word=True, normalized=True), AddedToken("[INST]", rstrip=True, normalized=False)])
    return tokenizer


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def make_byte_level(out, text):
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer = byte_level(text, [gpt2])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    save(out, "gpt2", tokenizer, old_merges=True)
    save(out, "gpt2-prefix", byte_level(text, [pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)], size=400))
    tokenizer = byte_level(text, [split(LLAMA3), bytes_only], ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|>:1 $B:1", special_tokens=[("<|endoftext|>", 0)])])
    save(out, "llama3", tokenizer)
    save(out, "qwen2", byte_level(text, [split(QWEN2), bytes_only], normalizer=normalizers.NFC()))
    save(out, "tekken", byte_level(text, [split(TEKKEN), bytes_only], ignore_merges=True), old_merges=True)
    save(out, "starcoder", byte_level(text, [pre_tokenizers.Digits(individual_digits=True), gpt2], size=400))
    save(out, "deepseek", byte_level(text, [split(p) for p in DEEPSEEK] + [bytes_only], size=400))
    with tempfile.NamedTemporaryFile("w") as halves:  # so that merges meet the bytes that Digits takes for numbers
        halves.write("4 ½ cups, 2½ and x² or 10³: ¼ and ¾ of 300 or 1200.\n" * 2000)
        halves.flush()
        save(out, "falcon", byte_level(text, [pre_tokenizers.Punctuation(behavior="contiguous"), gpt2, pre_tokenizers.Digits(individual_digits=False),
                                              split("[0-9][0-9][0-9]")], more=[halves.name]))
    save(out, "bloom", byte_level(text, [split(BLOOM), bytes_only], normalizer=normalizers.NFKC(), size=400))


def spm_pieces(folder):
    model = spm.SentencePieceProcessor(model_file=folder + "/tokenizer.model")
    return [(model.id_to_piece(i), model.get_score(i), model) for i in range(model.get_piece_size())]


def spm_bpe_json(folder, normalizer, pre, decoder, prefix_bos=False):
    """The BPE model of a SentencePiece file as tokenizers has it: every pair that makes a piece is a merge, best piece first."""
    pieces = spm_pieces(folder)
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    merges = []
    for piece, score, _ in pieces:
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in vocab and piece[k:] in vocab]
        merges += [(pair, score) for pair in sorted(pairs, key=lambda p: (vocab[p[0]], vocab[p[1]]))]
    merges = [pair for pair, _ in sorted(merges, key=lambda m: m[1], reverse=True)]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoder
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<mask>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("[INST]", normalized=True)])
    return tokenizer


def unigram_json(folder):
    pieces = spm_pieces(folder)
    tokenizer = Tokenizer(models.Unigram([(piece, score) for piece, score, _ in pieces], unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap_of(folder + "/tokenizer.model")), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<mask>"])
    tokenizer.add_tokens(["<tool>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    return tokenizer


def noise(path):
    """Words, random characters of all planes, runs of combining marks, random bytes."""
    import random
    random.seed(2)
    parts = []
    for _ in range(30000):
        kind = random.random()
        if kind < 0.3:
            parts.append("".join(random.choice("abcdefghij ETAOIN'.,0123456789\n\t -_/") for _ in range(random.randrange(1, 12))).encode())
        elif kind < 0.7:
            top = random.choice([0x250, 0x600, 0x1000, 0x3100, 0xD800, 0x1F800])
            parts.append("".join(map(chr, (random.randrange(1, top) for _ in range(random.randrange(1, 6))))).encode("utf-8", "ignore"))
        elif kind < 0.85:
            parts.append((random.choice("aeouAZ가한") + "".join(chr(random.randrange(0x300, 0x370)) for _ in range(random.randrange(1, 4)))).encode())
        elif kind < 0.95:
            parts.append(b" " * random.randrange(1, 4))
        else:
            parts.append(bytes(random.randrange(256) for _ in range(random.randrange(1, 5))))
    open(path, "wb").write(b"".join(parts))


def large(train, out):
    train_spm(out, "nmt-bpe", train, 4000, model_type="bpe", normalization_rule_name="nmt_nfkc", byte_fallback=True, user_defined_symbols=["<tool>", "ﬁ"])
    train_spm(out, "nmt-unigram", train, 4000, model_type="unigram", normalization_rule_name="nmt_nfkc", user_defined_symbols=["<tool>"])
    train_spm(out, "cf-unigram", train, 4000, model_type="unigram", normalization_rule_name="nmt_nfkc_cf", byte_fallback=True, user_defined_symbols=["<tool>"])
    save(out, "nmt-unigram-json", unigram_json(out + "/nmt-unigram"))
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    save(out, "llama3-16k", byte_level(train, [split(LLAMA3), bytes_only], ignore_merges=True, size=16000))
    save(out, "qwen2-16k", byte_level(train, [split(QWEN2), bytes_only], normalizer=normalizers.NFC(), size=16000), old_merges=True)
    save(out, "tekken-16k", byte_level(train, [split(TEKKEN), bytes_only], size=16000))
    save(out, "gpt2-nfkd", byte_level(train, [pre_tokenizers.ByteLevel(add_prefix_space=False)], normalizer=normalizers.NFKD(), size=4000))
    noise(out + "/noise.txt")


def make_spm_json(out):
    llama_decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = spm_bpe_json(out + "/spm-bpe", normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, llama_decoder)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    save(out, "llama2-json", tokenizer)
    save(out, "metaspace-json", spm_bpe_json(out + "/spm-bpe", None, pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False), llama_decoder))
    save(out, "gemma-json", spm_bpe_json(out + "/spm-bpe", normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                                         decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])))
    save(out, "unigram-json", unigram_json(out + "/spm-unigram"))


def fields(data):
    at = 0
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = varint() if key & 7 == 2 else 8 if key & 7 == 1 else 4
            yield key >> 3, data[at:at + size]
            at += size


def charsmap_of(path):
    spec = next(value for field, value in fields(open(path, "rb").read()) if field == 3)
    return next(value for field, value in fields(spec) if field == 2)


class Reference:
    def __init__(self, folder):
        self.spm = os.path.exists(folder + "/tokenizer.model")
        self.model = (spm.SentencePieceProcessor(model_file=folder + "/tokenizer.model") if self.spm
                      else Tokenizer.from_file(folder + "/tokenizer.json"))

    def encode(self, data):
        return self.model.encode(data) if self.spm else self.model.encode(data.decode("utf-8", "replace")).ids

    def decode(self, ids):
        return self.model.decode(ids) if self.spm else self.model.decode(ids, skip_special_tokens=True)


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data if isinstance(data, bytes) else struct.pack(f"<{len(data)}i", *data):
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{value:016x}"


def make(train, wikitext, out):
    make_spm(out, train)
    make_byte_level(out, train)
    make_spm_json(out)
    part = open(wikitext, "rb").read(16384).decode("utf-8", "ignore").encode()
    open(f"{out}/torture.txt", "wb").write(torture())
    open(f"{out}/wikitext2-part.txt", "wb").write(part)
    golden = {}
    for name in sorted(os.listdir(out)):
        if os.path.isdir(f"{out}/{name}"):
            reference = Reference(f"{out}/{name}")
            ids = reference.encode(torture())
            words = reference.encode(part)
            golden[name] = {"torture": ids, "decoded_fnv": fnv(reference.decode(ids).encode()), "wikitext2_count": len(words), "wikitext2_fnv": fnv(words)}
    with open(f"{out}/golden.json", "w") as file:
        file.write("{\n" + ",\n".join(f'"{k}": ' + json.dumps(v, separators=(",", ":"), ensure_ascii=True) for k, v in golden.items()) + "\n}\n")


def compare(program, folder, texts):
    bad = 0
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if not os.path.isdir(path) or not any(f.startswith("tokenizer.") for f in os.listdir(path)):
            continue
        reference = Reference(path)
        for text in texts:
            wanted = reference.encode(open(text, "rb").read())
            with tempfile.NamedTemporaryFile() as ids:
                report = subprocess.run([program, path, text, ids.name] + (["plain"] if reference.spm else []), capture_output=True, text=True)
                data = open(ids.name, "rb").read()
            found = list(struct.unpack(f"<{len(data) // 4}i", data))
            first = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
            verdict = "equal" if found == wanted else f"DIFFERENT at {first}: {found[first:first + 6]} for {wanted[first:first + 6]}"
            bad += found != wanted
            print(f"{name:18} {os.path.basename(text):20} {len(wanted):8} ids  {verdict}  {report.stdout.strip()}{report.stderr.strip()}", flush=True)
    return bad


def big(train, out):
    """Real words of TRAIN first, then words made of two others until 128 000 tokens; then more ways to make the same tokens."""
    import random
    random.seed(1)
    tokenizer = byte_level(train, [split(LLAMA3), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], ignore_merges=True, size=20000)
    data = json.loads(tokenizer.to_str())
    vocab, merges = data["model"]["vocab"], [tuple(m) for m in data["model"]["merges"]]
    words = list(vocab)
    while len(vocab) < 128000:
        left, right = random.choice(words), random.choice(words)
        if left + right not in vocab and len(left + right) < 16:
            vocab[left + right] = len(vocab) + 16
            merges.append((left, right))
    seen = set(merges)
    for token in list(vocab):
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if len(merges) < 280000 and pair[0] in vocab and pair[1] in vocab and pair not in seen:
                merges.append(pair)
                seen.add(pair)
    data["model"]["merges"] = merges
    os.makedirs(out, exist_ok=True)
    with open(out + "/tokenizer.json", "w") as file:
        json.dump(data, file, ensure_ascii=False, indent=2)
    print(len(vocab), "tokens", len(merges), "merges")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "make":
        make(*arguments)
    elif command in ("big", "large"):
        globals()[command](*arguments)
    else:
        sys.exit(compare(arguments[0], arguments[1], arguments[2:]) != 0)
