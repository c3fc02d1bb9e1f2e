import pytest

from projects.occ.file_names import MAX_NAME_BYTES, name_to_path, plain_name, shown_text

BAD = [
    '', '/x', 'x/', 'x//y', '.', '..', 'x/..', '../x', 'a/../../x', 'a/./b', 'a\0b', 'a\nb', 'a\x1b[31m', 'a\x7f', 'a\ud800',
    'x' * (MAX_NAME_BYTES + 1), 'ä' * (MAX_NAME_BYTES // 2 + 1), '/'.join('a' * 17),
]  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_names_that_lead_elsewhere_or_that_no_disk_takes_are_refused(name):
    with pytest.raises(ValueError, match='files are called after the scene') as caught:
        name_to_path(name, 'scene')
    str(caught.value).encode('ascii')  # can be printed anywhere


def test_good_names_stay(tmp_path):
    for name in ('3e8750f331d7499e9b5123e9eb70f2e2', 'drive-07/000123', 'a b', 'ä', '..x', 'x' * MAX_NAME_BYTES):
        path = tmp_path / name_to_path(name)
        assert str(path.relative_to(tmp_path)) == name
        path.parent.mkdir(exist_ok=True)
        # room for page, suffix and the mark of a temporary file
        path.with_name(f'.{path.name}_rendered.png.{"0" * 32}.tmp').touch()


@pytest.mark.parametrize('name', [*BAD, 'a/b', 'a_b', 'a b', 'scene-0103', '2013_05_28/drive 9', 'ä/ö'])
def test_any_text_becomes_one_file_name(name, tmp_path):
    plain = plain_name(name)
    (tmp_path / f'.{plain}.html.{"0" * 32}.tmp').touch()
    assert '/' not in plain and plain.isprintable() and plain not in ('', '.', '..')


def test_different_texts_have_different_file_names():
    names = ['a/b', 'a_b', 'a b', 'a:b', 'x' * 300, 'x' * 301, '..', '.', 'scene', 'a\ud800', 'a\ud801']
    assert len({plain_name(name) for name in names}) == len(names)
    assert plain_name('scene-0103') == 'scene-0103' and plain_name('') == 'scene'
    assert plain_name('2013_05_28/drive 9').startswith('2013_05_28_drive_9-')


def test_text_for_titles_can_be_written():
    assert shown_text('a\udcff') == 'a?' and shown_text('ä') == 'ä' and shown_text(5) == '5'
