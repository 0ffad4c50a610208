import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from irgen import compute
from irgen.compute import has_fast_bf16, prepare, run_on_one_core, seed_everything
from irgen.errors import NumberError, ParamsError
from irgen.params import Compute

AUTO = Compute(device="auto", precision="auto", batch_size=4, threads=1)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_none_are_counted_and_named(number):
    compute.check_finite(torch.arange(3), "codes", "nothing")  # integers are always finite
    compute.check_finite(torch.zeros(0, 3), "features", "nothing")
    with pytest.raises(NumberError, match="features: 2 of 6 numbers are not finite; do this"):
        compute.check_finite(torch.tensor([[1, number, 2], [0, number, 0]]), "features", "do this")


def test_vectors_that_tell_no_images_apart_are_named():
    compute.check_spread(torch.zeros(0, 3), "features", "nothing")
    compute.check_spread(torch.ones(3, 2), "features", "nothing")  # maybe copies
    compute.check_spread(torch.eye(12), "features", "nothing")
    for vectors, problem in ((torch.zeros(3, 2), "are zero"), (torch.ones(12, 2), "are the same")):
        with pytest.raises(NumberError, match=f"features: all of .* {problem}; do this"):
            compute.check_spread(vectors, "features", "do this")


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


def test_a_rounds_seed_fixes_every_draw():
    def draws():
        generator = seed_everything(3, 7)
        return torch.rand(2).tolist(), torch.rand(2, generator=generator).tolist(), random.random()

    assert draws() == draws()
    seed_everything(3, 8)
    assert torch.rand(2).tolist() != draws()[0]


def test_what_is_run_aside_has_one_core_and_leaves_other_threads_theirs():
    before, counts = torch.get_num_threads(), []
    assert run_on_one_core(torch.get_num_threads) == 1
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *counts] == [before, before]


def test_threads_that_start_together_leave_later_threads_theirs(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # one could not be told from what the pool's threads take
    try:
        for _ in range(30):
            pool = ThreadPoolExecutor(8, initializer=compute._take_one_core)
            monkeypatch.setattr(compute, "_threads", lambda process, pool=pool: pool)
            together = threading.Barrier(8)
            starters = [
                threading.Thread(target=compute.run_on_one_core, args=(together.wait,))
                for _ in range(8)
            ]
            for starter in starters:
                starter.start()
            for starter in starters:
                starter.join()
            pool.shutdown()
            with ThreadPoolExecutor(1) as later:
                assert later.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_aside_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        run_on_one_core(divmod, 1, 0)
