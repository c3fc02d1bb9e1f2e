from setuptools import find_packages, setup

setup(
    name='gaussrender-occ',
    version='0.1.0',
    description='Rendering-supervised 3D semantic occupancy: GaussRender on mmdetection3d',
    license='Apache-2.0',
    packages=find_packages(include=['projects', 'projects.*']),
    package_data={'projects.occ.visualization': ['*.html', '*.js']},
    python_requires='>=3.10',
    # parts that work without mmdetection3d (docs/installation.md); everything is pinned in requirements/lock.txt
    extras_require=dict(core=['torch>=2.6', 'numpy>=1.23'], metrics=['torch>=2.6', 'numpy>=1.23', 'numba']),
)
