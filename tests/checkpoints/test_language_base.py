import jax
import numpy as np
import pytest

from adarank_jax.checkpoints import language, language_base
from tests.checkpoints import tiny_language
from tests.checkpoints.tiny_language import BARE, write


def read(folder, model, tensors=None, base=None):
    return language.read_language(write(folder, model, tensors), base)


@pytest.fixture(params=sorted(BARE))
def family(request):
    return request.param


@pytest.fixture
def base(tmp_path, family):
    return read(tmp_path / "base", BARE[family])


def test_a_near_expert_comes_from_the_base(base, family, tmp_path):
    state = tiny_language.near(tiny_language.state(BARE[family]), share=0.4)
    expert = read(tmp_path / "expert", BARE[family], state, base)
    assert language_base.check_same_base(base, expert) == []


def test_an_unrelated_expert_is_refused(base, family, tmp_path):
    state = tiny_language.state(BARE[family], seed=9)
    expert = read(tmp_path / "expert", BARE[family], state, base)
    with pytest.raises(ValueError, match="does not come from the base") as error:
        language_base.check_same_base(base, expert)
    num = {"bert": 12, "roberta": 12, "gpt2": 8}[family]
    assert f"over {num} matrices is 1." in str(error.value)
    assert base.source in str(error.value)


def test_the_layers_decide_and_not_the_embeddings(base, family, tmp_path):
    state = tiny_language.near(tiny_language.state(BARE[family]))
    other = tiny_language.state(BARE[family], seed=9)
    tables = ("embeddings.weight", "wte.weight", "wpe.weight")
    names = [name for name in state if name.endswith(tables)]
    assert len(names) == (2 if family == "gpt2" else 3)
    state |= {name: other[name] for name in names}
    expert = read(tmp_path / "expert", BARE[family], state, base)
    assert language_base.check_same_base(base, expert) == []


def test_the_base_itself_is_no_expert(base):
    (warning,) = language_base.check_same_base(base, base)
    assert warning.code == "W223" and "equals the base" in str(warning)


def test_an_expert_of_fewer_bits_is_told(base, family, tmp_path):
    state = {
        name: array.astype(np.float16)
        for name, array in tiny_language.state(BARE[family]).items()
    }
    expert = read(tmp_path / "expert", BARE[family], state, base)
    (warning,) = language_base.check_same_base(base, expert)
    assert warning.code == "W222" and "is stored as float16" in str(warning)


def test_huge_numbers_are_told(base, family):
    state = jax.tree.map(np.copy, base.encoder)
    leaf = state["h_0"]["mlp"]["c_fc"] if "h_0" in state else state["embeddings"]
    leaf = leaf if "h_0" in state else leaf["LayerNorm"]
    leaf["bias"][1] = 1e9
    expert = base._replace(source="huge", encoder=state)
    (warning,) = language_base.check_same_base(base, expert)
    assert "10,000 times as large" in str(warning)
    assert warning.code == "W227" and "1e+09" in str(warning)


def test_other_configurations_are_told(base, tmp_path):
    config = base.config | {"layer_norm_epsilon": 0.5}
    expert = base._replace(source="other", config=config)
    with pytest.raises(ValueError, match=r"layer_norm_epsilon +1e-\d+ +0.5"):
        language_base.check_same_base(base, expert)
    expert = base._replace(source="other", family="t5")
    with pytest.raises(ValueError, match="`other`: it is a t5 and its base"):
        language_base.check_same_base(base, expert)


def test_twins_are_found(base, family, tmp_path):
    state = tiny_language.near(tiny_language.state(BARE[family]))
    other = read(tmp_path / "other", BARE[family], state)
    experts = {"cola": base, "sst2": other, "rte": base._replace(source="copy")}
    (warning,) = language_base.find_twins(experts)
    assert warning.code == "W224"
    assert "'cola' and 'rte' are identical" in str(warning)
