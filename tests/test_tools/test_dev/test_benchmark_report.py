import json

import pytest

from tools.dev.benchmark_report import describe_machine, markdown_table, replace_section, write_report


def test_a_section_is_replaced_and_the_rest_stays(tmp_path):
    document = tmp_path / 'doc.md'
    document.write_text('# Ä\n<!-- a b: begin -->\nold\n<!-- a b: end -->\ntext\n<!-- c: begin -->\n<!-- c: end -->\n')
    replace_section(document, 'a b', 'one')
    replace_section(document, 'a b', '\ntwo\n')
    replace_section(document, 'c', 'three')
    expected = '# Ä\n<!-- a b: begin -->\ntwo\n<!-- a b: end -->\ntext\n<!-- c: begin -->\nthree\n<!-- c: end -->\n'
    assert document.read_text() == expected


@pytest.mark.parametrize('content', ['nothing', '<!-- a: end --><!-- a: begin -->', 2 * '<!-- a: begin --><!-- a: end -->'])
def test_a_document_without_the_marks_is_left_alone(tmp_path, content):
    document = tmp_path / 'doc.md'
    document.write_text(content)
    with pytest.raises(ValueError, match="must contain the lines '<!-- a: begin -->' and '<!-- a: end -->' once each"):
        replace_section(document, 'a', 'text')
    assert document.read_text() == content


def test_table():
    assert markdown_table(['name', 's'], [['x', '1.0']]) == '| name | s |\n| --- | ---: |\n| x | 1.0 |'


def test_report_and_machine(tmp_path, repo_root):
    machine = describe_machine(repo_root)
    assert machine['processors'] >= 1 and machine['torch'].split('.')[0].isdigit()
    assert describe_machine(tmp_path)['commit'] is None
    write_report(tmp_path / 'new' / 'r.json', dict(machine=machine))
    assert json.loads((tmp_path / 'new' / 'r.json').read_text()) == dict(machine=machine)
