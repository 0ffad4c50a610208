"""What the commands say of themselves."""

import pytest

from irgen import cli
from irgen.commands import grammar


@pytest.mark.parametrize("name", grammar.COMMANDS)
def test_a_command_and_each_of_its_options_say_what_they_do(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert " ".join(grammar.DESCRIPTIONS[name].split())[:60] in told
    every = next(action for action in cli.parser()._actions if action.dest == "name")
    assert every.choices is not None
    options = every.choices[name]._actions
    assert not [option.dest for option in options if not option.help]
    assert all(option.help[-1] in ".t" for option in options)  # "show this help message and exit"


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "a.png", "--json", "--csv"],
        ["search", "a.png", "-k", "many"],
        ["add"],
        ["add", "a.png", "--upsert", "--skip-known"],
        ["info", "here"],
        ["compact", "--fast"],
    ],
)
def test_what_is_no_such_option_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(("irgen: error:", "irgen "))
