from setuptools import find_packages, setup

setup(
    name='diff-gaussian-rasterization-occ',
    version='0.1.0',
    description='Differentiable Gaussian rasteriser with any number of channels',
    license='Apache-2.0',
    packages=find_packages(include=['gaussian_rasterization']),
    python_requires='>=3.10',
    install_requires=['torch>=2.4'],
)
