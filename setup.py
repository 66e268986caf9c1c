"""Install vla_policy_node as an ament_python package."""

from glob import glob
from pathlib import Path

from setuptools import setup

PACKAGE = 'vla_policy_node'
ROOMS = ('policy', 'policy.openvla', 'control', 'nodes', 'training', 'training.convert',
         'training.finetune', 'training.sources', 'evaluation', 'evaluation.replay', 'recorded',
         'simulation')


def shared_files(folder: str) -> list[tuple[str, list[str]]]:
    """List every file below a folder, folder by folder, for share/vla_policy_node."""
    files = sorted(name for name in glob(f'{folder}/**', recursive=True) if Path(name).is_file())
    folders = sorted({str(Path(name).parent) for name in files})
    return [
        (f'share/{PACKAGE}/{parent}', [name for name in files if str(Path(name).parent) == parent])
        for parent in folders
    ]


setup(
    name=PACKAGE,
    version='0.1.0',
    # Named one by one: find_packages() would pick up build and install folders of a workspace.
    packages=[PACKAGE, *(f'{PACKAGE}.{room}' for room in ROOMS)],
    package_data={
        PACKAGE: ['*.css'],
        **{f'{PACKAGE}.{room}': ['*.xml', '*.j2', '*.html', '*.css'] for room in ROOMS}},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *shared_files('launch'),
        *shared_files('config'),
        *shared_files('models'),
        *shared_files('sros2'),
    ],
    python_requires='>=3.10',
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='vla_policy_node maintainers',
    maintainer_email='vla-policy-node@example.org',
    description='Executes vision-language-action policies on a robot.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            f'policy_node = {PACKAGE}.nodes.policy_node:main',
            f'controller_node = {PACKAGE}.nodes.controller_node:main',
            f'simulator_node = {PACKAGE}.nodes.simulator_node:main',
            f'instruct = {PACKAGE}.nodes.instruct:main',
            f'ask = {PACKAGE}.nodes.ask:main',
            f'demo = {PACKAGE}.evaluation.demo:main',
            f'cofinetune = {PACKAGE}.training.cofinetune:main',
            f'replay = {PACKAGE}.evaluation.replay.cli:main',
            f'convert = {PACKAGE}.training.convert.cli:main',
        ],
    },
)
