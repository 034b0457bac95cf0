import pytest

from experiments import cpuinfo

X86 = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some Xeon\nflags\t\t: fpu vme\n"


@pytest.mark.parametrize(
    ("names", "row"),
    [
        (("model name",), "model name\t: Some Xeon"),
        (("Features", "flags"), "flags\t\t: fpu vme"),
        (("Features",), ""),
    ],
)
def test_first_row_is_one_that_begins_with_a_name(names, row, tmp_path, monkeypatch):
    monkeypatch.setattr(cpuinfo, "FILE", tmp_path / "cpuinfo")
    cpuinfo.FILE.write_text(2 * X86)
    assert cpuinfo.first_row(*names) == row
