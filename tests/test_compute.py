import dataclasses
import random
import threading

import pytest
import torch

from irgen.compute import has_fast_bf16, prepare, seed_everything, single_thread
from irgen.errors import ParamsError
from irgen.params import Compute

AUTO = Compute(device="auto", precision="auto", batch_size=4, threads=1)


def test_auto_takes_bf16_only_where_the_hardware_has_it():
    machine = prepare(AUTO)
    assert (machine.autocast == torch.bfloat16) == has_fast_bf16(machine.device)


def test_a_chosen_precision_is_kept():
    assert prepare(dataclasses.replace(AUTO, precision="fp32")).autocast is None
    machine = prepare(dataclasses.replace(AUTO, device="cpu", precision="bf16"))
    with machine.precision():
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense"])
def test_a_device_that_is_not_there_is_one_clear_error(device):
    with pytest.raises(ParamsError, match=rf"device: '{device}' cannot be used.*allowed: auto"):
        prepare(dataclasses.replace(AUTO, device=device))


def test_an_epochs_seed_fixes_every_draw():
    def draws():
        generator = seed_everything(3, 7)
        return torch.rand(2).tolist(), torch.rand(2, generator=generator).tolist(), random.random()

    assert draws() == draws()
    seed_everything(3, 8)
    assert torch.rand(2).tolist() != draws()[0]


def test_a_single_thread_is_that_threads_alone_and_only_for_the_block():
    before, found = torch.get_num_threads(), []

    def work() -> None:
        with single_thread():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    with single_thread():
        thread.start()
        thread.join()
        found.append(torch.get_num_threads())
    assert found == [1, before, 1]
    assert torch.get_num_threads() == before
