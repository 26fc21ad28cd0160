"""Packaging: what the launcher installs and what a Dataflow or Flink worker receives."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
_PACKAGES = ("model", "inference", "pipelines")
_VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "model" / "version.py").read_text("utf-8"), re.MULTILINE)
assert _VERSION, "model/version.py names no version"

setup(
    name="beam-tf-predict",
    version=_VERSION[1],
    description="TensorFlow predictions inside Apache Beam pipelines: fast, batched, nothing lost.",
    long_description=(HERE / "README.md").read_text("utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="apache-beam tensorflow inference batch-prediction streaming dataflow",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    # By their names: a pattern such as model* would take a folder model_private/ along to the workers.
    packages=[
        *find_packages(include=[name for package in _PACKAGES for name in (package, f"{package}.*")]),
        "model.packaged.configs",
        "model.packaged.data",
    ],
    # Where model/packaged/__init__.py finds them once they are installed.
    package_dir={"model.packaged.configs": "configs", "model.packaged.data": "data"},
    package_data={
        "model.packaged.configs": [
            "natality.json",
            "natality-bigquery.json",
            "natality-job.json",
            "natality-endpoint.json",
            "natality-kafka.json",
            "natality-pubsub.json",
            "natality-stream.json",
            "prices.json",
            "schema.json",
        ],
        "model.packaged.data": ["births-nc-2001.csv", "README.md"],
        "model": [
            "py.typed",
            "trained/v1/fingerprint.pb",
            "trained/v1/saved_model.pb",
            "trained/v1/variables/variables.data-00000-of-00001",
            "trained/v1/variables/variables.index",
        ],
        "inference": ["py.typed"],
        "pipelines": ["py.typed"],
        "pipelines.comparison.report": ["page.css", "page.html.j2"],
    },
    entry_points={"console_scripts": ["beam-tf-predict = pipelines.__main__:main"]},
    install_requires=[
        "apache-beam[gcp]>=2.69,<2.78",
        "tensorflow>=2.21,<2.22",
        "tfx-bsl>=1.21,<1.22",
        "tensorflow-serving-api>=2.19,<2.20",
        "google-cloud-pubsub>=2.31,<3",
        "google-cloud-bigquery>=3.30,<4",
        "google-cloud-bigquery-storage>=2.30,<3",
        "google-cloud-bigtable>=2.30,<3",
        "confluent-kafka>=2.5,<3",
        "pyarrow>=22",
        "numpy>=2,<3",
        "polars>=1.30,<2",
        "fastavro>=1.10,<2",
        "ptars>=0.0.25,<0.1",
        "google-crc32c>=1.5,<2",
        "protobuf>=5.29,<7",
        "zstandard>=0.21,<1",
        "pydantic>=2.7,<3",
        "rich>=13,<16",
        "httpx>=0.27,<1",
        "orjson>=3.10,<4",
        "tenacity>=8.5,<10",
        "google-auth>=2.30,<3",
        "grpcio>=1.62,<2",
        "starlette>=0.40,<2",
        "uvicorn>=0.30,<1",
        "prometheus-client>=0.20,<1",
        "jinja2>=3.1,<4",
        "matplotlib>=3.9,<4",
        "psutil>=5.9,<8",
    ],
    extras_require={
        "aws": ["apache-beam[aws]>=2.69,<2.78", "boto3>=1.28,<2"],
        "azure": ["apache-beam[azure]>=2.69,<2.78"],
        "dev": [
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "pytest-timeout>=2.3,<3",
            "hypothesis>=6.100,<7",
            "tf_keras>=2.21,<2.22",
            "ruff>=0.9,<1",
            "import-linter>=2.1,<3",
            "mypy>=1.15,<3",
            "gcp-storage-emulator",
            "boto3>=1.28,<2",
            "moto[s3]>=5,<6",
            "flask>=3,<4",
            "flask-cors>=6,<7",
            "playwright>=1.45,<2",
            "pip",
            "setuptools>=75",
            "build",
            "uv>=0.5,<1",
        ],
    },
)
