import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from irgen.compute import machine
from irgen.compute.machine import (
    WORTH_A_CORE,
    has_fast_bf16,
    prepare,
    run_on_fitting_cores,
    run_on_one_core,
)
from irgen.errors import ParamsError
from irgen.params import Compute

AUTO = Compute(device="auto", precision="auto", batch_size=4, threads=1)


def test_auto_takes_bf16_only_where_the_hardware_has_it():
    chosen = prepare(AUTO)
    assert (chosen.autocast == torch.bfloat16) == has_fast_bf16(chosen.device)


def test_a_chosen_precision_is_kept():
    assert prepare(dataclasses.replace(AUTO, precision="fp32")).autocast is None
    chosen = prepare(dataclasses.replace(AUTO, device="cpu", precision="bf16"))
    with chosen.precision():
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense"])
def test_a_device_that_is_not_there_is_one_clear_error(device):
    with pytest.raises(ParamsError, match=rf"device: '{device}' cannot be used.*allowed: auto"):
        prepare(dataclasses.replace(AUTO, device=device))


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
            pool = ThreadPoolExecutor(8, initializer=machine._take_one_core)
            monkeypatch.setattr(machine, "_threads", lambda process, pool=pool: pool)
            together = threading.Barrier(8)
            starters = [
                threading.Thread(target=machine.run_on_one_core, args=(together.wait,))
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


def test_small_work_has_one_core_and_large_work_those_of_its_caller():
    def count_cores() -> tuple[int, int]:
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            sizes = (WORTH_A_CORE - 1, WORTH_A_CORE)
            small, large = (
                run_on_fitting_cores(size, torch.device("cpu"), torch.get_num_threads)
                for size in sizes
            )
        finally:
            torch.set_num_threads(before)
        return small, large

    with ThreadPoolExecutor(1) as aside:
        assert aside.submit(count_cores).result() == (1, 2)


def test_work_of_a_gpu_stays_on_its_thread():
    thread = run_on_fitting_cores(1, torch.device("cuda"), threading.get_ident)
    assert thread == threading.get_ident()
