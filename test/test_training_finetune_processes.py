"""Several processes train as one does, and divide the records of a step among themselves."""

import os
from pathlib import Path
import subprocess
import sys

from accelerate import Accelerator
from accelerate import DistributedType
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from finetune_fakes import losses
from finetune_fakes import make_config
from finetune_fakes import records
from finetune_fakes import run_training
from policy_models import save_llava
import pytest

from vla_policy_node.policy import load_policy
from vla_policy_node.training.finetune import run as run_module
from vla_policy_node.training.finetune.stream import StreamPlan


def config_of(base: Path, processes: int):
    return make_config(
        base, training={'steps': 5, 'batch_size': 8 // processes, 'accumulation': 2, 'lr': 1e-2,
                        'precision': 'fp32', 'save_every': 2},
        validation={'share': 0.25, 'every': 5, 'pictures': 1})


class ShardingOnCpu(Accelerator):
    """accelerate shards weights on GPUs only; torch can on CPUs, so only its choice is changed."""

    def __init__(self, **settings):
        super().__init__(mixed_precision=settings['mixed_precision'])
        AcceleratorState._shared_state['distributed_type'] = DistributedType.FSDP
        AcceleratorState._shared_state['fsdp_plugin'] = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy='transformer_based_wrap')

    @property
    def distributed_type(self):
        return DistributedType.FSDP

    @property
    def is_fsdp2(self):
        return True


def launch(base: Path, work: Path, kind: str) -> None:
    """Run this file in two processes, as `accelerate launch` does on GPUs."""
    found = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         __file__, kind, str(base), str(work)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'ACCELERATE_USE_CPU': 'true'})
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.integration
@pytest.mark.parametrize('kind', ['ddp', 'fsdp'])
def test_two_processes_take_the_steps_of_one(tmp_path, kind):
    base = save_llava(tmp_path / 'base')
    one, two = tmp_path / 'one', tmp_path / 'two'
    run_training(config_of(base, 1), one)
    launch(base, two, kind)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert len(records(two, 'train')) == 5, 'only the first process writes'
    found, wanted = (records(work, 'validation')[-1] for work in (two, one))
    assert found['loss']['all'] == pytest.approx(wanted['loss']['all'], rel=1e-3)
    assert found['token_accuracy'] == wanted['token_accuracy']
    load_policy(two / 'out', quantization='none', dtype='float32').close()
    if kind == 'ddp':
        return  # its state is that of one process; what is gathered from shards is put back below
    (two / 'states' / 'state-000000005.pt').unlink()
    launch(base, two, kind)
    assert [r['step'] for r in records(two, 'event') if r['name'] == 'resumed'] == [4]
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)


def test_the_draws_of_all_processes_of_a_step_are_those_of_one_process():
    one = StreamPlan(batch_size=8, accumulation=2)
    two = StreamPlan(batch_size=4, accumulation=2, process=1, processes=2)
    assert (one.per_step, two.per_step, two.per_process) == (16, 16, 8)


if __name__ == '__main__':
    if sys.argv[1] == 'fsdp':
        run_module.Accelerator = ShardingOnCpu
    run_training(config_of(Path(sys.argv[2]), 2), Path(sys.argv[3]))
