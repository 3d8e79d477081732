"""Packaging of keras-greedylr; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# The folder agents/ is installed under a name of its own: the PyPI package
# openai-agents owns the top-level module `agents`.
AGENTS = ["keras_greedylr_agents"] + [
    f"keras_greedylr_agents.{name}" for name in find_packages("agents")
]

BACKENDS = {
    "tensorflow": ["tensorflow>=2.19"],  # the oldest the oldest Keras here was tested with
    "jax": ["jax>=0.6"],
    "torch": ["torch>=2.7"],
}

# Training a policy needs TF-Agents, whose own pins stop at Python 3.11; using one does not.
ON_311 = "; python_version < '3.12'"
AGENTS_EXTRA = [
    "tf-agents==0.19.0" + ON_311,  # the last release
    "tensorflow==2.21.0" + ON_311,  # what the agents were tested with
    "tf-keras~=2.21.0" + ON_311,  # TF-Agents runs on legacy Keras, of TensorFlow's version
    "numpy<2.4" + ON_311,  # TF-Agents 0.19 breaks on 2.4
    "tensorboard" + ON_311,  # `agent.train` fails without it; TensorFlow no longer brings it
    "scikit-learn" + ON_311,  # real data for the inner problems
    "pillow" + ON_311,  # reads scikit-learn's photographs
    "scipy" + ON_311,  # statistics of the evaluation
    "rich" + ON_311,  # progress of train-agent
]

COMPARE = [
    "matplotlib",  # pictures
    "rich",  # tables and progress in the terminal
    "scikit-learn",  # bundled real data: nothing to download
    "scipy",  # tests and intervals
    "tensorboard",  # to look at the logs
]

setup(
    name="keras-greedylr",
    version="0.1.0",
    description="Learning-rate schedules for Keras that watch the training run",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["keras_greedylr", "keras_greedylr.*"]) + AGENTS,
    package_dir={"keras_greedylr_agents": "agents"},
    package_data={
        "keras_greedylr": ["py.typed", "policies/*/*", "policies/*/variables/*"],
        "keras_greedylr_agents": ["py.typed"],
    },
    install_requires=[
        "keras>=3.11",  # the oldest CI runs; 3.10 counts batches otherwise with steps_per_execution
        "numpy",
        "tensorboardX>=2.6",  # TensorBoard's records and summaries without TensorFlow
    ],
    extras_require={
        **BACKENDS,
        "agents": AGENTS_EXTRA,
        "compare": COMPARE,
        "test": ["pytest", "pytest-xdist", "hypothesis"],  # xdist: on all cores
        "dev": ["ruff", "mypy"],
        "bench": ["transformers>=5.23"],  # the port of GreedyLR we compare with; needs torch
    },
    entry_points={
        "console_scripts": [
            "keras-greedylr=keras_greedylr.cli:main",
            "train-agent=keras_greedylr_agents.cli:main",
        ]
    },
)
