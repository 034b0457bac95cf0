"""Packaging of adarank_jax; tools are configured in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
PACKAGE = (HERE / "adarank_jax" / "__init__.py").read_text()
LINES = (HERE / "requirements.txt").read_text().splitlines()
SUITE = [
    "mlxtend>=0.25,<0.26",
    "scikit-image>=0.26,<0.27",
    "scikit-learn>=1.8,<2",
]
TEST = [
    "beartype>=0.22,<0.24",
    "hypothesis>=6,<7",
    "pytest>=8,<10",
    "pytest-timeout>=2.3,<3",
    "pytest-xdist>=3.5,<4",
]
DEV = ["import-linter>=2.5,<3", "pyright[nodejs]>=1.1.400,<2", "ruff>=0.17,<0.18"]

setup(
    name="adarank-jax",
    version=re.search(r'__version__ = "(.+?)"', PACKAGE).group(1),
    description="Model merging by adaptive rank pruning (AdaRank) in JAX and Flax.",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["adarank_jax*", "experiments*"]),
    package_data={
        "adarank_jax": ["py.typed", "data/prompts/*.json"],
        "experiments": ["assets/*/*.json", "assets/*/*.safetensors", "*.jinja"],
    },
    install_requires=[line for line in LINES if line and not line.startswith("#")],
    extras_require={
        "cpu": [],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "prepare": ["importlib-resources>=6", "tensorflow-cpu>=2.21,<3"],
        "bench": ["torch>=2.6", "transformers>=5,<6"],
        "suite": SUITE,
        "text-demo": ["pip>=23.2"],
        "test": SUITE + TEST,
        "dev": SUITE + TEST + DEV,
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
