"""The option `quotes` of an entry's data reaches the reader of the file."""

import pytest

from adarank_jax.data import glue
from experiments import task_texts
from experiments.text_config import TextData


@pytest.mark.parametrize(("quotes", "count"), [(None, 3), (False, 3), (True, 1)])
def test_quotes_of_a_registered_data_set(quotes, count, tmp_path, monkeypatch):
    task = glue.get("sst2")
    sizes = {"validation": count}
    monkeypatch.setitem(glue._TASKS, "sst2", task._replace(sizes=sizes))
    (tmp_path / "sst2").mkdir()
    text = 'sentence\tlabel\n"a film\t0\nno end\t0\nof it"\t1\n'
    (tmp_path / "sst2/validation.tsv").write_text(text)
    data = TextData(dataset="sst2", quotes=quotes)
    assert TextData.model_validate(data.model_dump()) == data
    source = task_texts.open_texts(data, None, tmp_path)
    assert len(source) == count
    (tmp_path / "own.tsv").write_text(text)
    own = TextData(csv=tmp_path / "own.tsv", columns="sentence", quotes=quotes)
    assert len(task_texts.open_texts(own, None)) == (3 if quotes is False else 1)
