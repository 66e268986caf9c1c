"""What `make faults` prints."""

from rich.console import Console

from faults.summary import last_line
from faults.summary import miss_lines
from faults.summary import table

RESULT = {'injected': 1_002_000, 'held': 1_001_998, 'missed': 2, 'rejections': {}, 'misses': [],
          'duration_s': 3111.2}
MISS = {'episode': 7, 'seed': 3, 'found': 'motion', 'given': 'nan'}
SUMMARY = {
    'short': False, 'seed': 3, 'injected': 1_002_201, 'held': 1_002_199, 'missed': 2,
    'cases': {
        'actions_over_dds/malformed': {**RESULT, 'misses': [MISS]},
        'processes/stopped': {**RESULT, 'fault_to_zero_ms': {'p99': 85.4, 'worst': 111.0}}}}


def test_the_table_is_whole_in_a_terminal_of_80_columns():
    console = Console(width=80, record=True)
    with console.capture() as captured:
        console.print(table(SUMMARY))
    lines = [line.split() for line in captured.get().splitlines()]
    assert ['actions_over_dds/malformed', '1,002,000', '1,001,998', '2', '3111'] in lines
    assert ['processes/stopped', '1,002,000', '1,001,998', '2', '85', '111', '3111'] in lines


def test_a_miss_is_named_with_what_repeats_it_and_the_last_line_counts():
    assert miss_lines(SUMMARY) == [
        'actions_over_dds/malformed: episode 7 of seed 3: motion; given nan']
    assert last_line(SUMMARY) == 'faults: 1002201 injected, 1002199 held, 2 missed'
