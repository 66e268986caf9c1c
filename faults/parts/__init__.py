"""
The parts of the suite. Each module offers `cases`, a context manager that yields its cases.

    cases(*, short: bool, scratch: Path) -> ContextManager[Sequence[Case]]

short: the form that runs within the tests. scratch: an empty folder that is removed afterwards.
What the context sets up (models, folders, processes) it also takes down.
"""

PARTS = {
    'actions': 'faults.parts.actions',
    'images': 'faults.parts.images',
    'logits': 'faults.parts.logits',
    'checkpoints': 'faults.parts.checkpoints',
    'instructions': 'faults.parts.instructions',
    'processes': 'faults.parts.processes',
    'cameras': 'faults.parts.cameras',
    'clocks': 'faults.parts.clocks',
    'actions_over_dds': 'faults.parts.actions_over_dds',
    'resources': 'faults.parts.resources',
    'soak': 'faults.parts.soak',
}
