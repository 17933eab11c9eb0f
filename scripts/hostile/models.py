"""Indexes, names and links in docs/reliability.md: model directories. What lies in them is told in recipes, which the
tests and `make_hostile.py` carry out: a file may be made only when it is needed, as pipes and links
can't be kept in a repository and sparse files need not be.

    {"hex": ...} {"text": ...} {"good": "w"}   a file: bytes, text, a good shard with this tensor
    {"case": NAME}                             a file: that of another case
    {"sparse": SIZE, "hex": ...}               a file of SIZE bytes that starts so and goes on in zeros
    {"fifo": true} {"socket": true} {"link": TARGET} {"dir": true}
"""

import json

INDEX = "pytorch_model.bin.index.json"
ONE, TWO = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"
MODEL = "pytorch_model.bin"


def index(weight_map, total=48, **more):
    metadata = {"metadata": {"total_size": total}}
    return {"text": json.dumps({**metadata, "weight_map": weight_map, **more})}


def single(recipe, name=MODEL):
    return {name: recipe}


def rows():
    """(name, row, what, files of the directory, rule or kind, phrase, other than 65: the code)."""
    yield from names()
    yield from contents()
    yield from files()


def names():
    refused = "Index"
    for slug, name in [("parent", "../x.bin"), ("grandparent", "../../../../etc/passwd"), ("absolute", "/etc/passwd"), ("below", "d/x.bin"), ("backslash", "d\\x.bin"),
                       ("nul", "x\0.bin"), ("empty", ""), ("dot", "."), ("dots", ".."), ("hidden", ".x.bin"), ("too-long", "x" * 256), ("inner-dots", "a..b"),
                       ("proc", "/proc/self/mem"), ("url", "http://127.0.0.1:9/x.bin"), ("home", "~/../x")]:
        yield f"m1-{slug}", "index", f"weight_map leads to {name[:30]!r}", {INDEX: index({"w": name}), ONE: {"good": "w"}}, refused, "plain name"
    values = [("number", 7), ("null", None), ("list", [ONE]), ("object", {"file": ONE}), ("true", True)]
    for slug, value in values:
        yield f"m1-value-{slug}", "index", f"weight_map holds a {slug}", {INDEX: index({"w": value}), ONE: {"good": "w"}}, refused, "file name"
    texts = [("empty", ""), ("html", "<html>404</html>"), ("cut", '{"weight_map": {"w": "' + ONE), ("no-map", "{}"), ("null-map", '{"weight_map": null}'), ("list-map", '{"weight_map": ["w"]}'),
             ("empty-map", '{"weight_map": {}}'), ("list", "[]"), ("trailing", '{"weight_map": {"w": "%s"}} x' % ONE), ("nan", '{"metadata": {"total_size": NaN}, "weight_map": {"w": "%s"}}' % ONE),
             ("metadata-list", '{"metadata": [], "weight_map": {"w": "%s"}}' % ONE), ("name-twice", '{"weight_map": {"w": "%s", "w": "%s"}}' % (ONE, TWO)),
             ("name-twice-escaped", '{"weight_map": {"w": "%s", "\\u0077": "%s"}}' % (ONE, ONE)), ("map-twice", '{"weight_map": {"w": "%s"}, "weight_map": {"v": "%s"}}' % (ONE, TWO)),
             ("line-break-in-name", '{"weight_map": {"w\\nhint: run rm -rf /": "../x"}}'), ("lone-surrogate", '{"weight_map": {"\\ud800": "%s"}}' % ONE),
             ("deep", '{"x": ' + "[" * 2000), ("byte-order-mark", '\ufeff{"weight_map": {"w": "%s"}}' % ONE),
             ("lfs-pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13\n")]
    for slug, text in texts:
        yield f"m2-{slug}", "index", f"an index: {slug.replace('-', ' ')}", {INDEX: {"text": text}, ONE: {"good": "w"}}, refused, ""
    yield "m2-not-utf8", "index", "an index that is not UTF-8", {INDEX: {"hex": b'{"weight_map": {"\xff": "x"}}'.hex()}}, refused, ""
    yield "m2-huge", "index", "an index of 50 GB, sparse", {INDEX: {"sparse": 50 << 30, "hex": "7b"}}, "Data", "too large"


