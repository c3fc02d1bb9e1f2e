from setuptools import find_packages, setup

setup(
    name='gaussrender-occ',
    version='0.1.0',
    description='Rendering-supervised 3D semantic occupancy: GaussRender on mmdetection3d',
    license='Apache-2.0',
    packages=find_packages(include=['projects', 'projects.*']),
    package_data={'projects.occ.visualization': ['*.html']},
    python_requires='>=3.10',
)
