"""Reading YAML that a person wrote: a key given twice is an error, and errors have a line."""

from __future__ import annotations

from typing import Any

import yaml

from ftmb.errors import SpecError


class _UniqueLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, instead of silently taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if isinstance(key, list | dict | set):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a word, not a list or a mapping", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, where: str) -> Any:
    """What the text says, with its place `where` in complaints. Raises SpecError with one line."""
    try:
        return yaml.load(text, Loader=_UniqueLoader)
    except yaml.MarkedYAMLError as error:
        mark = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(f"{where}{mark}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None
