import pathlib
import re
import types as types_

import pytest
import yaml
from markdown_it import MarkdownIt

from experiments import card, exporting
from experiments.card import Card, CardHead, Licence, Parent
from experiments.image_config import ImageMergeConfig

MIT = Licence("mit")
EVIL = "<script>alert(1)</script> | `x` [y](z) *b*\x1b[2J\n# head\u202e"
ROWS = [
    {"label": "adarank", "per_task": {"mnist": 0.875, "svhn": 0.5}, "mean": 0.6875},
    {"label": "pretrained", "per_task": {"mnist": 0.25, "svhn": 0.125}, "mean": 0.1875},
]


def make(**options):
    defaults = {
        "title": "two-digits",
        "method": "AdaRank from CART",
        "base": Parent("base", "openai/clip-vit-base-patch32@3d74acf", MIT, "ab" * 32),
        "experts": [
            Parent("mnist", "org/mnist", MIT, "cd" * 32),
            Parent("svhn", "./experts/svhn.pt", MIT),
        ],
        "heads": [CardHead("mnist", "mnist", 10), CardHead("svhn", "svhn", 10)],
        "uses": "unlabelled test images",
        "command": "python -m experiments.run_vit my_merge.yaml",
        "config": "seed: 0\nmethod:\n  origin: cart\n",
        "versions": {"packages": {"jax": "0.10.2"}, "devices": ["cpu:cpu"]},
        "seed": 0,
        "commit": "0123abc",
        "digest": "ef" * 32,
        "rows": ROWS,
        "result": "adarank",
    }
    return card.render(Card(**(defaults | options)))


def split(text):
    """Returns the front matter as values, and the tokens of the rest."""
    _, matter, rest = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(matter), MarkdownIt("commonmark").enable("table").parse(rest)


def plain(tokens):
    """Collects what a reader sees outside of code blocks."""
    inline = [child for token in tokens for child in token.children or ()]
    return " ".join(child.content for child in inline if child.type == "text")


def types(tokens):
    return {token.type for token in tokens} | {
        child.type for token in tokens for child in token.children or ()
    }


def test_front_matter_is_what_the_hub_reads():
    matter, _ = split(make())
    assert matter["base_model"] == ["openai/clip-vit-base-patch32", "org/mnist"]
    assert matter["base_model_relation"] == "merge"
    assert matter["library_name"] == "transformers"
    assert matter["license"] == "mit"
    assert "adarank" in matter["tags"]
    (entry,) = matter["model-index"]
    values = {r["dataset"]["name"]: r["metrics"][0]["value"] for r in entry["results"]}
    assert values == ROWS[0]["per_task"]


@pytest.mark.parametrize("licence", ["apache-2.0", "unknown"])
def test_licence_is_stated_only_if_all_parents_share_one_that_is_known(licence):
    matter, _ = split(make(base=Parent("base", "org/base", Licence(licence))))
    assert "license" not in matter
    unknown = [Parent("mnist", "a/b"), Parent("svhn", "a/c")]
    matter, _ = split(make(base=Parent("base", "org/base"), experts=unknown))
    assert "license" not in matter


def test_without_labels_nothing_is_claimed():
    matter, tokens = split(make(rows=[], result=""))
    assert "model-index" not in matter
    assert "Not measured" in plain(tokens)
    assert "%" not in plain(tokens)


def test_tasks_without_labels_have_a_dash_and_the_others_their_score():
    rows = [
        {
            "label": label,
            "per_task": {"mnist": share, "svhn": None},
            "mean": None,
            "agreement": agreement,
            "per_task_agreement": {"mnist": agreement, "svhn": agreement},
        }
        for label, share, agreement in (
            ("adarank", 0.875, 0.9375),
            ("pretrained", 0.25, 0.5),
        )
    ]
    matter, tokens = split(make(rows=rows))
    (entry,) = matter["model-index"]
    names = [result["dataset"]["name"] for result in entry["results"]]
    assert names == ["mnist"]
    assert table(tokens) == [
        ["method", "mnist", "svhn", "agreement"],
        ["pretrained", "25.00", "–", "50.00"],
        ["adarank (this model)", "87.50", "–", "93.75"],
    ]
    text = plain(tokens)
    assert "Not measured" not in text
    assert "No labels were given for svhn" in text


