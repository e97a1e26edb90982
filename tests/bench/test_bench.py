"""Are the results of benchmarks told right? Nothing is measured here."""

import pytest
from bench.argv import Stand, argv_adapt
from bench.common import Figure, Machine, Result, number_text, result_text
from bench.run import table_text

MACHINE = Machine(
    cpu="A processor", cores=2, memory_gib=24.0, kernel="6.1", python="3.11.7", load=0.1
)


def result(*figures: Figure) -> Result:
    return Result(
        name="api", question="How fast?", at="2026-01-01", machine=MACHINE, figures=list(figures)
    )


def test_a_target_from_below_and_one_from_above_are_judged() -> None:
    met = Figure(what="rate", value=1500, unit="per s", at_least=1500)
    missed = Figure(what="time", value=20.1, unit="ms", at_most=20)
    assert (met.met, missed.met) == (True, False)
    assert Figure(what="other", value=1, unit="s").met is None


def test_the_table_names_the_machine_and_every_figure() -> None:
    text = table_text([result(Figure(what="rate", value=1999, unit="per s", at_least=1500))])
    assert "| rate | 1,999 | per s | ≥ 1,500 met |  |" in text
    assert "A processor, 2 cores, 24 GiB, Linux 6.1, Python 3.11.7; load before 0.1." in text


def test_a_missed_target_is_said_aloud() -> None:
    assert "MISSED" in result_text(result(Figure(what="x", value=1, unit="s", at_most=0.5)))


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (0.12345, "0.123"), (12345.6, "12,346"), (1.5, "1.5")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number_text(value) == text


def test_only_what_libvirt_held_is_replaced_in_a_command_line() -> None:
    argv = ["qemu", "-name", "guest=x", "-S", "-object", '{"qom-type":"secret","id":"m"}']
    argv += ["-chardev", "socket,id=charmonitor,fd=25,server=on,wait=off", "-no-shutdown"]
    argv += ["-netdev", '{"type":"tap","fd":"28","id":"hostnet0"}', "-add-fd", "set=0,fd=27"]
    argv += ["-blockdev", '{"driver":"file","filename":"/pool/root"}', "-m", "size=256k"]
    stand = Stand(tap="t0", sockets="/s/", console="/c", files={"/pool/root": "/clone"})
    made, notes = argv_adapt(argv, stand)
    assert made == [
        *("qemu", "-name", "guest=x"),
        *("-chardev", "socket,id=charmonitor,path=/s/charmonitor,server=on,wait=off"),
        "-no-shutdown",
        *("-netdev", "tap,id=hostnet0,ifname=t0,script=no,downscript=no"),
        *("-blockdev", '{"driver":"file","filename":"/clone"}', "-m", "size=256k"),
    ]
    assert len(notes) == 6