def contents():
    one = {ONE: {"good": "v"}, TWO: {"good": "w"}}
    good = {"v": ONE, "w": TWO}
    yield "m3-good", "index", "a good sharded model", {INDEX: index(good), **one}, "ok", ""
    yield "m3-not-in-shard", "index", "a name that no shard holds", {INDEX: index({**good, "lost": ONE}), **one}, "Data", "lost"
    yield "m3-not-in-index", "index", "a tensor that the index does not map", {INDEX: index({"v": ONE, "u": TWO}), **one}, "Data", "`w`"
    yield "m3-two-shards", "index", "a tensor in two shards, alike, and one in none", {INDEX: index({"v": ONE, "w": TWO}), ONE: {"good": "w"}, TWO: {"good": "w"}}, "Data", "`v`"
    yield "m3-shard-missing", "index", "a shard is missing", {INDEX: index(good), ONE: {"good": "v"}}, "NoInput", TWO
    yield "m3-total-size", "index", "a wrong total_size: a warning", {INDEX: index(good, 7), **one}, "ok", ""
    yield "m3-wrong-shard", "index", "a name mapped to the other shard: found, and noted", {INDEX: index({"v": TWO, "w": ONE}), **one}, "ok", ""
    yield "m3-shard-html", "index", "a shard that is a web page", {INDEX: index(good), ONE: {"good": "v"}, TWO: {"text": "<html>403</html>"}}, "WrongKind", "HTML"
    yield "m3-shard-lfs", "index", "a shard that is a pointer", {INDEX: index(good), ONE: {"good": "v"}, TWO: {"case": "p10-lfs-pointer"}}, "WrongKind", "git-LFS"
    yield "m3-shard-exploit", "index", "the second shard calls os.system", {INDEX: index(good), ONE: {"good": "v"}, TWO: {"case": "p1-os_system"}}, "ForbiddenGlobal", "os.system"
    yield "m3-both-formats", "index", "safetensors beside .bin: .bin is taken, and that is said", {MODEL: {"good": "w"}, "model.safetensors": {"hex": "00"}}, "ok", ""
    yield "m3-only-safetensors", "index", "only safetensors, which are none", {"model.safetensors": {"hex": "00"}}, "Empty", "1 byte"
    yield "m3-empty-directory", "index", "an empty directory", {}, "NoInput", ""
    yield "m3-incomplete", "names", "a download that was not finished", {MODEL + ".incomplete": {"hex": "504b0304"}}, "NoInput", "interrupted"
    yield "m3-hub-incomplete", "names", "an index whose shard is still being downloaded", {INDEX: index(good), ONE: {"good": "v"}, TWO + ".incomplete": {"hex": ""}}, "NoInput", TWO
    yield "m3-aria2", "names", "a download in progress beside the file", {MODEL: {"sparse": 1 << 20, "hex": ""}, MODEL + ".aria2": {"hex": "00"}}, "WrongKind", "zeros"
    config = [("html", "<html></html>"), ("cut", '{"vocab_size": '), ("empty", ""), ("list", "[]"), ("twice", '{"vocab_size": 1, "vocab_size": 2}'), ("deep", "[" * 5000),
              ("lfs", "version https://git-lfs.github.com/spec/v1\n")]
    for slug, text in config:
        rule, says = ("ok", "") if slug == "twice" else ("Data", "config.json")
        yield f"m4-config-{slug}", "names", f"config.json: {slug}", {MODEL: {"good": "w"}, "config.json": {"text": text}}, rule, says
    yield "m4-config-huge", "names", "a config.json of 50 GB, sparse", {MODEL: {"good": "w"}, "config.json": {"sparse": 50 << 30, "hex": "7b"}}, "Data", "too large"
    yield "m4-name-is-path", "names", "a tensor whose name is a path", {MODEL: {"good": "../../hostile-canary"}}, "ok", ""
    yield "m4-name-escape-codes", "names", "a tensor name of escape codes", {MODEL: {"good": "\x1b[2J\x1b[31m\nerror: none"}}, "ok", ""


def files():
    kinds = [("fifo", {"fifo": True}), ("socket", {"socket": True}), ("directory", {"dir": True}), ("device", {"link": "/dev/zero"}), ("urandom", {"link": "/dev/urandom"}),
             ("tty", {"link": "/dev/tty"}), ("proc-mem", {"link": "/proc/self/mem"}), ("proc-maps", {"link": "/proc/self/maps"})]
    for slug, recipe in kinds:
        said = "Empty" if slug.startswith("proc") else "Data"
        yield f"m5-{slug}", "links", f"the weight file is a {slug}", {MODEL: recipe}, said, ""
        if slug in ("fifo", "directory", "device"):
            yield f"m5-index-{slug}", "links", f"the index is a {slug}", {INDEX: recipe}, "Data", ""
            yield f"m5-shard-{slug}", "links", f"a shard is a {slug}", {INDEX: index({"w": ONE}), ONE: recipe}, "Data", ""
            yield f"m5-config-{slug}", "links", f"config.json is a {slug}", {MODEL: {"good": "w"}, "config.json": recipe}, "Data", ""
    yield "m5-link", "links", "a link to a file, as the Hub's cache has them", {MODEL: {"link": "blob"}, "blob": {"good": "w"}}, "ok", ""
    yield "m5-link-dangling", "links", "a link to nothing", {MODEL: {"link": "absent"}}, "NoInput", "link"
    yield "m5-link-loop", "links", "a link to itself", {MODEL: {"link": MODEL}}, "NoInput", ""
    yield "m5-text-line", "links", "a line of text of 50 GB that is there", {MODEL: {"sparse": 50 << 30, "hex": "800253"}}, "PickleLimit", "lines"
    yield "m5-link-etc-passwd", "links", "a link to a text file elsewhere", {MODEL: {"link": "/etc/passwd"}}, "WrongKind", "text file"
    yield "m5-sparse", "links", "a file of 50 GB of zeros, sparse", {MODEL: {"sparse": 50 << 30, "hex": ""}}, "WrongKind", "zeros"
    yield "m5-sparse-zip", "links", "a zip header and 50 GB of zeros", {MODEL: {"sparse": 50 << 30, "hex": "504b0304"}}, "Truncated", ""
    yield "m5-sparse-legacy", "links", "a legacy magic and 50 GB of zeros", {MODEL: {"sparse": 50 << 30, "hex": "80028a0a6cfc9c46f9206aa850192e"}}, "Pickle", ""
    yield "m5-sparse-long", "links", "a LONG4 of 1 GB that is there", {MODEL: {"sparse": 2 << 30, "hex": "80028b00000040"}}, "PickleLimit", ""
    yield "m5-sparse-text", "links", "a text of 40 GB that is there", {MODEL: {"sparse": 50 << 30, "hex": "80048d" + (40 << 30).to_bytes(8, "little").hex()}}, "PickleLimit", ""