def test_without_any_labels_the_table_shows_agreement_and_says_so():
    row = {
        "label": "adarank",
        "per_task": dict.fromkeys(("mnist", "svhn")),
        "mean": None,
    }
    row |= {"agreement": 0.75, "per_task_agreement": {"mnist": 0.5, "svhn": 1.0}}
    matter, tokens = split(make(rows=[row]))
    assert "model-index" not in matter
    assert "Not measured: no labels were given." in plain(tokens)
    assert "columns of the tasks show agreement" in plain(tokens)
    assert table(tokens)[1] == ["adarank (this model)", "50.00", "100.00", "75.00"]


def table(tokens):
    """Returns the cells of the table of results, row by row."""
    rows, found, is_in = [], [], False
    for token in tokens:
        if token.type == "tr_open":
            found = []
        is_in = is_in or token.type in ("th_open", "td_open")
        if token.type == "inline" and is_in:
            found.append(token.content)
        is_in = is_in and token.type not in ("th_close", "td_close")
        if token.type == "tr_close":
            rows.append(found)
    start = next(i for i, row in enumerate(rows) if row[0] == "method")
    return [row for row in rows[start:] if len(row) == len(rows[start])]


def test_table_has_every_method_in_percent_worst_first():
    _, tokens = split(make())
    text = plain(tokens)
    assert text.index("18.75") < text.index("68.75")
    for number in ("87.50", "50.00", "25.00", "12.50"):
        assert number in text
    assert "this model" in text


def test_card_says_how_to_make_it_again():
    text = make(experts=[Parent("a b", "x/y@r"), Parent("svhn", "p q.pt")])
    for part in (
        *("run_vit my_merge.yaml", "origin: cart", "0123abc", "ef" * 32, "0.10.2"),
        *("recipe.safetensors", "'a b=x/y@r'", "'svhn=p q.pt'", "2503.22178"),
    ):
        assert part in text
    assert "recipe.safetensors" not in make(has_recipe=False)


def test_card_says_what_was_measured_and_what_is_stored():
    digests = {"digest": "ef" * 32, "stored_digest": "01" * 32}
    rounded = make(dtype="float16", **digests)
    assert "measured with float32 weights" in rounded
    assert "weights of this export are float16: rounded after" in rounded
    assert all(digest in rounded for digest in digests.values())
    same = make(dtype="float32", **digests | {"stored_digest": "ef" * 32})
    assert "float32, rounded no further: those that were measured" in same
    assert same.count("ef" * 32) == 1
    assert "masks" in rounded
    assert "masks (one bit" not in make(has_masks=False)


def test_configuration_names_the_commits_that_were_merged():
    models = {"a": "org/a", "b": "org/b:x/y.pt"}
    experts = {n: {"model": m, "data": "mnist"} for n, m in models.items()}
    config = ImageMergeConfig.model_validate({"base": "org/base", "experts": experts})
    sources = ["org/base@1", "org/b@2:x/y.pt"]
    suite = types_.SimpleNamespace(tasks=["b"], sources=sources)
    values = yaml.safe_load(exporting._yaml(suite, config))
    assert values["base"] == "org/base@1"
    assert values["experts"]["a"]["model"] == "org/a"
    assert values["experts"]["b"]["model"] == "org/b@2:x/y.pt"
    assert config.base == "org/base"


