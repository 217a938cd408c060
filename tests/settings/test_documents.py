"""Files that users edit, and files that are no files: read right, or refused in one line."""

import os

import pytest

from acr_ray.settings import UserError, load_recipe
from acr_ray.settings.documents import check, parse_json, parse_yaml, read_file, read_text

YAML = """
name: mine
data: {dataset: digits}
model: {architecture: digits_resnet}
training: {sigma: 0.5, epochs: 2, m: 4, batch_size: 64}
"""
JSON = (
    '{"name": "mine", "data": {"dataset": "digits"}, "model": {"architecture": "digits_resnet"}, '
    '"training": {"sigma": 0.5, "epochs": 2, "m": 4}'
)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("r.yaml", YAML + "training: {sigma: 0.25, epochs: 2}\n", ["'training' stands twice", "line 6", "line 5"]),
        ("r.yaml", YAML + "discard: {p_t: 0.3, enabled: true, p_t: 0.4}\n", ["'p_t' stands twice"]),
        ("r.yml", "<<: &a {x: 1}\n" + YAML + "name: other\n", ["'name' stands twice"]),
        ("r.json", JSON + ', "attack": {"enabled": true}, "attack": {"steps": 2}}', ["'attack' stands twice"]),
        ("r.json", JSON.replace('"m": 4', '"m": 4, "sigma": 0.25') + "}", ["'sigma' stands twice"]),
    ],
)
def test_a_key_that_stands_twice_is_refused(name, text, words, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(str(path))
    assert all(word in str(caught.value) for word in [f"RECIPE {path}", *words]), caught.value


def test_the_same_without_it_is_read_and_anchors_too(tmp_path):
    (tmp_path / "r.json").write_text(JSON + "}")
    assert load_recipe(str(tmp_path / "r.json")).training.sigma == 0.5
    (tmp_path / "r.yaml").write_text("\ufeff" + YAML + "discard: &on {enabled: true}\nreweigh: {<<: *on, every: 3}\n")
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert (recipe.discard.enabled, recipe.reweigh.enabled, recipe.reweigh.every) == (True, True, 3)


@pytest.mark.parametrize("section", ["training", "data", "method", "attack", "discard", "name"])
@pytest.mark.parametrize("value", ["[1, 2]", "text", "7", "{}", "null", "{1: 2}", "[{a: b}]", "1e400", "true"])
def test_sections_of_another_kind_are_one_line(section, value, tmp_path):
    values = {line.partition(":")[0]: line.partition(":")[2] for line in YAML.strip().splitlines()} | {section: value}
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"{key}: {text}\n" for key, text in values.items()))
    try:
        load_recipe(str(path))
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 60 + "]" * 60,
        "{" * 500,
        "a: &a [*a]",
        "a: 2020-99-99",
        "!!python/object/apply:os.system [ls]",
        "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 20)}]" for i in range(1, 12))]),
        "? [1, 2]\n: x",
        "a: !!binary '%%%'",
        "a: \x07",
        "- a\n b",
        "%TAG",
        "a: *b",
        "!!set {a, a}",
        'a: "\\ud800"',
        "a: !!int 'x'",
    ],
)
def test_hostile_yaml_is_one_line(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match="r.yaml"):
        load_recipe(str(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 60 + "]" * 60, '{"a":' * 900 + "1" + "}" * 900, "1" * 5000, "", '{"a": "\\ud800"}']
)
def test_hostile_json_is_one_line(text):
    with pytest.raises(UserError, match="^here: "):
        parse_json(text, "here")


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="not text in UTF-8"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
    for name, word in [("pipe", "a named pipe"), ("to_pipe", "a named pipe"), ("zero", "a device"), (".", "a folder")]:
        with pytest.raises(UserError, match=word):
            read_file(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="at most 64 are read"):
        read_text(tmp_path / "large", 64)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("x")
    assert read_file(tmp_path / "link") == b"x"
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")


def test_a_schema_s_complaint_names_file_and_field():
    with pytest.raises(UserError, match=r"^here: a\.1 = 'x': input should be a valid integer"):
        check(dict[str, list[int]], {"a": [1, "x"]}, "here")
    with pytest.raises(UserError, match=r"\(long value\)"):
        check(dict[str, list[int]], {"a": [1, {"y": 10**6000}]}, "here")
    assert parse_yaml("a: [1]", "here") == {"a": [1]}


def test_a_mapping_merged_into_two_others_is_not_taken_for_a_repetition():
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\nd: {<<: [*a, *b]}"
    assert parse_yaml(text, "here") == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}, "d": {"x": 1}}
