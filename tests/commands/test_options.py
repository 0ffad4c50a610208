"""Every command says what it and its options do, and refuses options that it does not have."""

import click
import pytest

from irgen.commands import cli


@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.MODULES, *cli.STAGES])
def test_a_command_and_each_of_its_options_say_what_they_do(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert "--root" in capsys.readouterr().out
    command = cli.irgen.get_command(click.Context(cli.irgen), name)
    assert command is not None and command.help
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert not [option.name for option in options if not option.help and not option.hidden]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "a.png", "-k", "many"], "'many' is not a valid integer"),
        (["add"], "Missing argument 'IMAGE...'"),
        (["add", "a.png", "--upsert", "--skip-known"], "exclude each other"),
        (["info", "here"], "unexpected extra argument"),
        (["compact", "--fast"], "No such option"),
        (["tokeniser"], "No such command 'tokeniser'"),
        ([], "Missing command"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments, message, capsys):
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("irgen ".strip()) and message in line