def test_hostile_names_mean_nothing_but_themselves():
    clean = types(split(make())[1])
    text = make(
        title=EVIL,
        method=EVIL,
        base=Parent("base", EVIL, MIT),
        experts=[Parent(EVIL, EVIL)],
        heads=[CardHead(EVIL, "slug", 3)],
        uses=EVIL,
        command=f"run {EVIL}\n```\n<b>",
        config=f"a: '{EVIL}'\n````\n# out",
        versions={EVIL: EVIL},
        commit=EVIL,
        rows=[{"label": EVIL, "per_task": {EVIL: 0.5}, "mean": 0.5}],
        result=EVIL,
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    matter, tokens = split(text)
    assert types(tokens) <= clean
    assert not {"html_block", "html_inline", "link_open", "em_open"} & (
        types(tokens) - {"link_open"}
    )
    links = [
        child.attrGet("href")
        for token in tokens
        for child in token.children or ()
        if child.type == "link_open"
    ]
    assert links == ["https://arxiv.org/abs/2503.22178"]
    assert "<script>alert(1)</script> | `x` [y](z) *b*" in plain(tokens)
    headings = [t.tag for t in tokens if t.type == "heading_open"]
    assert headings == [t.tag for t in split(make())[1] if t.type == "heading_open"]
    assert matter["model-index"][0]["name"].startswith("<script>")


def snippets(text):
    return [
        t.content for t in split(text)[1] if t.type == "fence" and t.info == "python"
    ]


@pytest.mark.parametrize("has_text_tower", [True, False])
def test_snippets_are_python_and_name_files_of_the_export(has_text_tower):
    (one,) = snippets(make(has_text_tower=has_text_tower))
    compile(one, "snippet", "exec")
    assert '"heads/mnist.safetensors"' in one and '"heads/mnist.json"' in one
    assert ("CLIPModel" in one) == has_text_tower
    _, two = snippets(make(has_open_clip=True))
    compile(two, "snippet", "exec")
    assert snippets(make(heads=[])) == []


def test_licence_is_read_from_the_front_matter_of_a_parent(tmp_path):
    assert card.read_licence(None) == card.read_licence(tmp_path) == Licence()
    readme = tmp_path / "README.md"
    for text, expected in (
        ("---\nlicense: MIT\ntags: [a]\n---\n# Hi\n", "mit"),
        ("---\r\nlicense: apache-2.0\r\n---\r\n", "apache-2.0"),
        ("# license: mit", "unknown"),
        ("---\nlicense: [a, b]\n---\n", "unknown"),
        ("---\nlicense: '<script>'\n---\n", "unknown"),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", "unknown"),
        ("---\n- a\n---\n", "unknown"),
        ("---\n{: bad\n---\n", "unknown"),
    ):
        readme.write_bytes(text.encode())
        assert card.read_licence(tmp_path) == Licence(expected), text


def test_other_licences_have_their_name_and_link(tmp_path):
    stated = "license: other\nlicense_name: Llama 2\nlicense_link: https://a.b/c_d\n"
    (tmp_path / "README.md").write_text(f"---\n{stated}---\n")
    own = card.read_licence(tmp_path)
    assert own == Licence("other", "Llama 2", "https://a.b/c_d")
    experts = [Parent("mnist", "a/b", own), Parent("svhn", "a/c", own)]
    matter, tokens = split(make(base=Parent("base", "a/d", own), experts=experts))
    assert matter["license"] == "other"
    assert matter["license_name"] == "Llama 2"
    assert matter["license_link"] == "https://a.b/c_d"
    cells = [token.content for token in tokens if token.type == "inline"]
    assert cells.count("other (Llama 2, https://a.b/c\\_d)") == 3
    # Not of all parents: no licence of the whole, but each in its row.
    matter, tokens = split(make(experts=experts))
    assert not {key for key in matter if key.startswith("license")}
    assert "Llama 2" in plain(tokens)
    # A file beside the card of a parent is not beside this one.
    beside = own._replace(link="LICENSE.md")
    matter, _ = split(make(base=Parent("base", "a/d", beside), experts=[]))
    assert matter["license_name"] == "Llama 2" and "license_link" not in matter


@pytest.mark.parametrize(
    "stated",
    ["license_name: [a]", "license_name: ''", "license_link: 'javascript:x y'"],
)
def test_odd_names_and_links_of_licences_are_left_out(tmp_path, stated):
    (tmp_path / "README.md").write_text(f"---\nlicense: other\n{stated}\n---\n")
    assert card.read_licence(tmp_path) == Licence("other")


def test_paths_are_no_parents_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experts").mkdir()
    (tmp_path / "experts" / "mnist").mkdir()
    assert card.hub_id("experts/mnist") is None
    assert card.hub_id("org/mnist@main:a/b.pt") == "org/mnist"
    assert card.hub_id("/abs/x.pt") is None


def test_templates_are_packaged():
    folder = pathlib.Path(card.__file__).parent
    assert '"*.jinja"' in (folder.parent / "setup.py").read_text()
    found = {file.name for file in folder.glob("*.jinja")}
    text = (folder / "card.py").read_text()
    assert found - {"card.md.jinja"} == {n for n in found if f'"{n}"' in text}
    assert len(found) == 3
